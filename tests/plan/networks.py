"""Small networks whose plans and footprints can be worked out by hand."""

from __future__ import annotations

from typing import Any

import torch
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, nn


def spikes(*shape: int) -> Tensor:
    """Random spikes, the same at every call."""
    return (torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.5).float()


def two_layers(**neuron_arguments: Any) -> nn.Sequential:
    """A convolution with batch norm, and a linear layer; IF and LIF; for ``[N, 2, 4, 4]``."""
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=False),
        nn.BatchNorm2d(3),
        neuron.IFNode(**neuron_arguments),
        nn.Flatten(),
        nn.Linear(12, 5),
        neuron.LIFNode(**neuron_arguments),
    ).eval()


class Named(nn.Module):
    """Layers with names to write rules about."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = layer.Conv2d(1, 2, 3)
        self.sn1 = neuron.LIFNode()
        self.block = nn.Sequential(layer.Conv2d(2, 2, 1), neuron.ParametricLIFNode())
        self.fc = layer.Linear(8, 3)
        self.sn2 = neuron.IFNode()

    def forward(self, x: Tensor) -> Tensor:
        return self.sn2(self.fc(self.block(self.sn1(self.conv1(x))).flatten(1)))


class Wired(nn.Module):
    """A convolution, a batch norm and a neuron, wired as the test says."""

    def __init__(self, wiring: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.norm = nn.BatchNorm2d(2)
        self.extra = nn.Conv2d(2, 2, 1)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AvgPool2d(2)
        self.neuron = neuron.IFNode()
        self.wiring = wiring

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.wiring(self, x)
        return out
