"""The kinds of neurons that have a step of their own, by name.

A kind is added with its step (in :mod:`qspinn.steps.neurons` or :mod:`qspinn.steps.traces`), a line
here, and a line in :mod:`qspinn.plan.neurons` that says which modules are of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qspinn.steps import neurons

__all__ = ["MODELS", "NeuronModel", "Step"]

Step = Callable[..., Any]


@dataclass(frozen=True)
class NeuronModel:
    """What is known of a kind of neurons.

    Attributes:
        charge: The step of its potential; None: another one, or none that is known.
        charge_alone: The same where the input current does not decay.
        is_exact: Whether the step is one of these; else states are rounded after the module's own.
        leaks: Whether it has a leak.
        counts: Whether its spikes are whole numbers and not only 0 and 1.
        reads_out: Whether its state is its output.
        additions: What a step of a potential costs.
    """

    charge: Step | None = None
    charge_alone: Step | None = None
    is_exact: bool = True
    leaks: bool = True
    counts: bool = False
    reads_out: bool = False
    additions: int = 2

    @property
    def fires(self) -> bool:
        """Whether its output is 0 or 1."""
        return self.is_exact and not self.counts and not self.reads_out

    def step(self, decay_input: bool) -> Step:
        """The charge, with a current that decays or one that does not."""
        step = self.charge if decay_input else self.charge_alone
        assert step is not None
        return step


_LIF = NeuronModel(neurons.leak, neurons.leak_only)

MODELS = {
    "if": NeuronModel(neurons.integrate, neurons.integrate, leaks=False, additions=1),
    "lif": _LIF,
    "plif": _LIF,
    "ilif": NeuronModel(charge_alone=neurons.leak_only, counts=True),
    "filter": NeuronModel(reads_out=True),
    "fallback": NeuronModel(is_exact=False),
}
"""Name of a kind -> what is known of it."""
