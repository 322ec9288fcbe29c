"""From NIR's differential equations to the constants of a neuron that steps in time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import nir
import numpy as np
import numpy.typing as npt

from qspinn.export.nir_file import refusal

Floats = npt.NDArray[np.float64]
Method = Literal["euler", "exact", "exponential_leak"]
Order = Literal["leak_first", "input_first"]
Reset = Literal["zero", "subtract"]
Comparison = Literal[">=", ">"]

_SAME = 1e-6
"""Relative: NIR files hold float32, and quotients of them."""


@dataclass(frozen=True)
class Simulation:
    """What NIR leaves to whoever simulates a graph.

    Attributes:
        dt: Length of a time step, in the unit of the graph's time constants.
        method: How a time constant becomes a leak per step: see ``docs/nir.md``.
        order: Whether a step leaks before the input is added, or after.
        reset: Whether a spike sets the potential to ``v_reset``, or subtracts the threshold.
        comparison: Whether a neuron fires at its threshold, or only above it.
    """

    dt: float = 1.0
    method: Method = "euler"
    order: Order = "leak_first"
    reset: Reset = "zero"
    comparison: Comparison = ">="

    def __post_init__(self) -> None:
        if isinstance(self.dt, bool) or not isinstance(self.dt, int | float):
            raise TypeError(f"dt is a {type(self.dt).__name__}; write a number")
        if not (math.isfinite(self.dt) and self.dt > 0):
            raise ValueError(f"dt={self.dt}; write a positive length of time")
        choices = (("method", Method), ("order", Order), ("reset", Reset))
        for name, allowed in (*choices, ("comparison", Comparison)):
            if getattr(self, name) not in get_args(allowed):
                given = getattr(self, name)
                raise ValueError(f"{name}={given!r}; write one of {', '.join(get_args(allowed))}")


@dataclass(frozen=True)
class Charge:
    """One step of a potential in units of ``scale``: ``h = v - leak v + (leak or 1) (x + bias)``.

    All values are scalars or have one for each neuron.

    Attributes:
        leak: ``None`` where it does not leak.
        decays_input: Whether the input is multiplied by the leak.
        scale: What the potential has to be multiplied by to be NIR's, less ``v_reset``.
        bias: What has to be added to the input current.
    """

    leak: Floats | None
    decays_input: bool
    scale: Floats
    bias: Floats


def parameters(name: str, node: Any, *names: str) -> list[Floats]:
    """Parameters of a node in float64; all finite."""
    values = []
    for key in names:
        try:
            value = np.asarray(getattr(node, key), np.float64)
        except (TypeError, ValueError) as error:
            raise refusal(name, node, f"its {key} is not made of numbers") from error
        if not np.isfinite(value).all():
            raise refusal(name, node, f"its {key} has values that are not finite")
        values.append(value)
    return values


def leak_and_gain(name: str, node: Any, key: str, simulation: Simulation) -> tuple[Floats, Floats]:
    """The part of a state that is lost per step, and what the input is multiplied by.

    Args:
        name: The node's name.
        node: The node.
        key: Which time constant of it.
        simulation: The step, and how it leaks.
    """
    (tau,) = parameters(name, node, key)
    if not (tau > 0).all():
        raise refusal(name, node, f"its {key} has values that are not positive")
    ratio = simulation.dt / tau
    leak = ratio if simulation.method == "euler" else -np.expm1(-ratio)
    gain = leak if simulation.method == "exact" else ratio
    if not (leak <= 1 + _SAME).all():
        raise refusal(
            name,
            node,
            f"dt={simulation.dt:g} is longer than its {key} ({tau.min():g}), for which Euler's "
            "method is not stable; write a smaller dt, in the unit of the graph's time "
            "constants, or method='exact'",
        )
    leak = np.minimum(leak, 1.0)
    if simulation.order == "input_first":
        gain = gain * (1.0 - leak)
    return leak, gain


def charge_of_node(name: str, node: Any, simulation: Simulation) -> Charge:
    """The step of an IF, LIF, CubaLIF, I, LI or CubaLI node's potential.

    The current of a ``CubaLIF`` or ``CubaLI`` comes from a leaky integrator of its own, whose unit
    is ``w_in`` times the gain of the synapse over its leak.
    """
    (resistance,) = parameters(name, node, "r")
    reset = _reset_of(name, node)
    if isinstance(node, nir.IF | nir.I):
        scale = _scale(name, node, simulation.dt * resistance)
        return Charge(None, False, scale, np.zeros(()))
    current = isinstance(node, nir.CubaLIF | nir.CubaLI)
    leak, gain = leak_and_gain(name, node, "tau_mem" if current else "tau", simulation)
    (rest,) = parameters(name, node, "v_leak")
    total = gain * resistance
    if current:
        synapse, into = leak_and_gain(name, node, "tau_syn", simulation)
        total = total * parameters(name, node, "w_in")[0] * (into / synapse)
    drive = leak * (rest - reset)
    reads_out = isinstance(node, nir.LI | nir.CubaLI)  # SpikingJelly's decay their input
    decays_input = reads_out or not np.allclose(total, 1.0, rtol=_SAME, atol=0)
    scale = _scale(name, node, total / leak if decays_input else total)
    return Charge(leak, decays_input, scale, drive / (leak * scale if decays_input else scale))


def threshold_of_node(name: str, node: Any, charge: Charge, simulation: Simulation) -> Floats:
    """At which potential a spiking node fires, in the unit of its charge."""
    (threshold,) = parameters(name, node, "v_threshold")
    reset = _reset_of(name, node)
    if simulation.reset == "subtract" and (reset != 0).any():
        raise refusal(
            name,
            node,
            "its v_reset is not 0, which says nothing about a reset by subtraction; write "
            "reset='zero', or set v_reset to 0",
        )
    return compared((threshold - reset) / charge.scale, simulation)


def compared(threshold: Floats, simulation: Simulation) -> Floats:
    """The threshold at which ``>=`` in float32 says what the comparison says."""
    if simulation.comparison == ">=":
        return threshold
    return np.nextafter(threshold.astype(np.float32), np.float32(np.inf)).astype(np.float64)


def _reset_of(name: str, node: Any) -> Floats:
    if getattr(node, "v_reset", None) is None:
        return np.zeros(())
    return parameters(name, node, "v_reset")[0]


def _scale(name: str, node: Any, scale: Floats) -> Floats:
    if not (scale > 0).all():
        raise refusal(
            name,
            node,
            "its input is multiplied by numbers that are not positive (r, or w_in); change the "
            "sign of the weights before it instead",
        )
    return np.ones(()) if np.allclose(scale, 1.0, rtol=_SAME, atol=0) else scale
