"""A convolutional spiking network in which everything can be quantised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from spikingjelly.activation_based import base
from torch import Tensor, nn

from qspinn.networks.blocks import ConvBlock, LinearBlock, init_weights, output_shape
from qspinn.networks.checks import check, check_at_least, check_input, check_shape, per_block
from qspinn.networks.neuron_settings import NeuronSettings


class ConvSNN(nn.Module, base.StepModule):
    """Convolutional spiking network: images or events in, spiking population vote out.

    A static image is fed to the first convolution as it is, as an input current that stays the same
    for all ``time_steps`` (direct coding): it is computed once. A sequence, such as frames of event
    counts, feeds it one frame per time step. All other layers see spikes, 0 or 1: images shrink by
    strides or by the logical or of neighbours (``pooling``), never by averaging. The class scores
    are the mean spike rates, over time and population, of ``population`` output neurons per class.
    So weights, biases, membranes, thresholds and decays are all there is, and a device needs no
    other arithmetic.

    With five blocks of 128 channels, ``kernel_sizes=3``, ``strides=1``, ``pooling=2``,
    ``batch_norm``, ``hidden=512``, ``dropout=0.5``, ``population=10`` and PLIF neurons it is the
    network that SpikingJelly calls ``DVSGestureNet`` (Fang et al., ICCV 2021, table 1), with the
    vote averaged over time.

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
        input_shape: Shape ``(C, H, W)`` of an image or frame.
        num_classes: Classes.
        channels: Output channels of each block.
        kernel_sizes: Side of each block's kernel (odd): one number for all, or one per block.
        strides: Step of each block's kernel: one number for all, or one per block.
        hidden: Neurons of the hidden layer; 0: none.
        population: Output neurons per class.
        time_steps: Steps T for which a static image is shown, and that a sequence must have. None:
            sequences of any length, and no static images.
        neuron: Settings of all neurons; None: the defaults of :class:`NeuronSettings`.
        batch_norm: Whether the convolutions are normalised.
        pooling: Side of each block's pooling (1: none): one number for all, or one per block.
        dropout: Share of the inputs of the hidden and of the output layer that are silenced while
            training, [0, 1).

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
        time_steps: int | None = 4,
        neuron: NeuronSettings | None = None,
        batch_norm: bool = False,
        pooling: int | Sequence[int] = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_at_least(1, num_classes=num_classes, population=population)
        check_at_least(0, hidden=hidden)
        if time_steps is not None:
            check_at_least(1, time_steps=time_steps)
        check(0.0 <= dropout < 1.0, "dropout", dropout, "0 (none) to less than 1")
        check(len(channels) > 0, "channels", [], "at least one number of channels")
        self.input_shape = check_shape(input_shape)
        self.num_classes = num_classes
        self.population = population
        self.time_steps = time_steps
        neuron = NeuronSettings() if neuron is None else neuron
        named = {"kernel_sizes": kernel_sizes, "strides": strides, "pooling": pooling}
        sizes = [per_block(name, value, len(channels)) for name, value in named.items()]
        self.blocks = nn.ModuleList()
        shape = self.input_shape
        for out_channels, kernel, stride, pool in zip(channels, *sizes, strict=True):
            after = output_shape(shape, out_channels, kernel, stride, pool)
            self.blocks.append(
                ConvBlock(shape[0], out_channels, kernel, stride, neuron, batch_norm, pool)
            )
            shape = after
        features = math.prod(shape)
        self.hidden = LinearBlock(features, hidden, neuron, dropout) if hidden else None
        outputs = num_classes * population
        self.output = LinearBlock(hidden or features, outputs, neuron, dropout)
        self.step_mode = "m"
        self.apply(init_weights)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores.

        Args:
            x: Static images ``[N, C, H, W]``, or sequences ``[N, T, C, H, W]``, as a ``DataLoader``
                stacks them.

        Returns:
            Mean spike rates ``[N, num_classes]``, whole multiples of 1 / (T * population), in
            float32 at least. Where classes tie, ``argmax`` takes the first.

        Raises:
            ValueError: Another shape, or another number of steps.
        """
        spikes = self.output_spikes(x)
        # Under autocast spikes may come in bfloat16, which holds no count above 256.
        totals = spikes.sum(0, dtype=torch.promote_types(spikes.dtype, torch.float32))
        counts = totals.unflatten(1, (self.num_classes, self.population)).sum(2)
        return counts / (len(spikes) * self.population)

    def output_spikes(self, x: Tensor) -> Tensor:
        """Spikes ``[T, N, num_classes * population]`` of the output neurons, 0 or 1."""
        self._check_input(x)
        if x.ndim == 5:
            x = x.transpose(0, 1)
        return self._multi_step(x) if self.step_mode == "m" else self._single_steps(x)

    def _check_input(self, x: Tensor) -> None:
        remedy = "; another image size needs another network.input_shape"
        check_input(x, self.input_shape, self.time_steps, remedy)
        if x.ndim == 4 and self.time_steps is None:
            raise ValueError(
                f"input {list(x.shape)}: static images need a number of steps for which they are "
                "shown; write network.time_steps=4"
            )

    def _multi_step(self, x: Tensor) -> Tensor:
        first = cast(ConvBlock, self.blocks[0])
        if x.ndim == 4:
            current = first.current(x.unsqueeze(0))
            current = current.expand(cast(int, self.time_steps), *current.shape[1:])
        else:
            current = first.current(x)
        return self._after_first(first.spikes(current))

    def _single_steps(self, x: Tensor) -> Tensor:
        first = cast(ConvBlock, self.blocks[0])
        if x.ndim == 4:
            currents = [first.current(x)] * cast(int, self.time_steps)
        else:
            currents = [first.current(step) for step in x]
        return torch.stack([self._after_first(first.spikes(current)) for current in currents])

    def _after_first(self, spikes: Tensor) -> Tensor:
        """From the spikes of the first block to those of the output, in either step mode."""
        for block in self.blocks[1:]:
            spikes = block(spikes)
        spikes = spikes.flatten(-3)
        if self.hidden is not None:
            spikes = self.hidden(spikes)
        return self.output(spikes)
