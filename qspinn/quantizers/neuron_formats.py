"""Which formats suit a neuron's constants, and which formats its neuron could not work with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from qspinn.fixed_point import FixedPointFormat, Format
from qspinn.plan import LayerInfo, ResolvedTensor
from qspinn.plan.neuron_constants import has_threshold, leak_of, reset_of, threshold_of
from qspinn.plan.neurons import charge_of, why_not
from qspinn.plan.roles import STATE_ROLES
from qspinn.quantizers.choose_format import constant_format, covering_format, no_finer
from qspinn.quantizers.looking import is_open
from qspinn.quantizers.stored_format import quantizer_of

Tensors = dict[str, ResolvedTensor]

# A learned leak may double, and a learned threshold grow by half, before it saturates.
LEAK_ROOM = 2.0
# How far above every potential a threshold lies that is there to be never reached.
FAR = 64.0
THRESHOLD_ROOM = 1.5


def open_tensor(tensors: Tensors, name: str) -> ResolvedTensor | None:
    """The tensor of this name, if its format is still to be chosen."""
    tensor = tensors.get(name)
    return tensor if tensor is not None and tensor.format is None else None


def with_open(tensors: Tensors, name: str) -> Tensors:
    """The tensors, the one of this name without its chosen format."""
    if name not in tensors or not is_open(tensors[name]):
        return tensors
    return {**tensors, name: replace(tensors[name], format=None)}


def with_formats(tensors: Tensors, formats: Mapping[str, Format]) -> Tensors:
    """The tensors, with the formats of these paths."""
    return {
        name: replace(tensor, format=formats.get(tensor.path, tensor.format))
        for name, tensor in tensors.items()
    }


def decay_formats(node: Any, layer: LayerInfo, tensors: Tensors) -> dict[str, Format]:
    """The format of the leak, where it is still to be chosen."""
    decay = open_tensor(tensors, "decay")
    if decay is None:
        return {}
    value = leak_of(node)
    values = _values(value)
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"{decay.path}: 1/tau={_shown(values)}; the network has diverged")
    if is_learned(value):
        largest = min(1.0, LEAK_ROOM * float(values.max()))
        return {decay.path: covering_format(largest, decay.word_length)}
    return {decay.path: constant_format(values, decay.word_length, decay.rounding)}


def threshold_to_hold(node: Any, tensors: Tensors, largest_potential: float = math.inf) -> float:
    """The largest number that the threshold may become on its own grid.

    With room above, where it is learned. Zero for a readout, whose threshold is far above all
    that its potential ever is, so that it never fires: a membrane that reached it would have
    no bits left for the potential.

    Args:
        node: The neuron.
        tensors: Its tensors.
        largest_potential: The largest absolute value that its potential was seen to have.
    """
    values = _thresholds(node)
    if float(values.min()) >= FAR * max(1.0, largest_potential):
        return 0.0
    room = THRESHOLD_ROOM if is_learned(threshold_of(node)) else 1.0
    largest = max(0.0, room * float(values.max()))
    threshold = tensors.get("v_threshold")
    if threshold is None:
        return largest
    fmt = threshold.format or constant_format(values, threshold.word_length, threshold.rounding)
    return max(largest, float(on_grid(threshold, fmt, values).max()))


def step_to_tell_apart(node: Any) -> float:
    """The longest step on which threshold and reset potential surely differ."""
    reset = reset_of(node) or 0.0
    gaps = _thresholds(node) - reset
    gaps = gaps[gaps > 0.0]
    if gaps.numel() == 0:
        return math.inf
    gap = float(gaps.min())
    return gap if reset == 0.0 else gap / 2.0


def as_the_neuron_sees_it(node: Any, potentials: Tensor) -> Tensor:
    """With a hard reset, every potential above the threshold has the same effect."""
    if reset_of(node) is None:
        return potentials
    return potentials.clamp(max=float(_thresholds(node).max()))


def threshold_format(node: Any, tensors: Tensors) -> dict[str, Format]:
    """The format of the threshold, where it is still to be chosen."""
    membrane, threshold = tensors.get("v"), open_tensor(tensors, "v_threshold")
    grid = membrane.format if membrane is not None else None
    if threshold is None:
        return {}
    finest = grid.fraction_bits if isinstance(grid, FixedPointFormat) else None
    values = _thresholds(node)
    if is_learned(threshold_of(node)):
        # The last value is the room: what the threshold may grow to.
        values = torch.cat([values, THRESHOLD_ROOM * values.max().reshape(1)])
        largest, signed = float(values.abs().max()), bool((values < 0).any())
        fmt = covering_format(largest, threshold.word_length, signed=signed)
        return {threshold.path: no_finer(fmt, finest)}
    length, rounding = threshold.word_length, threshold.rounding
    return {threshold.path: constant_format(values, length, rounding, finest)}


def check_neuron(node: Any, layer: LayerInfo, tensors: Tensors) -> None:
    """Refuses formats with which a neuron would always fire, never fire, or never leak."""
    check_grids(layer, tensors)
    check_shapes(node, layer)
    decay = tensors.get("decay")
    if decay is not None and decay.format is not None:
        _check_leaks(decay, decay.format, leak_of(node))
    membrane, threshold = tensors.get("v"), tensors.get("v_threshold")
    if membrane is None or membrane.format is None or not has_threshold(node):
        return
    stated = _thresholds(node)
    fires = stated
    if threshold is not None and threshold.format is not None:
        fires = on_grid(threshold, threshold.format, stated)
    if not holds_no_threshold(node, membrane):
        _check_reachable(membrane, membrane.format, float(fires.max()))
    reset = reset_of(node) or 0.0
    held = float(on_grid(membrane, membrane.format, _values(reset)))
    always = (fires <= held) & (stated > reset)
    if bool(always.any()):
        raise ValueError(
            f"{membrane.path}: in {membrane.format} the threshold {_shown(stated[always])} becomes "
            f"{_shown(fires[always])}, not above the potential that a spike resets to: the neuron "
            "would fire at every step; write a longer word length or another rounding"
        )


def holds_no_threshold(node: Any, membrane: ResolvedTensor) -> bool:
    """Whether a membrane's format was chosen for a readout, see :func:`threshold_to_hold`."""
    fmt = membrane.format
    if membrane.settings.format is not None or not isinstance(fmt, FixedPointFormat):
        return False
    lowest = float(_thresholds(node).min())
    return lowest >= FAR and lowest > fmt.max


