"""The network of DECOLLE: layers that learn each from a readout of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, cast

import torch
from spikingjelly.activation_based import base
from torch import Tensor, nn

from qspinn.networks.checks import check, check_at_least, per_block
from qspinn.networks.decolle.encoding import check_coding, encoded_steps
from qspinn.networks.decolle.layer import DecolleLayer, LayerStep
from qspinn.networks.decolle.operations import (
    input_operation,
    layer_operations,
    layer_tensors,
    readout_operations,
)
from qspinn.networks.decolle.settings import DecolleSettings, LayerShape


class Decolle(nn.Module, base.StepModule):
    """Convolutional and fully connected DECOLLE layers, one behind the other.

    Deep continuous local learning (Kaiser, Mostafa & Neftci, Frontiers in Neuroscience 14:424,
    2020): every layer has a fixed random readout, whose error at this very step trains it. Nothing
    is propagated back through time or through layers, so training needs no more memory for longer
    sequences. :class:`qspinn.learning.LocalLearning` is the rule. Where each formula is taken from
    says :class:`DecolleLayer`.

    Layers are named ``layers.I``; each is a :class:`DecolleLayer` and declares to a plan what a
    device would hold of it.

    Inputs are static images ``[N, *input_shape]``, shown for ``time_steps`` steps, or sequences of
    frames ``[N, T, *input_shape]`` of any length, such as event counts. ``coding`` says what the
    first layer takes of a value:

    * ``direct``: the value, cut off at ``input_max``; in fixed point on a grid of its own;
    * ``bernoulli``: a spike, with the value as its probability, drawn anew at each step;
      outside of training the draws are the same for every batch;
    * ``binary``: a spike where the value is above 0;
    * ``counts``: the whole number below the value, cut off at ``input_max``.

    The class scores are the mean of the last layer's readout over the steps after the first
    ``burn_in``. Every state starts at 0 and keeps its last value after a call:
    ``spikingjelly.activation_based.functional.reset_net`` must run between batches. In step mode
    ``m`` the network computes layer after layer, in ``s`` step after step; the scores are the same.

    Args:
        input_shape: Shape of an image or frame: ``(C, H, W)``, or any where ``channels`` is empty.
        num_classes: Classes.
        channels: Output channels of each convolutional layer.
        kernel_sizes: Side of each one's kernel (odd): one number for all, or one per layer.
        strides: Step of each one's kernel, likewise.
        pools: Side of the squares that each one's potentials are pooled over, likewise.
        hidden: Neurons of each fully connected layer that follows.
        time_steps: Steps T for which a static image is shown.
        burn_in: First steps that are neither learned from nor counted.
        coding: See above.
        input_max: The largest input.
        settings: Constants of all layers; None: the defaults of :class:`DecolleSettings`.

    Raises:
        ValueError: A value that makes no network; the message names it.
    """

    name = "decolle"

    def __init__(
        self,
        input_shape: Sequence[int] = (1, 28, 28),
        num_classes: int = 10,
        channels: Sequence[int] = (24,),
        kernel_sizes: int | Sequence[int] = 7,
        strides: int | Sequence[int] = 2,
        pools: int | Sequence[int] = 2,
        hidden: Sequence[int] = (256,),
        time_steps: int = 12,
        burn_in: int = 4,
        coding: str = "direct",
        input_max: float = 1.0,
        settings: DecolleSettings | None = None,
    ) -> None:
        super().__init__()
        check_at_least(1, num_classes=num_classes)
        check_at_least(0, burn_in=burn_in)
        check(time_steps > burn_in, "time_steps", time_steps, f"more than burn_in={burn_in}")
        check_coding(coding, input_max)
        self.input_shape, self.num_classes = tuple(input_shape), num_classes
        self.time_steps, self.burn_in = time_steps, burn_in
        self.coding, self.input_max = coding, float(input_max)
        settings = DecolleSettings() if settings is None else settings
        named = {"kernel_sizes": kernel_sizes, "strides": strides, "pools": pools}
        given = [per_block(name, value, len(channels)) for name, value in named.items()]
        convolutions = zip(channels, *given, strict=True)
        sizes = [*convolutions, *((neurons, None, 1, 1) for neurons in hidden)]
        if not sizes:
            raise ValueError("channels=[] and hidden=[]: write the size of at least one layer")
        self.layers = nn.ModuleList()
        shape = self.input_shape
        for index, size in enumerate(sizes):
            layer = LayerShape(shape, *size)
            is_first, is_last = index == 0, index == len(sizes) - 1
            largest = self.input_max if is_first else 1.0
            whole = not is_first or coding != "direct"
            self.layers.append(DecolleLayer(layer, num_classes, settings, is_last, largest, whole))
            shape = layer.spikes
        self.step_mode = "s"

    def forward(self, x: Tensor) -> Tensor:
        """Class scores ``[N, num_classes]``.

        Args:
            x: ``[N, *input_shape]`` or ``[N, T, *input_shape]``.

        Raises:
            ValueError: Another shape, or a sequence that ends within the burn-in.
        """
        steps = self.encoded(x)
        counted = self.steps_of(x) - self.burn_in
        last = cast(DecolleLayer, self.layers[-1])
        if self.step_mode == "m":
            spikes = torch.stack(list(steps))
            for layer in self.layers:
                spikes = layer(spikes)
            sums = spikes[self.burn_in :].sum(0)
        else:
            sums = torch.zeros((), device=x.device)
            for t, spikes in enumerate(steps):
                for layer in self.layers:
                    spikes = layer(spikes)
                sums = sums + spikes if t >= self.burn_in else sums
        return last.read(sums, counted) / counted

    def device_operations(self, example: Tensor) -> Mapping[str, Any]:
        """What a device would compute, by the protocol of `qspinn.plan`.

        With ``coding=bernoulli`` it takes spikes, ``[T, N, *]`` as :meth:`encoded` gives them.
        """
        steps, layers = self.steps_of(example), cast(list[DecolleLayer], list(self.layers))
        drawn = self.coding == "bernoulli"
        is_sequence = drawn or tuple(example.shape[1:]) != self.input_shape
        first = input_operation(layers[0], self.coding, self.input_max, is_sequence)
        operations, source = [first], "input"
        tensors: dict[str, Any] = {}
        for index, layer in enumerate(layers):
            added, source = layer_operations(layer, f"layers.{index}", source)
            operations += added
            tensors |= layer_tensors(layer, f"layers.{index}")
        path = f"layers.{len(layers) - 1}"
        operations += readout_operations(path, source, self.num_classes, self.burn_in)
        return {
            "steps": steps,
            "frame_stride": math.prod(self.input_shape) if is_sequence else 0,
            "tensors": tensors,
            "operations": operations,
            "answers": f"{path}.scores",
            "scale": Fraction(1, steps - self.burn_in),
        }

    def step(self, x: Tensor) -> list[LayerStep]:
        """One step of all layers, each of which gets its input without a gradient.

        Args:
            x: ``[N, *input_shape]``, as :meth:`encoded` makes it.
        """
        taken: list[LayerStep] = []
        for layer in self.layers:
            taken.append(cast(DecolleLayer, layer).step(x))
            x = taken[-1].spikes.detach()
        return taken

    def encoded(self, x: Tensor) -> Iterator[Tensor]:
        """What the first layer takes, ``[N, *input_shape]``, step by step."""
        steps = self.steps_of(x)
        frames = x.unsqueeze(0) if x.shape[1:] == self.input_shape else x.transpose(0, 1)
        return encoded_steps(frames, steps, self.coding, self.input_max, self.training)

    def steps_of(self, x: Tensor) -> int:
        """T of an input.

        Raises:
            ValueError: Another shape, or a sequence that ends within the burn-in.
        """
        if tuple(x.shape[1:]) == self.input_shape:
            return self.time_steps
        if tuple(x.shape[2:]) != self.input_shape:
            wanted = list(self.input_shape)
            raise ValueError(
                f"input {list(x.shape)}: expected {['N', *wanted]} or {['N', 'T', *wanted]}; "
                "another size needs another network.input_shape"
            )
        if x.shape[1] <= self.burn_in:
            raise ValueError(
                f"input {list(x.shape)} has T={x.shape[1]} steps: write network.burn_in below "
                f"that (it is {self.burn_in}), or give longer sequences"
            )
        return int(x.shape[1])
