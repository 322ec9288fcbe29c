"""What a run returns to a sweeper: the reward, or the values that `objective` names."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from qspinn.app.errors import ConfigurationError, RunError
from qspinn.records import RunRecord
from qspinn.selection import LinearReward

_MEASURED = (
    *("accuracy", "drop", "share", "footprint_bits", "training_footprint_bits", "reduction"),
    *("flash_bits", "ram_bits", "learning_ram_bits", "energy_nj", "agreement"),
)
_VALUES: dict[str, Callable[[RunRecord], float | None]] = {
    "reward": LinearReward(),
    **{name: attrgetter(name) for name in _MEASURED},
}


def check_objective(objective: object) -> list[str]:
    """The names in an objective: one, or those of a list.

    Names with a `/` are those of metrics, which only the record of the run holds.

    Raises:
        ConfigurationError: It is neither.
    """
    is_list = isinstance(objective, Sequence) and not isinstance(objective, str)
    names: list[Any] = list(objective) if is_list else [objective]  # type: ignore[call-overload]
    for name in names:
        if not isinstance(name, str) or (name not in _VALUES and "/" not in name):
            raise ConfigurationError(
                f"objective={objective!r}; write one of {', '.join(_VALUES)}, a metric such as "
                "val/loss, or a list such as [accuracy,footprint_bits]"
            )
    if not names:
        raise ConfigurationError("objective=[]; write a name, or a list of names")
    return names


def objective_of(record: RunRecord, objective: object) -> float | tuple[float, ...]:
    """The values that an objective names, by validation data where some were held out.

    A number for a name, as many as a list has names.

    Raises:
        RunError: The record does not hold one of them.
    """
    names = check_objective(objective)
    choosing = record.measured_on("validation") or record
    values = tuple(_value(choosing, name) for name in names)
    return values[0] if isinstance(objective, str) else values


def objective_of_stopped(accuracy: float | None, objective: object) -> float | tuple[float, ...]:
    """The same of a run that was stopped before it had a record: what is not known is NaN."""
    known = {} if accuracy is None else {"accuracy": accuracy}
    values = tuple(known.get(name, math.nan) for name in check_objective(objective))
    return values[0] if isinstance(objective, str) else values


def _value(record: RunRecord, name: str) -> float:
    value = _VALUES[name](record) if name in _VALUES else record.metrics.get(name)
    if value is not None:
        return float(value)
    if name in _VALUES:
        why = "this run has not measured it"
    elif name in record.metrics:
        why = "it is not a finite number"
    else:
        why = f"the metrics of this run are {', '.join(sorted(record.metrics)) or 'none'}"
    raise RunError(f"objective={name}: {why}; the record is kept")
