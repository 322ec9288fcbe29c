"""A small convolutional spiking network in which everything can be quantised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from spikingjelly.activation_based import base, layer
from torch import Tensor, nn

from qspinn.networks.neuron_settings import NeuronSettings

WEIGHT_SPREAD = 2.0
"""Initial standard deviation of a weight, times the square root of its layer's inputs."""


class ConvBlock(nn.Module, base.StepModule):
    """Convolution, batch normalisation if wanted, neurons: ``conv``, ``norm``, ``neuron``.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the (odd) square kernel; the border is padded by half of it.
        stride: Step of the kernel: the output is so many times smaller.
        neuron: Settings of the neurons.
        batch_norm: Whether a ``norm`` follows the convolution, which then has no bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        neuron: NeuronSettings,
        batch_norm: bool,
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
        self.step_mode = "m"

    def current(self, x: Tensor) -> Tensor:
        """The input current of the neurons: ``[T, N, C, H, W]``, in single steps ``[N, ...]``."""
        return self.norm(self.conv(x))

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of the block, ``[T, N, C, H, W]``, in single steps ``[N, C, H, W]``."""
        return self.neuron(self.current(x))


class LinearBlock(nn.Module, base.StepModule):
    """Fully connected layer and neurons: ``linear``, ``neuron``.

    Args:
        in_features: Inputs.
        out_features: Neurons.
        neuron: Settings of the neurons.
    """

    def __init__(self, in_features: int, out_features: int, neuron: NeuronSettings) -> None:
        super().__init__()
        self.linear = layer.Linear(in_features, out_features, step_mode="m")
        self.neuron = neuron.build()
        self.step_mode = "m"

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of the layer, ``[T, N, F]``, in single steps ``[N, F]``."""
        return self.neuron(self.linear(x))


class ConvSNN(nn.Module, base.StepModule):
    """Convolutional spiking network: direct coding in, spiking population vote out.

    A static image is fed to the first convolution as it is, as an input current that stays the same
    for all ``time_steps`` (direct coding): it is computed once. All other layers see spikes, 0 or
    1: images shrink by strides, never by averaging. The class scores are the mean spike rates, over
    time and population, of ``population`` output neurons per class. So weights, biases, membranes,
    thresholds and decays are all there is, and a device needs no other arithmetic.

    Layers are named ``blocks.I.conv``, ``blocks.I.norm`` (with ``batch_norm``),
    ``blocks.I.neuron``, ``hidden.linear``, ``hidden.neuron`` (unless ``hidden`` is 0),
    ``output.linear`` and ``output.neuron``.

    Weights start uniform with mean 0 and standard deviation ``2 / sqrt(fan_in)``, biases at 0.
    PyTorch's own smaller weights would leave the last layers silent, and training would lose its
    first epoch waking them.

    Every membrane starts at ``v_reset`` (soft reset: 0) and keeps its last value after a call:
    ``spikingjelly.activation_based.functional.reset_net`` must run between batches.
    ``functional.set_step_mode(network, "s")`` makes the network loop over time outside its layers;
    inputs and outputs stay the same.

    Args:
        input_shape: Shape ``(C, H, W)`` of an image.
        num_classes: Classes.
        channels: Output channels of each block.
        kernel_sizes: Side of each block's kernel (odd): one number for all, or one per block.
        strides: Step of each block's kernel: one number for all, or one per block.
        hidden: Neurons of the hidden layer; 0: none.
        population: Output neurons per class.
        time_steps: Steps T for which a static image is shown.
        neuron: Settings of all neurons; None: the defaults of :class:`NeuronSettings`.
        batch_norm: Whether the convolutions are normalised.

    Raises:
        ValueError: A size that makes no network; the message names it.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (1, 28, 28),
        num_classes: int = 10,
        channels: Sequence[int] = (12, 24, 48),
        kernel_sizes: int | Sequence[int] = (5, 5, 3),
        strides: int | Sequence[int] = 2,
        hidden: int = 0,
        population: int = 4,
        time_steps: int = 4,
        neuron: NeuronSettings | None = None,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        sizes = {"num_classes": num_classes, "population": population, "time_steps": time_steps}
        for name, value in sizes.items():
            _check_at_least(1, **{name: value})
        _check_at_least(0, hidden=hidden)
        self.input_shape = _check_shape(input_shape)
        self.num_classes = num_classes
        self.population = population
        self.time_steps = time_steps
        neuron = NeuronSettings() if neuron is None else neuron
        kernels = _per_block("kernel_sizes", kernel_sizes, len(channels))
        steps = _per_block("strides", strides, len(channels))
        self.blocks = nn.ModuleList()
        shape = self.input_shape
        for out_channels, kernel, stride in zip(channels, kernels, steps, strict=True):
            _check_block(out_channels, kernel, stride, shape)
            self.blocks.append(
                ConvBlock(shape[0], out_channels, kernel, stride, neuron, batch_norm)
            )
            shape = (out_channels, -(-shape[1] // stride), -(-shape[2] // stride))
        features = math.prod(shape)
        self.hidden = LinearBlock(features, hidden, neuron) if hidden else None
        self.output = LinearBlock(hidden or features, num_classes * population, neuron)
        self.step_mode = "m"
        self.apply(_init_weights)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores.

        Args:
            x: Static images ``[N, C, H, W]``, shown for ``time_steps`` steps, or sequences
                ``[T, N, C, H, W]`` of any length.

        Returns:
            Mean spike rates ``[N, num_classes]``, whole multiples of 1 / (T * population). Where
            classes tie, ``argmax`` takes the first.

        Raises:
            ValueError: Another shape.
        """
        spikes = self.output_spikes(x)
        counts = spikes.sum(0).unflatten(1, (self.num_classes, self.population)).sum(2)
        return counts / (len(spikes) * self.population)

    def output_spikes(self, x: Tensor) -> Tensor:
        """Spikes ``[T, N, num_classes * population]`` of the output neurons, 0 or 1."""
        if x.ndim not in (4, 5) or tuple(x.shape[-3:]) != self.input_shape:
            raise ValueError(
                f"input {list(x.shape)}: expected [N, C, H, W] or [T, N, C, H, W] with (C, H, W) = "
                f"{self.input_shape}; another image size needs another network.input_shape"
            )
        return self._multi_step(x) if self.step_mode == "m" else self._single_steps(x)

    def _multi_step(self, x: Tensor) -> Tensor:
        first = cast(ConvBlock, self.blocks[0])
        if x.ndim == 4:
            current = first.current(x.unsqueeze(0))
            current = current.expand(self.time_steps, *current.shape[1:])
        else:
            current = first.current(x)
        return self._after_first(first.neuron(current))

    def _single_steps(self, x: Tensor) -> Tensor:
        first = cast(ConvBlock, self.blocks[0])
        if x.ndim == 4:
            currents = [first.current(x)] * self.time_steps
        else:
            currents = [first.current(step) for step in x]
        return torch.stack([self._after_first(first.neuron(current)) for current in currents])

    def _after_first(self, spikes: Tensor) -> Tensor:
        """From the spikes of the first block to those of the output, in either step mode."""
        for block in self.blocks[1:]:
            spikes = block(spikes)
        spikes = spikes.flatten(-3)
        if self.hidden is not None:
            spikes = self.hidden(spikes)
        return self.output(spikes)


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        bound = WEIGHT_SPREAD * math.sqrt(3 / module.weight[0].numel())
        nn.init.uniform_(module.weight, -bound, bound)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _check_at_least(lowest: int, **sizes: int) -> None:
    for name, value in sizes.items():
        if value < lowest:
            raise ValueError(f"{name}={value}: write {lowest} or more")


def _check_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3 or any(size < 1 for size in shape):
        raise ValueError(f"input_shape={list(shape)}: write three sizes, [C, H, W], 1 or more")
    return (shape[0], shape[1], shape[2])


def _per_block(name: str, value: int | Sequence[int], blocks: int) -> tuple[int, ...]:
    if blocks == 0:
        raise ValueError("channels=[]: write at least one number of channels")
    values = (value,) * blocks if isinstance(value, int) else tuple(value)
    if len(values) != blocks:
        raise ValueError(
            f"{name}={list(values)}: write one number, or {blocks} numbers as channels has"
        )
    return values


def _check_block(channels: int, kernel: int, stride: int, shape: tuple[int, int, int]) -> None:
    _check_at_least(1, channels=channels, kernel_sizes=kernel, strides=stride)
    if kernel % 2 == 0:
        raise ValueError(f"kernel_sizes={kernel}: write an odd number")
    if stride > 1 and max(shape[1:]) == 1:
        raise ValueError(
            f"strides={stride}: the image is 1x1 before this block; write fewer blocks or stride 1"
        )
