"""From a quantised network to its device model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qspinn.export.declared import declared_model
from qspinn.export.model import (
    Arithmetic,
    Codes,
    DeviceModel,
    DeviceOperation,
    Gather,
    Input,
    Neuron,
    NotExportableError,
    Output,
    Pooling,
    Round,
    State,
    StoredTensor,
    Synapse,
    What,
)
from qspinn.export.packed_tensor import PackedTensor
from qspinn.export.planned import MOST_SHOWN, check_plan
from qspinn.fixed_point import FixedPointFormat
from qspinn.plan import ResolvedPlan
from qspinn.plan.declared_operations import declares_operations
from qspinn.plan.float_class import float_class
from qspinn.plan.graph import Graph, Operand, Operation, UnknownGraphError, graph_of
from qspinn.plan.neuron_constants import reset_of
from qspinn.plan.neurons import most_spikes
from qspinn.plan.roles import CONSTANT_ROLES
from qspinn.plan.summary import listed
from qspinn.plan.synapses import TRANSPOSED
from qspinn.quantizers import plan_of
from qspinn.quantizers.class_swap import attached_quantizer
from qspinn.quantizers.integer_codes import IntegerCodes, integer_codes
from qspinn.quantizers.neuron_quantizer import NeuronQuantizer
from qspinn.steps.lowering import code_of

__all__ = ["device_model"]

SPIKES = FixedPointFormat(1, 0, signed=False)


def device_model(
    module: nn.Module,
    example: Tensor,
    *,
    name: str | None = None,
    classes: Sequence[str] = (),
    origin: Mapping[str, str] | None = None,
    learning: bool | None = None,
) -> DeviceModel:
    """The device model of a quantised network.

    A module that says by itself what a device would compute
    (:class:`qspinn.plan.declared_operations.DeclaresOperations`) is taken at its word; of any other
    one the graph is found.

    Args:
        module: With quantizers attached (:func:`qspinn.quantizers.attach`, or the callbacks).
        example: An input of one sample, with a batch dimension of size 1 where the network wants
            one; of a sequence at least two time steps, better three.
        name: Of the network; None: the name of its class.
        classes: Names of the classes, in order.
        origin: What is to be kept of how it was made.
        learning: Whether the model says how the network goes on learning on a device. None: where
            the network says it (:class:`~qspinn.plan.declared_operations.DeclaresLearning`) and it
            can be done; where it cannot, the model keeps the reason. True: or there is no model.

    Raises:
        NotExportableError: The network holds something that no device model says, or cannot go on
            learning as it must; the message names the layer and the reason.
        ValueError: A module without quantizers.
    """
    plan = plan_of(module)
    check_plan(plan)
    named = type(module).__name__ if name is None else name
    declares: Any = module
    if declares_operations(declares):
        return declared_model(declares, example, named, classes, origin, learning)
    if learning:
        raise NotExportableError(f"{named}: learns by gradients; export it without learning")
    try:
        graph = graph_of(module, example)
    except UnknownGraphError as error:
        raise NotExportableError(str(error)) from error
    builder = _Builder(module, plan, graph, integer_codes(module))
    operations = builder.operations()
    readout = graph.readout
    output = Output(
        builder.numbers[readout.operand],
        builder.table("output", readout.table),
        readout.over,
        readout.scale,
    )
    in_order = np.array_equal(graph.frame, np.arange(len(graph.frame)))
    frame = None if in_order else builder.table("frame", graph.frame)
    return DeviceModel(
        operations,
        output,
        builder.tensors,
        builder.tables,
        frame,
        graph.frame_stride,
        graph.steps,
        named,
        tuple(classes),
        dict(origin or {}),
    )


@dataclass(eq=False)
class _Builder:
    """Turns the operations of a graph into those of a device, and collects what they store."""

    module: nn.Module
    plan: ResolvedPlan
    graph: Graph
    codes: Mapping[str, IntegerCodes]
    tensors: dict[str, StoredTensor] = field(default_factory=dict)
    tables: dict[str, PackedTensor] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)
    """Number of an operation of the graph -> of the device."""

    def operations(self) -> tuple[DeviceOperation, ...]:
        rounds = self._rounds()
        places = 0
        for number, _ in self.graph:
            places += number in rounds
            self.numbers[number] = places
            places += 1
        found: list[DeviceOperation] = []
        for number, one in self.graph:
            operands = tuple(Operand(self.numbers[o.source], o.delay) for o in one.operands)
            if number in rounds:
                size = self.graph.operations[one.operands[0].source].shape
                before = DeviceOperation(rounds[number], operands, size, one.path, one.is_static)
                operands = (Operand(len(found)),)
                found.append(before)
            what, shape = self._what(number, one), one.shape
            found.append(
                DeviceOperation(what, operands, shape, one.path, one.is_static, one.taken, one.rows)
            )
        return tuple(found)

    def table(self, name: str, table: Codes) -> str:
        """Keeps a table, once, and gives its name."""
        packed = PackedTensor.shortest(table)
        for known, held in self.tables.items():
            if held == packed:
                return known
        self.tables[name] = packed
        return name

    def _table(self, number: int, one: Operation) -> str:
        assert one.table is not None
        return self.table(f"table{number}", one.table)

    def _rounds(self) -> dict[int, Round]:
        """The synapse layers whose input is rounded on the device, and how."""
        found = {}
        encoded = self._encoded()
        for number, one in self.graph:
            if one.kind != "synapse" or one.operands[0].source in encoded:
                continue
            given = self.plan.of_layer(one.path).get("input")
            if given is not None:
                assert isinstance(given.format, FixedPointFormat)
                found[number] = Round(given.format, given.rounding, given.overflow)
        return found

    def _encoded(self) -> set[int]:
        """The input, and what only moves its numbers, which rounding them before leaves equal."""
        found = {0}
        for number, one in self.graph:
            if one.kind in ("gather", "max") and {o.source for o in one.operands} <= found:
                found.add(number)
        return found

    def _input(self) -> Input:
        takers: dict[Input, str] = {}
        encoded = self._encoded()
        for _, one in self.graph:
            if not encoded & {operand.source for operand in one.operands}:
                continue
            if one.kind == "synapse":
                given = self.plan.of_layer(one.path).get("input")
                if given is None:
                    takers.setdefault(Input(SPIKES), one.path)
                    continue
                assert isinstance(given.format, FixedPointFormat)
                kind = Input(given.format, given.rounding, given.overflow)
                takers.setdefault(kind, one.path)
            elif one.kind not in ("gather", "max"):
                raise NotExportableError(
                    f"{one.path or one.kind}: takes the network's own input, for which only "
                    "linear and convolutional layers have a format; begin with one of these"
                )
        if len(takers) != 1:
            raise NotExportableError(
                f"the input enters {listed(takers.values(), MOST_SHOWN)} in different formats; "
                "write one format for the inputs of these layers"
            )
        return next(iter(takers))

    def _what(self, number: int, one: Operation) -> What:
        if one.kind == "input":
            return self._input()
        if one.kind == "synapse":
            return self._synapse(one)
        if one.kind == "neuron":
            return self._neuron(one)
        if one.kind == "state":
            return State()
        if one.kind in ("sum", "max"):
            table = None if one.table is None else self._table(number, one)
            return Pooling(one.kind, one.window, table)
        if one.kind == "gather":
            return Gather(self._table(number, one))
        if one.kind == "declared":
            raise NotExportableError(
                f"{one.path}: computes by itself ({type(self._layer(one)).__name__}), which no "
                "operation of a device model says"
            )
        factor = one.factor
        if factor.denominator & (factor.denominator - 1):
            raise NotExportableError(
                f"{one.path or 'the network itself'}: multiplies by {factor}, which leads off "
                "every grid of powers of two; average over 2, 4, 8, ... values"
            )
        return Arithmetic(one.kind, one.signs, factor)

    def _layer(self, one: Operation) -> Any:
        return self.module.get_submodule(one.path)

    def _stored(self, path: str) -> str:
        """Keeps the codes of a tensor, once where layers share it, and gives its name."""
        info = next(tensor.info for tensor in self.plan.tensors if tensor.path == path)
        name, held = info.tied_to or path, self.codes[path]
        codes = held.codes.cpu().numpy().astype(np.int64)
        if info.role in CONSTANT_ROLES and codes.ndim > 1 and codes.shape[0] == 1:
            codes = codes[0]  # stands for the batch
        self.tensors.setdefault(name, StoredTensor.of(codes, held.format))
        return name

    def _synapse(self, one: Operation) -> Synapse:
        child = self._layer(one)
        if isinstance(child, TRANSPOSED):
            raise NotExportableError(f"{one.path}: is a transposed convolution; use another layer")
        bias = self._stored(f"{one.path}.bias") if f"{one.path}.bias" in self.codes else None
        weight = self._stored(f"{one.path}.weight")
        if isinstance(child, nn.Linear):
            return Synapse(weight, bias)
        if child.padding_mode != "zeros":
            raise NotExportableError(
                f"{one.path}: padding_mode={child.padding_mode!r}; write 'zeros'"
            )
        edges = child._reversed_padding_repeated_twice[::-1]
        padding = tuple((edges[i + 1], edges[i]) for i in range(0, len(edges), 2))
        return Synapse(weight, bias, child.stride, padding, child.dilation, child.groups)

    def _neuron(self, one: Operation) -> Neuron:
        child = self._layer(one)
        quantizer = attached_quantizer(child)
        if not isinstance(quantizer, NeuronQuantizer) or not quantizer.model.is_exact:
            raise NotExportableError(
                f"{one.path}: {float_class(child).__name__} has "
                "no step in whole numbers; use IF, LIF, PLIF or ILIF neurons or a synapse filter"
            )
        if quantizer.own_start:
            raise NotExportableError(f"{one.path}: begins with states of its own making")
        name = "out_i" if quantizer.model.reads_out else "v"
        state = quantizer.states[name]
        assert isinstance(state.format, FixedPointFormat)
        with torch.no_grad():
            decay = threshold = None
            if quantizer.model.leaks:
                decay = self._stored(f"{one.path}.decay")
            fires = not quantizer.model.reads_out and quantizer.threshold is not None
            if fires:
                threshold = self._stored(f"{one.path}.v_threshold")
            reset = None if quantizer.model.reads_out else quantizer.reset_of(child)
        initial = quantizer.first_of(name, _initial(child, name))
        return Neuron(
            quantizer.charge,
            state.format,
            state.rounding,
            state.overflow,
            threshold,
            decay,
            bool(getattr(child, "decay_input", True)),
            None if reset is None else code_of(reset, state.format.fraction_bits),
            code_of(initial, state.format.fraction_bits),
            most_spikes(child),
        )


def _initial(node: Any, name: str) -> float:
    kept = getattr(node, "_memories_rv", {})
    # Neurons that keep their potential in an attribute begin at what they are reset to.
    value = kept[name] if name in kept else reset_of(node)
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise NotExportableError(f"{type(node).__name__}: begins with a tensor as its state")
        return float(value)
    return 0.0 if value is None else float(value)
