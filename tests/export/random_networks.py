"""Random networks of SpikingJelly's layers, for comparing engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from qspinn.fixed_point import ROUNDINGS
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, calibrate

BATCH = 2
CONV = {1: layer.Conv1d, 2: layer.Conv2d, 3: layer.Conv3d}
MAX_POOL = {1: layer.MaxPool1d, 2: layer.MaxPool2d, 3: layer.MaxPool3d}
AVERAGE_POOL = {1: layer.AvgPool1d, 2: layer.AvgPool2d, 3: layer.AvgPool3d}
NEURONS = ("if", "lif", "plif", "ilif", "levels", "leaks", "filter")
BLOCKS = ("conv", "max", "residual", "average", "gate", "both", "flip")
HEADS = ("flat", "tokens", "recurrent", "sums")
SHORT = {"signs": {"word_length": 1}, "ternary": {"word_length": 2, "levels": "symmetric"}}
Draw = Callable[[Any], Any]


class Levels(neuron.IFNode):
    """A threshold for each channel."""

    def __init__(self, levels: Tensor, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.levels = nn.Parameter(levels)

    @property
    def v_threshold(self) -> Any:
        return self.levels if "levels" in self._parameters else 1.0

    @v_threshold.setter
    def v_threshold(self, value: float) -> None:
        pass


class Leaks(neuron.ParametricLIFNode):
    """A time constant for each channel."""

    def __init__(self, levels: Tensor, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.w = nn.Parameter(levels)


class Joined(nn.Module):
    """What a block makes of its input, together with the input."""

    def __init__(self, block: nn.Module, how: str) -> None:
        super().__init__()
        self.block, self.how = block, how

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.block(x)
        if self.how == "residual":
            return made + x
        if self.how == "gate":
            return made * (1 - x)
        return torch.cat([x.flip(-1), made], dim=2)


class Moved(nn.Module):
    """Numbers in another order: channels backwards, or places as tokens."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(2) if self.how == "flip" else x.flatten(3).transpose(2, 3)


class Net(nn.Module):
    """Stages over time, and what is read of the last one."""

    def __init__(self, stages: list[nn.Module], static: bool, steps: int, readout: str) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.static, self.steps, self.readout = static, steps, readout

    def forward(self, x: Tensor) -> Tensor:
        if self.static:
            first = self.stages[0](x[None])
            x = first.repeat(self.steps, *(1,) * (x.ndim))
        for stage in self.stages[int(self.static) :]:
            x = stage(x)
        if self.readout == "last":
            return x[-1]
        return x.sum(0) if self.readout == "sum" else x


class Case:
    """A network with inputs, and how it is to be quantised.

    Attributes:
        network: In float until `attach` is called.
        plan: Its plan.
        x: ``[T, N, *shape]``, or images ``[N, *shape]``.
        static: Whether these are images.
        text: What it is made of.
    """

    def __init__(
        self, network: Net, plan: QuantizationPlan, x: Tensor, static: bool, text: str
    ) -> None:
        self.network, self.plan, self.x, self.static, self.text = network, plan, x, static, text

    def __repr__(self) -> str:
        return self.text

    def attach(self) -> None:
        """Calibrates the network and attaches quantizers."""
        with torch.no_grad():
            plan = calibrate(self.network, self.plan.resolve(self.network, self.x), self.x)
        functional.reset_net(self.network)
        attach(self.network, plan)

    @property
    def example(self) -> Tensor:
        """One sample."""
        return self.x[:1] if self.static else self.x[:, :1]


@st.composite
def cases(draw: Draw) -> Case:
    """Networks of one to four blocks and a head."""
    pick = lambda *values: draw(st.sampled_from(values))  # noqa: E731
    seed = draw(st.integers(0, 1 << 16))
    torch.manual_seed(seed)
    axes = pick(2, 1, 3)
    sides = (4, 5) if axes == 3 else (6, 5, 8)
    shape = [pick(2, 1, 4), *(pick(*sides) for _ in range(axes))]
    static, steps, pixels = pick(False, True), pick(3, 2, 4), pick("spikes", "pixels")
    x = torch.rand(BATCH, *shape) if static else torch.rand(steps, BATCH, *shape)
    x = (x < 0.4).float() if pixels == "spikes" else x
    current = list(shape)
    stages: list[nn.Module] = []
    names = ["conv"]  # which has a format for its input
    names += [pick(*BLOCKS) for _ in range(draw(st.integers(0, 3)))]
    if static:  # the part that is computed once, and the neurons after it
        conv, current = _conv(pick, current)
        stages += [conv, _neuron(pick, current)]
        names = names[1:]
    for name in names:
        stage, current = _block(pick, name, current)
        stages.append(stage)
    head = pick(*HEADS)
    stages += _head(pick, head, current)
    readout = pick("sum", "last", "each")
    if readout == "last":  # only neurons are needed in the steps before
        stages.append(neuron.LIFNode(1.5, v_threshold=0.3))
    net = Net(stages, static, steps, readout).eval()
    functional.set_step_mode(net, "m")
    bits, rounding = pick(8, 4, 6, 3, 12, 16), pick(*ROUNDINGS)
    overflow, granularity = pick("saturate", "wrap"), pick("tensor", "channel")
    text = f"Case(seed={seed}, {shape}, static={static}, T={steps}, {pixels}, {bits} bits, "
    weights = pick(None, None, "signs", "ternary")
    text += f"{rounding}, {overflow}, {granularity}, weights={weights}, head={head}, {net})"
    roles = {} if weights is None else {"weight": SHORT[weights] | {"overflow": "saturate"}}
    plan = QuantizationPlan.uniform(
        bits, rounding, overflow, granularity=granularity, roles=roles, allow_no_neurons=True
    )
    return Case(net, plan, x, static, text)


