"""The reward of a run: one number from its accuracy and its costs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from qspinn.records import RunRecord

Reward = Callable[[RunRecord], float]
"""Any callable that gives a finite number for a record; the highest wins."""


@dataclass(frozen=True)
class LinearReward:
    """`accuracy - mu * footprint / baseline_footprint`, with the accuracy in [0, 1].

    Attributes:
        mu: The accuracy that one would give up to save the whole 32-bit footprint. At 0.1,
            going from 8 bits to 4 (an eighth of the baseline) outweighs 1.25 points of accuracy.
    """

    mu: float = 0.1

    def __post_init__(self) -> None:
        _check_weight("mu", self.mu)

    def __call__(self, record: RunRecord) -> float:
        """The reward of a record."""
        return record.accuracy - self.mu * record.footprint_bits / record.baseline_footprint_bits

    def __str__(self) -> str:
        return f"accuracy - {self.mu:g} * footprint / baseline footprint"


@dataclass(frozen=True)
class EnergyReward:
    """`accuracy - mu * footprint / baseline_footprint - nu * energy / float_energy`.

    The energies are those of a sample, as estimated in the record's `work`: of the network, and of
    the same network with the same spikes in float32.

    Attributes:
        mu: The accuracy that one would give up to save the whole 32-bit footprint.
        nu: The same of the whole energy in float32.

    Raises:
        ValueError: An invalid weight; when called, a record without these energies.
    """

    mu: float = 0.1
    nu: float = 0.1

    def __post_init__(self) -> None:
        _check_weight("mu", self.mu)
        _check_weight("nu", self.nu)

    def __call__(self, record: RunRecord) -> float:
        """The reward of a record."""
        work = record.work or {}
        in_float = work.get("float_energy_nj")
        if not in_float:
            raise ValueError(
                f"EnergyReward: the run of {record.network} with scheme {record.scheme} and seed "
                f"{record.seed} has no energy in its record (work.float_energy_nj), because it is "
                "older, or because its work could not be counted; run it again, leave it out of "
                "runs=, or write reward._target_=qspinn.selection.LinearReward"
            )
        return LinearReward(self.mu)(record) - self.nu * work["energy_nj"] / float(in_float)

    def __str__(self) -> str:
        return f"{LinearReward(self.mu)} - {self.nu:g} * energy / float energy"


@dataclass(frozen=True)
class FaithfulReward:
    """`accuracy - mu * footprint / baseline_footprint - nu * (1 - agreement)`.

    The agreement is the share of samples that the network puts into the same class as its 32-bit
    twin, in the record's `fidelity`: of two networks with the same accuracy, the one
    that behaves more like the trained one has the higher reward.

    Attributes:
        mu: The accuracy that one would give up to save the whole 32-bit footprint.
        nu: The same so that all samples keep their class, instead of none.

    Raises:
        ValueError: An invalid weight; when called, a quantised run without an agreement.
    """

    mu: float = 0.1
    nu: float = 0.1

    def __post_init__(self) -> None:
        _check_weight("mu", self.mu)
        _check_weight("nu", self.nu)

    def __call__(self, record: RunRecord) -> float:
        """The reward of a record; a 32-bit network agrees with itself."""
        agreement = 1.0 if record.scheme == "none" else record.agreement
        if agreement is None:
            raise ValueError(
                f"FaithfulReward: the run of {record.network} with scheme {record.scheme} and seed "
                f"{record.seed} has no agreement in its record (fidelity.agreement), because it is "
                "older, or was run with quantization.fidelity_samples=0; run it again with "
                "fresh=true, leave it out of runs=, or write "
                "reward._target_=qspinn.selection.LinearReward"
            )
        return LinearReward(self.mu)(record) - self.nu * (1.0 - agreement)

    def __str__(self) -> str:
        return f"{LinearReward(self.mu)} - {self.nu:g} * (1 - agreement)"


def _check_weight(name: str, weight: object) -> None:
    number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if not (number and 0 <= weight < math.inf):  # type: ignore[operator]
        raise ValueError(
            f"reward.{name}={weight!r} is not a finite number of at least 0; write for example 0.1"
        )
