"""What a run is worth: one number from its accuracy, its footprint and its behaviour."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from qspinn.records import RunRecord

__all__ = ["FaithfulReward", "LinearReward", "Reward"]

Reward = Callable[[RunRecord], float]
"""Any callable that gives a finite number for a record; the highest wins."""


@dataclass(frozen=True)
class LinearReward:
    """`accuracy - mu * footprint / baseline_footprint`, with the accuracy in [0, 1].

    Attributes:
        mu: The accuracy that one would give up to save the whole 32-bit footprint. At 0.1,
            going from 8 bits to 4 (an eighth of the baseline) is worth 1.25 points of accuracy.
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
class FaithfulReward:
    """`accuracy - mu * footprint / baseline_footprint - nu * (1 - agreement)`.

    The agreement is the share of samples that the network puts into the same class as its 32-bit
    twin, in the record's `fidelity`: of two networks that are right as often, the one that does
    what the trained one did is worth more.

    Attributes:
        mu: The accuracy that one would give up to save the whole 32-bit footprint.
        nu: The same so that all samples keep their class, instead of none.

    Raises:
        ValueError: A weight that cannot be; when called, a quantised run without an agreement.
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
