"""The modules that a NIR graph becomes; nothing here knows NIR."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from spikingjelly.activation_based import layer, neuron, surrogate
from torch import Tensor, nn

_LONGEST_NAME = 80


class SteppedSigmoid(surrogate.Sigmoid):
    """SpikingJelly's sigmoid under a name that its compiled kernels do not know.

    They want one number as a threshold and as a time constant; its loop over time takes tensors.
    """


class Integrator(nn.Module):
    """A neuron that does not spike: ``[T, N, *]`` in, the potentials ``[T, N, *]`` out."""

    def __init__(self, leak: Tensor | float | None) -> None:
        super().__init__()
        if leak is None:
            self.node: nn.Module = neuron.NonSpikingIFNode()
        else:
            self.node = neuron.NonSpikingLIFNode()
            set_constant(self.node, "tau", 1.0 / leak)

    def forward(self, x_seq: Tensor) -> Tensor:
        """Potentials after each time step; every call begins at 0."""
        return torch.stack(self.node(x_seq))


class Feedback(nn.Module):
    """What a recurrent neuron takes: its input, and its last output through a synapse layer."""

    def __init__(self, synapse: nn.Module) -> None:
        super().__init__()
        self.synapse = synapse

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        """The sum of both currents ``[N, *]``."""
        total: Tensor = x + self.synapse(y)
        return total


class NIRNetwork(nn.Module):
    """Layers that feed each other without cycles: ``[T, N, *]`` in and out.

    Args:
        layers: Name -> module, in the order in which they are computed.
        wiring: Name -> the names of what is summed into its input. ``""`` is the network's input.
        output: The name of the layer that is read.
        sources: Name of a layer -> the name of the node that it was made from.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        wiring: Mapping[str, tuple[str, ...]],
        output: str,
        sources: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.wiring = dict(wiring)
        self.output = output
        self.nir_names = dict(sources)
        last = {one: name for name, many in self.wiring.items() for one in many}
        self._done: dict[str, list[str]] = {name: [] for name in self.wiring}
        for one, reader in last.items():
            if one != output:
                self._done[reader].append(one)

    def forward(self, x_seq: Tensor) -> Tensor:
        """Runs all time steps; neurons go on from where they are (``functional.reset_net``)."""
        values = {"": x_seq}
        for name, sources in self.wiring.items():
            total = values[sources[0]]
            for source in sources[1:]:
                total = total + values[source]
            for source in self._done[name]:
                del values[source]  # a whole sequence, which nothing reads any more
            values[name] = self.layers[name](total)
        return values[self.output]


def spiking_neuron(
    leak: Tensor | float | None,
    decays_input: bool,
    threshold: Tensor | float,
    v_reset: float | None,
    step_mode: str,
) -> nn.Module:
    """An ``IFNode``, or a ``LIFNode`` where there is a leak.

    Args:
        leak: What is lost per step, at most 1; one number, or one for each part of the layer.
        decays_input: Whether the input is multiplied by the leak.
        threshold: At which it fires; as ``leak``.
        v_reset: The potential after a spike; ``None``: the threshold is subtracted.
        step_mode: As SpikingJelly has it.
    """
    of_parts = isinstance(leak, Tensor) or isinstance(threshold, Tensor)
    function = SteppedSigmoid() if of_parts else surrogate.Sigmoid()
    given = {"v_reset": v_reset, "surrogate_function": function, "step_mode": step_mode}
    node: nn.Module
    if leak is None:
        node = neuron.IFNode(**given)
    else:
        node = neuron.LIFNode(decay_input=decays_input, **given)
        set_constant(node, "tau", 1.0 / leak)
    set_constant(node, "v_threshold", threshold)
    return node


def recurrent(node: nn.Module, synapse: nn.Module) -> nn.Module:
    """A neuron that takes, besides its input, its own spikes of the step before."""
    return layer.ElementWiseRecurrentContainer(node, Feedback(synapse), step_mode="m")


def set_constant(module: nn.Module, name: str, value: Tensor | float) -> None:
    """Sets a number, or a buffer, so that it moves and is saved with the module."""
    if isinstance(value, Tensor):
        delattr(module, name)
        module.register_buffer(name, value.to(torch.float32))
    else:
        setattr(module, name, float(value))


def safe_names(names: Iterable[str]) -> dict[str, str]:
    """Names that modules can have, all different: letters, digits and underscores."""
    found: dict[str, str] = {}
    empty, taken = nn.ModuleDict(), set()
    for name in names:
        plain = re.sub(r"[^0-9A-Za-z_]", "_", name)[:_LONGEST_NAME]
        if not plain or plain.startswith("_") or hasattr(empty, plain):
            plain = f"node_{plain}"
        unique, count = plain, 1
        while unique in taken:
            count += 1
            unique = f"{plain}_{count}"
        taken.add(unique)
        found[name] = unique
    return found
