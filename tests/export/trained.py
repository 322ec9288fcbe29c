"""A small network that learned the embedded images of MNIST, for engines and exporters."""

from __future__ import annotations

import functools

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from qspinn.data.mnist_subset import load_images
from qspinn.export import DeviceModel, device_model
from qspinn.networks import ConvSNN
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, calibrate

TRAIN = 4000
"""Images to learn from; the others are tested with."""


def images() -> tuple[Tensor, Tensor]:
    """Pixels in [0, 1] and labels, in an order that mixes the classes."""
    pixels, labels = load_images()
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    return pixels[order].float() / 255, labels[order]


@functools.lru_cache(maxsize=4)
def parameters(epochs: int) -> dict[str, Tensor]:
    """What a network learned."""
    torch.manual_seed(0)
    x, labels = images()
    net = ConvSNN()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    targets = nn.functional.one_hot(labels, 10).float()
    for _ in range(epochs):
        for batch in torch.randperm(TRAIN).split(64):
            functional.reset_net(net)
            loss = nn.functional.mse_loss(net(x[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    functional.reset_net(net)
    return net.state_dict()


def conv_snn(bits: int, epochs: int = 1) -> tuple[nn.Module, DeviceModel]:
    """The network with quantizers attached, and its device model."""
    x, _ = images()
    net = ConvSNN()
    net.load_state_dict(parameters(epochs))
    net.eval()
    plan = QuantizationPlan.uniform(bits).resolve(net, x[:64])
    attach(net, calibrate(net, plan, x[:256]))
    return net, device_model(net, x[:1], name="conv_snn")
