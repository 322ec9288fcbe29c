"""Quantised spiking neurons: every state on its grid at every time step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from spikingjelly.activation_based import base
from spikingjelly.activation_based import neuron as spiking
from torch import Tensor

from qspinn.plan.neurons import Charge
from qspinn.quantizers.charge import exact_charge, fire_and_reset
from qspinn.quantizers.class_swap import Swapped, substituted
from qspinn.quantizers.compiled_step import StepConstants, compiled_step
from qspinn.quantizers.observer import Observer
from qspinn.quantizers.tensor_quantizer import TensorQuantizer


@dataclass
class NeuronQuantizer:
    """What a neuron layer needs to step with quantised values.

    Attributes:
        charge: Its charging formula.
        states: State name -> quantizer; a state that is missing stays in float.
        threshold: Quantizer of the threshold.
        decay: Quantizer of ``1/tau``.
        compute_dtype: Float type in which the charge is exact.
        spike_dtype: Float type of the network, and so of the spikes.
        compiled: Whether its step is compiled, see :meth:`step_constants`.
        sequences: How many sequences have begun.
        observers: State name -> observer, while formats are being calibrated.
    """

    charge: Charge
    states: dict[str, TensorQuantizer] = field(default_factory=dict)
    threshold: TensorQuantizer | None = None
    decay: TensorQuantizer | None = None
    compute_dtype: torch.dtype = torch.float32
    spike_dtype: torch.dtype = torch.float32
    compiled: bool = False
    sequences: int = 0
    observers: dict[str, Observer] = field(default_factory=dict, repr=False)

    def threshold_of(self, node: Any) -> float:
        """The threshold that is compared with, on its grid."""
        value: float = node.v_threshold
        return value if self.threshold is None else self.threshold.constant(value)

    def reset_of(self, node: Any) -> float | None:
        """The potential after a spike, on the membrane's grid."""
        value: float | None = getattr(node, "v_reset", None)
        return value if value is None else self.on_grid("v", value)

    def on_grid(self, name: str, value: float) -> float:
        """A constant on the grid of a state."""
        return self.states[name].constant(value) if name in self.states else value

    def decay_of(self, node: Any) -> float | Tensor:
        """The leak factor, on its grid; a tensor where it is learned."""
        if self.charge == "plif":
            learned: Tensor = node.w.sigmoid()
            return learned if self.decay is None else self.decay.stored(learned, node.training)
        value = 1.0 / float(node.tau)
        return value if self.decay is None else self.decay.constant(value)

    def charged(self, node: Any, x: Tensor, v: Tensor) -> Tensor:
        """The membrane potential before firing: exact, then rounded once."""
        decay = None if self.charge == "if" else self.decay_of(node)
        decay_input = bool(getattr(node, "decay_input", True))
        reset = self.reset_of(node)
        h = exact_charge(self.charge, x, v, decay, reset, decay_input, self.compute_dtype)
        return self.rounded("v", h).to(torch.promote_types(v.dtype, torch.float32))

    def rounded(self, name: str, value: Tensor) -> Tensor:
        """A state as its grid has it."""
        if name in self.observers:
            self.observers[name].see(value)
        return self.states[name].state(value) if name in self.states else value

    def after_soft_reset(self, node: Any, v: Tensor) -> Tensor:
        """``v - threshold`` on the membrane's grid.

        It lies there already, unless the threshold stays in float or is negative.
        """
        if getattr(node, "v_reset", None) is not None or "v" not in self.states:
            return v
        exact = self.threshold is not None and self.threshold_of(node) >= 0.0
        return v if exact else self.states["v"].state(v)

    def initial(self, name: str, value: object, made: Tensor) -> Tensor:
        """A state before the first step, on its grid: a number, or a tensor that was given."""
        if name not in self.states or not _is_values(made):
            return made
        if isinstance(value, int | float):
            return torch.full_like(made, self.on_grid(name, float(value)))
        return self.states[name].state(made)

    def spikes_like(self, spike: Tensor, x: Tensor) -> Tensor:
        """An output in the network's own type, where 0 and 1 are exact.

        A float64 current in a float32 network comes from an exact sum.
        """
        return spike.to(self.spike_dtype if x.dtype == torch.float64 else x.dtype)

    def step_constants(self, node: Any, x: Tensor) -> StepConstants:
        """What a compiled step of ``node`` on a current ``x`` depends on besides tensors."""
        state = self.states["v"]
        return StepConstants(
            charge=self.charge,
            format=state.format,
            rounding=state.rounding,
            overflow=state.overflow,
            threshold=self.threshold_of(node),
            v_reset=self.reset_of(node),
            decay=float(self.decay_of(node)) if self.charge == "lif" else None,
            decay_input=bool(getattr(node, "decay_input", True)),
            detach_reset=bool(node.detach_reset),
            compute_dtype=self.compute_dtype,
            spike_dtype=self.spike_dtype if x.dtype == torch.float64 else None,
        )

    def begin_sequence(self, device: torch.device) -> None:
        """Restarts the random numbers of stochastic rounding."""
        self.sequences += 1
        for quantizer in self.states.values():
            quantizer.restart(device)


