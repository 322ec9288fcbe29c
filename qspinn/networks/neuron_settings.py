"""What kind of neuron a network is built from, as plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spikingjelly.activation_based import neuron, surrogate

from qspinn.fixed_point import MAX_BITS
from qspinn.networks.checks import check, check_choice

KINDS = ("lif", "plif", "if")

SURROGATES: dict[str, Callable[..., surrogate.SurrogateFunctionBase]] = {
    "atan": surrogate.ATan,
    "sigmoid": surrogate.Sigmoid,
    "piecewise_quadratic": surrogate.PiecewiseQuadratic,
    "rectangle": surrogate.Rect,
}
"""Name -> SpikingJelly class: the gradient that replaces the one of the step function."""


@dataclass(frozen=True)
class NeuronSettings:
    """Settings of every neuron of a network.

    With input current x, membrane v and k = 1 / tau, one step is: charge, fire (spike = 1 where
    the charged membrane h is at least the threshold), reset.

    * ``lif``: h = v + x - k (v - v_reset), with ``decay_input`` h = v + k (x - (v - v_reset))
    * ``plif``: as ``lif``, and each layer learns its own k
    * ``if``: h = v + x

    Args:
        kind: ``lif``, ``plif`` or ``if``.
        tau: Membrane time constant in steps, more than 1; for ``plif`` the initial one. ``if`` has
            none and ignores it.
        v_threshold: The membrane fires at this value or above.
        v_reset: Membrane after a spike, and at the start. None: the threshold is subtracted
            instead (soft reset), and the start is 0.
        decay_input: Whether the input current is divided by tau as well.
        surrogate: ``atan``, ``sigmoid``, ``piecewise_quadratic`` or ``rectangle``.
        surrogate_alpha: Steepness of the surrogate; larger is narrower.
        detach_reset: Whether the reset is left out of the gradient.

    Raises:
        ValueError: A value outside what is listed here.
    """

    kind: str = "lif"
    tau: float = 2.0
    v_threshold: float = 1.0
    v_reset: float | None = 0.0
    decay_input: bool = False
    surrogate: str = "atan"
    surrogate_alpha: float = 2.0
    detach_reset: bool = True

    def __post_init__(self) -> None:
        check_choice("neuron kind", self.kind, KINDS)
        check_choice("neuron surrogate", self.surrogate, SURROGATES)
        check(self.tau > 1, "neuron tau", self.tau, "more than 1 (or kind=if for no leak)")
        alpha = self.surrogate_alpha
        check(alpha > 0, "neuron surrogate_alpha", alpha, "more than 0")
        lowest = 0.0 if self.v_reset is None else self.v_reset
        wanted = f"more than {lowest}, the membrane after a reset"
        check(self.v_threshold > lowest, "neuron v_threshold", self.v_threshold, wanted)
        if self.v_threshold >= 2.0**MAX_BITS:
            raise ValueError(
                f"neuron v_threshold={self.v_threshold}: no format holds it, and no membrane "
                f"reaches it; write less than 2^{MAX_BITS}, such as 1.0"
            )

    def build(self, step_mode: str = "m") -> neuron.BaseNode:
        """A new layer of such neurons; it takes its size from its first input.

        Args:
            step_mode: ``m``: all time steps in one call, ``[T, N, *]``; ``s``: one, ``[N, *]``.
        """
        shared = {
            "v_threshold": float(self.v_threshold),
            "v_reset": None if self.v_reset is None else float(self.v_reset),
            "surrogate_function": SURROGATES[self.surrogate](alpha=float(self.surrogate_alpha)),
            "detach_reset": self.detach_reset,
            "step_mode": step_mode,
        }
        if self.kind == "if":
            return neuron.IFNode(**shared)
        tau, decay_input = float(self.tau), self.decay_input
        if self.kind == "plif":
            return neuron.ParametricLIFNode(init_tau=tau, decay_input=decay_input, **shared)
        return neuron.LIFNode(tau=tau, decay_input=decay_input, **shared)
