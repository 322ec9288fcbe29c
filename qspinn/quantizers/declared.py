"""Quantised modules that compute in fixed point by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from qspinn.fixed_point import Format, TensorQuantizer
from qspinn.plan import (
    DeclaredTensor,
    DeclaresTensors,
    ResolvedTensor,
    declared_tensors,
    declares_tensors,
    layers_of,
)
from qspinn.plan.float_class import shown
from qspinn.quantizers.choose_format import constant_format, covering_format
from qspinn.quantizers.class_swap import Swapped, is_swapped
from qspinn.quantizers.stored_format import check_finite, quantizer_of, stored_format


@dataclass
class DeclaredQuantizers:
    """What a module that declares its tensors is given."""

    path: str  # its path, for errors
    # Name of a tensor -> its quantizer; what is missing stays in 32-bit.
    tensors: dict[str, TensorQuantizer]


class FreeQuantizer(TensorQuantizer):
    """Of weights whose module counts in units of its own: see `free_format`."""

    scale: ClassVar[str] = "free"


class QuantizedDeclared(Swapped):
    """Mixin over a module that declares its tensors: only says so, and tells the module."""

    # A name that no such module has for something of its own.
    _quantizer_name = "_qspinn_quantizers"
    _qspinn_quantizers: DeclaredQuantizers

    def _swapped(self) -> None:
        assert isinstance(self, DeclaresTensors)
        assert isinstance(self, nn.Module)
        quantizers: DeclaredQuantizers = self._qspinn_quantizers
        try:
            self.use_fixed_point(dict(quantizers.tensors))
        except ValueError as error:
            raise ValueError(f"{shown(quantizers.path, self)}: {error}") from error

    def _restoring(self) -> None:
        assert isinstance(self, DeclaresTensors)
        self.use_fixed_point(None)


def declared_quantizers(
    module: nn.Module, path: str, tensors: Mapping[str, ResolvedTensor]
) -> DeclaredQuantizers:
    """The quantizers of the module at ``path``.

    Raises:
        ValueError: It no longer declares a tensor that the plan has, a tensor has no format
            yet, or the plan wants a free scale that it cannot have.
    """
    _by_name(module, path, tensors)
    return DeclaredQuantizers(path, {n: _quantizer(module, path, t) for n, t in tensors.items()})


def declared_formats(
    module: nn.Module, path: str, tensors: Mapping[str, ResolvedTensor], learning: bool
) -> dict[str, Format]:
    """Formats for the open tensors of a module that declares them.

    Args:
        module: The module, in float.
        path: Its path.
        tensors: Name -> what the plan says of it.
        learning: Whether it will learn in these formats: then they cover the
            declared bounds; else they suit the declared values.

    Raises:
        ValueError: Nothing is known to choose a format on, or the plan wants a free scale that the
            module cannot have.
    """
    free = {n: _free(module, path, t, learning) for n, t in tensors.items() if _is_free(t)}
    found = {name: replace(t, format=free.get(name, t.format)) for name, t in tensors.items()}
    with _counting(module, path, {name: found[name] for name in free}):
        declared = _by_name(module, path, tensors)
    return {
        tensor.path: tensor.format or _format(tensor, declared[name], learning)
        for name, tensor in found.items()
        if tensors[name].format is None
    }


def stored_values(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Name and value, on its grid, of what an attached module stores; no constants."""
    assert isinstance(module, QuantizedDeclared)
    quantizers = module._qspinn_quantizers
    for declared in declared_tensors(quantizers.path, module):
        quantizer = quantizers.tensors.get(declared.info.name)
        if quantizer is not None and declared.value is not None and not declared.constant:
            yield declared.info.name, quantizer.stored(declared.value, training=False)


def declared_accumulators(module: nn.Module) -> dict[str, int]:
    """Path -> bits of the exact sums of the modules in ``module`` that say so by themselves."""
    lengths: dict[str, int] = {}
    for path, child in layers_of(module):
        said: Any = getattr(child, "accumulator_word_lengths", None)
        if declares_tensors(child) and is_swapped(child) and callable(said):
            prefix = f"{path}." if path else ""
            lengths |= {f"{prefix}{name}": int(bits) for name, bits in said().items()}
    return lengths


