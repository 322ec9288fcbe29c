"""Checks that a device model computes what the network computes that it was built from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from qspinn.export.coding import encode
from qspinn.export.difference import Difference, answers_differ, difference_of
from qspinn.export.engine import IntegerEngine
from qspinn.export.listening import Listener
from qspinn.export.model import Codes, DeviceModel, Neuron, Synapse

__all__ = ["Verification", "samples_to_verify", "verify"]

MOST_VALUES = 1 << 24
"""Of a sample in all time steps, that are kept at a time."""


@dataclass(frozen=True)
class Verification:
    """What came out of running a network and its device model on the same samples.

    Attributes:
        samples: How many were run; no more after one that differs.
        difference: The first one; None: all answers are equal, bit for bit.
        sparsity: Share of the outputs of spiking neurons that were 0, over all time steps; None
            without spiking neurons.
    """

    samples: int
    difference: Difference | None = None
    sparsity: float | None = None

    @property
    def equal(self) -> bool:
        """Whether all answers are equal."""
        return self.difference is None

    def __str__(self) -> str:
        """One sentence."""
        if self.difference is None:
            return (
                f"the integer engine gives exactly the network's outputs, on {self.samples} samples"
            )
        return f"the integer engine differs from the network: {self.difference}"


def verify(
    model: DeviceModel, module: nn.Module, batch: Tensor, batch_axis: int = 0
) -> Verification:
    """Runs the integer engine and the network on the same samples, and compares their answers.

    The comparison is exact. Of the first sample, the sums, potentials and spikes of every layer are
    compared as well, unless there are more than 2^24 of them. Stochastic roundings get the
    network's own random bits. The network itself is not run, but a copy of it on the CPU; its
    SpikingJelly states are reset.

    Args:
        model: The device model.
        module: The network that it was built from, with quantizers attached.
        batch: Samples, as the network takes them.
        batch_axis: Their axis.

    Raises:
        ValueError: Samples of another shape than the model takes.
    """
    listener, engine, firing = Listener(model, module), IntegerEngine(model), _Firing(model)
    count = batch.shape[batch_axis]
    for number in range(count):
        sample = batch.narrow(batch_axis, number, 1).detach().cpu()
        heard = listener.hear(sample, inside=False)
        codes = encode(model, sample, batch_axis, heard.input_key)
        found = engine.run(codes, keys=heard.keys, watch=firing)
        difference = answers_differ(model, found.sums, found.fraction_bits, heard.output, number)
        if difference is not None or (number == 0 and _values(model) <= MOST_VALUES):
            # Layer by layer it shows where the difference began.
            difference = difference_of(listener, sample, number, batch_axis) or difference
        if difference is not None:
            return Verification(number + 1, difference, firing.sparsity)
    return Verification(count, None, firing.sparsity)


def samples_to_verify(model: DeviceModel, most: int = 4, operations: int = 1 << 30) -> int:
    """How many samples to verify a model on, so that it takes seconds: 1 to `most`.

    Args:
        model: The model.
        most: Of a small network.
        operations: Products of weights that all samples may take together.
    """
    each = 0
    for one in model.operations:
        if isinstance(one.what, Synapse):
            weight = model.tensors[one.what.weight]
            products = one.size * math.prod(weight.shape[1:])
            each += products * (1 if one.is_static else model.steps)
    return max(1, min(most, operations // max(1, each)))


def _values(model: DeviceModel) -> int:
    return model.steps * sum(one.size for one in model.operations)


class _Firing:
    """Counts outputs of spiking neurons that are 0."""

    def __init__(self, model: DeviceModel) -> None:
        self.spiking = {
            number
            for number, one in enumerate(model.operations)
            if isinstance(one.what, Neuron) and one.what.threshold is not None
        }
        self.zeros = self.total = 0

    def __call__(self, step: int, number: int, values: Codes) -> None:
        if number in self.spiking:
            self.zeros += int(values.size - np.count_nonzero(values))
            self.total += values.size

    @property
    def sparsity(self) -> float | None:
        return self.zeros / self.total if self.total else None
