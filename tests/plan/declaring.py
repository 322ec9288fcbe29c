"""Modules that declare tensors, as many ways as tests need."""

from __future__ import annotations

from typing import Any

import torch
from spikingjelly.activation_based import base, neuron
from torch import Tensor, nn

WEIGHT = {"name": "weight", "role": "weight", "shape": (4, 3), "channel_axis": 1}
LABELS = {"name": "labels", "role": None, "shape": (3,)}


class Declaring(nn.Module):
    """Declares what it is given; keeps what it was told."""

    def __init__(self, *tensors: Any) -> None:
        super().__init__()
        self.declared: Any = list(tensors)
        self.told: Any = None
        self.times_told = 0

    def device_tensors(self) -> Any:
        return self.declared

    def use_fixed_point(self, quantizers: Any) -> None:
        self.told = quantizers
        self.times_told += 1

    def forward(self, x: Tensor) -> Tensor:
        return x


class NeuronLike(base.MemoryModule):
    """Has a membrane ``v``, steps as SpikingJelly's neurons do, and holds layers and parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4, 3))
        self.register_buffer("theta", torch.zeros(3))
        self.register_memory("v", 0.0)
        self.v_threshold = 1.0
        self.inner = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), neuron.LIFNode())

    def device_tensors(self) -> Any:
        return [
            {**WEIGHT, "value": self.weight},
            {"name": "v", "role": "membrane", "shape": (3,), "low": -1.0, "high": 1.0},
        ]

    def use_fixed_point(self, quantizers: Any) -> None:
        self.told = quantizers

    def single_step_functional_forward(self, inputs: Any, states: Any, **kwargs: Any) -> Any:
        v = states[0] + inputs[0] @ self.weight
        return ((v > self.v_threshold).float(),), (v,)


class DeclaringLinear(nn.Linear):
    """A linear layer that says itself what it holds."""

    def device_tensors(self) -> Any:
        return [{"name": "weight", "role": "weight", "shape": tuple(self.weight.shape)}]

    def use_fixed_point(self, quantizers: Any) -> None:
        """Is not told here."""
