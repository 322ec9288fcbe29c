"""The network of Diehl and Cook as a module."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from qspinn.networks.checks import check, check_at_least, check_choice
from qspinn.networks.diehl_cook.declaration import (
    device_tensors,
)
from qspinn.networks.diehl_cook.fixed_point import HoldsNumbers
from qspinn.networks.diehl_cook.learning_rule import device_learning
from qspinn.networks.diehl_cook.operations import check_example, device_operations
from qspinn.stdp.arithmetic import Arithmetic
from qspinn.stdp.backends import BACKENDS, RUNNERS, choose
from qspinn.stdp.dynamics import NeuronState, StepKeys, advance
from qspinn.stdp.encoding import content_keys, spike_probabilities, training_keys
from qspinn.stdp.job import Job, Presentation
from qspinn.stdp.settings import STDP, DiehlCookSettings

FIRST_WEIGHTS = 0.3
"""Weights start uniform in [0, FIRST_WEIGHTS), before they are normalised."""


class DiehlCook(HoldsNumbers):
    """Poisson-coded inputs, and neurons that learn by STDP and inhibit each other.

    Every neuron is a leaky integrator with an adaptive threshold: it fires at
    ``threshold + theta``, and its theta grows whenever it does, so that all neurons get their
    turn. A spike inhibits all other neurons (Diehl & Cook, Frontiers in Computational Neuroscience
    9:99, 2015).

    :meth:`present` shows images, and learns from them where asked to. The module is also a
    SpikingJelly layer that does not learn: in step mode ``m`` from spikes ``[T, N, inputs]`` to
    spikes ``[T, N, neurons]``, in ``s`` one step, with states that ``reset`` clears. Weights and
    theta survive ``reset`` and are saved; potentials, refractory counters and traces are not.

    In fixed point (see ``use_fixed_point``) all of it is computed in integers, exactly as
    `number_types` says, and ``weight`` and ``theta`` hold numbers of their grids from the first
    learning on: there is no hidden float copy. With weights whose scale is free, each neuron counts
    in a unit of its own (`qspinn.stdp.free_scale`), and ``weight`` and ``theta`` remain in mV.

    Args:
        input_shape: Of an image, such as ``[1, 28, 28]``.
        neurons: Excitatory neurons, 1 or more.
        time_steps: Steps of 1 ms that an image is presented for, 1 or more.
        settings: Constants of the neurons.
        stdp: Constants of the plasticity.
        backend: ``reference`` (torch, step by step), ``numba`` (event-driven, CPU), ``torch``
            (batched, any device), ``triton`` (batched, GPU) or ``auto``: the fastest on the device.
        step_mode: ``m`` or ``s``, of :meth:`forward`.

    Attributes:
        weight: ``[inputs, neurons]``, mV per spike. No gradient.
        theta: ``[neurons]``, mV.
        presentations: How many images it has learned from, ``[]``.
        turns: How often the weights to each neuron were updated, ``[neurons]``.
        seed: Of all random draws, ``[]``; from torch's generator.
        spike_watcher: None, or what is called with all spikes ``[T, M, neurons]`` of each
            presentation and each call.

    Raises:
        ValueError: A value outside what is listed here.
    """

    name = "diehl_cook"
    spike_watcher: Callable[[Tensor], None] | None = None

    def __init__(
        self,
        input_shape: Sequence[int] = (1, 28, 28),
        neurons: int = 400,
        time_steps: int = 250,
        settings: DiehlCookSettings | None = None,
        stdp: STDP | None = None,
        backend: str = "auto",
        step_mode: str = "m",
    ) -> None:
        super().__init__()
        self.input_shape = tuple(input_shape)
        fits = min(self.input_shape, default=0) >= 1
        check(fits, "input_shape", self.input_shape, "sizes of 1 or more")
        check_at_least(1, neurons=neurons, time_steps=time_steps)
        check_choice("backend", backend, BACKENDS)
        self.neurons, self.time_steps, self.backend = neurons, time_steps, backend
        self.settings = DiehlCookSettings() if settings is None else settings
        self.stdp = STDP() if stdp is None else stdp
        self.step_mode = step_mode
        weight = torch.rand(math.prod(self.input_shape), neurons) * FIRST_WEIGHTS
        if self.stdp.weight_sum is not None:
            weight *= self.stdp.weight_sum / weight.sum(0)
        weight.clamp_(max=self.stdp.weight_max)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("theta", torch.zeros(neurons))
        self.register_buffer("presentations", torch.zeros((), dtype=torch.int64))
        self.register_buffer("turns", torch.zeros(neurons, dtype=torch.int64))
        self.register_buffer("seed", torch.randint(2**62, ()))
        self.theta: Tensor
        self.presentations: Tensor
        self.turns: Tensor
        self.seed: Tensor
        self.state: NeuronState | None
        self.register_memory("state", None)
        self.register_load_state_dict_post_hook(_count_loading)

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        return int(self.weight.shape[0])

    @property
    def revision(self) -> int:
        """Another number whenever weights, theta or formats have changed."""
        return self._revision

    def extra_repr(self) -> str:
        """Sizes and backend."""
        return (
            f"inputs={self.inputs}, neurons={self.neurons}, time_steps={self.time_steps}, "
            f"backend={self.backend}, step_mode={self.step_mode}"
        )

    @torch.no_grad()
    def present(self, images: Tensor, learning: bool = False, record: bool = False) -> Presentation:
        """Shows images to the network, each to neurons at rest.

        Args:
            images: ``[M, *input_shape]`` in [0, 1]; an input of 1 spikes at ``max_rate``.
            learning: Whether the network learns: weights by STDP, and theta. Each presentation then
                draws new spikes; otherwise an image gets the same spikes whenever it is shown.
            record: Whether to keep every spike.

        Raises:
            ValueError: Images of another shape or outside [0, 1]; learning where scales are free.
        """
        if tuple(images.shape[1:]) != self.input_shape:
            raise ValueError(
                f"images {list(images.shape)}: DiehlCook has input_shape={list(self.input_shape)}, "
                f"so it takes {['M', *self.input_shape]}"
            )
        if learning:
            self._check_learns()
        device = self.weight.device
        probabilities = spike_probabilities(images.to(device).flatten(1), self.settings.max_rate)
        seed, count = int(self.seed), len(images)
        if learning:
            keys = training_keys(seed, int(self.presentations), count, device)
        else:
            keys = content_keys(seed, probabilities)
        numbers = self.numbers()
        weight, theta = self._held("weight"), self._held("theta")
        settings, stdp, watcher = self.settings, self.stdp, self.spike_watcher
        if learning:
            weight = self._rules(device).bounded(weight)
        job = Job(
            probabilities, keys, weight, theta, self.turns, seed, settings, stdp, numbers,
            self.time_steps, learning, record or watcher is not None,
        )  # fmt: skip
        result = RUNNERS[choose(self.backend, device)](job)
        if learning:
            self._hold("weight", weight)
            self._hold("theta", theta)
            self.presentations += count
            self._revision += 1
        else:
            self._tell_presented(count, self.time_steps, result)
        if watcher is not None and result.spikes is not None:
            watcher(result.spikes)
        return result if record else replace(result, spikes=None)

    def single_step_forward(self, x: Tensor) -> Tensor:
        """One step: spikes ``[N, inputs]`` to spikes ``[N, neurons]``, 0 or 1."""
        rules = self._rules(x.device)
        theta = self._held("theta")
        return self._stepped(x, rules, self._held("weight"), rules.threshold(theta))

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        """All steps: spikes ``[T, N, inputs]`` to spikes ``[T, N, neurons]``."""
        rules = self._rules(x_seq.device)
        weight, total = self._held("weight"), rules.threshold(self._held("theta"))
        return torch.stack([self._stepped(x, rules, weight, total) for x in x_seq])

    @torch.no_grad()
    def _stepped(self, x: Tensor, rules: Arithmetic, weight: Tensor, total: Tensor) -> Tensor:
        if x.ndim != 2 or x.shape[1] != self.inputs:
            raise ValueError(
                f"spikes {list(x.shape)} of a step: DiehlCook takes [N, {self.inputs}]"
            )
        if self.state is None:
            delay = self.settings.inhibition_delay
            self.state = NeuronState.fresh(len(x), self.neurons, delay, rules.dtype, x.device)
            self._tell_sequence(len(x))
        if weight.is_floating_point():
            current = x.to(weight.dtype) @ weight
        else:  # exact: codes have at most 24 bits
            current = (x.to(torch.float64) @ weight.to(torch.float64)).to(torch.int64)
        keys = StepKeys.of(self.seed.to(x.device) + torch.arange(len(x), device=x.device))
        _, spikes, self.state = advance(self.state, current, total, self.settings, rules, keys)
        self._tell(len(x), 1, x, spikes)
        if self.spike_watcher is not None:
            self.spike_watcher(spikes[None])
        return spikes.to(x.dtype)

    def device_tensors(self) -> Sequence[Mapping[str, Any]]:
        """What a device would hold, by the protocol of `qspinn.plan`."""
        units = self._in_units()
        if units is None:
            return device_tensors(self.settings, self.stdp, self.weight.detach(), self.theta)
        return device_tensors(units.settings, self.stdp, units.weight, units.theta, in_units=True)

    def device_operations(self, example: Tensor) -> Mapping[str, Any]:
        """What a device would compute, by the protocol of `qspinn.plan`."""
        check_example(example, self.input_shape)
        weight, theta, seed = self._held("weight"), self._held("theta"), int(self.seed)
        held, steps = self._quantizers or {}, self.time_steps
        settings = self._unit_settings()
        return device_operations(settings, self.stdp, held, weight, theta, steps, seed)

    def device_learning(self) -> Mapping[str, Any]:
        """What a device would need to go on learning, by the protocol of `qspinn.plan`."""
        self._check_learns()
        held, numbers, shown = self._quantizers or {}, self.numbers(), int(self.presentations)
        return device_learning(self.stdp, held, numbers, self.turns, shown, int(self.seed))


def _count_loading(module: nn.Module, incompatible: object) -> None:
    assert isinstance(module, DiehlCook)
    module._revision += 1