def _block(pick: Any, name: str, shape: list[int]) -> tuple[nn.Module, list[int]]:
    axes = len(shape) - 1
    if name == "flip":
        return Moved("flip"), shape
    if name in ("max", "average"):
        if min(shape[1:]) < 2:
            return Moved("flip"), shape
        if name == "average":
            return AVERAGE_POOL[axes](2), [shape[0], *(size // 2 for size in shape[1:])]
        kernel, stride = pick(2, 3), pick(2, 1)
        pool = MAX_POOL[axes](kernel, stride, 1)
        return pool, [shape[0], *((size + 2 - kernel) // stride + 1 for size in shape[1:])]
    if name == "conv":
        conv, after = _conv(pick, shape)
        return nn.Sequential(conv, _neuron(pick, after)), after
    conv = CONV[axes](shape[0], shape[0], 3, padding=1, bias=pick(True, False))
    inner = nn.Sequential(_scaled(conv), _neuron(pick, shape))
    return Joined(inner, name), [shape[0] * (1 + (name == "both")), *shape[1:]]


def _conv(pick: Any, shape: list[int]) -> tuple[nn.Module, list[int]]:
    axes, channels = len(shape) - 1, shape[0]
    groups = pick(1, channels)
    outputs = groups * pick(1, 2, 3) if groups > 1 else pick(3, 1, 4, 8)
    settings = [(pick(3, 2, 1), pick(1, 2, 3), pick(1, 0, 2), pick(1, 2)) for _ in range(axes)]
    kept = [
        (k, s, max(p, (d * (k - 1) + 2 - size) // 2), d)
        for (k, s, p, d), size in zip(settings, shape[1:], strict=True)
    ]
    kernel, stride, padding, dilation = zip(*kept, strict=True)
    conv = CONV[axes](
        channels, outputs, kernel, stride, padding, dilation, groups, bias=pick(True, False)
    )
    after = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, (k, s, p, d) in zip(shape[1:], kept, strict=True)
    ]
    return _scaled(conv), [outputs, *after]


def _scaled(synapse: Any) -> nn.Module:
    """With weights that make neurons fire."""
    with torch.no_grad():
        synapse.weight.mul_(2.5)
    return synapse  # type: ignore[no-any-return]


def _neuron(pick: Any, shape: list[int]) -> nn.Module:
    kind, reset = pick(*NEURONS), pick(0.0, None, -0.25)
    level, tau, decays = pick(0.5, 0.3, 1.0), pick(2.0, 1.5, 5.0), pick(True, False)
    if kind == "filter":
        return layer.SynapseFilter(tau, pick(False, True))
    if kind == "ilif":
        return neuron.ILIFNode(tau, level, surrogate.MultiLevelSpikeCount(pick(4, 2)))
    if kind == "if":
        return neuron.IFNode(v_threshold=level, v_reset=reset)
    if kind == "plif":
        return neuron.ParametricLIFNode(tau, decays, v_threshold=level, v_reset=reset)
    if kind == "lif":
        return neuron.LIFNode(tau, decays, v_threshold=level, v_reset=reset)
    levels = 0.3 + torch.rand(shape[0], *(1,) * (len(shape) - 1))
    if kind == "levels":
        return Levels(levels, v_reset=reset, surrogate_function=_heaviside)
    return Leaks(levels, decay_input=decays, v_threshold=level, v_reset=reset)


def _heaviside(x: Tensor) -> Tensor:
    return (x >= 0).to(x)  # SpikingJelly's own kernels take no threshold that is a tensor


def _head(pick: Any, name: str, shape: list[int]) -> list[nn.Module]:
    if name == "tokens":
        stages: list[nn.Module] = [Moved("tokens"), _scaled(layer.Linear(shape[0], 4))]
        places = int(torch.tensor(shape[1:]).prod())
        return [*stages, _neuron(pick, [places, 4]), layer.Linear(4, 3)]
    features = int(torch.tensor(shape).prod())
    flat: list[nn.Module] = [layer.Flatten(), _scaled(layer.Linear(features, 5))]
    if name == "sums":
        return flat
    flat.append(_neuron(pick, [5]))
    if name == "recurrent":
        inner = neuron.LIFNode(2.0, v_threshold=0.4, v_reset=pick(0.0, None))
        flat.append(layer.LinearRecurrentContainer(inner, 5, 5))
    return [*flat, layer.Linear(5, 3)]
