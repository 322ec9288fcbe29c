"""What others have replaced in a module of SpikingJelly: in a subclass, or on the instance."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from qspinn.plan.float_class import float_class

_LIBRARIES = ("spikingjelly", "torch", "builtins")


def is_overridden(module: nn.Module, name: str) -> bool:
    """Whether the attribute ``name`` of the class comes from neither SpikingJelly nor torch.

    A mixin counts where it comes first, and so does a function that was put
    into a class of the libraries.
    """
    for kind in float_class(module).__mro__:
        if name in vars(kind):
            return not (_is_library(kind) and _is_library(_function(vars(kind)[name])))
    return False


def is_patched(module: nn.Module, name: str) -> bool:
    """Whether ``name`` was set on the instance, which hides the method of the class."""
    return name in vars(module)


def is_property(module: nn.Module, name: str) -> bool:
    """Whether the class computes ``name``, so that no other value can be put in its place."""
    return inspect.isdatadescriptor(inspect.getattr_static(float_class(module), name, None))


def _function(member: Any) -> Any:
    member = member.fget if isinstance(member, property) else member
    return getattr(member, "__func__", member)


def _is_library(owner: object) -> bool:
    # Constants and the like have no module of their own; the class that holds them has.
    name = getattr(owner, "__module__", None)
    return name is None or str(name).partition(".")[0] in _LIBRARIES
