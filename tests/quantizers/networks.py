"""Networks and shortcuts that the tests of the quantizers share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

from qspinn.fixed_point import FixedPointFormat
from qspinn.plan import QuantizationPlan, ResolvedPlan
from qspinn.quantizers import attach, calibrate

STEPS, BATCH = 6, 3


class StepLoop(nn.Module):
    """Torch layers and single-step neurons in an explicit loop over time."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(12, 10)
        self.plif = neuron.ParametricLIFNode(2.0)
        self.fc2 = nn.Linear(10, 4)
        self.soft = neuron.IFNode(v_reset=None)

    def forward(self, x_seq: Tensor) -> Tensor:
        return sum(self.soft(self.fc2(self.plif(self.fc1(x.flatten(1))))) for x in x_seq)


class Containers(nn.Module):
    """Torch layers in SpikingJelly's containers, multi-step neurons between them."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            layer.SeqToANNContainer(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)),
            neuron.LIFNode(tau=2.0, step_mode="m"),
            layer.SeqToANNContainer(nn.AvgPool2d(2), nn.Flatten()),
        )
        self.classifier = layer.SeqToANNContainer(nn.Linear(6, 4))
        self.out = neuron.IFNode(step_mode="m")

    def forward(self, x_seq: Tensor) -> Tensor:
        return self.out(self.classifier(self.features(x_seq))).mean(0)


class Residual(nn.Module):
    """Two convolutions with batch norm whose sums are added in place before a neuron."""

    def __init__(self) -> None:
        super().__init__()
        self.left = layer.Conv2d(3, 4, 3, padding=1, bias=False, step_mode="m")
        self.left_norm = layer.BatchNorm2d(4, step_mode="m")
        self.right = layer.Conv2d(3, 4, 1, step_mode="m")
        self.neuron = neuron.LIFNode(step_mode="m", store_v_seq=True)
        self.head = layer.Linear(16, 4, step_mode="m")

    def forward(self, x_seq: Tensor) -> Tensor:
        out = self.left_norm(self.left(x_seq))
        out += self.right(x_seq)
        return self.head(self.neuron(out).flatten(2)).mean(0)


def sequential(step_mode: str = "m", tau: float = 2.0) -> nn.Sequential:
    """SpikingJelly's own layers throughout."""
    network = nn.Sequential(
        layer.Conv2d(3, 6, 3, padding=1, bias=False),
        layer.BatchNorm2d(6),
        neuron.LIFNode(tau=tau, v_reset=-0.125),
        layer.Flatten(),
        layer.Linear(24, 4),
        neuron.ParametricLIFNode(2.0, v_threshold=0.5, v_reset=None),
    )
    functional.set_step_mode(network, step_mode)
    return network


NETWORKS: dict[str, Any] = {
    "sequential": sequential,
    "step loop": StepLoop,
    "containers": Containers,
    "residual": Residual,
}


def made(name: str, seed: int = 4) -> nn.Module:
    """A network with batch norm statistics that are not trivial, and weights that make spikes."""
    torch.manual_seed(seed)
    network: nn.Module = NETWORKS[name]()
    for child in network.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.running_mean.uniform_(-0.2, 0.2)
            child.running_var.uniform_(0.3, 2.0)
            nn.init.uniform_(child.weight, 0.5, 1.5)
            nn.init.uniform_(child.bias, -0.2, 0.6)
        if isinstance(child, nn.Linear | nn.Conv2d):
            with torch.no_grad():
                child.weight.mul_(3.0)
                if child.bias is not None:
                    child.bias.add_(0.25)
    return network.eval()


def pixels(seed: int = 1) -> Tensor:
    """Inputs ``[T, N, 3, 2, 2]`` that are no spikes."""
    return torch.rand((STEPS, BATCH, 3, 2, 2), generator=torch.Generator().manual_seed(seed))


def plan(word_length: int = 8, rounding: str = "nearest", **arguments: Any) -> QuantizationPlan:
    return QuantizationPlan.uniform(word_length, rounding, **arguments)


def resolved(
    network: nn.Module, using: QuantizationPlan | None = None, x: Tensor | None = None
) -> ResolvedPlan:
    """The plan, calibrated on the pixels."""
    x = pixels() if x is None else x
    return calibrate(network, (using or plan()).resolve(network, x), x)


def quantized(
    network: nn.Module, using: QuantizationPlan | None = None, x: Tensor | None = None
) -> tuple[nn.Module, ResolvedPlan]:
    """The network with quantizers attached, and what they do."""
    found = resolved(network, using, x)
    return attach(network, found), found


def run(network: nn.Module, x: Tensor | None = None) -> Tensor:
    """One forward pass from fresh states."""
    functional.reset_net(network)
    with torch.no_grad():
        out: Tensor = network(pixels() if x is None else x)
    return out


def everything(network: nn.Module, x: Tensor | None = None) -> Tensor:
    """The output and the final membranes of one forward pass, in one row."""
    out = run(network, x)
    return torch.cat([out.flatten(), *(node.v.flatten() for _, node in neurons(network))])


def neurons(network: nn.Module) -> Iterator[tuple[str, Any]]:
    """Paths and neurons."""
    for path, child in network.named_modules():
        if hasattr(child, "v_threshold") or isinstance(child, neuron.BaseNode):
            yield path, child


def membrane(found: ResolvedPlan, path: str, name: str = "v") -> FixedPointFormat:
    fmt = found.of_layer(path)[name].format
    assert isinstance(fmt, FixedPointFormat)
    return fmt
