"""The repair of a linear or convolutional layer: its weights, its bias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qspinn.fixed_point import quantize
from qspinn.plan import LayerInfo
from qspinn.plan.synapses import channel_axis
from qspinn.quantizers.repair.candidates import near_values
from qspinn.quantizers.repair.grids import nearest_in
from qspinn.quantizers.repair.moments import Moments
from qspinn.quantizers.repair.responses import difference, responses
from qspinn.quantizers.repair.rounding import rounded_together
from qspinn.quantizers.repair.state import Repairing
from qspinn.quantizers.repair.windows import flat, rows_of, weight_of


@dataclass(frozen=True)
class Held:
    """Weights ``[groups, channels, K]`` and biases ``[groups, channels]`` of a layer; float64."""

    rows: Tensor
    bias: Tensor | None

    def joined(self) -> Tensor:
        """With the bias as the weight of a further input: ``[groups, channels, K + 1]``."""
        return self.rows if self.bias is None else torch.cat([self.rows, self.bias[..., None]], -1)

    @classmethod
    def of(cls, layer: Any, weight: Tensor, bias: Tensor | None) -> Held:
        """Of a layer's own tensors."""
        rows = rows_of(layer, weight.double())
        return cls(rows, None if bias is None else bias.double().reshape(rows.shape[:2]))

    def where(self, chosen: Tensor, other: Held) -> Held:
        """These channels where ``chosen [groups, channels]``, else those of ``other``."""
        rows = torch.where(chosen[..., None], self.rows, other.rows)
        if self.bias is None or other.bias is None:
            return Held(rows, None)
        return Held(rows, torch.where(chosen, self.bias, other.bias))


def held_now(work: Repairing, layer: LayerInfo) -> Held:
    """What a device holds of a layer so far."""
    return Held.of(work.layer(layer.path), *work.held(layer.path))


def by_currents(work: Repairing, layer: LayerInfo, learned: bool) -> Held:
    """What gives currents closest to the float network's: weights and bias, or the bias alone.

    Args:
        work: The network.
        layer: A synapse layer whose weights are quantised.
        learned: Whether the weights may change as well.
    """
    child, tensors = work.layer(layer.path), work.tensors(layer.path)
    stored = work.in_float(layer)
    floats = Held.of(child, stored["weight"], stored.get("bias"))
    plain = held_now(work, layer)
    batches = [
        Moments.seen(child, _joined(child, of_float), _joined(child, _on_grid(work, layer, given)))
        for of_float, given in work.inputs(layer.path)
    ]
    to_biases = nearest_in(tensors["bias"].format if "bias" in tensors else None)
    if not learned:
        whole = Moments.mean(batches)
        wanted = (floats.joined() * whole.cross[:, None, :, -1]).sum(-1)
        given = (plain.rows * whole.second[:, None, :-1, -1]).sum(-1)
        return Held(plain.rows, to_biases(wanted - given))
    grids = [nearest_in(tensors["weight"].format)] * floats.rows.shape[-1]
    if plain.bias is None:
        batches = [one.of_weights() for one in batches]
        return Held(rounded_together(floats.rows, plain.rows, batches, grids), None)
    found = rounded_together(floats.joined(), plain.joined(), batches, [*grids, to_biases])
    return Held(found[..., :-1], found[..., -1])


def by_answers(
    work: Repairing, layer: LayerInfo, neuron: LayerInfo, found: Sequence[Held], moves_bias: bool
) -> Held:
    """What makes the neurons behind a layer answer as in the float network, channel by channel.

    Args:
        work: The network.
        layer: The synapse layer.
        neuron: The neuron layer that takes its sums, and no other's.
        found: What it may hold.
        moves_bias: Whether numbers near each bias are tried as well.

    Returns:
        For each channel the one of ``found``, with a bias near its own, for which the answers
        differ least; the first of equals.
    """
    tried = [list(_with_near_biases(work, layer, one, moves_bias)) for one in found]
    errors = [[found[0].rows.new_zeros(found[0].rows.shape[:2]) for _ in some] for some in tried]
    for answer in work.answers(neuron.path):
        if answer is None:
            work.leave(neuron.path, "is not called step by step, so that its currents alone judge")
            return found[-1]
        wanted, run = answer
        for some, sums in zip(tried, errors, strict=True):
            with work.quantised(values_of(work, layer, some[0])):
                currents = work.currents(neuron.path, run)
                for one, total in zip(some, sums, strict=True):
                    total += _error(work, layer, neuron, currents, _moved(some[0], one), wanted)
    chosen, least = tried[0][0], errors[0][0]
    for some, sums in zip(tried, errors, strict=True):
        for one, total in zip(some, sums, strict=True):
            chosen, least = one.where(total < least, chosen), torch.minimum(total, least)
    return chosen


def values_of(work: Repairing, layer: LayerInfo, held: Held) -> dict[str, Tensor]:
    """Tensor path -> value, of what the plan quantises."""
    child, tensors = work.layer(layer.path), work.tensors(layer.path)
    found = {tensors["weight"].path: weight_of(child, held.rows).to(child.weight).contiguous()}
    if "bias" in tensors and held.bias is not None:
        found[tensors["bias"].path] = held.bias.reshape(-1).to(child.weight)
    return found


def _with_near_biases(
    work: Repairing, layer: LayerInfo, held: Held, moves_bias: bool
) -> Sequence[Held]:
    if not moves_bias or held.bias is None:
        return [held]
    fmt = work.tensors(layer.path)["bias"].format
    assert fmt is not None  # calibrated
    near = near_values(held.bias.reshape(-1), fmt)
    return [Held(held.rows, bias.reshape(held.bias.shape)) for bias in near]


def _moved(one: Held, other: Held) -> Tensor | None:
    return None if one.bias is None or other.bias is None else other.bias - one.bias


def _error(
    work: Repairing,
    layer: LayerInfo,
    neuron: LayerInfo,
    currents: Tensor,
    moved: Tensor | None,
    wanted: Tensor,
) -> Tensor:
    """How far the answers are from those wanted, with biases moved by so much: per channel."""
    child, node = work.layer(layer.path), work.layer(neuron.path)
    spatial = currents.dim() - 1 - channel_axis(child, currents.dim())
    groups = (getattr(child, "groups", 1), -1)
    if moved is not None:
        currents = currents + moved.reshape(-1, *[1] * spatial)
    channels = currents.shape[currents.dim() - 1 - spatial]
    shape = torch.Size((channels, *[1] * spatial))
    return difference(responses(node, currents), wanted, shape).reshape(groups)


def _on_grid(work: Repairing, layer: LayerInfo, calls: list[Tensor]) -> list[Tensor]:
    """Inputs as the quantised layer computes with them."""
    tensor = work.tensors(layer.path).get("input")
    if tensor is None or tensor.format is None:
        return calls
    rounding = "nearest" if tensor.rounding == "stochastic" else tensor.rounding
    return [quantize(one.double(), tensor.format, rounding, tensor.overflow) for one in calls]


def _joined(child: Any, calls: list[Tensor]) -> Tensor:
    return torch.cat([flat(child, one) for one in calls])
