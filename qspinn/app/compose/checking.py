"""Checks of a configuration against what its ``_target_`` classes accept, before anything runs."""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from hydra.utils import get_object
from torch import nn

from qspinn.app.errors import ConfigurationError, is_number, is_whole, refused, switch
from qspinn.learning.schedule import STEP_COUNT_ARGUMENTS

# Values that are derived where they are null: from the data, and from the training length.
_FOUND_OUT = ("input_shape", "num_classes", "time_steps", *STEP_COUNT_ARGUMENTS)
_HYDRA_KEYS = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")
_SEQUENCES = (collections.abc.Sequence, collections.abc.Iterable, list, tuple, set)
_MAPPINGS = (dict, collections.abc.Mapping)
_SCALARS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    int: ("a whole number", is_whole),
    float: ("a number", is_number),
    str: ("a text", lambda value: isinstance(value, str)),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    type(None): ("null", lambda value: value is None),
}
"""Type to its name in words, and what a value of it is."""


def check_targets(config: Any, place: str = "") -> None:
    """Check each node with a ``_target_``: the class exists, the keys and the types are its own.

    Only annotations of plain types are checked: numbers, strings, booleans, null, choices, and
    lists and unions of these. Anything else a class checks by itself when it is instantiated.

    Args:
        config: A resolved configuration of plain types.
        place: Its dotted place in the whole configuration.

    Raises:
        ConfigurationError: Names the value, its place, and what to write instead.
    """
    if isinstance(config, Mapping):
        if "_target_" in config:
            _check_node(config, place)
        for key, value in config.items():
            check_targets(value, f"{place}.{key}" if place else str(key))
    elif isinstance(config, list):
        for index, value in enumerate(config):
            check_targets(value, f"{place}[{index}]")


def _check_node(node: Mapping[str, Any], place: str) -> None:
    name = node["_target_"]
    if not isinstance(name, str):
        raise refused(f"{place}._target_", name, "the dotted name of a class or function")
    switch(f"{place}._partial_", node.get("_partial_", False))
    try:
        target = get_object(name)
    except Exception as error:
        raise ConfigurationError(
            f"{place}._target_={name!r}: {error}; write the dotted name of a class or function"
        ) from error
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:  # some built-in classes have no signature
        return
    accepts_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    hints = _hints(target)
    for key, value in node.items():
        if key in _HYDRA_KEYS:
            continue
        if key not in parameters:
            if accepts_any:
                continue
            raise ConfigurationError(_unknown_key(place, key, name, list(parameters)))
        hint = hints.get(key, Any)
        if value is None and (key in _FOUND_OUT or parameters[key].default is None):
            continue
        if not value_fits(value, hint):
            shown = "null" if value is None else repr(value)
            raise ConfigurationError(f"{place}.{key}={shown}; write {type_name(hint)}")


def _unknown_key(place: str, key: str, target: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"write one of {', '.join(known)}"
    return f"{place}.{key}: {target} has no such argument; {hint}"


def _hints(target: Any) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function)
    except Exception:  # an annotation that cannot be evaluated says nothing about the value
        return {}


def value_fits(value: Any, hint: Any) -> bool:
    """Whether a plain value can be what a type annotation asks for; unknown types fit all."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(value_fits(value, option) for option in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is typing.Annotated:
        return value_fits(value, arguments[0])
    if (origin or hint) in _SEQUENCES:
        items = [argument for argument in arguments if argument is not ...]
        if not isinstance(value, (list, tuple)):
            return False
        return len(items) != 1 or all(value_fits(item, items[0]) for item in value)
    if (origin or hint) in _MAPPINGS or _is_made(origin or hint):
        return isinstance(value, Mapping)
    fits = _SCALARS.get(hint)
    return fits is None or fits[1](value)


def _is_made(hint: Any) -> bool:
    """Whether only a node with a ``_target_`` can be what an annotation asks for."""
    is_module = inspect.isclass(hint) and issubclass(hint, nn.Module)
    return hint in (collections.abc.Callable, type) or dataclasses.is_dataclass(hint) or is_module


def type_name(hint: Any) -> str:
    """An annotation in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_name(option) for option in arguments))
    if origin is typing.Literal:
        return "one of " + ", ".join(str(argument) for argument in arguments)
    if (origin or hint) in _SEQUENCES:
        items = [type_name(argument) for argument in arguments if argument is not ...]
        return f"a list of {items[0]}" if len(items) == 1 else "a list"
    if (origin or hint) in _MAPPINGS:
        return "a mapping"
    if _is_made(origin or hint):
        return "a _target_ and its values"
    return _SCALARS[hint][0] if hint in _SCALARS else getattr(hint, "__name__", str(hint))
