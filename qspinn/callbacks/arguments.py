"""Checks of the arguments of post-training quantisation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

STAGES = ("validate", "test")


def check_arguments(calibration_batches: object, stages: object, calibration_data: object) -> None:
    """Refuses invalid arguments before a trainer is at hand.

    Raises:
        TypeError: Calibration data that is no list of batches.
        ValueError: An invalid number of batches, or invalid stages.
    """
    owner = "PostTrainingQuantization"
    single = isinstance(calibration_data, Tensor | Mapping | str | tuple)
    if calibration_data is not None and (single or not isinstance(calibration_data, Iterable)):
        raise TypeError(
            f"{owner}: calibration_data is a {type(calibration_data).__name__}; give a list of "
            "batches or a DataLoader"
        )
    whole = isinstance(calibration_batches, int) and not isinstance(calibration_batches, bool)
    if not whole or calibration_batches < 1:  # type: ignore[operator]
        raise ValueError(
            f"{owner}: calibration_batches={calibration_batches!r}; write a number of batches, "
            "1 or more"
        )
    if isinstance(stages, str) or not isinstance(stages, Sequence):
        raise ValueError(f"{owner}: stages={stages!r}; write a list, such as ['validate', 'test']")
    for stage in stages:
        if stage not in STAGES:
            raise ValueError(
                f"{owner}: stages={list(stages)}: unknown stage {stage!r}; "
                f"write any of {', '.join(STAGES)}"
            )
