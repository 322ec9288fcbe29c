"""How a module is called: on one tensor, on several arguments, or by keyword."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

Inputs = Tensor | tuple[Any, ...] | Mapping[str, Any]
Run = Callable[[], object]


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
