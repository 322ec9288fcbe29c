"""Compares what a network with quantizers computes, layer by layer, with integers.

Hooks note what enters and leaves each layer. From what entered, and from the float parameters
rounded here, the integers say what had to leave.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from qspinn.plan import LayerInfo, ResolvedPlan
from tests.quantizers.zoo_variant import EPSILON
from tests.reference.fixed_point import code_of
from tests.reference.integer_graph import Layer, as_integers, nearest, stored, words_of
from tests.reference.integer_network import Neurons, Word

GRID = 48
"""More fraction bits than sums of 16 bits have: a current that needs them is off any grid."""


@dataclass
class Compared:
    """What was compared.

    Attributes:
        layers: Layers whose sums, or neurons whose steps, were compared.
        sums, steps, spikes: How many numbers, neuron steps, and spikes among these.
        off_grid: Neurons whose currents lie on no grid, such as averages of 9.
        ties: Steps of these where float64 cannot tell which side of a tie the charge lies on.
        norms: Norms that a device folds, and that were seen to hand on what they got.
        skipped: Layers that stay in float, or partly.
        rounded: Potentials of other neurons that were seen to lie on their grids.
        joints: Places where what enters a layer was compared with what left others.
        wrong: What differed: layer and values.
        calls: What was noted.
    """

    layers: set[str] = field(default_factory=set)
    sums: int = 0
    steps: int = 0
    spikes: int = 0
    ties: int = 0
    off_grid: set[str] = field(default_factory=set)
    norms: int = 0
    rounded: int = 0
    joints: int = 0
    skipped: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    calls: dict[str, Calls] = field(default_factory=dict, repr=False)


@dataclass
class Calls:
    """Inputs and outputs of one layer, call by call."""

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)

    def __call__(self, child: Any, args: tuple[Any, ...], output: Tensor) -> None:
        self.inputs.append(args[0].detach().clone())
        self.outputs.append(output.detach().clone())
        state = getattr(child, "v", None)
        if isinstance(state, Tensor):
            many = child.step_mode == "m"
            whole = child.v_seq if many else state.unsqueeze(0)
            self.states.append(whole.detach().clone())


def compare(
    net: nn.Module, plan: ResolvedPlan, x: Tensor, watched: Collection[str] = ()
) -> Compared:
    """Runs ``net``, which has the quantizers of ``plan``, on ``x`` and compares every layer."""
    found = Compared()
    calls = found.calls
    norms = {info.norm: info.path for info in plan.inventory.layers if info.norm is not None}
    kinds = {info.path: info.kind for info in plan.inventory.layers}
    handles = []
    for path, child in net.named_modules():
        if kinds.get(path) in ("synapse", "neuron") or path in norms or path in watched:
            calls[path] = Calls()
            handles.append(child.register_forward_hook(calls[path]))
            if kinds.get(path) == "neuron" and hasattr(child, "store_v_seq"):
                child.store_v_seq = True
    with torch.no_grad():
        net(x)
    for handle in handles:
        handle.remove()
    for info in plan.inventory.layers:
        child = net.get_submodule(info.path)
        if info.kind == "synapse":
            norm = None if info.norm is None else net.get_submodule(info.norm)
            _compare_sums(info, child, norm, plan, calls[info.path], found)
        elif info.kind == "neuron":
            _compare_steps(info, child, plan, calls[info.path], found)
    for path in norms:
        found.norms += 1
        for given, got in zip(calls[path].inputs, calls[path].outputs, strict=True):
            if not torch.equal(given, got):
                found.wrong.append(f"{path}: changes what it is given, though it is folded")
    functional.reset_net(net)
    return found


def _formats(info: LayerInfo, plan: ResolvedPlan) -> dict[str, str] | None:
    """Name -> format, where every tensor of the layer that has a role is quantised."""
    formats = plan.formats()
    needed = [tensor for tensor in info.tensors if tensor.role is not None]
    if any(tensor.path not in formats for tensor in needed):
        return None
    for tensor in needed:
        entry = formats[tensor.path]
        assert (entry["rounding"], entry["overflow"]) == ("nearest", "saturate")
    return {tensor.name: formats[tensor.path]["format"] for tensor in needed}


def _compare_sums(
    info: LayerInfo, child: Any, norm: Any, plan: ResolvedPlan, calls: Calls, found: Compared
) -> None:
    formats = _formats(info, plan)
    if formats is None:
        found.skipped.append(f"{info.path}: partly in float")
        return
    twin = _synapses(child, norm, formats)
    for x, y in zip(calls.inputs, calls.outputs, strict=True):
        given = x.double().numpy()
        if "input" in formats:
            word = words_of(formats["input"])[0]
            codes, places = nearest(given, word), word.fraction_bits
        else:
            codes, places = given.astype(np.int64), 0
            if not np.isin(given, (0.0, 1.0)).all():
                found.wrong.append(f"{info.path}: takes its input for spikes, and it is none")
                continue
        sums, grid = _summed(twin, codes, places)
        _note_sums(info.path, y, sums, grid, found)
    found.layers.add(info.path)


def _summed(twin: Layer, codes: Any, places: int) -> tuple[Any, int]:
    """The sums over any leading axes, in the layout of the layer's output."""
    inner = max(1, twin.weight.ndim - 1)
    lead, rest = codes.shape[: codes.ndim - inner], codes.shape[codes.ndim - inner :]
    sums, grid = twin.sums(codes.reshape(-1, *rest), places)
    return sums.reshape(*lead, *sums.shape[1:]), grid


