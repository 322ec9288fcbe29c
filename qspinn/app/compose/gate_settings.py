"""The group ``exploration.gate`` of the configuration."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from qspinn.app.errors import ConfigurationError, is_number, switch
from qspinn.callbacks.pruning import Judge, optuna_judge
from qspinn.selection.search.gating import Curve, GateRules

PRUNERS = ("median", "halving", "hyperband")
STEPS = 100
"""Of a training, for a pruner of Optuna."""


@dataclass(frozen=True)
class GateSettings(GateRules):
    """What a candidate has to be able to reach, and when it is evaluated.

    Attributes:
        samples: Validation samples, drawn at random, on which a network is evaluated first; None:
            all of them.
        fractions: Points of an ITQ training at which it is evaluated, besides its validations.
        pruner: One of Optuna's that stops trainings as well; None: none.
    """

    samples: int | None = 500
    fractions: Sequence[float] = (0.1,)
    pruner: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples is not None and (type(self.samples) is not int or self.samples < 1):
            raise ValueError(f"samples={self.samples!r}; write a number of samples, or null")
        given: object = self.fractions
        if not isinstance(given, Sequence) or not all(is_number(x) and 0 < x < 1 for x in given):
            raise ValueError(
                f"fractions={given!r}; write a list of numbers between 0 and 1, such as [0.1], or "
                "[] for none"
            )
        if self.pruner is not None and self.pruner not in PRUNERS:
            raise ValueError(f"pruner={self.pruner!r}; write null or one of {', '.join(PRUNERS)}")
        if self.pruner is not None and importlib.util.find_spec("optuna") is None:
            raise ValueError(f"pruner={self.pruner} needs Optuna; pip install '.[search]'")

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {**asdict(self), "fractions": [float(one) for one in self.fractions]}


def gate_settings(exploration: Mapping[str, Any]) -> GateSettings | None:
    """Return the settings of the gate; None where it is switched off.

    Raises:
        ConfigurationError: An invalid value, with its place.
    """
    given = exploration.get("gate")
    if given is None:
        return None
    known = [item.name for item in fields(GateSettings) if item.name != "max_drop"]
    if not isinstance(given, Mapping) or not set(given) <= {"enabled", *known}:
        raise ConfigurationError(
            f"exploration.gate={given!r}: the keys are {', '.join(('enabled', *known))}; "
            "null for no gate"
        )
    enabled = switch("exploration.gate.enabled", given.get("enabled", False))
    values = {name: value for name, value in given.items() if name != "enabled"}
    try:
        settings = GateSettings(max_drop=exploration["max_drop"], **values)
    except ValueError as error:
        place = "exploration" if str(error).startswith("max_drop") else "exploration.gate"
        raise ConfigurationError(f"{place}.{error}") from error
    return settings if enabled else None


def pruner_among(name: str, others: Sequence[Curve]) -> Judge:
    """Return a judge that asks a pruner of Optuna, which has seen trainings of no larger networks.

    Nothing is kept between processes: the pruner is shown the other curves first.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruners: dict[str, Any] = {
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=2),
        "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(
            min_resource=STEPS // 10, reduction_factor=3
        ),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(
            min_resource=STEPS // 10, max_resource=STEPS, reduction_factor=3
        ),
    }
    # Hyperband puts a trial into a bracket by a hash of the study's name.
    study = optuna.create_study(
        direction="maximize",
        study_name="gate",
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=pruners[name](),
    )
    for curve in others:
        trial = study.ask()
        judge = optuna_judge(trial, STEPS)
        for progress in sorted(curve):
            judge(progress, curve[progress])
        if curve:
            study.tell(trial, curve[max(curve)])
        else:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return optuna_judge(study.ask(), STEPS)