class _SteppingNode(Swapped):
    """Steps through a sequence one by one, from states that are on their grids."""

    _quantizer: NeuronQuantizer

    # SpikingJelly's neurons point this at whole-sequence kernels that never call
    # the single step.
    multi_step_functional_forward = base.MemoryModule.multi_step_functional_forward

    def materialize_states(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], step_mode: str
    ) -> tuple[Any, ...]:
        """The neuron's own initial states, on their grids; ``[N, *]`` each."""
        return _materialized(self, super(), inputs, states, step_mode)


class QuantizedNode(_SteppingNode):
    """Mixin over SpikingJelly's ``BaseNode``: charges by an exact formula."""

    # As above: the subclasses' own would call a kernel.
    multi_step_forward = spiking.BaseNode.multi_step_forward

    def single_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], **kwargs: Any
    ) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        """One time step: charge, round, fire, reset.

        Args:
            inputs: The input current ``[N, *]``.
            states: The membrane potential ``[N, *]`` first.
            **kwargs: Not used; SpikingJelly's signature has them.

        Returns:
            ``(spikes,)`` and the states after the step.
        """
        quantizer, node = self._quantizer, self
        x, v = inputs[0], states[0]
        if quantizer.compiled and not quantizer.observers:
            step = compiled_step(quantizer.step_constants(node, x))
            learned = quantizer.decay_of(node) if quantizer.charge == "plif" else None
            spike, v = step(x, v, learned, node.surrogate_function)  # type: ignore[attr-defined]
            return (spike,), (v, *states[1:])
        h = quantizer.charged(node, x, v)
        spike, v = fire_and_reset(
            h,
            quantizer.threshold_of(node),
            quantizer.reset_of(node),
            node.surrogate_function,  # type: ignore[attr-defined]
            node.detach_reset,  # type: ignore[attr-defined]
        )
        v = quantizer.after_soft_reset(node, v)
        return (quantizer.spikes_like(spike, x),), (v, *states[1:])


class FallbackNode(_SteppingNode):
    """Mixin over any other stepping neuron: its states are rounded after the step."""

    def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any) -> Any:
        """All time steps of ``x_seq`` ``[T, N, *]``, one by one."""
        is_node = isinstance(self, spiking.BaseNode)
        owner: Any = spiking.BaseNode if is_node else base.MemoryModule
        return owner.multi_step_forward(self, x_seq, *args, **kwargs)

    def single_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], **kwargs: Any
    ) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        """The neuron's own step with quantised constants, then the rounding of its states."""
        quantizer = self._quantizer
        with substituted(self, **_constants(quantizer, self)):  # type: ignore[arg-type]
            outputs, states = super().single_step_functional_forward(  # type: ignore[misc]
                inputs, states, **kwargs
            )
        outputs = tuple(quantizer.spikes_like(output, inputs[0]) for output in outputs)
        names = self._memories  # type: ignore[attr-defined]
        rounded = tuple(
            quantizer.rounded(name, state) if _is_values(state) else state
            for name, state in zip(names, states, strict=True)
        )
        return outputs, rounded