def _note_sums(path: str, y: Tensor, sums: Any, grid: int, found: Compared) -> None:
    expected = sums.astype(np.float64) * 2.0**-grid
    assert np.abs(sums).max(initial=0) < 2**53
    if y.dtype == torch.float32:  # class scores, which no neuron takes
        expected = expected.astype(np.float32).astype(np.float64)
    got = y.double().numpy()
    found.sums += sums.size
    if got.shape != expected.shape:
        found.wrong.append(f"{path}: made {got.shape}, not {expected.shape}")
    elif not np.array_equal(got, expected):
        at = np.argwhere(got != expected)
        first = tuple(at[0])
        found.wrong.append(
            f"{path}: {len(at)} of {got.size} sums; at {first} {got[first]!r} for "
            f"{expected[first]!r}, grid {grid}, {y.dtype}"
        )


def _synapses(child: Any, norm: Any, formats: dict[str, str]) -> Layer:
    weight = child.weight.detach().double().numpy()
    bias = None if child.bias is None else child.bias.detach().double().numpy()
    if norm is not None:
        root = np.sqrt(norm.running_var.double().numpy() + EPSILON)
        # The variances were chosen so: what is left of them is float32's rounding.
        scale = norm.weight.detach().double().numpy() / 2.0 ** np.log2(root).round()
        weight = weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
        mean, shift = norm.running_mean.double().numpy(), norm.bias.detach().double().numpy()
        bias = ((0.0 if bias is None else bias) - mean) * scale + shift
    codes, fractions = stored(weight, words_of(formats["weight"]))
    settings: dict[str, Any] = {}
    if bias is not None:
        settings["bias"], settings["bias_fractions"] = stored(bias, words_of(formats["bias"]))
    if weight.ndim > 2:
        assert child.padding_mode == "zeros"
        names = ("stride", "padding", "dilation", "groups")
        settings |= {name: getattr(child, name) for name in names}
    return Layer(codes, fractions, **settings)


