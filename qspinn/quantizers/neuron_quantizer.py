"""What a neuron layer needs to step with quantised values."""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from qspinn.fixed_point import (
    FixedPointFormat,
    LearnedStep,
    TensorQuantizer,
    fake_quantize,
    stored_constant,
)
from qspinn.plan.neuron_constants import leak_of, reset_of, stated_threshold
from qspinn.plan.neurons import Charge
from qspinn.quantizers.charge import Firing, exact_step
from qspinn.quantizers.compiled_step import StepConstants
from qspinn.quantizers.observer import Sees
from qspinn.steps.lowering import LeakyNumbers
from qspinn.steps.models import MODELS, NeuronModel, Step


@dataclass(frozen=True)
class NeuronUnit:
    """The unit that a layer of neurons counts in.

    Attributes:
        scale: The potential that 1 stands for; a tensor broadcasts over the potentials.
        rest: The potential that a hard reset sets, in units.
        step: What the scale is learned through; ``None``: nothing learns it.
    """

    scale: float | Tensor
    rest: float
    step: LearnedStep | None = field(default=None, compare=False)

    def of(self, value: float | Tensor, rest: float) -> float | Tensor:
        """A potential of the network in units; `rest` is where a hard reset sets it."""
        scale = self.scale
        if isinstance(scale, Tensor) and isinstance(value, Tensor):
            scale = scale.to(value.device)
        return (value - rest) / scale + self.rest

    def potential(self, value: Tensor, rest: float) -> Tensor:
        """A potential of the network, given in units; the inverse of :meth:`of`."""
        scale = self.scale.to(value.device) if isinstance(self.scale, Tensor) else self.scale
        return rest + scale * (value.double() - self.rest)

    def unity(self) -> Tensor | None:
        """Exactly 1, as it broadcasts over the potentials, with the gradient of a learned scale.

        That of ``scale / scale.detach()``; ``None`` where nobody learns it. What comes into the
        neurons is divided by it, and so is the way from rest to threshold; what surrogate gradients
        see is multiplied by it. The gradient that the scale gets by that is LSQ's, of the
        potentials as the network counts them: ``scale * code`` less what was rounded to it.
        """
        if self.step is None or not self.step.learns:
            return None
        one = self.step.unity()
        return one.reshape(self.scale.shape) if isinstance(self.scale, Tensor) else one


