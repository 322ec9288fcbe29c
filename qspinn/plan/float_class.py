"""The class that a module has, or had before quantizers were attached."""

from __future__ import annotations

from typing import Any

from torch import nn


def float_class(module: nn.Module) -> Any:
    """The class of ``module``, or the one it had before quantizers were attached."""
    return getattr(module, "_float_class", type(module))


def shown(path: str, module: nn.Module) -> str:
    """Path and class of a layer, for errors and notes."""
    return f"{path or 'the module itself'} ({float_class(module).__name__})"