def _compare_steps(
    info: LayerInfo, child: Any, plan: ResolvedPlan, calls: Calls, found: Compared
) -> None:
    formats = _formats(info, plan)
    exact = info.charge in ("if", "lif", "plif")
    if formats is None or not exact or "v_threshold" not in formats or len(info.tensors) > 3:
        found.skipped.append(f"{info.path}: {info.type_name}, {info.charge}")
        if formats is not None and "v" in formats:
            _check_states(info.path, words_of(formats["v"])[0], calls, found)
        return
    twin = _neurons(info, child, formats)
    for x, y, states in zip(calls.inputs, calls.outputs, calls.states, strict=True):
        many = child.step_mode == "m"
        xs, ys = (x, y) if many else (x.unsqueeze(0), y.unsqueeze(0))
        for current, spikes, v in zip(xs, ys, states, strict=True):
            _compare_step(info.path, twin, current, spikes, v, found)
    found.layers.add(info.path)


def _check_states(path: str, word: Word, calls: Calls, found: Compared) -> None:
    """That a neuron whose step has no integer form keeps its potentials on their grid."""
    for states in calls.states:
        values = states.double().numpy()
        found.rounded += values.size
        if not np.array_equal(nearest(values, word) * 2.0**-word.fraction_bits, values):
            found.wrong.append(f"{path}: potentials are not on the grid of {word}")


def _compare_step(
    path: str, twin: Neurons, current: Tensor, spikes: Tensor, v: Tensor, found: Compared
) -> None:
    codes, grid = as_integers(current.double().numpy())
    before = twin.potential
    fired, after = twin.step(codes, grid)
    found.steps += fired.size
    found.spikes += int(fired.sum())
    got = v.double().numpy() * 2.0**twin.membrane.fraction_bits
    differs = (after.astype(np.float64) != got) | (fired != spikes.double().numpy())
    if grid > GRID:
        found.off_grid.add(path)
        ties = differs & _near_ties(twin, codes, before, grid)
        found.ties += int(ties.sum())
        differs &= ~ties
        twin.potential = np.where(ties, got.astype(np.int64).astype(object), after)
    if differs.any():
        first = tuple(int(one) for one in np.argwhere(differs)[0])
        found.wrong.append(
            f"{path}: {differs.sum()} of {differs.size} steps; at {first} potential {got[first]} "
            f"and spike {float(spikes[first])} for {after[first]} and {fired[first]}, current "
            f"{float(current[first])!r}"
        )


def _near_ties(twin: Neurons, codes: Any, before: Any, grid: int) -> Any:
    """Where a charge lies within 2^-32 of a step of the middle between two codes.

    A current that lies on no grid is itself a rounded number, so that float64 cannot tell.
    """
    potential = np.full(codes.shape, twin.initial, dtype=object) if before is None else before
    exact, places = twin.charged(codes, potential, grid)
    places -= twin.membrane.fraction_bits
    middle = 1 << (places - 1)
    rest = (exact - middle) & ((1 << places) - 1)
    distance = np.minimum(rest, (1 << places) - rest)
    return (distance < (1 << max(places - 32, 0))).astype(bool)


def _neurons(info: LayerInfo, node: Any, formats: dict[str, str]) -> Neurons:
    membrane = words_of(formats["v"])[0]
    threshold = words_of(formats["v_threshold"])[0]
    decay, decay_fraction = None, 0
    if info.charge in ("lif", "plif"):
        word = words_of(formats["decay"])[0]
        decay_fraction = word.fraction_bits
        leak = 1.0 / node.tau if info.charge == "lif" else _sigmoid(float(node.w.detach()))
        decay = _code(leak, word)
    reset = None if node.v_reset is None else _code(node.v_reset, membrane)
    return Neurons(
        membrane,
        _code(node.v_threshold, threshold),
        threshold.fraction_bits,
        decay,
        decay_fraction,
        bool(getattr(node, "decay_input", True)),
        reset,
        reset or 0,
    )


def _sigmoid(w: float) -> float:
    return float(1.0 / (1.0 + np.exp(-w)))


def _code(value: float, word: Word) -> int:
    integers = word.bits - word.fraction_bits - word.signed
    exact = float(Fraction(value))
    return code_of(exact, integers, word.fraction_bits, word.signed, "nearest", "saturate")
