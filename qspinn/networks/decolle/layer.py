"""One layer of DECOLLE: traces of its inputs, neurons, and a fixed random readout."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qspinn.fixed_point import Format, Quantizer
from qspinn.networks.decolle.declaration import DeclaresLayer
from qspinn.networks.decolle.fixed_point import PARAMETERS, STATES, FixedPoint
from qspinn.networks.decolle.free_scale import free_format, in_units, is_free
from qspinn.networks.decolle.settings import DecolleSettings, LayerShape
from qspinn.steps.lowering import FollowingNumbers, PotentialNumbers
from qspinn.steps.traces import following, potential, refractory


class LayerStep(NamedTuple):
    """What one step of a layer gives.

    Attributes:
        spikes: 0 or 1 after pooling, ``[N, *]``.
        readout: Of the spikes, ``[N, classes]``.
        membrane: Potentials before pooling, ``[N, *]``.
    """

    spikes: Tensor
    readout: Tensor
    membrane: Tensor


class DecolleLayer(DeclaresLayer):
    """Neurons whose inputs leave traces, and a readout that nothing trains.

    With input x (spikes, as a rule), weights W, biases b and the leaks k of the three states, one
    step is

    * ``p <- p + k_p (q - p)``, the membrane trace of each input, from the q of the step before;
    * ``q <- q + k_q (x - q)``, its synaptic trace;
    * ``u = W p + b - r``, the potential of each neuron;
    * ``s = 1`` where ``u`` (with pooling, the largest of a square) is at least the threshold;
    * ``r <- r - k_r r + refractory`` where the neuron itself fired, else without the last term;
    * ``y = G s``, the readout.

    This is the model of Kaiser, Mostafa & Neftci, Frontiers in Neuroscience 14:424 (2020), as their
    public code has it (github.com/nmi-lab/decolle-public, ``LIFLayer`` in ``decolle/base_model.py``
    and ``LenetDECOLLE`` in ``decolle/lenet_decolle_model.py``): P, Q, U and S as there, and r their
    -R. As there, P, Q and R are updated before U within a step, pooling takes the largest
    potential, and a neuron that fired is refractory whether or not it was the one that its square
    passed on. Unlike there, both traces have a gain of 1, so that they stay in [0, 1] for spikes,
    and readouts have no bias.

    While the layer learns (``training``), :meth:`step` hides spikes from the readout at random
    (dropout; ``settings.readout_dropout``), as ``LenetDECOLLE`` does. Spikes that are passed on,
    states, and everything outside of training are the same with and without.

    Gradients reach ``weight`` and ``bias`` through u of this very step and nothing else: traces and
    refractory states carry none, and none passes to the input.

    In fixed point (see :meth:`use_fixed_point`) every state lies on its grid at every step: q, p, r
    and u are each rounded once, from the exact value of the right-hand side. ``1 - k`` is computed
    from the leak on its grid. Where the scale of the weights is free, W, b, r, u and the threshold
    are counted in a unit of the layer (:mod:`qspinn.networks.decolle.free_scale`); `weight` and
    `bias` remain in the layer's own potentials, and so does what :meth:`step` gives.

    Args:
        shape: Sizes.
        num_classes: Of the readout.
        settings: Constants.
        is_last: Whether the network is read out here. The readouts of all other layers are needed
            only where the network learns.
        input_max: The largest input.
        whole_inputs: Whether inputs are whole numbers; else they have a format of their own.

    Attributes:
        weight: ``[outputs, inputs]`` or ``[outputs, C, k, k]``.
        bias: ``[outputs]``.
        readout: G, ``[classes, features]``; a buffer.
        q, p: States, ``[N, *shape.traces]``; None before a sequence.
        r: State, ``[N, *shape.neurons]``; in units where the layer has one.
        spike_watcher: None, or what is called with the spikes ``[1, N, *]`` of each step.
    """

    spike_watcher: Callable[[Tensor], None] | None = None

    def __init__(
        self,
        shape: LayerShape,
        num_classes: int,
        settings: DecolleSettings,
        is_last: bool = True,
        input_max: float = 1.0,
        whole_inputs: bool = True,
    ) -> None:
        super().__init__()
        self.shape, self.settings = shape, settings
        self.num_classes, self.is_last = num_classes, is_last
        self.input_max, self.whole_inputs = input_max, whole_inputs
        bound = settings.weight_gain * math.sqrt(3 / shape.fan_in)
        self.weight = nn.Parameter(torch.empty(shape.weight).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(shape.outputs))
        features = math.prod(shape.spikes)
        reach = settings.readout_gain / math.sqrt(features)
        self.register_buffer("readout", torch.empty(num_classes, features).uniform_(-reach, reach))
        # The largest q, p and r at the end of any sequence so far: what formats are chosen on.
        self.register_buffer("peaks", torch.zeros(3))
        self.readout: Tensor
        self.peaks: Tensor
        self.surrogate = settings.build_surrogate()
        self.q: Tensor | None
        self.p: Tensor | None
        self.r: Tensor | None
        for name in ("q", "p", "r"):
            self.register_memory(name, None)
        self._fixed: FixedPoint | None = None
        self._constants = settings.constants
        self._parameters_held: tuple[object, tuple[Tensor, Tensor]] | None = None

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.shape}, num_classes={self.num_classes}, step_mode={self.step_mode}"

    def reset(self) -> None:
        """Forgets the states, and notes how large they were."""
        if self.q is not None and self.p is not None and self.r is not None:
            states = {"q": self.q, "p": self.p, "r": self.r}
            with torch.no_grad():
                reached = torch.stack([state.amax() for state in states.values()]).to(self.peaks)
                if self._fixed is not None:
                    limits = [self._fixed.largest(name) for name in states]
                    # What has saturated might have gone further: formats may double.
                    saturated = reached >= torch.tensor(limits).to(reached)
                    reached = reached * (1.0 + saturated.to(reached.dtype))
                    reached[2] *= self.unit
                torch.maximum(self.peaks, reached, out=self.peaks)
        super().reset()

    def step(self, x: Tensor) -> LayerStep:
        """One step.

        Args:
            x: Input ``[N, *shape.inputs]``.
        """
        p = self._advance_traces(x)
        spikes, membrane = self._fire(self._current(p))
        share = self.settings.readout_dropout
        # Without an own condition, a share of 0 would draw random numbers, too.
        seen = F.dropout(spikes, share) if self.training and share > 0.0 else spikes
        if self.unit != 1.0:
            membrane = membrane * self.unit
        return LayerStep(spikes, self.read(seen), membrane)

    def read(self, spikes: Tensor, steps: int = 1) -> Tensor:
        """The readout ``[N, classes]`` of spikes ``[N, *]``, or of their sums over some steps."""
        self._tell_readout(spikes, steps)
        readout, dtype = self.readout, spikes.dtype
        if self._fixed is not None:
            readout = self._fixed.stored("readout", readout, training=False)
            dtype = self._fixed.readout_dtype(readout, steps)
        return spikes.flatten(1).to(dtype) @ readout.to(dtype).T

    def single_step_forward(self, x: Tensor) -> Tensor:
        """One step: input ``[N, *shape.inputs]`` to spikes ``[N, *shape.spikes]``."""
        spikes, _ = self._fire(self._current(self._advance_traces(x)))
        return spikes

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        """All steps: input ``[T, N, *]`` to spikes ``[T, N, *]``, with one product for all T."""
        traces = torch.stack([self._advance_traces(x) for x in x_seq])
        currents = self._current(traces.flatten(0, 1)).unflatten(0, traces.shape[:2])
        return torch.stack([self._fire(current)[0] for current in currents])

    def use_fixed_point(self, quantizers: Mapping[str, Quantizer] | None) -> None:
        """Computes in fixed point from now on, or in float again.

        Weights and biases stay what they are, in 32-bit: every use rounds them, so that they can
        learn. Formats that the plan leaves out stay in 32-bit.

        Args:
            quantizers: Name of a tensor -> how it is held. None: in float again.

        Raises:
            ValueError: Formats with which the layer could not work.
        """
        if quantizers is None:
            self._fixed, self._constants = None, self.settings.constants
        else:
            known = (*PARAMETERS, *STATES, *self.settings.constants)
            for name in set(quantizers) - set(known):
                raise ValueError(f"a quantizer of {name!r}: write one of {', '.join(known)}")
            self._compute_with(quantizers)
        self._parameters_held = None
        super().reset()

    def free_format(
        self, word_length: int, rounding: str, overflow: str, granularity: str
    ) -> Format:
        """The format of weights whose scale is free, by the protocol of `qspinn.plan`."""
        return free_format(self.weight, word_length, rounding, overflow, granularity)

    def _compute_with(self, quantizers: Mapping[str, Quantizer]) -> None:
        settings, whole = self.settings, self.input_max if self.whole_inputs else None
        units = in_units(self.weight, quantizers, settings) if is_free(quantizers) else None
        self._fixed = FixedPoint(quantizers, settings, self.shape, whole, units)
        self._constants = self._fixed.constants

    def follow_weights(self) -> None:
        """Counts in the unit that suits the weights as they are now, where it has a unit."""
        units = None if self._fixed is None else self._fixed.units
        if units is None:
            return
        before, now = units.weight, self.weight
        if before.device != now.device or not torch.equal(before, now):
            assert self._fixed is not None
            self._compute_with(self._fixed.given)
            self._parameters_held = None

    def accumulator_word_lengths(self) -> Mapping[str, int]:
        """Bits that exact sums need in the worst case, sign included."""
        names = {"u": "potential", "readout": "readout"}
        worst = {} if self._fixed is None else self._fixed.worst_bits
        return {names[name]: bits + 1 for name, bits in worst.items()}

    @torch.no_grad()
    def _advance_traces(self, x: Tensor) -> Tensor:
        """Updates both traces, and gives the membrane traces ``[N, *]``."""
        if x.shape[1:] != self.shape.traces:
            x = x.reshape(len(x), *self.shape.traces)
        if self.q is None or self.p is None:
            self._begin(x)
        self._tell_traces(len(x))
        assert self.q is not None
        assert self.p is not None
        if self._fixed is not None and not self.whole_inputs:
            x = self._fixed.state("input", x)
        self.p = self._moved("p", self.p, self.q)
        self.q = self._moved("q", self.q, x)
        return self.p

    @property
    def unit(self) -> float:
        """The potential that 1 stands for in fixed point; 1 where steps are powers of two."""
        return 1.0 if self._fixed is None else self._fixed.unit

    @property
    def draw_keys(self) -> dict[str, int]:
        """State -> key of the draws that its roundings take in the sequence that has begun."""
        held = {} if self._fixed is None else self._fixed.quantizers
        return {name: one.key for name, one in held.items() if one.key is not None}

    def _begin(self, x: Tensor) -> None:
        self._tell_sequence(len(x))
        self.follow_weights()
        dtype = self.weight.dtype
        self.q = torch.zeros(x.shape, dtype=dtype, device=x.device)
        self.p = torch.zeros_like(self.q)
        self.r = torch.zeros((len(x), *self.shape.neurons), dtype=dtype, device=x.device)
        if self._fixed is not None:
            self._fixed.begin_sequence()

    def _moved(self, name: str, state: Tensor, target: Tensor, gain: float | None = None) -> Tensor:
        """A trace after one step towards ``target``, or with a gain of its own."""
        leak, keeps = self._constants[f"leak_{name}"], None
        if self._fixed is not None:  # in the type in which the next state is exact
            state, target = (one.to(self._fixed.dtypes[name]) for one in (state, target))
            keeps = functools.partial(self._fixed.state, name)
        n = FollowingNumbers(keeps, 1.0 - leak, leak if gain is None else gain)
        moved: Tensor = (following if gain is None else refractory)(state, target, None, n)
        return moved

    def _current(self, p: Tensor) -> Tensor:
        """``W p + b``, ``[N, *shape.neurons]``; in fixed point the exact sum."""
        self._tell_sums(p)
        with torch.autocast(p.device.type, enabled=False) if self._fixed else nullcontext():
            weight, bias = self._weights()
            if self.shape.kernel_size is None:
                return F.linear(p.to(weight.dtype), weight, bias)
            padding = self.shape.kernel_size // 2
            return F.conv2d(p.to(weight.dtype), weight, bias, self.shape.stride, padding)

    def _weights(self) -> tuple[Tensor, Tensor]:
        """Weight and bias as they are computed with."""
        if self._fixed is None:
            return self.weight, self.bias
        keeps = not torch.is_grad_enabled() and not self.training
        both = (self.weight, self.bias)
        key = tuple((one._version, one.data_ptr(), one.device) for one in both)
        held = self._parameters_held
        if keeps and held is not None and held[0] == key:
            return held[1]
        weight = self._fixed.stored("weight", self.weight, self.training)
        bias = self._fixed.stored("bias", self.bias, self.training)
        dtype = self._fixed.potential_dtype(weight, bias)
        values = (weight.to(dtype), bias.to(dtype))
        if keeps:
            self._parameters_held = (key, values)
        return values

    def _fire(self, current: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes after pooling and potentials, and updates the refractory states."""
        r = self.r
        assert r is not None
        self._tell_neurons(len(r))
        keeps = None if self._fixed is None else self._fixed.potential
        u: Tensor = potential(current, r.to(current.dtype), None, PotentialNumbers(keeps))
        threshold = self._constants["threshold"]
        pool = self.shape.pool
        passed = F.max_pool2d(u, pool) if pool > 1 else u
        spikes: Tensor = self.surrogate(passed - threshold)
        if self.spike_watcher is not None:
            self.spike_watcher(spikes.detach()[None])
        with torch.no_grad():
            self.r = self._moved("r", r, u >= threshold, self._constants["refractory"])
        return spikes, u