def _is_free(tensor: ResolvedTensor) -> bool:
    """Whether weights have steps that are no powers of two."""
    is_weight = tensor.role == "weight" and tensor.info.powers_of_two is None
    return is_weight and tensor.settings.has_free_scale


def _free(module: nn.Module, path: str, tensor: ResolvedTensor, learning: bool) -> Format:
    """The format of weights whose scale is free, which their module chooses.

    Raises:
        ValueError: Such weights cannot be had of this module.
    """
    settings, place = tensor.settings, f"{tensor.path}: scale='free'"
    if settings.format is not None:
        raise ValueError(
            f"{place} and format={settings.format!r} disagree on the step; write "
            f"word_length={tensor.word_length} in place of the format, or scale=power_of_two"
        )
    choose: Any = getattr(module, "free_format", None)
    if choose is None:
        raise ValueError(
            f"{place}: a {shown(path, module)} counts in powers of two only; add a rule with "
            f"layers={path!r}, role=weight and scale=power_of_two"
        )
    if tensor.format is not None:
        return tensor.format
    if learning:
        raise ValueError(
            f"{place} is for networks that have learned; write scale=power_of_two, or scheme=ptq"
        )
    values = (declared.value for declared in declared_tensors(path, module))
    check_finite(tensor, all(v is None or bool(torch.isfinite(v).all()) for v in values))
    granularity = settings.granularity or "tensor"
    chosen: Format = choose(tensor.word_length, tensor.rounding, tensor.overflow, granularity)
    return chosen


@contextmanager
def _counting(module: nn.Module, path: str, free: Mapping[str, ResolvedTensor]) -> Iterator[None]:
    """Lets a module count in the units that follow from these formats, as what it declares does."""
    if not free:
        yield
        return
    told: Any = module
    told.use_fixed_point({name: _quantizer(module, path, t) for name, t in free.items()})
    try:
        yield
    finally:
        told.use_fixed_point(None)


def _quantizer(module: nn.Module, path: str, tensor: ResolvedTensor) -> TensorQuantizer:
    if not _is_free(tensor):
        return quantizer_of(tensor)
    if tensor.format is not None:
        _free(module, path, tensor, learning=False)
    one = quantizer_of(tensor)
    return FreeQuantizer(one.path, one.format, one.rounding, one.overflow)


def _by_name(
    module: nn.Module, path: str, tensors: Mapping[str, ResolvedTensor]
) -> dict[str, DeclaredTensor]:
    found: dict[str, DeclaredTensor] = {}
    if declares_tensors(module):
        found = {declared.info.name: declared for declared in declared_tensors(path, module)}
    for name, tensor in tensors.items():
        if name not in found or found[name].info != tensor.info:
            raise ValueError(
                f"{tensor.path}: the plan was resolved when the module declared {tensor.info}, now "
                f"it declares {found[name].info if name in found else 'no such tensor'}; resolve "
                "the plan against this module"
            )
    return found


def _format(tensor: ResolvedTensor, declared: DeclaredTensor, learning: bool) -> Format:
    value = declared.value
    if declared.constant and value is not None:
        single = torch.tensor([float(value)], dtype=torch.float64)
        return constant_format(single, tensor.word_length, tensor.rounding)
    if value is not None and (declared.low is None or not learning):
        return stored_format(tensor, value, signed=declared.signed)
    if declared.low is None or declared.high is None:
        raise ValueError(
            f"{tensor.path}: the module declares neither value nor low and high, so no format can "
            "be chosen; add them in device_tensors(), or give the rule a format"
        )
    low, high = declared.low, declared.high
    try:
        return covering_format(max(abs(low), abs(high)), tensor.word_length, signed=low < 0.0)
    except ValueError as error:
        raise ValueError(f"{tensor.path}, which goes from {low} to {high}: {error}") from error
