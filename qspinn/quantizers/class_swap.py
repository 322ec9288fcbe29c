"""Gives a live module quantised behaviour, and takes it back.

A module's class is replaced by a subclass made from a mixin and its own class.
Parameters, buffers, hooks, ``state_dict`` keys and ``isinstance`` stay as they
are; the quantizer lives in the instance dictionary, beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

_classes: dict[tuple[type, type], Any] = {}


class Swapped:
    """Base of the mixins: knows the class it came from, pickles and copies."""

    _float_class: type[nn.Module]
    _mixin: type[Swapped]
    # The name, in the instance dictionary, of what the mixin computes with.
    _quantizer_name = "_quantizer"

    def _swapped(self) -> None:
        """Called when the quantizer is in place."""

    def _restoring(self) -> None:
        """Called before the module becomes what it was."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickles by the two classes, since the subclass exists only at run time."""
        return _new_instance, (self._mixin, self._float_class), self.__getstate__()


class Narrowed(Swapped):
    """Mixin over a module whose operations refuse a float64 beside its own parameters."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the module's own forward, on inputs in its own type."""
        held: Any = self
        own = (p.dtype for p in (*held.parameters(), *held.buffers()) if p.is_floating_point())
        dtype = next(own, torch.get_default_dtype())

        def narrowed(value: object) -> object:
            wide = isinstance(value, Tensor) and value.dtype == torch.float64
            return value.to(dtype) if wide else value  # type: ignore[attr-defined]

        args, kwargs = tree_map(narrowed, (args, kwargs))
        return super().forward(*args, **kwargs)  # type: ignore[misc]


def swap(module: nn.Module, mixin: type[Swapped], quantizer: object) -> None:
    """Makes ``module`` behave as ``mixin`` says, with ``quantizer`` at hand."""
    module.__class__ = _swapped_class(mixin, type(module))
    module.__dict__[mixin._quantizer_name] = quantizer
    assert isinstance(module, Swapped)
    try:
        module._swapped()
    except Exception:
        _put_back(module)
        raise


def restore(module: nn.Module) -> None:
    """Undoes :func:`swap`."""
    assert isinstance(module, Swapped)
    module._restoring()
    _put_back(module)


def is_swapped(module: nn.Module) -> bool:
    """Whether ``module`` has a quantizer."""
    return isinstance(module, Swapped)


def attached_quantizer(module: nn.Module) -> Any:
    """What ``module`` computes with since quantizers were attached; None where it has nothing."""
    return vars(module).get(module._quantizer_name) if isinstance(module, Swapped) else None


@contextmanager
def substituted(module: nn.Module, **values: object) -> Iterator[None]:
    """Lets ``module`` see other values under these names for a while.

    The instance dictionary comes before parameters and memories in attribute
    look-up, so nothing of the module's own is touched, and outside of this
    context ``module.weight`` is the parameter itself.
    """
    attributes = module.__dict__
    hidden = {name: attributes[name] for name in values if name in attributes}
    attributes.update(values)
    try:
        yield
    finally:
        for name in values:
            del attributes[name]
        attributes.update(hidden)


def _put_back(module: Any) -> None:
    del module.__dict__[module._quantizer_name]
    module.__class__ = module._float_class


def _swapped_class(mixin: type[Swapped], float_class: type[nn.Module]) -> Any:
    if (mixin, float_class) in _classes:
        return _classes[mixin, float_class]
    members = {
        "_float_class": float_class,
        "_mixin": mixin,
        "__module__": float_class.__module__,
        "__doc__": float_class.__doc__,
    }
    made = type(f"Quantized{float_class.__name__}", (mixin, float_class), members)
    _classes[mixin, float_class] = made
    return made


def _new_instance(mixin: type[Swapped], float_class: type[nn.Module]) -> nn.Module:
    kind = _swapped_class(mixin, float_class)
    instance: nn.Module = kind.__new__(kind)
    return instance
