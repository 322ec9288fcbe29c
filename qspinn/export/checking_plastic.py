"""What must hold of the operations of networks that learn without gradients through time."""

from __future__ import annotations

from collections.abc import Callable

from qspinn.export.checks import check_rounding, require, tensor_of
from qspinn.export.model import (
    AdaptiveNeuron,
    Compare,
    DeviceModel,
    DeviceOperation,
    LabelSums,
    RandomSpikes,
    StoredTensor,
    Total,
    Trace,
)
from qspinn.fixed_point import FixedPointFormat
from qspinn.steps.random_spikes import PROBABILITY_BITS

__all__ = ["PLASTIC_CHECKS"]

LONGEST_DELAY = 1 << 10


def _constant(model: DeviceModel, name: str) -> StoredTensor:
    """A single number."""
    tensor = tensor_of(model, name)
    is_one = tensor.shape == () and isinstance(tensor.format, FixedPointFormat)
    require(is_one, f"{name!r} is not a single number")
    return tensor


def _list(model: DeviceModel, name: str, size: int) -> StoredTensor:
    """One number for each of several."""
    tensor = tensor_of(model, name)
    fits = tensor.shape == (size,) and isinstance(tensor.format, FixedPointFormat)
    require(fits, f"{name!r} has the shape {tensor.shape}, not {(size,)}")
    return tensor


def _same_size(model: DeviceModel, one: DeviceOperation, operands: int = 1) -> None:
    require(len(one.operands) == operands, f"takes {len(one.operands)} operands, not {operands}")
    source = model.operations[one.operands[0].source]
    require(source.size == one.size, "takes another number of values than it puts out")
    require(not one.is_static, "has a state, and is computed once")


def _check_trace(model: DeviceModel, one: DeviceOperation) -> None:
    what = one.what
    assert isinstance(what, Trace)
    _same_size(model, one)
    check_rounding(what)
    leak = _constant(model, what.leak)
    assert isinstance(leak.format, FixedPointFormat)
    low, high = leak.packed.extremes
    fraction = leak.format.fraction_bits
    within = low >= 0 and (high << max(-fraction, 0)) <= 1 << max(fraction, 0)
    require(within, "a leak beyond 0 to 1")
    if what.gain is not None:
        _constant(model, what.gain)


def _check_compare(model: DeviceModel, one: DeviceOperation) -> None:
    assert isinstance(one.what, Compare)
    require(len(one.operands) == 1, f"takes {len(one.operands)} operands, not one")
    source = model.operations[one.operands[0].source]
    require(source.size == one.size, "compares another number of values")
    _constant(model, one.what.threshold)


def _check_adaptive(model: DeviceModel, one: DeviceOperation) -> None:
    what = one.what
    assert isinstance(what, AdaptiveNeuron)
    chances = len(one.operands) - 1
    _same_size(model, one, 2 if chances == 1 else 1)
    if chances:
        source = model.operations[one.operands[1].source]
        drawn = isinstance(source.what, RandomSpikes) and one.operands[1].delay == 0
        require(drawn, "draws from what is no random spikes")
    needs = what.one_winner or what.rounding == "stochastic"
    require(bool(chances) or not needs, "draws, and takes no random spikes to draw from")
    check_rounding(what)
    _list(model, what.theta, one.size)
    for name in (what.threshold, what.reset, what.leak, what.inhibition):
        _constant(model, name)
    bounded = 1 <= what.delay <= LONGEST_DELAY and 0 <= what.refractory < 1 << 16
    require(bounded, f"a delay of {what.delay} and {what.refractory} refractory steps")
    require(min(what.draws) >= 0 and max(what.draws) < 1 << 31, f"the streams {what.draws}")


def _check_random_spikes(model: DeviceModel, one: DeviceOperation) -> None:
    what = one.what
    assert isinstance(what, RandomSpikes)
    _same_size(model, one)
    source = model.operations[one.operands[0].source]
    require(source.is_static, "random spikes of what changes with time")
    require(not one.is_final, "random spikes of the last step alone")
    bounded = 0 <= what.multiplier < 1 << 32 and 0 <= what.down <= 3 * PROBABILITY_BITS
    require(bounded, f"a multiplier of {what.multiplier}, shifted by {what.down}")
    require(-(1 << 63) <= what.key < 1 << 63 and 0 <= what.draws < 1 << 31, "a key of 65 bits")


def _check_total(model: DeviceModel, one: DeviceOperation) -> None:
    assert isinstance(one.what, Total)
    _same_size(model, one)
    bounded = one.what.first >= 0 and 0 <= one.what.state_word_length <= 64
    require(bounded, f"a total from step {one.what.first} on")


def _check_label_sums(model: DeviceModel, one: DeviceOperation) -> None:
    assert isinstance(one.what, LabelSums)
    require(len(one.operands) == 1, f"takes {len(one.operands)} operands, not one")
    source = model.operations[one.operands[0].source]
    labels = _list(model, one.what.labels, source.size)
    low, high = labels.packed.extremes
    require(low >= 0 and high <= one.size, f"labels from {low} to {high} of {one.size} classes")


PLASTIC_CHECKS: dict[type, Callable[[DeviceModel, DeviceOperation], None]] = {
    Trace: _check_trace,
    Compare: _check_compare,
    AdaptiveNeuron: _check_adaptive,
    RandomSpikes: _check_random_spikes,
    Total: _check_total,
    LabelSums: _check_label_sums,
}
