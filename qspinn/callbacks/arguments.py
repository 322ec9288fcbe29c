"""Checks of the arguments of callbacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

STAGES = ("validate", "test")


def check_whole(value: object, least: int, place: str, wanted: str) -> int:
    """A whole number of at least ``least``.

    Raises:
        ValueError: Something else; it names the place and says what to write.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{place}={value!r}; write {wanted}")
    return value


def check_arguments(calibration_batches: object, stages: object, calibration_data: object) -> None:
    """Refuses invalid arguments of post-training quantisation before a trainer is at hand.

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
    place, wanted = f"{owner}: calibration_batches", "a number of batches, 1 or more"
    check_whole(calibration_batches, 1, place, wanted)
    if isinstance(stages, str) or not isinstance(stages, Sequence):
        raise ValueError(f"{owner}: stages={stages!r}; write a list, such as ['validate', 'test']")
    for stage in stages:
        if stage not in STAGES:
            raise ValueError(
                f"{owner}: stages={list(stages)}: unknown stage {stage!r}; "
                f"write any of {', '.join(STAGES)}"
            )
