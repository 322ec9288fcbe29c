"""Copies a module so that running the copy leaves the original, and what watches it, alone.

``copy.deepcopy`` shares functions. A hook that is a closure, as those of
SpikingJelly's monitors are, would so go on to write into the original's records
when the copy runs, and a patched ``forward`` would go on to run the original.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import types
from collections import OrderedDict
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader, Dataset

from qspinn.plan import reset_states

Memo = dict[int, Any]

# What a function may refer to without owning it: never copied on its behalf.
_SHARED = (nn.Module, DataLoader, Dataset, torch.optim.Optimizer, logging.Logger, type)
_SHARED_PACKAGES = ("lightning", "pytorch_lightning", "wandb")
# nn.Module keeps these, and copies them as they should be.
_KEPT_BY_TORCH = ("_parameters", "_buffers", "_modules")


def independent_module(module: nn.Module) -> nn.Module:
    """A deep copy; SpikingJelly's states are reset in both.

    Tensors that the module keeps from its last steps (a loss, outputs of a batch,
    a monitor's records) are copied without their graphs. Hooks and other functions
    that refer to the module, or to what records for it, refer to the copy's own
    afterwards. What they write to global variables is written by both.

    Raises:
        TypeError: The module holds something that cannot be copied; the error says where.
    """
    reset_states(module)
    memo: Memo = {}
    with torch.inference_mode(False), WithoutGraphs():
        try:
            copied = copy.deepcopy(module, memo)
        except Exception as error:
            raise TypeError(
                f"{type(module).__name__} cannot be copied, which quantising it needs: "
                f"{_culprit(module, error)}. Keep what cannot be copied (files, locks, clients, "
                "generators) out of the module"
            ) from error
        rebinding = _Rebinding(memo)
        for child in copied.modules():
            for name, value in vars(child).items():
                if name not in _KEPT_BY_TORCH:
                    vars(child)[name] = rebinding.rebound(value)
            if "_metric_attributes" in vars(child):
                # Lightning's cache of which metric is whose is by identity: the originals' here.
                vars(child)["_metric_attributes"] = None
    return copied


class WithoutGraphs(TorchFunctionMode):
    """Lets ``copy.deepcopy`` copy tensors that have a graph: without it."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Stands in for the copying of one tensor, and lets everything else pass."""
        if func is torch.Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            return memo.setdefault(id(tensor), tensor.detach().clone())
        return func(*args, **(kwargs or {}))


class _Rebinding:
    """Lets functions of a copy refer to what the copy has in place of the original's."""

    def __init__(self, memo: Memo) -> None:
        self.memo = memo
        self.own = {id(copied) for copied in memo.values()}
        self.seen: set[int] = set()

    def rebound(self, value: Any) -> Any:
        """``value``, which the copy holds, with all functions in it rebound."""
        if isinstance(value, types.FunctionType | types.MethodType | functools.partial):
            return self.counterpart(value)
        if id(value) in self.seen:
            return value
        self.seen.add(id(value))
        if type(value) in (dict, OrderedDict):
            for key, item in value.items():
                value[key] = self.rebound(item)
        elif type(value) is list:
            value[:] = [self.rebound(item) for item in value]
        return value

    def counterpart(self, value: Any) -> Any:
        """What stands for ``value`` in the copy: its copy, or itself where it is shared."""
        if id(value) in self.own:
            return value
        if id(value) in self.memo:
            return self.memo[id(value)]
        if isinstance(value, types.FunctionType):
            return self._function(value) if value.__closure__ else value
        if isinstance(value, types.MethodType):
            return types.MethodType(value.__func__, self.counterpart(value.__self__))
        if isinstance(value, functools.partial):
            arguments = [self.counterpart(one) for one in value.args]
            keywords = {name: self.counterpart(one) for name, one in value.keywords.items()}
            return functools.partial(self.counterpart(value.func), *arguments, **keywords)
        package = type(value).__module__.partition(".")[0]
        if isinstance(value, _SHARED) or package in _SHARED_PACKAGES:
            return value
        if isinstance(value, list | dict) and _holds_shared(value):
            return self._shallow(value)
        return self._deep(value)

    def _function(self, function: Any) -> Any:
        """The same code, over other cells."""
        cells = tuple(types.CellType() for _ in function.__closure__)
        made = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, cells
        )
        made.__kwdefaults__ = function.__kwdefaults__
        made.__qualname__ = function.__qualname__
        made.__dict__.update(function.__dict__)
        self._note(function, made)  # before the cells: a function may refer to itself
        for cell, original in zip(cells, function.__closure__, strict=True):
            with contextlib.suppress(ValueError):  # a cell that is not filled yet
                cell.cell_contents = self.counterpart(original.cell_contents)
        return made

    def _shallow(self, value: Any) -> Any:
        """A container of its own, over what is shared."""
        made = copy.copy(value)
        self._note(value, made)
        for key in list(made) if isinstance(made, dict) else range(len(made)):
            made[key] = self.counterpart(made[key])
        return made

    def _deep(self, value: Any) -> Any:
        memo = dict(self.memo)
        try:
            made = copy.deepcopy(value, memo)
        except Exception:
            return value  # a lock, a file, a client: what the original uses, too
        self.own.update(id(memo[key]) for key in memo.keys() - self.memo.keys())
        self.memo.update(memo)
        return made

    def _note(self, value: Any, made: Any) -> None:
        self.memo[id(value)] = made
        self.own.add(id(made))


def _holds_shared(value: list[Any] | dict[Any, Any]) -> bool:
    items = value.values() if isinstance(value, dict) else value
    return any(isinstance(item, _SHARED) for item in items)


def _culprit(module: nn.Module, error: Exception) -> str:
    """Where in ``module`` the thing lies that cannot be copied."""
    known: Memo = {id(child): child for child in module.modules()}
    for path, child in module.named_modules():
        # As copying sees it: Lightning leaves the trainer out.
        for name, value in child.__getstate__().items():
            if name == "_modules" or _can_be_copied(value, dict(known)):
                continue
            place, thing = _innermost(f"{path}.{name}" if path else name, value, known)
            return f"{place} (a {type(thing).__name__}): {error}"
    return str(error)


def _innermost(place: str, value: Any, known: Memo) -> tuple[str, Any]:
    """The item of a container that cannot be copied, with its place."""
    if not isinstance(value, dict | list | tuple):
        return place, value
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if not _can_be_copied(item, dict(known)):
            return _innermost(f"{place}[{key!r}]", item, known)
    return place, value


def _can_be_copied(value: Any, memo: Memo) -> bool:
    try:
        copy.deepcopy(value, memo)
    except Exception:
        return False
    return True
