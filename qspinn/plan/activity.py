"""The activity of a network on some samples: numbers of operations, without word lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

__all__ = [
    "Activity",
    "Connection",
    "ReportsWork",
    "StateUpdates",
    "WorkReport",
    "WorkUnknownError",
]


class WorkUnknownError(ValueError):
    """What a network computes cannot be counted; the message says where and why."""


@dataclass(frozen=True)
class Connection:
    """What the synapses of one weight tensor did, all samples and time steps together.

    Attributes:
        layer: Path of the layer.
        weight: Name of the tensor that holds the weights.
        factor: What weights are multiplied by: name of a tensor of the layer, or the word length
            of a number that is none; ``None`` for spikes, for which weights are only added up.
        recurrent: Whether they lead back to the layer itself.
        operations: Effective synaptic operations: those of inputs that are not 0.
        dense: Those that there would be if no input ever were 0.
        inputs: Input values.
        sums: Output values, each a sum of products.
        passes: Samples times the time steps that the layer worked in for each.
    """

    layer: str
    weight: str
    factor: str | int | None
    recurrent: bool
    operations: int
    dense: int
    inputs: int
    sums: int
    passes: int | Fraction


@dataclass(frozen=True)
class StateUpdates:
    """How often the states of one tensor were updated.

    Attributes:
        layer: Path of the layer.
        state: Name of the tensor.
        updates: Updates of single values.
        passes: Samples times time steps.
        additions: Additions and comparisons per update.
        leak: Name of the tensor that a state is multiplied by in each update; ``None``: by none.
    """

    layer: str
    state: str
    updates: int
    passes: int
    additions: int
    leak: str | None


@dataclass(frozen=True)
class Activity:
    """What a network did on some samples.

    Attributes:
        samples: How many.
        time_steps: For how many steps each of them was shown, in the mean.
        connections: What the synapses did.
        states: What the neurons did.
        notes: What was counted as something else, in words.
    """

    samples: int
    time_steps: float
    connections: tuple[Connection, ...]
    states: tuple[StateUpdates, ...]
    notes: tuple[str, ...] = ()


class ReportsWork(Protocol):
    """What a module that declares its tensors implements, in addition, to report its work.

    Without it, the work and the energy of a network that it is part of are not known.
    """

    def report_work(self, report: WorkReport | None) -> None:
        """Reports from now on what it computes without learning; nothing more, for ``None``.

        It calls ``report.sequence`` where states begin anew, ``report.synapses`` and
        ``report.updates`` at each pass, and keeps ``report`` out of copies and checkpoints.
        """
        ...


class WorkReport:
    """Takes what one module reports. Names are those of ``device_tensors``.

    Attributes:
        layer: Path of the module.
        samples: So many samples began.
        synapse_calls: What was reported of synapses.
        state_passes: State, additions and leak -> samples times time steps.
    """

    def __init__(self, layer: str) -> None:
        self.layer = layer
        self.samples = 0
        self.synapse_calls: list[Connection] = []
        self.state_passes: Counter[tuple[str, int, str | None]] = Counter()

    def sequence(self, samples: int) -> None:
        """States begin anew, for so many samples."""
        self.samples += samples

    def synapses(
        self,
        weight: str,
        operations: int,
        *,
        sizes: tuple[int, int, int],
        samples: int,
        steps: int = 1,
        factor: str | int | None = None,
        recurrent: bool = False,
    ) -> None:
        """Weights were added up, or multiplied and added up.

        Args:
            weight: Name of the tensor that holds them.
            operations: How many were, all samples and steps together: inputs that are not 0, each
                times the sums that it is part of.
            sizes: Of one step of one sample: operations if no input is 0, inputs, and sums.
            samples: Samples in this call.
            steps: Time steps in this call.
            factor: What they are multiplied by: name of a tensor, or bits of a number that is none
                (such as a count of spikes); ``None`` where inputs are spikes, so that they are only
                added up.
            recurrent: Whether these are connections from the neurons to themselves.
        """
        passes = samples * steps
        dense, inputs, sums = (size * passes for size in sizes)
        call = (operations, dense, inputs, sums, passes)
        self.synapse_calls.append(Connection(self.layer, weight, factor, recurrent, *call))

    def updates(
        self,
        state: str,
        *,
        samples: int,
        steps: int = 1,
        additions: int = 1,
        leak: str | None = None,
    ) -> None:
        """All values of a state were read, changed and written.

        Args:
            state: Name of the tensor.
            samples: Samples in this call.
            steps: Time steps in this call.
            additions: Additions and comparisons per value.
            leak: Name of the tensor that each value was multiplied by; ``None``: by none.
        """
        self.state_passes[state, additions, leak] += samples * steps


def merged(connections: Iterable[Connection]) -> tuple[Connection, ...]:
    """One entry for all calls of the same synapses."""
    found: dict[tuple[object, ...], Connection] = {}
    for one in connections:
        key = (one.layer, one.weight, one.factor, one.recurrent)
        known = found.get(key)
        if known is not None:
            one = replace(
                one,
                operations=one.operations + known.operations,
                dense=one.dense + known.dense,
                inputs=one.inputs + known.inputs,
                sums=one.sums + known.sums,
                passes=one.passes + known.passes,
            )
        found[key] = one
    return tuple(found.values())


def merged_updates(states: Iterable[StateUpdates]) -> tuple[StateUpdates, ...]:
    """One entry for all updates of the same state."""
    found: dict[tuple[object, ...], StateUpdates] = {}
    for one in states:
        key = (one.layer, one.state, one.additions, one.leak)
        known = found.get(key)
        if known is not None:
            updates, passes = one.updates + known.updates, one.passes + known.passes
            one = replace(one, updates=updates, passes=passes)
        found[key] = one
    return tuple(found.values())