@dataclass
class NeuronQuantizer:
    """What a neuron layer needs to step with quantised values."""

    charge: Charge  # its charging formula
    # State name -> quantizer; a state that is missing stays in float.
    states: dict[str, TensorQuantizer] = field(default_factory=dict)
    threshold: TensorQuantizer | None = None  # quantizer of the threshold
    decay: TensorQuantizer | None = None  # quantizer of `1/tau`
    unit: NeuronUnit | None = None  # the unit of its own that the layer counts in
    # The membrane's largest number, where thresholds that are tensors must not lie above it.
    highest: float | None = None
    compute_dtype: torch.dtype = torch.float32  # float type in which the charge is exact
    spike_dtype: torch.dtype = torch.float32  # float type of the network, and so of the spikes
    own_start: bool = False  # whether the neuron begins a sequence with states of its own making
    snaps: bool = False  # whether its surrogate function misses 0 and 1 by some last bits
    compiled: bool = False  # whether its step is compiled, see :meth:`step_constants`
    sequences: int = 0  # how many sequences have begun
    # State name -> observer, while formats are being calibrated.
    observers: dict[str, Sees] = field(default_factory=dict, repr=False)
    _left: dict[str, tuple[weakref.ref[Tensor], int]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def model(self) -> NeuronModel:
        """What is known of its kind."""
        return MODELS[self.charge]

    def __getstate__(self) -> dict[str, Any]:
        """Weak references do not pickle; a state that nobody knows is put on its grid again."""
        return {**self.__dict__, "_left": {}}

    def watch(self, name: str, observer: Sees | None) -> None:
        """Shows an observer a state from now on, or nobody."""
        self.observers.pop(name, None)
        if observer is not None:
            self.observers[name] = observer

    def threshold_of(self, node: Any) -> float | Tensor:
        """The threshold that is compared with, on its grid; a tensor where there are several.

        A learned one may outgrow what the membrane can hold. It stays at ``highest`` then, at
        which a saturated membrane still fires.
        """
        value = stated_threshold(node)
        if value is None:
            return math.inf  # a readout
        if self.unit is not None:
            held = self._threshold_in_units(value, reset_of(node) or 0.0, node.training)
            one = self.unit.unity()
            if one is None:
                return held
            return self.unit.rest + (_beside(held, one) - self.unit.rest) / one.double()
        if not isinstance(value, Tensor):
            return value if self.threshold is None else self.threshold.constant(value)
        if self.threshold is not None:
            value = self.threshold.stored(value, node.training and value.requires_grad)
            if self.highest is not None:
                value = value.clamp(max=self.highest)
        return value

    def _threshold_in_units(
        self, value: float | Tensor, rest: float, training: bool
    ) -> float | Tensor:
        """As :meth:`threshold_of`: a whole number of steps but for the last bits of a division."""
        assert self.unit is not None
        if self.threshold is not None and self.threshold.repaired is not None:
            return self._repaired_threshold(self.threshold, value)
        value = self.unit.of(value.double() if isinstance(value, Tensor) else value, rest)
        if self.threshold is None:
            return value
        fmt = self.threshold.format
        if not isinstance(value, Tensor):
            return stored_constant(value, fmt, "nearest")
        value = fake_quantize(value, fmt, "nearest", returning=training)
        return value if self.highest is None else value.clamp(max=self.highest)

    def _repaired_threshold(
        self, threshold: TensorQuantizer, value: float | Tensor
    ) -> float | Tensor:
        """What was repaired, which is in units: one number, or one for each channel."""
        held = threshold.repaired
        assert held is not None
        if not isinstance(value, Tensor):
            return float(held) if held.numel() == 1 else held
        return threshold.stored(value, value.requires_grad).to(torch.float64)

    def reset_of(self, node: Any) -> float | None:
        """The potential after a spike, on the membrane's grid."""
        value = reset_of(node)
        if self.unit is not None:
            return value if value is None else self.unit.rest
        return value if value is None else self.on_grid("v", value)

    def first_of(self, name: str, value: float) -> float:
        """The number that a state begins with, on its grid."""
        if self.unit is not None and name == "v":
            return self.unit.rest  # else it has no unit of its own
        return self.on_grid(name, value)

    def on_grid(self, name: str, value: float) -> float:
        """A constant on the grid of a state."""
        return self.states[name].constant(value) if name in self.states else value

    def decay_of(self, node: Any) -> float | Tensor:
        """The leak factor, on its grid; a tensor where it is learned, or where there are several.

        Drawn anew at each use only while it is learned: anything else a device has stored.
        """
        value = leak_of(node)
        if self.decay is None:
            return value
        if not isinstance(value, Tensor):
            return self.decay.constant(value)
        return self.decay.stored(value, node.training and value.requires_grad)

    def charging(self, node: Any) -> tuple[Step, LeakyNumbers]:
        """The step of the potential, and its constants."""
        leak = self.decay_of(node) if self.model.leaks else 0
        step = self.model.step(bool(getattr(node, "decay_input", True)))
        return step, LeakyNumbers(leak=leak, rest=self.reset_of(node) or 0.0)

    def firing(self, node: Any, threshold: float | Tensor) -> Firing:
        """How ``node`` fires at a threshold on its grid, and resets."""
        detached = bool(node.detach_reset)
        gain: float | Tensor = 1.0 if self.unit is None else self.unit.scale
        one = None if self.unit is None else self.unit.unity()
        gain = gain if one is None else _beside(gain, one) * one.double()
        reset = self.reset_of(node)
        return Firing(threshold, reset, detached, self.snaps, self.model.counts, gain)

    def charged(self, node: Any, x: Tensor, v: Tensor) -> Tensor:
        """The membrane potential before firing: exact, then rounded once."""
        step, n = self.charging(node)
        one = None if self.unit is None else self.unit.unity()
        if one is not None:
            x = x / one.to(x)
        h = exact_step(step, x, v, n, self.compute_dtype)
        dtype = torch.promote_types(v.dtype, torch.float32)
        kept = self.rounded("v", h).to(dtype)
        in_training = kept.requires_grad and "v" in self.states
        if self.unit is None or not in_training or self.reset_of(node) is None:
            return kept
        # In units the upper end is the threshold, or little more. What lies beyond it spikes and is
        # reset either way, but surrogate gradients want to know how far it is.
        beyond = h.detach() > self.highest_potential
        return torch.where(beyond, h.to(dtype), kept)

    @property
    def highest_potential(self) -> float:
        """The largest number of the membrane's format."""
        fmt = self.states["v"].format
        assert isinstance(fmt, FixedPointFormat)
        return fmt.max

    def rounded(self, name: str, value: Tensor) -> Tensor:
        """A state as its grid has it."""
        if name in self.observers:
            self.observers[name].see(value)
        return self.states[name].state(value) if name in self.states else value

    def after_reset(self, node: Any, v: Tensor, threshold: float | Tensor) -> Tensor:
        """The potential after the reset, on the membrane's grid.

        It lies there already, unless a soft reset subtracts a threshold that stays in float
        or may be negative.
        """
        if "v" not in self.states or self.resets_exactly(node, threshold):
            return v
        return self.states["v"].state(v)

    def resets_exactly(self, node: Any, threshold: float | Tensor) -> bool:
        """Whether a reset gives a number of the membrane's grid without rounding."""
        if getattr(node, "v_reset", None) is not None:
            return True
        if self.threshold is None:
            return False
        if isinstance(threshold, Tensor):
            return not self.threshold.format.signed
        return threshold >= 0.0

    def initial(self, name: str, value: object, made: Tensor) -> Tensor:
        """A state before the first step, on its grid: a number, or a tensor that was given."""
        in_units = self.unit is not None and name == "v"
        if not (name in self.states or in_units) or not is_values(made):
            return made
        if isinstance(value, int | float) and not self.own_start:
            return torch.full_like(made, self.first_of(name, float(value)))
        return self.states[name].state(made)

    def entered(self, name: str, given: object, made: object) -> object:
        """A state that goes on: on its grid already, unless somebody else has set it."""
        if name not in self.states or not is_values(made) or self._is_as_left(name, given):
            return made
        assert isinstance(made, Tensor)
        return self.states[name].state(made)

    def leave(self, name: str, state: object) -> None:
        """Remembers a state as this neuron has left it, on its grid."""
        if torch.compiler.is_compiling() or not isinstance(state, Tensor) or state.is_inference():
            return
        self._left[name] = (weakref.ref(state), state._version)

    def _is_as_left(self, name: str, state: object) -> bool:
        if torch.compiler.is_compiling() or name not in self._left:
            return False
        left, version = self._left[name]
        return isinstance(state, Tensor) and left() is state and state._version == version

    def spikes_like(self, spike: Tensor, x: Tensor) -> Tensor:
        """An output in the network's own type, where 0 and 1 are exact.

        A float64 current in a float32 network comes from an exact sum.
        """
        return spike.to(self.spike_dtype if x.dtype == torch.float64 else x.dtype)

    def step_constants(
        self, x: Tensor, charge: Step, n: LeakyNumbers, firing: Firing
    ) -> StepConstants:
        """What a compiled step on a current ``x`` depends on besides tensors."""
        state = self.states["v"]
        return StepConstants(
            charge,
            n._replace(leak=None) if isinstance(n.leak, Tensor) else n,
            firing._replace(threshold=0.0) if isinstance(firing.threshold, Tensor) else firing,
            *(state.format, state.rounding, state.overflow, self.compute_dtype),
            self.spike_dtype if x.dtype == torch.float64 else None,
        )

    def begin_sequence(self) -> None:
        """Restarts the random numbers of stochastic rounding."""
        self.sequences += 1
        for quantizer in self.states.values():
            quantizer.restart()


def _beside(value: float | Tensor, other: Tensor) -> float | Tensor:
    """A constant on the device of another one."""
    return value.to(other.device) if isinstance(value, Tensor) else value


def is_values(state: object) -> bool:
    """Whether a state is a tensor of numbers, which a grid can hold."""
    return isinstance(state, Tensor) and state.is_floating_point()
