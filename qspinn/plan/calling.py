"""How a module is called: on one tensor, on several arguments, or by keyword."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

Inputs = Tensor | tuple[Any, ...] | Mapping[str, Any]
Run = Callable[[], object]


def as_run(module: nn.Module, run: object, owner: str) -> Run | None:
    """A function that runs ``module``: the one that was given, or a call on one batch.

    Args:
        module: Any module.
        run: A function without arguments, a batch as :func:`call` takes it, or ``None``.
        owner: The call that asks, for the error.

    Raises:
        TypeError: Anything else.
    """
    if run is None or callable(run):
        return run
    if not isinstance(run, Tensor | tuple | Mapping):
        raise TypeError(
            f"{owner}: run is a {type(run).__name__}; give a function that runs the module, or one "
            "batch: a tensor, a tuple of positional arguments, or a dictionary of keyword arguments"
        )
    return lambda: call(module, run)


def call(module: nn.Module, inputs: Inputs) -> object:
    """Calls ``module`` on one batch.

    Args:
        module: Any module.
        inputs: A tensor; a tuple of positional arguments; or a mapping of keyword arguments.

    Raises:
        TypeError: Anything else.
    """
    if isinstance(inputs, Tensor):
        return module(inputs)
    if isinstance(inputs, tuple):
        return module(*inputs)
    if isinstance(inputs, Mapping):
        return module(**inputs)
    raise TypeError(
        f"inputs is a {type(inputs).__name__}; give a tensor, a tuple of positional arguments, or "
        "a dictionary of keyword arguments"
    )
