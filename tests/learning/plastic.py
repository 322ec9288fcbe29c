"""A network that learns by itself, as small as can be, and data that it can learn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from qspinn.fixed_point import quantize

CLASSES = 3
SIDE = 9


@dataclass
class Shown:
    """What showing images gave."""

    spike_counts: Tensor
    input_spikes: int
    updates: int
    underflows: int


class Plastic(nn.Module):
    """The neuron that answers most to an image moves towards it: competitive learning.

    Keeps a list of what it was shown. Every eighth update is said to be an underflow.
    """

    name = "plastic"

    def __init__(self, neurons: int = 8, seed: int = 0) -> None:
        super().__init__()
        self.input_shape = (1, SIDE, SIDE)
        self.neurons = neurons
        generator = torch.Generator().manual_seed(seed)
        weight = torch.rand(SIDE * SIDE, neurons, generator=generator)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.revision = 0
        self.quantizers: dict[str, Any] = {}
        self.shown: list[tuple[Tensor, bool]] = []

    def present(self, images: Tensor, learning: bool = False) -> Shown:
        self.shown.append((images.clone(), learning))
        inputs = images.flatten(1)
        counts = (inputs @ self.weight).floor().to(torch.int32)
        if learning:
            for one in inputs:
                winner = int((one @ self.weight - self.weight.sum(0) / 2).argmax())
                self.weight[:, winner] += 0.2 * (one - self.weight[:, winner])
            self._round()
            self.revision += 1
        return Shown(counts, int(inputs.sum()), 8 * len(images), len(images) if learning else 0)

    def forward(self, spikes: Tensor) -> Tensor:
        return spikes @ self.weight

    def device_tensors(self) -> Sequence[Mapping[str, Any]]:
        bounds = {"low": 0.0, "high": 1.0}
        shape = tuple(self.weight.shape)
        return [
            {"name": "weight", "role": "weight", "shape": shape, "value": self.weight, **bounds},
            {"name": "v", "role": "membrane", "shape": (self.neurons,), "low": -1.0, "high": 13.0},
            {"name": "trace", "role": "trace", "shape": shape[:1], **bounds},
        ]

    def use_fixed_point(self, quantizers: Mapping[str, Any] | None) -> None:
        self.quantizers = dict(quantizers or {})
        self.revision += 1
        self._round()

    def _round(self) -> None:
        to = self.quantizers.get("weight")
        if to is not None:
            self.weight.copy_(quantize(self.weight, to.format, to.rounding, to.overflow))


def bars(count: int = 96, seed: int = 0) -> TensorDataset:
    """Bright bars in one of three places, with noise; pixels are multiples of 1/256."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    images = torch.randint(0, 80, (count, 1, SIDE, SIDE), generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[0, 3 * label : 3 * label + 3] += 170
    return TensorDataset(images / 256.0, labels)
