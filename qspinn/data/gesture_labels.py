"""The lists and the labels of DVS128 Gesture, as they come with its recordings.

``trials_to_train.txt`` and ``trials_to_test.txt`` list recordings, one file name per line, such as
``user01_fluorescent.aedat``. Beside it lies ``user01_fluorescent_labels.csv``, which says when the
subject makes which gesture: a line ``class,startTime_usec,endTime_usec``, then lines of three whole
numbers. Classes count from 1 to 11.

Source: A. Amir and others, "A low power, fully event-based gesture recognition system", CVPR 2017,
and the README of the data set.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

COLUMNS = ("class", "startTime_usec", "endTime_usec")
NUM_CLASSES = 11
LATEST = (1 << 62) - 1
"""What the clock of an AEDAT 3.1 file can reach, in microseconds."""

TRAIN_LIST = "trials_to_train.txt"
TEST_LIST = "trials_to_test.txt"
_USER = r"user([0-9]{1,9})_"
_TRIAL = re.compile(_USER + r"[A-Za-z0-9_\-]+\.aedat")
_NUMBER = re.compile(r"\s*([+-]?[0-9]{1,100})\s*")


class GestureLabelError(ValueError):
    """A list or a label file that says something impossible; names the file, line and value."""


@dataclass(frozen=True)
class Gesture:
    """One gesture of a recording.

    Args:
        label: Class from 0 to 10: the file's class minus 1.
        start: When it begins, in microseconds of the camera's clock.
        stop: When it ends; that moment itself is not part of it.
    """

    label: int
    start: int
    stop: int


def parse_gesture_labels(text: str, source: str = "labels") -> list[Gesture]:
    """Decodes a label file.

    Gestures of one recording may overlap (in the official files some do).

    Args:
        text: The whole file.
        source: What to call the file in an error.

    Raises:
        GestureLabelError: Another header, a line that is not three whole numbers, another class, or
            a gesture that ends before it begins.
    """
    lines = text.removeprefix("\ufeff").splitlines()
    header = [name.strip().lower() for name in lines[0].split(",")] if lines else []
    if header != [name.lower() for name in COLUMNS]:
        found = repr(lines[0][:60]) if lines else "an empty file"
        raise GestureLabelError(f"{source}: line 1: expected {','.join(COLUMNS)}, found {found}")
    gestures = []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        place = f"{source}: line {number}"
        try:
            label, start, stop = (_number(value) for value in line.split(","))
        except ValueError:
            raise GestureLabelError(
                f"{place}: expected three whole numbers, {','.join(COLUMNS)}, found {line[:60]!r}"
            ) from None
        if not 1 <= label <= NUM_CLASSES:
            raise GestureLabelError(
                f"{place}: expected a class of 1 to {NUM_CLASSES}, found {label}"
            )
        if not 0 <= start < stop <= LATEST:
            raise GestureLabelError(
                f"{place}: expected a start of 0 or more and an end after it, at most {LATEST}, "
                f"found {line[:60]!r}"
            )
        gestures.append(Gesture(label - 1, start, stop))
    if not gestures:
        raise GestureLabelError(f"{source}: expected at least one gesture, found none")
    return gestures


def parse_trials(text: str, source: str = "list of trials") -> list[str]:
    """Decodes a list of recordings: their names without ``.aedat``, in the order of the file.

    Args:
        text: The whole file.
        source: What to call the file in an error.

    Raises:
        GestureLabelError: A line that is no name of a recording, or one that is named twice.
    """
    names: dict[str, None] = {}  # a set that keeps the order
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        name = line.strip()
        if not name:
            continue
        if not _TRIAL.fullmatch(name):
            raise GestureLabelError(
                f"{source}: line {number}: expected a name such as user01_fluorescent.aedat, found "
                f"{name[:60]!r}"
            )
        if name.removesuffix(".aedat") in names:
            raise GestureLabelError(f"{source}: line {number}: {name} is listed a second time")
        names[name.removesuffix(".aedat")] = None
    return list(names)


def subject_of(name: str) -> int:
    """The number of the subject in the name of a recording: 1 for ``user01_fluorescent``.

    Raises:
        GestureLabelError: The name is not of that form.
    """
    match = re.match(_USER, name)
    if match is None:
        raise GestureLabelError(
            f"{name}: expected a name that begins with the subject, such as user01_fluorescent"
        )
    return int(match.group(1))


def labels_name(name: str) -> str:
    """Name of the label file of a recording."""
    return f"{name}_labels.csv"


def _number(text: str) -> int:
    """A whole number of the digits 0 to 9: Python would take ``1_000`` and other digits as well."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:60]!r} is no whole number")
    return int(match[1])
