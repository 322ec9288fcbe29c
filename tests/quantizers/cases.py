"""Random small networks, each as a torch network with a plan and as its integer twin."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

from qspinn.fixed_point import FixedPointFormat, PerChannelFormat, parse_format
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach
from tests.reference.fixed_point import code_of
from tests.reference.integer_network import (
    Neurons,
    Synapses,
    Word,
    flattened,
    max_pooled,
)

DETERMINISTIC = ("truncate", "nearest", "toward_zero", "nearest_even", "nearest_away")
GRID = 12
"""Float parameters and pixels are multiples of 2^-12, so that references are exact."""

EPSILON = 2.0**-10
"""Of the batch norms: variance plus epsilon is a power of 4, so that folding is exact."""


@dataclass(frozen=True)
class Case:
    """One configuration of the small network."""

    neuron: str = "lif"
    reset: float | None = 0.0
    decay_input: bool = True
    tau: float = 2.0
    rounding: str = "nearest"
    overflow: str = "saturate"
    weight: str = "Q0.5"
    bias: str | None = "Q1.6"
    membrane: str = "Q1.6"
    threshold: str = "UQ1.3"
    decay: str = "UQ0.5"
    pixels: str | None = None
    channels: bool = False
    norm: bool = False
    stride: int = 1
    padding: int = 1
    groups: int = 1
    steps: int = 4
    seed: int = 0
    torch_layers: bool = False

    def network(self, step_mode: str = "m") -> nn.Module:
        """The float network: convolution, neurons, max pooling, linear layer, neurons."""
        torch.manual_seed(self.seed)
        has_bias = self.bias is not None
        conv: Any = layer.Conv2d(
            2, 4, 3, self.stride, self.padding, groups=self.groups, bias=has_bias
        )
        stages: list[nn.Module] = [conv]
        if self.norm:
            stages.append(_norm(4))
        stages += [self._neurons(), layer.MaxPool2d(2), layer.Flatten()]
        features = 4 * (_size(5, self.stride, self.padding) // 2) ** 2
        stages += [layer.Linear(features, 3, bias=has_bias), self._neurons()]
        network = nn.Sequential(*stages)
        with torch.no_grad():
            for stage in (conv, stages[-2]):
                _set_on_grid(stage)
        functional.set_step_mode(network, step_mode)
        return (_with_torch_layers(network) if self.torch_layers else network).eval()

    def _neurons(self) -> nn.Module:
        common: dict[str, Any] = {"v_threshold": 0.75, "v_reset": self.reset, "store_v_seq": True}
        if self.neuron == "if":
            return neuron.IFNode(**common)
        if self.neuron == "lif":
            return neuron.LIFNode(self.tau, self.decay_input, **common)
        return neuron.ParametricLIFNode(self.tau, self.decay_input, **common)

    def inputs(self) -> Tensor:
        """Inputs ``[T, 2, 2, 5, 5]``: spikes, or pixels that change from step to step."""
        random = torch.Generator().manual_seed(self.seed + 1)
        shape = (self.steps, 2, 2, 5, 5)
        if self.pixels is None:
            return (torch.rand(shape, generator=random) < 0.4).float()
        codes = torch.randint(-(1 << GRID) // 4, 1 << GRID, shape, generator=random)
        return codes.float() / (1 << GRID)

    def plan(self) -> QuantizationPlan:
        """Every format written out, so that nothing is calibrated."""
        both = {"rounding": self.rounding, "overflow": self.overflow}
        roles = {"weight": self.weight, "membrane": self.membrane, "threshold": self.threshold}
        if self.neuron != "if":
            roles["decay"] = self.decay
        if self.bias is not None or self.norm:
            roles["bias"] = self.bias or "Q1.6"
        if self.pixels is not None:
            roles["input"] = self.pixels
        rules: list[dict[str, Any]] = [
            {"role": role, "format": text, **both} for role, text in roles.items()
        ]
        if self.channels:
            rules += [
                {
                    "layers": f"{path}*",
                    "role": "weight",
                    "format": str(self.format_of(path)),
                    **both,
                }
                for path in self.synapse_paths()
            ]
        return QuantizationPlan.from_rules(rules)

    def synapse_paths(self) -> tuple[str, str]:
        """Paths of the convolution and of the linear layer."""
        return ("0", "5") if self.norm else ("0", "4")

    def format_of(self, path: str) -> FixedPointFormat | PerChannelFormat:
        """The weight format of a layer; per channel, the binary point moves by up to 2 bits."""
        fmt = FixedPointFormat.parse(self.weight)
        if not self.channels:
            return fmt
        outputs = 4 if path == "0" else 3
        fractions = tuple(fmt.fraction_bits - 1 + (channel * 2) % 3 for channel in range(outputs))
        return PerChannelFormat(fmt.word_length, fractions, True, 0)

    def attached(self, step_mode: str = "m") -> nn.Module:
        """The quantised torch network."""
        network = self.network(step_mode)
        example = self.inputs() if step_mode == "m" else self.inputs()[0]
        return attach(network, self.plan().resolve(network, example))

    def twin(self) -> Twin:
        """The same network in integers, from the float parameters."""
        network = self.network()
        synapses, neurons = [], []
        for index, stage in enumerate(network):
            kind = getattr(stage, "inner", stage)
            if isinstance(kind, nn.Conv2d | nn.Linear):
                path = str(index)
                norm = network[index + 1] if self.norm and path == "0" else None
                synapses.append(self._synapses(kind, path, getattr(norm, "inner", norm)))
            elif isinstance(kind, neuron.BaseNode):
                neurons.append(self._twin_neurons(kind))
        return Twin(tuple(synapses), tuple(neurons))

    def _code(self, value: float, text: str) -> int:
        fmt = FixedPointFormat.parse(text)
        return code_of(
            value,
            fmt.integer_bits,
            fmt.fraction_bits,
            fmt.signed,
            self.rounding,
            self.overflow,
        )

    def _synapses(self, stage: Any, path: str, norm: Any) -> Synapses:
        weight, bias = stage.weight.detach().double(), stage.bias
        bias = None if bias is None else bias.detach().double()
        if norm is not None:  # statistics and affine parameters are powers of 2 or coarse: exact
            scale = norm.weight.detach().double() / (norm.running_var.double() + EPSILON).sqrt()
            weight = weight * scale.reshape(-1, 1, 1, 1)
            bias = (0.0 if bias is None else bias) - norm.running_mean.double()
            bias = bias * scale + norm.bias.detach().double()
        fmt = self.format_of(path)
        one_each = fmt.formats if isinstance(fmt, PerChannelFormat) else (fmt,) * len(weight)
        rows = [
            [self._code(value, str(one)) for value in row.flatten().tolist()]
            for row, one in zip(weight, one_each, strict=True)
        ]
        biases = self.bias or "Q1.6"
        takes_pixels = path == "0" and self.pixels is not None
        return Synapses(
            np.array(rows).reshape(weight.shape),
            tuple(one.fraction_bits for one in one_each),
            None if bias is None else np.array([self._code(v, biases) for v in bias.tolist()]),
            () if bias is None else (_word(biases).fraction_bits,) * len(weight),
            _word(self.pixels) if takes_pixels and self.pixels else None,
            self.rounding,
            self.overflow,
            **(
                {"stride": self.stride, "padding": self.padding, "groups": self.groups}
                if path == "0"
                else {}
            ),
        )

    def _twin_neurons(self, node: Any) -> Neurons:
        decay = None
        if self.neuron == "lif":
            decay = self._code(1.0 / node.tau, self.decay)
        elif self.neuron == "plif":
            decay = self._code(float(node.w.detach().sigmoid()), self.decay)
        reset = None if self.reset is None else self._code(self.reset, self.membrane)
        return Neurons(
            _word(self.membrane),
            self._code(0.75, self.threshold),
            _word(self.threshold).fraction_bits,
            decay,
            _word(self.decay).fraction_bits,
            self.decay_input,
            reset,
            reset or 0,
            self.rounding,
            self.overflow,
        )


@dataclass(frozen=True)
class Twin:
    """The integer network: convolution, neurons, max pooling, linear layer, neurons."""

    synapses: tuple[Synapses, ...]
    neurons: tuple[Neurons, ...]

    def step(self, codes: np.ndarray) -> list[np.ndarray]:
        """Spikes and membrane codes of both neuron layers after one time step."""
        convolution, linear = self.synapses
        first, second = self.neurons
        spikes, hidden = first.step(convolution.currents(codes, GRID), convolution.fraction_bits)
        spiked = flattened(max_pooled(spikes, 2))
        output, last = second.step(linear.currents(spiked, 0), linear.fraction_bits)
        return [spikes, hidden, output, last]


class Merged(nn.Module):
    """A torch layer without a step mode, over ``[T, N, *]`` or ``[N, *]``."""

    def __init__(self, inner: nn.Module, ndim: int) -> None:
        super().__init__()
        self.inner = inner
        self.ndim = ndim

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == self.ndim:
            return self.inner(x)
        return self.inner(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _with_torch_layers(network: nn.Sequential) -> nn.Module:
    made: list[nn.Module] = []
    for stage in network:
        if isinstance(stage, nn.Conv2d):
            plain: nn.Module = nn.Conv2d(
                2,
                4,
                3,
                stage.stride,
                stage.padding,
                groups=stage.groups,
                bias=stage.bias is not None,
            )
        elif isinstance(stage, nn.BatchNorm2d):
            plain = nn.BatchNorm2d(4, eps=EPSILON)
        elif isinstance(stage, nn.Linear):
            plain = nn.Linear(stage.in_features, 3, bias=stage.bias is not None)
        else:
            made.append(stage)
            continue
        plain.load_state_dict(stage.state_dict())
        made.append(Merged(plain, 2 if isinstance(stage, nn.Linear) else 4))
    return nn.Sequential(*made)


def _word(text: str) -> Word:
    fmt = parse_format(text)
    assert isinstance(fmt, FixedPointFormat)
    return Word(fmt.word_length, fmt.fraction_bits, fmt.signed)


def _size(pixels: int, stride: int, padding: int) -> int:
    return (pixels + 2 * padding - 3) // stride + 1


def _set_on_grid(stage: nn.Module) -> None:
    for parameter in stage.parameters():
        codes = torch.randint(-(1 << GRID), 1 << GRID, parameter.shape)
        parameter.copy_(codes.float() / (1 << GRID))


def _norm(channels: int) -> nn.Module:
    norm = layer.BatchNorm2d(channels, eps=EPSILON)
    norm.running_var.copy_(torch.tensor([0.25, 1.0, 4.0, 1.0]) - EPSILON)
    norm.running_mean.copy_(torch.tensor([0.5, -0.25, 0.0, 0.125]))
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, -2.0, 1.5]))
        norm.bias.copy_(torch.tensor([0.25, 0.0, -0.375, 0.5]))
    return norm


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Cases over every dimension at once."""
    membrane_bits = draw(st.integers(3, 16))
    membrane = FixedPointFormat(draw(st.integers(0, 2)), membrane_bits - 1, True)
    membrane = FixedPointFormat(membrane.integer_bits, membrane_bits - 1 - membrane.integer_bits)
    threshold_fraction = draw(st.integers(0, min(4, membrane.fraction_bits)))
    weight_bits = draw(st.integers(2, 10))
    weight_integers = draw(st.integers(-1, 1))
    case = Case(
        neuron=draw(st.sampled_from(("if", "lif", "plif"))),
        reset=draw(st.sampled_from((0.0, None, -0.25, 0.3))),
        decay_input=draw(st.booleans()),
        tau=draw(st.sampled_from((2.0, 1.25, 3.0, 20.0, 4.0))),
        rounding=draw(st.sampled_from(DETERMINISTIC)),
        overflow=draw(st.sampled_from(("saturate", "wrap"))),
        weight=str(FixedPointFormat(weight_integers, weight_bits - 1 - weight_integers)),
        bias=draw(st.sampled_from((None, "Q0.7", "Q1.3", "Q-1.10"))),
        membrane=str(membrane),
        threshold=f"UQ1.{threshold_fraction}",
        decay=draw(st.sampled_from(("UQ0.5", "UQ0.1", "UQ0.9", "UQ1.4", "UQ-1.7"))),
        pixels=draw(st.sampled_from((None, "UQ0.4", "Q0.3", "Q1.6"))),
        channels=draw(st.booleans()),
        norm=draw(st.booleans()),
        stride=draw(st.sampled_from((1, 2))),
        padding=draw(st.integers(0, 2)),
        groups=draw(st.sampled_from((1, 2))),
        steps=draw(st.integers(1, 6)),
        seed=draw(st.integers(0, 99)),
        torch_layers=draw(st.booleans()),
    )
    return replace(case, padding=max(case.padding, 1)) if case.stride == 2 else case
