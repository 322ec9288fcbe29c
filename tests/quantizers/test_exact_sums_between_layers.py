"""Exact sums in float64 meet what only takes float32, and nothing is rounded without a word."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, calibrate


class Between(nn.Module):
    """Linear layer, something between, neuron, linear layer; 4 time steps."""

    def __init__(self) -> None:
        super().__init__()
        self.first = layer.Linear(8, 8, step_mode="m")
        self.last = layer.Linear(8, 4, step_mode="m")
        self.node = neuron.LIFNode(step_mode="m", v_threshold=0.3)

    def between(self, h: Tensor) -> Tensor:
        return h

    def forward(self, x: Tensor) -> Tensor:
        h = self.between(self.first(x.expand(4, *x.shape)))
        out: Tensor = self.last(self.node(h)).mean(0)
        return out


class Graph(Between):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("adjacency", torch.rand(8, 8))

    def between(self, h: Tensor) -> Tensor:
        return torch.einsum("tni,ij->tnj", h, self.adjacency)


class Functional(Between):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.rand(8, 8))

    def between(self, h: Tensor) -> Tensor:
        return nn.functional.linear(h, self.mix)


class Normalised(Between):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)

    def between(self, h: Tensor) -> Tensor:
        out: Tensor = self.norm(h + h.flip(0))
        return out


class FunctionalNorm(Between):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(8))

    def between(self, h: Tensor) -> Tensor:
        return nn.functional.layer_norm(h, (8,), self.gain)


class WeightNorm(Between):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))

    def between(self, h: Tensor) -> Tensor:
        out: Tensor = self.mix(h)
        return out


class Attention(Between):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)

    def between(self, h: Tensor) -> Tensor:
        out: Tensor = self.attention(query=h[0], key=h[0], value=h[0])[0]
        return out.expand_as(h)


class Pairs(Between):
    def __init__(self) -> None:
        super().__init__()
        self.pairs = nn.Bilinear(8, 8, 8)

    def between(self, h: Tensor) -> Tensor:
        out: Tensor = self.pairs(h, h)
        return out


class SpikesTimesSums(Between):
    def __init__(self) -> None:
        super().__init__()
        self.query = neuron.IFNode(step_mode="m", v_threshold=0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.expand(4, *x.shape)
        weighted = self.query(x).transpose(1, 2) @ self.first(x) * 0.125
        out: Tensor = self.last(self.node(weighted)).mean(0)
        return out


class Buffered(Between):
    """A float32 buffer takes the sums."""

    def between(self, h: Tensor) -> Tensor:
        held = torch.zeros(h.shape)
        for t in range(len(h)):
            held[t] = h[t]
        return held


class Indexed(Between):
    def between(self, h: Tensor) -> Tensor:
        held = torch.zeros(h.shape)
        held[torch.arange(len(h))] = h
        return held


class Container(Between):
    """Norm and activation in a module of somebody's own."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.LayerNorm(8), nn.SiLU(), nn.PReLU())

    def between(self, h: Tensor) -> Tensor:
        out: Tensor = h + self.block(h)
        return out


class Block(nn.Module):
    """Mixes the sums that it gets, and hands them to its neuron as they are, too."""

    def __init__(self) -> None:
        super().__init__()
        self.node = neuron.IFNode(step_mode="m", v_threshold=0.3)
        self.register_buffer("mix", 0.1 * torch.rand(8, 8))

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.node(h + h @ self.mix)
        return out


class BlockWithNeurons(Between):
    def __init__(self) -> None:
        super().__init__()
        self.node = Block()


KINDS = [
    *(Graph, Functional, Normalised, FunctionalNorm, WeightNorm, Attention, Pairs),
    *(SpikesTimesSums, Buffered, Indexed, Container, BlockWithNeurons),
]


def attached(kind: Any, bits: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    network, x = kind().eval(), torch.rand(2, 8)
    plan = QuantizationPlan.uniform(bits).resolve(network, x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return attach(network, calibrate(network, plan, x)), x


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_sums_in_float64_go_through(kind: Any, bits: int) -> None:
    network, x = attached(kind, bits)
    torch.manual_seed(0)
    float_network = kind().eval()
    out = network(x)
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()
    functional.reset_net(network)
    network.train()(x).square().sum().backward()
    functional.reset_net(network.eval())
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    assert torch.equal(copy.deepcopy(network)(x), out)
    if bits == 16:
        want = float_network(x)
        assert torch.allclose(out, want, atol=0.05)


def rounding_warnings(network: nn.Module, x: Tensor, bits: int) -> list[str]:
    plan = calibrate(network, QuantizationPlan.uniform(bits).resolve(network, x), x)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        attach(network, plan)
    return [str(one.message) for one in said if "float32" in str(one.message)]


def test_a_sum_that_is_rounded_on_its_way_is_said() -> None:
    """Inputs and weights of 16 bits make sums of more than 24, which the buffer cannot hold."""
    x = torch.rand(2, 8)
    (said,) = rounding_warnings(Buffered().eval(), x, 16)
    assert "first: sums of" in said
    assert "copy" in said
    (said,) = rounding_warnings(BlockWithNeurons().eval(), x, 16)
    assert "first: sums of" in said
    assert not rounding_warnings(Between().eval(), x, 16)
    assert not rounding_warnings(Buffered().eval(), x, 8)
