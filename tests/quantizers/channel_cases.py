"""Small layers whose thresholds and leaks are tensors, and their integers."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import functional, neuron
from torch import Tensor, nn

from qspinn.fixed_point import FixedPointFormat, to_integers
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach
from tests.reference.fixed_point import code_of
from tests.reference.integer_network import Neurons, Word

CHANNELS, SIZE, STEPS = 3, 2, 6
WEIGHT, MEMBRANE, THRESHOLD, DECAY = "Q1.5", "Q2.6", "UQ2.4", "UQ0.6"
LEARNED = torch.tensor([-1.3, 0.2, 2.1]).reshape(CHANNELS, 1, 1)
FIRES = torch.tensor([0.4, 1.0, 1.9]).reshape(CHANNELS, 1, 1)
ROUNDINGS = ("truncate", "nearest", "nearest_even")


def heaviside(x: Tensor) -> Tensor:
    """Straight through, so that gradients can be worked out by hand."""
    return (x >= 0).to(x) + x - x.detach()


class ChannelPLIF(neuron.ParametricLIFNode):
    """One learned time constant per channel."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.w = nn.Parameter(LEARNED.clone())


class Softplus(neuron.IFNode):
    """A threshold that training computes from another parameter."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.raw = nn.Parameter(FIRES.clone())

    @property
    def v_threshold(self) -> Tensor:
        return nn.functional.softplus(self.raw)

    @v_threshold.setter
    def v_threshold(self, value: float) -> None:
        pass


def with_tau(**arguments: Any) -> neuron.LIFNode:
    node = neuron.LIFNode(**arguments)
    node.tau = torch.tensor([1.25, 3.0, 20.0]).reshape(CHANNELS, 1, 1)
    return node


NODES: dict[str, Any] = {
    "if": neuron.IFNode,
    "lif": neuron.LIFNode,
    "plif": neuron.ParametricLIFNode,
    "channel plif": ChannelPLIF,
    "channel tau": with_tau,
    "simple if": neuron.SimpleIFNode,
    "simple lif": lambda **given: neuron.SimpleLIFNode(3.0, True, **given),
}
THRESHOLDS: dict[str, Any] = {
    "channel": FIRES,
    "parameter": nn.Parameter(FIRES.clone()),
    "leading 1": FIRES[None],
    "neuron": torch.linspace(0.3, 1.9, CHANNELS * SIZE * SIZE).reshape(CHANNELS, SIZE, SIZE),
    "0-d": torch.tensor(0.8),
    "one": nn.Parameter(torch.tensor([1.1])),
    "integer": 1,
    "numpy": np.float32(0.8),
}


def network(node: nn.Module, threshold: Any = None, step_mode: str = "m") -> nn.Sequential:
    """A convolution whose weights are on their grid, and the neurons."""
    torch.manual_seed(0)
    conv = nn.Conv2d(2, CHANNELS, 1, bias=False)
    with torch.no_grad():
        codes = torch.randint(-30, 60, conv.weight.shape)
        conv.weight.copy_(codes / 32)
    if threshold is not None:
        del node.v_threshold
        node.v_threshold = copy.deepcopy(threshold)
    functional.set_step_mode(node, step_mode)
    return nn.Sequential(Merged(conv), node).eval()


class Merged(nn.Module):
    """A layer over ``[T, N, *]`` or ``[N, *]``."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 4:
            return self.inner(x)
        return self.inner(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def inputs() -> Tensor:
    shape = (STEPS, 4, 2, SIZE, SIZE)
    return (torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.6).float()


def stated(rounding: str = "nearest", overflow: str = "saturate", leaks: bool = True) -> Any:
    formats = {"weight": WEIGHT, "membrane": MEMBRANE, "threshold": THRESHOLD}
    formats |= {"decay": DECAY} if leaks else {}
    both = {"rounding": rounding, "overflow": overflow}
    return QuantizationPlan.from_rules(
        [{"role": role, "format": text, **both} for role, text in formats.items()]
    )


def codes_of(values: Any, text: str, rounding: str) -> Any:
    """The codes of constants, value by value, in exact rationals."""
    fmt = FixedPointFormat.parse(text)
    flat = np.atleast_1d(np.asarray(torch.as_tensor(values).detach().double()))
    codes = [
        code_of(one, fmt.integer_bits, fmt.fraction_bits, fmt.signed, rounding, "saturate")
        for one in flat.reshape(-1).tolist()
    ]
    return np.array(codes, dtype=object).reshape(flat.shape)


def word(text: str) -> Word:
    fmt = FixedPointFormat.parse(text)
    return Word(fmt.word_length, fmt.fraction_bits, fmt.signed)


def twin(node: Any, rounding: str, overflow: str) -> Neurons:
    """The neurons in integers, from the float constants."""
    leak = None
    if hasattr(node, "tau"):
        leak = 1.0 / torch.as_tensor(node.tau, dtype=torch.float64)
    elif hasattr(node, "w"):
        leak = node.w.sigmoid()
    reset = None if node.v_reset is None else int(codes_of(node.v_reset, MEMBRANE, rounding)[0])
    # SpikingJelly's simple nodes begin at 0, the others at the potential that they reset to.
    starts = 0 if isinstance(node, neuron.SimpleBaseNode) else reset or 0
    return Neurons(
        word(MEMBRANE),
        codes_of(node.v_threshold, THRESHOLD, rounding),
        word(THRESHOLD).fraction_bits,
        None if leak is None else codes_of(leak, DECAY, rounding),
        word(DECAY).fraction_bits,
        True,
        reset,
        starts,
        rounding,
        overflow,
    )


def check(net: nn.Sequential, plan: Any, twin: Neurons, step_mode: str, **how: Any) -> None:
    """Spikes and potentials of every step equal those of the integers."""
    x = inputs()
    node: Any = net[1]
    attach(net, plan.resolve(net, x if step_mode == "m" else x[0]), **how)
    weight = (net[0].inner.weight.detach() * 32).long().numpy().astype(object)[:, :, 0, 0]
    potentials: list[Tensor] = []
    with torch.no_grad():
        if step_mode == "m" and hasattr(node, "store_v_seq"):
            node.store_v_seq = True
            spikes = net(x)
            potentials = list(node.v_seq)
        elif step_mode == "m":
            spikes, potentials = net(x), [None] * (STEPS - 1) + [node.v]
        else:
            steps = []
            for one in x:
                steps.append(net(one))
                potentials.append(node.v)
            spikes = torch.stack(steps)
    assert 0.0 < float(spikes.mean()) < 1.0
    for t in range(STEPS):
        current = np.einsum("oi,nihw->nohw", weight, x[t].long().numpy().astype(object))
        fired, held = twin.step(current, 5)
        assert np.array_equal(spikes[t].long().numpy(), fired)
        if potentials[t] is not None:
            codes = to_integers(potentials[t], FixedPointFormat.parse(MEMBRANE))
            assert np.array_equal(codes.numpy(), held.astype(np.int64))
