"""Small networks, one for each way of joining layers, and how their layers are joined."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, nn

from tests.quantizers.zoo import BY_NAME
from tests.quantizers.zoo_variant import OverTime, Variant

End = tuple[str, str]
"""A layer's path, and which end of it: ``in`` or ``out``."""


@dataclass(frozen=True)
class Kind:
    """A network, and the exact sums between its layers that are checked too.

    Attributes:
        variant: The network.
        joined: Path -> the ends that are added up before this layer.
        averaged: Path -> the end whose windows of 2 x 2 are averaged before this layer.
        off_grid: Whether some neurons take currents that lie on no grid.
        at_least: How many sums, and how many steps, there are to compare.
    """

    variant: Variant
    joined: Mapping[str, tuple[End, ...]] = field(default_factory=dict)
    averaged: Mapping[str, End] = field(default_factory=dict)
    off_grid: bool = False
    at_least: int = 2500

    def ends(self) -> set[str]:
        """The layers that must be watched."""
        sources = [path for ends in self.joined.values() for path, _ in ends]
        return {
            *self.joined,
            *self.averaged,
            *sources,
            *(path for path, _ in self.averaged.values()),
        }


def lif(**settings: object) -> nn.Module:
    return neuron.LIFNode(detach_reset=True, **settings)


class NormAfterAddition(nn.Module):
    """Two convolutions, their sum, a norm, and again."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(layer.Conv2d(3, 8, 3, padding=1), lif())
        self.left, self.right = layer.Conv2d(8, 8, 3, padding=1), layer.Conv2d(8, 8, 1, bias=False)
        self.norm, self.fire = layer.BatchNorm2d(8), lif(v_reset=None)
        self.out = nn.Sequential(layer.Flatten(), layer.Linear(8 * 64, 10), lif())

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.out(self.fire(self.norm(self.left(x) + self.right(x))))


def pooled() -> nn.Module:
    """Averages of sums before a neuron, and averages of spikes before a layer."""
    return nn.Sequential(
        layer.Conv2d(3, 8, 3, padding=1, bias=False),
        layer.BatchNorm2d(8),
        layer.AvgPool2d(2),
        lif(tau=4.0, v_threshold=0.25),
        layer.AvgPool2d(2),
        layer.Conv2d(8, 8, 1),
        layer.MaxPool2d(2),
        lif(decay_input=False),
        layer.Flatten(),
        layer.Linear(8, 10),
        neuron.ParametricLIFNode(),
    )


def depthwise() -> nn.Module:
    """Convolutions of one channel each, dilated and strided, in one dimension and in two."""
    return nn.Sequential(
        layer.Conv2d(3, 6, 3, padding=2, dilation=2, groups=3),
        layer.BatchNorm2d(6),
        layer.Conv2d(6, 12, 1, bias=False),
        layer.BatchNorm2d(12),
        lif(),
        layer.Conv2d(12, 12, 3, stride=2, padding=1, groups=12, bias=False),
        layer.BatchNorm2d(12),
        lif(v_reset=None),
        layer.Flatten(),
        layer.Linear(192, 20),
        lif(),
        nn.Unflatten(2, (4, 5)),
        layer.Conv1d(4, 6, 2, groups=2),
        lif(),
        layer.Flatten(),
        layer.Linear(24, 10),
        neuron.IFNode(v_reset=None),
    )


def recurrent() -> nn.Module:
    """SpikingJelly's two containers that feed a layer's spikes back to it."""
    inner = nn.Sequential(layer.Linear(12, 8), lif())
    linear = layer.LinearRecurrentContainer(inner, in_features=12, out_features=8)
    own = layer.ElementWiseRecurrentContainer(neuron.IFNode(v_reset=None), torch.add)
    return OverTime(nn.Sequential(layer.Linear(20, 12), lif(), linear, layer.Linear(8, 10), own))


def simple() -> nn.Module:
    """The simple neurons, which keep their potential in an attribute."""
    return OverTime(
        nn.Sequential(
            *(layer.Conv2d(3, 4, 3), layer.BatchNorm2d(4), neuron.SimpleLIFNode(2.0, True)),
            *(layer.Conv2d(4, 4, 3), neuron.SimpleIFNode(v_reset=None)),
            *(layer.Flatten(), layer.Linear(64, 10), neuron.SimpleLIFNode(3.0, False)),
        )
    )


def _own(
    build: Callable[[], nn.Module], shape: tuple[int, ...] = (3, 8, 8), binary: bool = False
) -> Variant:
    name = getattr(build, "__name__", "own")
    return Variant(name, build, shape, binary=binary, batch=4, divisor=1, steps=6)


KINDS: dict[str, Kind] = {
    "current addition": Kind(
        BY_NAME["spiking_resnet18"],
        {
            "layer1.0.sn2": (("layer1.0.bn2", "out"), ("layer1.0.conv1", "in")),
            "layer3.0.sn2": (("layer3.0.bn2", "out"), ("layer3.0.downsample.1", "out")),
        },
    ),
    "spike addition": Kind(
        BY_NAME["sew_resnet34"],
        {"layer1.1.conv1": (("layer1.0.sn2", "out"), ("layer1.0.conv1", "in"))},
    ),
    "membrane addition": Kind(
        BY_NAME["ms_resnet18"],
        {
            "layer1.1.spike1": (("layer1.0.bn2", "out"), ("layer1.0.downsample.1", "out")),
            "layer2.0.spike1": (("layer1.1.bn2", "out"), ("layer1.1.spike1", "in")),
            "head_lif": (("layer4.1.bn2", "out"), ("layer4.1.spike1", "in")),
        },
    ),
    "layers on sums": Kind(
        BY_NAME["max_resnet18"],
        {"layer2.0.downsample.0": (("layer1.2.bn2", "out"), ("layer1.2.spike1", "in"))},
    ),
    "grouped convolutions": Kind(BY_NAME["spiking_resnext50_32x4d"]),
    "depthwise convolutions": Kind(_own(depthwise)),
    "attention on spikes": Kind(BY_NAME["spikformer_ti"]),
    "attention and membrane addition": Kind(
        BY_NAME["sdt_8_384"],
        {
            "blocks.1.mlp.lif1": (
                ("blocks.1.attn.proj_bn", "out"),
                ("blocks.1.attn.shortcut_lif", "in"),
            )
        },
    ),
    "pooling before a neuron": Kind(_own(pooled), averaged={"3": ("1", "out"), "5": ("3", "out")}),
    "norm after an addition": Kind(
        _own(NormAfterAddition),
        {"norm": (("left", "out"), ("right", "out"))},
    ),
    "recurrent containers": Kind(_own(recurrent, (20,), binary=True), at_least=500),
    "simple neurons": Kind(_own(simple)),
    "averages of nine": Kind(BY_NAME["SNASNet_forward"], off_grid=True),
}
