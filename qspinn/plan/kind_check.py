"""Refuses what is no module, and names what was given instead."""

from __future__ import annotations

from torch import nn


def check_module(module: object, owner: str) -> None:
    """Refuses anything but a module.

    Raises:
        TypeError: The error says what to give.
    """
    if not isinstance(module, nn.Module):
        kind = "a class; give an instance of it" if isinstance(module, type) else a_kind(module)
        raise TypeError(f"{owner}: module is {kind}; the first argument is a torch.nn.Module")


def a_kind(value: object) -> str:
    """The type of a value, for an error."""
    return "None" if value is None else f"a {type(value).__name__}"
