"""The small network of training_step.py in snnTorch, quantised by Brevitas and by snnTorch itself.

Weights are quantised by Brevitas's layers, with its default quantizers, and membrane potentials by
snnTorch's ``state_quant``, as its documentation proposes. Both packages lie in folders of their own
(peers.py), which come last on the path, so that all else is what qspinn runs with.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import measuring  # noqa: F401  (the path, one thread)

import peers
import torch
from torch import Tensor, nn

NAMES = ("snntorch", "brevitas")
TITLE = " + ".join(peers.PEERS[name].title for name in NAMES)


def missing() -> list[str]:
    """The names of those that are not installed."""
    return [name for name in NAMES if peers.PEERS[name].is_missing()]


def network(bits: int | None) -> nn.Module:
    """As ``training_step.small_network``, with ``bits`` for weights and states; None: in float."""
    sys.path += [str(peers.PEERS[name].folder) for name in NAMES]
    import brevitas.nn as quantised
    import snntorch
    from snntorch.functional.quant import state_quant

    width = {} if bits is None else {"weight_bit_width": bits}
    convolution = nn.Conv2d if bits is None else quantised.QuantConv2d
    linear = nn.Linear if bits is None else quantised.QuantLinear

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        states = False if bits is None else state_quant(num_bits=bits, uniform=True, threshold=1)
        return [
            convolution(inputs, outputs, 3, padding=1, bias=False, **width),
            nn.BatchNorm2d(outputs),
            snntorch.Leaky(beta=0.5, init_hidden=True, reset_mechanism="zero", state_quant=states),
            nn.MaxPool2d(2, 2),
        ]

    last = linear(512, 10, bias=True, **width)
    return nn.Sequential(*block(2, 16), *block(16, 32), nn.Flatten(), last)


def stepping(bits: int | None, x: Tensor) -> Callable[[], None]:
    """One step of training on ``[T, N, C, H, W]``, in a loop over time as snnTorch has it."""
    net = network(bits).train()
    labels = torch.arange(x.shape[1]) % 10
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    neurons = [one for one in net if hasattr(one, "reset_mem")]

    def step() -> None:
        for one in neurons:
            one.reset_mem()
        optimizer.zero_grad()
        scores = torch.stack([net(frame) for frame in x]).mean(0)
        nn.functional.cross_entropy(scores, labels).backward()
        optimizer.step()

    return step
