"""One pixel of an event camera in exact rational numbers, one event at a time.

Written from the model's definition, not from the code: a pixel memorises a level; it emits an event
at the first moment at which the level differs from the memorised one by a threshold, or at a noise
event; after that it is reset for a while, and memorises the level at the end of the reset.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction


def level(times: Sequence[int], values: Sequence[Fraction], moment: Fraction) -> Fraction:
    """The piecewise linear function through the points, at a moment."""
    for left in range(len(times) - 1):
        if times[left] <= moment <= times[left + 1]:
            share = (moment - times[left]) / (times[left + 1] - times[left])
            return values[left] + share * (values[left + 1] - values[left])
    raise ValueError(f"{moment} is outside of {times[0]} to {times[-1]}")


def first_at_or_beyond(
    times: Sequence[int],
    values: Sequence[Fraction],
    start: Fraction,
    upper: Fraction,
    lower: Fraction,
) -> tuple[Fraction, int] | None:
    """When the function, after ``start``, first is at ``upper`` (1) or ``lower`` (0)."""
    corners = [start, *(Fraction(t) for t in times if t > start)]
    for left, right in itertools.pairwise(corners):
        a, b = level(times, values, left), level(times, values, right)
        for bound, polarity in ((upper, 1), (lower, 0)):
            crossed = b >= bound if polarity else b <= bound
            if crossed and a != b:
                moment = left + (bound - a) / (b - a) * (right - left)
                if moment >= left:
                    return moment, polarity
    return None


def pixel_events(
    times: Sequence[int],
    values: Sequence[Fraction],
    on: Fraction,
    off: Fraction,
    refractory: int,
    noise: Sequence[tuple[Fraction, int]] = (),
) -> list[tuple[Fraction, int]]:
    """Exact moments and polarities of all events.

    Args:
        times: Microseconds of the frames.
        values: Log intensities there.
        on: Threshold of a rise.
        off: Threshold of a fall.
        refractory: Microseconds of the reset.
        noise: Moments and polarities of noise events, ascending; lost during the reset.
    """
    events: list[tuple[Fraction, int]] = []
    now, memory = Fraction(times[0]), values[0]
    while now < times[-1]:
        found = first_at_or_beyond(times, values, now, memory + on, memory - off)
        candidates = [] if found is None else [found]
        candidates += [one for one in noise if one[0] > now][:1]
        if not candidates:
            break
        moment, polarity = min(candidates)
        events.append((moment, polarity))
        now = moment + refractory
        if now >= times[-1]:
            break
        memory = level(times, values, now)
    return events