def highest_threshold(node: Any, tensors: Tensors) -> float | None:
    """What no threshold of the neuron may exceed: the membrane's largest number.

    ``None`` where there is no such limit: the membrane stays in float, or is that of a readout.
    """
    membrane = tensors.get("v")
    if membrane is None or not isinstance(membrane.format, FixedPointFormat):
        return None
    if not has_threshold(node) or holds_no_threshold(node, membrane):
        return None
    return membrane.format.max


def check_grids(layer: LayerInfo, tensors: Tensors) -> None:
    """A threshold finer than the membrane is another threshold than the one compared with."""
    membrane, threshold = tensors.get("v"), tensors.get("v_threshold")
    if membrane is None or threshold is None:
        return
    grid, fmt = membrane.format, threshold.format
    if not isinstance(grid, FixedPointFormat) or not isinstance(fmt, FixedPointFormat):
        return
    if fmt.fraction_bits > grid.fraction_bits:
        raise ValueError(
            f"{threshold.path}: format {fmt} is finer than the membrane's {grid}, with which it is "
            f"compared; write at most {grid.fraction_bits} fraction bits"
        )


def check_shapes(node: nn.Module, layer: LayerInfo) -> None:
    """Refuses a threshold or a leak of another shape than the neurons have.

    A neuron without a formula brings them into shape by itself.
    """
    if not layer.model.is_exact:
        return
    held = {info.name: info.shape for info in layer.tensors}
    state = next((info.shape for info in layer.tensors if info.role in STATE_ROLES), None)
    if state is None:
        return
    for name in ("v_threshold", "decay"):
        shape = held.get(name)
        if shape is not None and not _fits(shape, state):
            raise ValueError(
                f"{layer.path}.{name}: has the shape {list(shape)}, which does not broadcast to "
                f"one value for each neuron, {list(state)}; write a threshold or a time constant "
                "per layer, channel or neuron"
            )


def check_still_known(node: nn.Module, layer: LayerInfo) -> None:
    """Refuses a neuron that was changed after the plan was resolved."""
    reason = why_not(node)
    if reason is not None or (charge_of(node) or layer.charge) != layer.charge:
        raise ValueError(
            f"attach: {layer.path} ({layer.type_name}) {reason or 'charges in another way'} since "
            "the plan was resolved; resolve the plan against the module as it is now"
        )


def _fits(shape: tuple[int, ...], state: tuple[int, ...]) -> bool:
    # A leading axis of 1 stands for the batch.
    given = shape[1:] if len(shape) == len(state) + 1 and shape[0] == 1 else shape
    try:
        return torch.broadcast_shapes(given, state) == torch.Size(state)
    except RuntimeError:
        return False


def _check_leaks(tensor: ResolvedTensor, fmt: Format, leak: float | Tensor) -> None:
    values = _values(leak)
    lost = (on_grid(tensor, fmt, values) == 0.0) & (values != 0.0)
    if bool(lost.any()):
        raise ValueError(
            f"{tensor.path}: 1/tau={_shown(values[lost])} becomes 0 in {fmt}; write more fraction "
            "bits"
        )


def _check_reachable(tensor: ResolvedTensor, fmt: Format, threshold: float) -> None:
    assert isinstance(fmt, FixedPointFormat)  # resolve() refuses one per channel
    if fmt.max >= threshold:
        return
    remedy = "a word of at least 2 bits" if fmt.word_length == 1 else "more integer bits"
    raise ValueError(
        f"{tensor.path}: format {fmt} ends at {fmt.max}, below the threshold {threshold}: the "
        f"neuron could never fire; write {remedy}"
    )


def _thresholds(node: Any) -> Tensor:
    threshold = threshold_of(node)
    assert threshold is not None  # asked for neurons that have one
    return _values(threshold)


def _values(constant: float | Tensor) -> Tensor:
    """A constant as a flat list of values, in float64: ``[n]``."""
    return torch.as_tensor(constant, dtype=torch.float64).detach().cpu().reshape(-1)


def is_learned(constant: float | Tensor | None) -> bool:
    """Whether a threshold or a leak moves while the network trains."""
    return isinstance(constant, Tensor) and constant.requires_grad


def on_grid(tensor: ResolvedTensor, fmt: Format, values: Tensor) -> Tensor:
    """Constants on the grid of ``fmt``, rounded as ``tensor`` is."""
    return quantizer_of(replace(tensor, format=fmt)).stored(values, training=False)


def _shown(values: Tensor) -> str:
    first = ", ".join(str(float(f"{value:.6g}")) for value in values[:3].tolist())
    return first if values.numel() <= 3 else f"{first} and {values.numel() - 3} more"
