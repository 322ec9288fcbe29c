"""The layers that networks here are made of."""

from __future__ import annotations

import math

from spikingjelly.activation_based import base, layer
from torch import Tensor, nn

from qspinn.networks.checks import check, check_at_least
from qspinn.networks.neuron_settings import NeuronSettings

WEIGHT_SPREAD = 2.0
"""Initial standard deviation of a weight, times the square root of its layer's inputs."""


class ConvBlock(nn.Module, base.StepModule):
    """Convolution, batch normalisation if wanted, neurons, pooling if wanted.

    The layers are ``conv``, ``norm``, ``neuron`` and ``pool``.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the (odd) square kernel; the border is padded by half of it.
        stride: Step of the kernel: the output is so many times smaller.
        neuron: Settings of the neurons.
        batch_norm: Whether a ``norm`` follows the convolution, which then has no bias.
        pooling: Side of the square of neurons whose largest output goes on, which for spikes is
            their logical or (1: no pooling). Rows and columns that fill no square are dropped.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        neuron: NeuronSettings,
        batch_norm: bool,
        pooling: int = 1,
    ) -> None:
        super().__init__()
        self.conv = layer.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            bias=not batch_norm,
            step_mode="m",
        )
        self.norm = layer.BatchNorm2d(out_channels, step_mode="m") if batch_norm else nn.Identity()
        self.neuron = neuron.build()
        self.pool = layer.MaxPool2d(pooling, step_mode="m") if pooling > 1 else nn.Identity()
        self.step_mode = "m"

    def current(self, x: Tensor) -> Tensor:
        """The input current of the neurons: ``[T, N, C, H, W]``, in single steps ``[N, ...]``."""
        return self.norm(self.conv(x))

    def spikes(self, current: Tensor) -> Tensor:
        """Spikes that the block sends at a ``current`` from :meth:`current`."""
        return self.pool(self.neuron(current))

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of the block, ``[T, N, C, H, W]``, in single steps ``[N, C, H, W]``."""
        return self.spikes(self.current(x))


class LinearBlock(nn.Module, base.StepModule):
    """Dropout if wanted, fully connected layer, neurons: ``dropout``, ``linear``, ``neuron``.

    Args:
        in_features: Inputs.
        out_features: Neurons.
        neuron: Settings of the neurons.
        dropout: Share of the inputs that are silenced while training, [0, 1). An input is silent
            for all time steps of a sample, or for none.
    """

    def __init__(
        self, in_features: int, out_features: int, neuron: NeuronSettings, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = layer.Dropout(dropout, step_mode="m") if dropout else nn.Identity()
        self.linear = layer.Linear(in_features, out_features, step_mode="m")
        self.neuron = neuron.build()
        self.step_mode = "m"

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of the layer, ``[T, N, F]``, in single steps ``[N, F]``."""
        return self.neuron(self.linear(self.dropout(x)))


def init_weights(module: nn.Module) -> None:
    """Starts the weights of one layer uniform, with the spread above, and its biases at 0."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        bound = WEIGHT_SPREAD * math.sqrt(3 / module.weight[0].numel())
        nn.init.uniform_(module.weight, -bound, bound)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def output_shape(
    shape: tuple[int, int, int], channels: int, kernel: int, stride: int, pooling: int
) -> tuple[int, int, int]:
    """The shape ``(C, H, W)`` that a :class:`ConvBlock` makes of ``shape``.

    Raises:
        ValueError: Sizes that make no block; the message names them.
    """
    check_at_least(1, channels=channels, kernel_sizes=kernel, strides=stride, pooling=pooling)
    check(kernel % 2 == 1, "kernel_sizes", kernel, "an odd number")
    if stride > 1 and max(shape[1:]) == 1:
        raise ValueError(
            f"strides={stride}: the image is 1x1 before this block; write fewer blocks or stride 1"
        )
    height, width = (-(-size // stride) for size in shape[1:])
    if min(height, width) < pooling:
        raise ValueError(
            f"pooling={pooling}: the image is {height}x{width} after this block's convolution; "
            "write fewer blocks, or a smaller pooling or stride"
        )
    return (channels, height // pooling, width // pooling)
