"""How a network of SpikingJelly's zoo is made small, active, and exact to fold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from spikingjelly.activation_based import functional, layer
from spikingjelly.activation_based.model.snas_net import SNASNet
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

EPSILON = 2.0**-10
"""Of batch norms: a variance plus this is a power of 4, so that folding them is exact."""
GATES = (layer.MultiDimensionalAttention, layer.TemporalWiseAttention)
STEPS = 3


class OverTime(nn.Module):
    """A network that takes one time step at a time, over ``[T, N, *]``."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.net(one) for one in x])


class OnlyScores(nn.Module):
    """A network that gives auxiliary scores too: their sum while training, else the scores."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        scores, auxiliary = self.net(x)
        return scores if auxiliary is None else scores + auxiliary


@dataclass(frozen=True)
class Variant:
    """One network.

    Attributes:
        name: Of its builder.
        build: Makes it, with SpikingJelly's own layers and forward.
        shape: Of one input, without time and batch.
        static: Whether it takes images ``[N, *shape]`` and repeats them by itself.
        binary: Whether its inputs are spikes.
        batch: Images.
        divisor: By how much its layers are narrower than published.
        steps: Time steps of its inputs.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (3, 32, 32)
    static: bool = False
    binary: bool = False
    batch: int = 2
    divisor: int = 16
    steps: int = STEPS

    def network(self) -> nn.Module:
        """The network in evaluation mode, with weights and statistics as if it had learned."""
        torch.manual_seed(7)
        with narrowed(self.divisor):
            net = self.build()
        stepwise = isinstance(net, OverTime | SNASNet)
        functional.set_step_mode(net, "s" if stepwise else "m")
        as_if_trained(net, self.inputs(seed=1, times=4))
        return net

    def exactly_foldable(self) -> nn.Module:
        """The same with norms that fold exactly."""
        net = self.network()
        on_powers_of_two(net)
        return net

    def inputs(self, seed: int = 0, times: int = 1) -> Tensor:
        """``[N, *shape]`` or ``[T, N, *shape]``: pixels, or spikes; `times` as many images."""
        random = torch.Generator().manual_seed(seed)
        shape = (self.batch * times, *self.shape)
        shape = shape if self.static else (self.steps, *shape)
        x = torch.rand(shape, generator=random)
        return (x < 0.4).float() if self.binary else x


def as_if_trained(net: nn.Module, x: Tensor) -> None:
    """Gives layers scales, shifts and statistics with which the neurons are active."""
    gates = [child for child in net.modules() if isinstance(child, GATES)]
    gating = {inner for gate in gates for inner in gate.modules()}
    layers = [child for child in net.modules() if isinstance(child, nn.Linear | _ConvNd)]
    layers = [child for child in layers if child not in gating]
    hooks = [child.register_forward_hook(_spread) for child in layers]
    with torch.no_grad():
        for child in gating:
            if isinstance(child, nn.Linear | _ConvNd):
                child.weight.abs_()  # few units behind a rectifier, of which none may fall silent
        net(x)
        functional.reset_net(net)
    for hook in hooks:
        hook.remove()
    norms = [child for child in net.modules() if isinstance(child, _NormBase)]
    with torch.no_grad():
        for norm in norms:
            if norm.weight is not None:
                norm.weight.uniform_(1.2, 2.5)
                norm.bias.uniform_(-0.2, 0.6)
            norm.momentum = None
        net.train()
        for _ in range(2):
            net(x)
            functional.reset_net(net)
    for norm in norms:
        norm.momentum = 0.1
    net.eval()


def _spread(synapse: Any, _: object, out: Tensor) -> Tensor:
    """Scales a layer so that its output, where there is any, spreads by about a threshold."""
    factor = 1.5 / out.std().clamp(min=0.1)
    synapse.weight *= factor
    if synapse.bias is not None:
        synapse.bias *= factor
    return out * factor


@contextmanager
def narrowed(divisor: int) -> Iterator[None]:
    """Makes every layer that is built meanwhile narrower: the widths in the zoo are fixed.

    A width that is a multiple of `divisor` is divided by it, in convolutions (their groups too),
    linear layers and norms; pixels, polarities and classes are none.
    """

    def narrow(width: int) -> int:
        return width // divisor if width % divisor == 0 else width

    conv, linear, norm = _ConvNd.__init__, nn.Linear.__init__, _NormBase.__init__

    def narrow_conv(self: Any, inputs: int, outputs: int, *args: Any, **kwargs: Any) -> None:
        sizes, groups = args[:6], args[6]
        conv(self, narrow(inputs), narrow(outputs), *sizes, narrow(groups), *args[7:], **kwargs)

    def narrow_linear(self: Any, inputs: int, outputs: int, *args: Any, **kwargs: Any) -> None:
        linear(self, narrow(inputs), narrow(outputs), *args, **kwargs)

    def narrow_norm(self: Any, features: int, *args: Any, **kwargs: Any) -> None:
        norm(self, narrow(features), *args, **kwargs)

    patched: Any = (_ConvNd, nn.Linear, _NormBase)
    made = (narrow_conv, narrow_linear, narrow_norm)
    for kind, init in zip(patched, made, strict=True):
        kind.__init__ = init
    try:
        yield
    finally:
        for kind, init in zip(patched, (conv, linear, norm), strict=True):
            kind.__init__ = init


def on_powers_of_two(net: nn.Module) -> None:
    """Moves norms and biases to numbers with which folding is exact in any float type."""
    with torch.no_grad():
        for child in net.modules():
            if isinstance(child, _NormBase) and child.running_var is not None:
                child.eps = EPSILON
                exponents = (child.running_var.clamp(min=2.0**-9).log2() / 2).round()
                child.running_var.copy_(4.0**exponents - EPSILON)
                child.running_mean.copy_(_coarse(child.running_mean))
                child.weight.copy_(child.weight.sign() * 2.0 ** child.weight.abs().log2().round())
                child.bias.copy_(_coarse(child.bias))
            elif isinstance(getattr(child, "bias", None), nn.Parameter):
                child.bias.copy_(_coarse(child.bias))


def _coarse(values: Tensor) -> Tensor:
    return (values * 256).round() / 256
