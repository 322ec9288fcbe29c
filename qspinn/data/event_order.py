"""Events that arrive late: how late, and how they are put in order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qspinn.data.events import CHUNK, Events

MAX_DISORDER = 1_000_000
"""By default an event may be so many microseconds late (1 s). Cameras and the queues of a host mix
up a second at the very most; a clock that was set back, or a flipped bit, is farther off."""


class DisorderError(ValueError):
    """An event is later than allowed: its ``index``, its ``time`` and the ``latest`` time before.

    The reader that catches it says where in the file the event is.
    """

    def __init__(self, index: int, time: int, latest: int, max_disorder: int) -> None:
        super().__init__(
            f"expected a time of at least {latest} us, that of an event before it, less "
            f"{max_disorder} us (max_disorder), found {time} us. The clock was set back, or the "
            f"file is damaged; max_disorder={latest - time} or more sorts the events nevertheless"
        )
        self.index = index


def ordered_events(
    t: npt.NDArray[np.int64],
    x: npt.NDArray[np.uint16],
    y: npt.NDArray[np.uint16],
    p: npt.NDArray[np.uint8],
    size: tuple[int, int],
    max_disorder: int = MAX_DISORDER,
) -> Events:
    """Events in the order of their times; those of equal times keep their order.

    Args:
        t: Times ``[E]``, nearly ascending; nothing is copied where they ascend.
        x: Columns ``[E]``.
        y: Rows ``[E]``.
        p: Polarities ``[E]``.
        size: ``(height, width)`` of the sensor.
        max_disorder: How many microseconds an event may lie before the latest event that precedes
            it; 0: events must ascend.

    Raises:
        DisorderError: An event lies farther back.
        ValueError: ``max_disorder`` is negative.
    """
    if max_disorder < 0:
        raise ValueError(f"max_disorder={max_disorder}; write 0 us (events ascend) or more")
    if _check_lateness(t, max_disorder):
        order = np.argsort(t, kind="stable")
        t, x, y, p = t[order], x[order], y[order], p[order]
    return Events(t, x, y, p, *size)


def _check_lateness(t: npt.NDArray[np.int64], max_disorder: int) -> bool:
    """Whether any event is late, within what is allowed."""
    is_late = False
    latest = np.iinfo(np.int64).min
    for begin in range(0, len(t), CHUNK):
        part = t[begin : begin + CHUNK]
        if part[0] >= latest and not (part[1:] < part[:-1]).any():
            latest = int(part[-1])
            continue
        is_late = True
        preceding = np.maximum(np.maximum.accumulate(part), latest)
        too_late = preceding - part > max_disorder
        if too_late.any():
            index = int(too_late.argmax())
            raise DisorderError(
                begin + index, int(part[index]), int(preceding[index]), max_disorder
            )
        latest = int(preceding[-1])
    return is_late