class QuantizedSimpleNode(Swapped):
    """Mixin over ``SimpleBaseNode``: rounds the charged potential, before it fires."""

    _quantizer: NeuronQuantizer

    def single_step_forward(self, x: Tensor) -> Tensor:
        """One time step on the input current ``[N, *]``."""
        node: Any = self
        if not isinstance(node.v, Tensor):
            self._quantizer.begin_sequence(x.device)
            node.v = self._quantizer.initial("v", float(node.v), torch.full_like(x, float(node.v)))
        with substituted(node, **_constants(self._quantizer, node)):
            spike: Tensor = super().single_step_forward(x)  # type: ignore[misc]
            node.v = self._quantizer.after_soft_reset(node, node.v)
        return self._quantizer.spikes_like(spike, x)

    def neuronal_charge(self, x: Tensor) -> None:
        """Charges by the exact formula where there is one, else by the node's own."""
        _charge_in_place(self, super(), x)


class QuantizedReadout(Swapped):
    """Mixin over ``NonSpikingBaseNode``: rounds the potential that is read out."""

    _quantizer: NeuronQuantizer

    def forward(self, x_seq: Tensor) -> Any:
        """All time steps of ``x_seq`` ``[T, N, *]``."""
        self._quantizer.begin_sequence(x_seq.device)
        read: Any = super().forward(x_seq)  # type: ignore[misc]
        if isinstance(read, list):
            return [self._quantizer.spikes_like(v, x_seq) for v in read]
        return self._quantizer.spikes_like(read, x_seq)

    def neuronal_charge(self, x: Tensor) -> None:
        """Charges by the exact formula where there is one, else by the node's own."""
        _charge_in_place(self, super(), x)


def _charge_in_place(node: Any, parent: Any, x: Tensor) -> None:
    quantizer: NeuronQuantizer = node._quantizer
    if quantizer.charge == "fallback":
        parent.neuronal_charge(x)
        node.v = quantizer.rounded("v", node.v)
    else:
        node.v = quantizer.charged(node, x, node.v)


def _materialized(
    node: Any, parent: Any, inputs: tuple[Tensor, ...], states: tuple[Any, ...], step_mode: str
) -> tuple[Any, ...]:
    quantizer: NeuronQuantizer = node._quantizer
    begins = not isinstance(states[0], Tensor)
    made: tuple[Any, ...] = parent.materialize_states(inputs, states, step_mode)
    shapes_changed = not begins and made[0].shape != states[0].shape
    if not begins and not shapes_changed:
        return made
    quantizer.begin_sequence(inputs[0].device)
    return tuple(
        quantizer.initial(name, value, state)
        for name, value, state in zip(node._memories, states, made, strict=True)
    )


def _constants(quantizer: NeuronQuantizer, node: Any) -> dict[str, object]:
    constants: dict[str, object] = {}
    if quantizer.threshold is not None:
        constants["v_threshold"] = quantizer.threshold_of(node)
    if "v" in quantizer.states and getattr(node, "v_reset", None) is not None:
        constants["v_reset"] = quantizer.reset_of(node)
    return constants


def _is_values(state: object) -> bool:
    return isinstance(state, Tensor) and state.is_floating_point()


def sequence_number(node: Any) -> int:
    """The number of the sequence that a neuron is in, or is about to begin."""
    begun: int = node._quantizer.sequences
    return begun if isinstance(node.v, Tensor) else begun + 1
