"""Puts factors and constant currents into the weights and biases before them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np

from qspinn.export.nir_file import refusal
from qspinn.export.nir_graph import SYNAPSES, Step
from qspinn.export.nir_neurons import Floats, parameters
from qspinn.export.nir_shapes import Shape, per_neuron


@dataclass
class Weights:
    """Weight, and bias where it is not zero, of a synapse node."""

    weight: Floats
    bias: Floats | None


class Folding:
    """A graph whose nodes may disappear into those before them.

    Attributes:
        nodes: Name -> node.
        shapes: Name -> shape of its output.
        sources: Name -> what it reads, for the nodes that are left; ``""`` is the input.
        weights: Name -> weights, for the synapse nodes and scales that are left.
        feedback: Neuron -> name and node of the synapse through which it feeds back.
        output: The node that is read.
    """

    def __init__(self, steps: Sequence[Step], shapes: dict[str, Shape]) -> None:
        self.nodes: dict[str, Any] = {step.name: step.node for step in steps}
        self.shapes = shapes
        self.sources: dict[str, list[str]] = {}
        self.feedback = {step.name: step.feedback for step in steps if step.feedback is not None}
        self.weights = {
            name: _weights(name, node)
            for name, node in [*self.nodes.items(), *self.feedback.values()]
            if isinstance(node, SYNAPSES)
        }
        self.readers: dict[str, list[str]] = defaultdict(list)
        alias: dict[str, str] = {}
        for step in steps:
            sources = [alias.get(one, one) for one in step.sources]
            if isinstance(step.node, nir.Input | nir.Output) and len(sources) < 2:
                alias[step.name] = sources[0] if sources else ""
                continue
            self.sources[step.name] = sources
            for one in sources:
                self.readers[one].append(step.name)
        leaving = steps[-1].name  # all others lead to it
        self.output = alias.get(leaving, leaving)
        self.readers[self.output].append("")

    def fold(self, name: str, gain: Floats, bias: Floats, what: str) -> None:
        """Has the sum that reaches a node multiplied, and then a constant added.

        Args:
            name: The node.
            gain: One factor, or one for each neuron.
            bias: The same of what is added.
            what: Which of the node's parameters asks for that, for the error.
        """
        multiplies, adds = bool((gain != 1).any()), bool(bias.any())
        if not (multiplies or adds):
            return
        sources = self.sources[name]
        gains, biases = self._by_channel(name, gain), self._by_channel(name, bias)
        if (
            gains is None
            or biases is None
            or not all(self._serves_only(one, name) for one in sources)
        ):
            raise refusal(
                name,
                self.nodes[name],
                f"{what} belongs into the weights or the bias before it, which needs Affine, "
                "Linear or convolution nodes that feed nothing else, and one value per channel",
            )
        for source in dict.fromkeys(sources):
            held = self.weights[source]
            axes = (slice(None), *(None,) * (held.weight.ndim - 1)) if gains.ndim else ()
            held.weight = held.weight * gains[axes]
            held.bias = None if held.bias is None else held.bias * gains
        if adds:
            held = self.weights[sources[0]]
            held.bias = (
                np.zeros(held.weight.shape[0]) if held.bias is None else held.bias
            ) + biases

    def fold_scale(self, name: str, scale: Floats) -> None:
        """Has a ``Scale`` node disappear into those before it, or become one weight per channel."""
        sources, shape = self.sources[name], self.shapes[name]
        scales = self._by_channel(name, scale)
        if scales is not None and all(self._serves_only(one, name) for one in sources):
            self.fold(name, scale, np.zeros(()), "its scale")
            if len(sources) == 1:
                self._remove(name)
            return
        if scales is None or len(shape) not in (2, 3):
            raise refusal(
                name,
                self.nodes[name],
                "its factors cannot be put into the nodes before it (Affine, Linear or "
                "convolution nodes that feed nothing else), and they are not one per channel of "
                "an image; multiply the weights by them in the graph",
            )
        weight = np.broadcast_to(scales, shape[:1]).reshape(-1, *(1,) * len(shape))
        self.weights[name] = Weights(weight.copy(), None)

    def _remove(self, name: str) -> None:
        (source,) = self.sources.pop(name)
        readers = self.readers.pop(name)
        self.readers[source] = readers
        for reader in set(readers) - {""}:
            self.sources[reader] = [source if one == name else one for one in self.sources[reader]]
        if self.output == name:
            self.output = source

    def _serves_only(self, name: str, reader: str) -> bool:
        is_synapse = isinstance(self.nodes.get(name), SYNAPSES)
        return is_synapse and self.readers[name] == [reader]

    def _by_channel(self, name: str, values: Floats) -> Floats | None:
        if values.size == 1:
            return values.reshape(())
        shape = self.shapes[name]
        per_neuron(name, self.nodes[name], values, shape)
        channels = values[(slice(None), *(slice(1) for _ in shape[1:]))]
        if not (values == channels).all():
            return None
        return np.broadcast_to(channels.reshape(-1), shape[:1])


def _weights(name: str, node: Any) -> Weights:
    (weight,) = parameters(name, node, "weight")
    if isinstance(node, nir.Linear):
        return Weights(weight, None)
    (bias,) = parameters(name, node, "bias")
    return Weights(weight, bias if bias.any() else None)
