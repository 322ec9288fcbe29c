"""What the operations that were seen cost at the word lengths of a plan."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from qspinn.plan.activity import Activity, Connection, StateUpdates, WorkUnknownError
from qspinn.plan.energy import FLOAT, FLOAT_BITS, EnergyModel
from qspinn.plan.footprint import footprint_of
from qspinn.plan.inventory import Inventory, LayerInfo, TensorInfo
from qspinn.plan.resolved import ResolvedPlan
from qspinn.plan.work import LayerWork, Work

__all__ = ["work_of"]

PJ_PER_NJ = 1000.0
_READ_PER_UPDATE = ("threshold", "theta", "decay")
Lengths = Callable[[TensorInfo], int | None]


def work_of(
    inventory: Inventory,
    plan: ResolvedPlan | None,
    activity: Activity,
    model: EnergyModel | None = None,
) -> Work:
    """The work and energy of what was seen, at the word lengths of ``plan``.

    With word lengths ``w`` of weights and ``a`` of inputs that are no spikes, ``n`` inputs per sum,
    and the costs of :class:`~qspinn.plan.energy.EnergyModel`:

    * a spike's synaptic operation is an addition of ``w + ceil(log2 n)`` bits and reads ``w`` bits;
    * any other is a multiplication of ``w`` by ``a`` bits and an addition of
      ``w + a + ceil(log2 n)`` bits, and reads ``w`` bits;
    * each input of a layer is read once per time step: 1 bit for a spike, else ``a`` bits;
    * a bias is read and added once per sum;
    * an update of a state of ``s`` bits reads and writes it, and has additions of ``s`` bits and,
      with a leak of ``k`` bits, one multiplication of ``s`` by ``k`` bits; thresholds and leaks
      that differ from neuron to neuron are read.

    An operation with any operand in float32 is one in float32. Sums, and constants that all neurons
    of a layer share, lie in registers. The ANN makes one pass with multiplications of ``w`` by
    ``w`` bits for all synapses but recurrent ones, and compares each sum with 0.

    Args:
        inventory: What the network is made of.
        plan: What of it is quantised; ``None`` for float32.
        activity: What it did.
        model: What operations cost; ``None``: the default.

    Raises:
        WorkUnknownError: The activity names what the inventory does not have.
    """
    model = EnergyModel() if model is None else model
    quantized = {} if plan is None else {one.path: one.word_length for one in plan.tensors}

    def planned(info: TensorInfo) -> int | None:
        return info.word_length if info.role is None else quantized.get(info.path, FLOAT)

    footprint = footprint_of(inventory, plan)
    ours = _Costs(inventory, planned, model, footprint.inference_bits)
    floats = _Costs(inventory, _in_float, model, footprint.baseline_inference_bits)
    layers = _layers(activity, ours)
    return Work(
        layers,
        activity.samples,
        activity.time_steps,
        sum(_layers(activity, floats).values(), LayerWork()).energy_nj,
        _ann_energy(activity, inventory, planned, model),
        _ann_energy(activity, inventory, _in_float, model),
        model,
        activity.notes,
    )


@dataclass(frozen=True)
class _Costs:
    """What operations cost at some word lengths, in nJ.

    Attributes:
        inventory: Of the network.
        lengths: The word length of a tensor; ``FLOAT`` for float32.
        model: What operations cost.
        held: Bits of the network.
    """

    inventory: Inventory
    lengths: Lengths
    model: EnergyModel
    held: int

    def tensor(self, layer: str, name: str) -> TensorInfo:
        for info in self.inventory.layer(layer).tensors:
            if info.name == name:
                return info
        raise WorkUnknownError(f"{layer or 'the module itself'} reports work on {name!r}, which it "
                               "does not declare")  # fmt: skip

    def factor(self, one: Connection) -> int | None:
        if isinstance(one.factor, str):
            return self.lengths(self.tensor(one.layer, one.factor))
        return one.factor

    def memory(self, bits: float) -> float:
        return bits * self.model.per_bit(self.held) / PJ_PER_NJ

    def synapses(self, one: Connection) -> LayerWork:
        info = self.tensor(one.layer, one.weight)
        layer, weight, model = self.inventory.layer(one.layer), self.lengths(info), self.model
        spikes, factor = one.factor is None, self.factor(one)
        length = _sum_bits(layer, one, weight, 0 if spikes else factor)
        arithmetic = one.operations * model.addition(length)
        if not spikes:
            arithmetic += one.operations * model.multiplication(weight, factor)
        bits = one.inputs * (1 if spikes else factor or FLOAT_BITS)
        if info.count > 1:
            bits += one.operations * (weight or FLOAT_BITS)
        bias = _bias(layer, one)
        biases = 0 if bias is None else one.sums
        if bias is not None:
            arithmetic += biases * model.addition(length)
            bits += biases * (self.lengths(bias) or FLOAT_BITS)
        return LayerWork(
            synaptic_operations=one.operations,
            dense_synaptic_operations=one.dense,
            multiplications=0 if spikes else one.operations,
            additions=one.operations + biases,
            bits_moved=bits,
            energy_compute_nj=arithmetic / PJ_PER_NJ,
            energy_memory_nj=self.memory(bits),
        )

    def updates(self, one: StateUpdates) -> LayerWork:
        length, model = self.lengths(self.tensor(one.layer, one.state)), self.model
        arithmetic = one.updates * one.additions * model.addition(length)
        if one.leak is not None:
            leak = self.lengths(self.tensor(one.layer, one.leak))
            arithmetic += one.updates * model.multiplication(length, leak)
        bits = 2 * one.updates * (length or FLOAT_BITS)
        return LayerWork(
            multiplications=0 if one.leak is None else one.updates,
            additions=one.updates * one.additions,
            state_updates=one.updates,
            bits_moved=bits,
            energy_compute_nj=arithmetic / PJ_PER_NJ,
            energy_memory_nj=self.memory(bits),
        )

    def constants(self, layer: str, passes: int) -> LayerWork:
        """The thresholds and leaks that are read at each step, since each neuron has its own."""
        held = [
            info.count * (self.lengths(info) or FLOAT_BITS)
            for info in self.inventory.layer(layer).tensors
            if info.role in _READ_PER_UPDATE and info.count > 1 and not info.for_training
        ]
        bits = passes * sum(held)
        return LayerWork(bits_moved=bits, energy_memory_nj=self.memory(bits))


def _layers(activity: Activity, costs: _Costs) -> dict[str, LayerWork]:
    """Layer path -> what it does for one sample."""
    paths = [one.layer for one in activity.connections]
    found = dict.fromkeys([*paths, *(one.layer for one in activity.states)])
    steps: dict[str, int] = {}
    for one in activity.states:
        steps[one.layer] = max(steps.get(one.layer, 0), one.passes)
    layers = {}
    for path in found:
        parts = [costs.synapses(one) for one in activity.connections if one.layer == path]
        parts += [costs.updates(one) for one in activity.states if one.layer == path]
        parts.append(costs.constants(path, steps.get(path, 0)))
        layers[path] = sum(parts, LayerWork()) / activity.samples
    return layers


def _ann_energy(
    activity: Activity, inventory: Inventory, lengths: Lengths, model: EnergyModel
) -> float:
    """NJ of one dense pass for one sample."""
    forward = [one for one in activity.connections if not one.recurrent]
    weights = {one: _tensor(inventory, one) for one in forward}
    biases = {one: _bias(inventory.layer(one.layer), one) for one in forward}
    held, arithmetic, bits = 0.0, 0.0, 0.0
    for one in forward:
        info, bias = weights[one], biases[one]
        weight = lengths(info)
        length, sums = weight or FLOAT_BITS, one.sums / one.passes
        operations, inputs = one.dense / one.passes, one.inputs / one.passes
        total = _sum_bits(inventory.layer(one.layer), one, weight, weight)
        arithmetic += operations * (model.multiplication(weight, weight) + model.addition(total))
        arithmetic += sums * model.addition(weight)
        bits += operations * length + inputs * length
        held += info.count * length + sums * length
        if bias is not None:
            stored = lengths(bias) or FLOAT_BITS
            arithmetic += sums * model.addition(total)
            bits += sums * stored
            held += bias.count * stored
    return (arithmetic + bits * model.per_bit(math.ceil(held))) / PJ_PER_NJ


def _sum_bits(
    layer: LayerInfo, one: Connection, weight: int | None, factor: int | None
) -> int | None:
    """Bits of a sum of products, of spikes (a factor of 0 bits) or numbers; ``FLOAT`` for float32.

    A product has the bits of both factors, and a sum of n of them ``ceil(log2 n)`` more.
    """
    if weight is FLOAT or factor is FLOAT:
        return FLOAT
    fan_in = layer.fan_in or math.ceil(one.dense / max(1, one.sums))
    return weight + factor + math.ceil(math.log2(max(1, fan_in)))


def _tensor(inventory: Inventory, one: Connection) -> TensorInfo:
    return _Costs(inventory, _in_float, EnergyModel(), 0).tensor(one.layer, one.weight)


def _bias(layer: LayerInfo, one: Connection) -> TensorInfo | None:
    """The bias that is added to the sums; to those of the first weights that a layer has."""
    first = next((info.name for info in layer.tensors if info.role == "weight"), one.weight)
    biases = (info for info in layer.tensors if info.role == "bias")
    return next(biases, None) if one.weight == first and not one.recurrent else None


def _in_float(info: TensorInfo) -> int | None:
    return info.word_length if info.role is None else FLOAT
