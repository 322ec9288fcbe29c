"""A device model as a NIR graph, with the integers beside it.

A NIR graph holds real numbers and no formats: the weights are the numbers that the codes stand for.
What NIR cannot say (roundings, word lengths, how answers are counted) is in the side-car, which is
the model file itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from qspinn.atomic import atomic_file
from qspinn.export.container import MODEL_NAME
from qspinn.export.model import (
    Arithmetic,
    DeviceModel,
    DeviceOperation,
    Neuron,
    NotExportableError,
    Pooling,
    Round,
    StoredTensor,
    Synapse,
)
from qspinn.export.saving import save_model
from qspinn.fixed_point import PerChannelFormat
from qspinn.steps.models import MODELS

__all__ = ["nir_graph", "write_nir"]

GRAPH_NAME = "network.nir"
Reals = NDArray[np.float64]


def write_nir(
    model: DeviceModel, folder: str | os.PathLike[str], dt: float = 1.0
) -> dict[str, Path]:
    """Writes ``network.nir`` and its side-car ``model.qspinn``.

    Args:
        model: The model.
        folder: Where to; it is made.
        dt: Length of a time step, in the unit that the time constants are to have.

    Returns:
        What was written: ``graph`` and ``side_car``.

    Raises:
        NotExportableError: The model holds an operation that NIR does not have.
    """
    graph = nir_graph(model, dt)
    target = Path(folder)
    save_model(model, target / MODEL_NAME)
    with atomic_file(target / GRAPH_NAME) as unfinished:
        nir.write(unfinished, graph)
    return {"graph": target / GRAPH_NAME, "side_car": target / MODEL_NAME}


def nir_graph(model: DeviceModel, dt: float = 1.0) -> nir.NIRGraph:
    """The graph of a device model, see :func:`write_nir`.

    Neurons are those of Euler's method: ``tau = dt / k`` with the leak ``k`` per step. Reset by
    subtraction, which NIR does not say, stands in the metadata of each neuron, and so do formats.
    """
    if not dt > 0:
        raise ValueError(f"dt={dt}: write a number above 0")
    return _Graph(model, dt).built()


@dataclass(eq=False)
class _Graph:
    model: DeviceModel
    dt: float
    nodes: dict[str, Any] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sources: dict[int, tuple[str, ...]] = {}
        self.waiting: list[tuple[int, str]] = []

    def built(self) -> nir.NIRGraph:
        first = self.model.operations[0]
        self._node("input", nir.Input(np.array(first.shape)), ())
        self.sources[0] = ("input",)
        for number, one in enumerate(self.model.operations[1:], start=1):
            self._operation(number, one)
        for source, taker in self.waiting:  # fed back: known only now
            self._edges(self.sources[source], taker)
        read = self.model.operations[self.model.output.operation]
        read_from = self.sources[self.model.output.operation]
        self._node("output", nir.Output(np.array(read.shape)), read_from)
        metadata = {"side_car": MODEL_NAME, "dt": self.dt, "steps": self.model.steps}
        return nir.NIRGraph(self.nodes, self.edges, metadata=metadata)

    def _operation(self, number: int, one: DeviceOperation) -> None:
        what = one.what
        given: list[str] = []
        for operand in one.operands:
            if operand.delay == 0:
                given += self.sources[operand.source]
        if isinstance(what, Round):  # the side-car has it
            self.sources[number] = tuple(given)
            return
        if isinstance(what, Arithmetic) and what.kind == "add" and set(what.signs) == {1}:
            if len(set(given)) < len(given) or any(o.delay for o in one.operands):
                raise _refused(one, "adds a layer to itself, or what is fed back")
            self.sources[number] = tuple(given)  # two edges into one node are a sum
            return
        name = self._named(number, one)
        given = self._flattened(name, one, given)
        self._node(name, self._made(one), tuple(given))
        self.sources[number] = (name,)
        self.waiting += [(operand.source, name) for operand in one.operands if operand.delay]

    def _flattened(self, name: str, one: DeviceOperation, given: list[str]) -> list[str]:
        """What a linear layer takes, in one axis."""
        source = self.model.operations[one.operands[0].source]
        is_linear = isinstance(one.what, Synapse) and not one.what.stride
        if not is_linear or len(source.shape) == 1:
            return given
        flat = f"{name}_flatten"
        self._node(flat, nir.Flatten({"input": np.array(source.shape)}, 0, -1), tuple(given))
        return [flat]

    def _node(self, name: str, node: Any, given: tuple[str, ...]) -> None:
        self.nodes[name] = node
        self._edges(given, name)

    def _edges(self, given: tuple[str, ...], name: str) -> None:
        self.edges += [(source, name) for source in given]

    def _named(self, number: int, one: DeviceOperation) -> str:
        name = one.path.replace(".", "_") or f"operation{number}"
        return name if name not in self.nodes else f"{name}_{number}"

    def _made(self, one: DeviceOperation) -> Any:
        what = one.what
        if isinstance(what, Synapse):
            return self._synapse(one, what)
        if isinstance(what, Neuron):
            return self._neuron(one, what)
        if isinstance(what, Pooling) and what.kind == "sum" and what.window is not None:
            window = what.window
            if len(window.size) == 2:
                return nir.SumPool2d(*map(np.array, (window.kernel, window.stride, window.padding)))
        if isinstance(what, Arithmetic) and what.kind == "scale":
            return nir.Scale(np.full(one.shape, float(what.factor)))
        raise _refused(one, f"is a {type(what).__name__.lower()}, which NIR does not have")

    def _synapse(self, one: DeviceOperation, what: Synapse) -> Any:
        weight = values_of(self.model.tensors[what.weight])
        bias = None if what.bias is None else values_of(self.model.tensors[what.bias])
        if one.rows > 1:
            raise _refused(one, f"is applied to {one.rows} vectors at once")
        if not what.stride:
            return nir.Linear(weight) if bias is None else nir.Affine(weight, bias)
        if any(first != last for first, last in what.padding) or len(what.stride) > 2:
            raise _refused(one, "is a convolution over three axes, or padded on one side only")
        bias = np.zeros(len(weight)) if bias is None else bias
        padding = tuple(first for first, _ in what.padding)
        settings = (what.stride, padding, what.dilation)
        if len(what.stride) == 1:
            stride, pad, dilation = (one_axis[0] for one_axis in settings)
            return nir.Conv1d(one.taken[1], weight, stride, pad, dilation, what.groups, bias)
        return nir.Conv2d(one.taken[1:], weight, *settings, what.groups, bias)

    def _neuron(self, one: DeviceOperation, what: Neuron) -> Any:
        kind, shape = MODELS[what.model], one.shape
        if kind.counts or kind.reads_out:
            raise _refused(one, f"is a layer of {what.model} neurons, which NIR does not have")
        step = what.state.step
        ones, resting = np.ones(shape), np.full(shape, (what.reset or 0) * step)
        metadata = {
            "format": str(what.state),
            "rounding": what.rounding,
            "overflow": what.overflow,
            "reset": "zero" if what.reset is not None else "subtract",
        }
        threshold = self._constant(what.threshold, shape)
        leak = self._constant(what.decay, shape)
        if leak is None:
            if threshold is None:
                return nir.I(ones, metadata=metadata)
            return nir.IF(ones, threshold, resting, metadata=metadata)
        tau = self.dt / leak
        gain = ones if what.decay_input else 1.0 / leak
        if threshold is None:
            return nir.LI(tau, gain, resting, metadata=metadata)
        return nir.LIF(tau, gain, resting, threshold, resting, metadata=metadata)

    def _constant(self, name: str | None, shape: tuple[int, ...]) -> Reals | None:
        if name is None:
            return None
        return np.broadcast_to(values_of(self.model.tensors[name]), shape).copy()


def values_of(tensor: StoredTensor) -> Reals:
    """The numbers that the codes of a tensor stand for."""
    codes, fmt = tensor.codes.astype(np.float64), tensor.format
    if isinstance(fmt, PerChannelFormat):
        steps = np.array([one.step for one in fmt.formats])
        return codes * steps.reshape(-1, *[1] * (codes.ndim - 1))
    return codes * fmt.step


def _refused(one: DeviceOperation, why: str) -> NotExportableError:
    return NotExportableError(
        f"{one.path or 'an operation between layers'}: {why}; export it as C, or packed"
    )
