"""Phrases that sentences about candidates are made of."""

from __future__ import annotations

from qspinn.selection.groups import Group


def accuracy_in_words(group: Group) -> str:
    """An accuracy with its spread over seeds and its interval: `97.20% ± 0.35 [95.60, 98.20]`."""
    spread = "" if group.accuracy_std is None else f" ± {100 * group.accuracy_std:.2f}"
    text = f"{100 * group.accuracy:.2f}%{spread}"
    if group.interval is None:
        return text
    low, high = group.interval
    return f"{text} [{100 * low:.2f}, {100 * high:.2f}]"


def beside_baseline(drop: float) -> str:
    """A drop in words: `, 0.50 points below the 32-bit baseline`."""
    return f", {abs(100 * drop):.2f} points {'above' if drop < 0 else 'below'} the 32-bit baseline"
