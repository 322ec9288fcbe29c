"""A path of mixed precisions, predicted from what each role loses by itself."""

from __future__ import annotations

from collections.abc import Sequence

from qspinn.selection.search.significance import Significance


def greedy_path(found: Sequence[Significance], word_lengths: Sequence[int]) -> list[dict[str, int]]:
    """From everything at the longest word length to everything at the shortest, step by step.

    Each step shortens one role to the next word length: the one that loses the least accuracy per
    bit saved, as far as the roles by themselves predict it; of equal ones the one that saves most.

    Args:
        found: One per role or tensor, each of which a device holds values of.
        word_lengths: To choose from.

    Returns:
        Mixtures, name to word length: ``len(found) * (len(word_lengths) - 1) + 1`` of them.
    """
    levels = sorted(set(word_lengths), reverse=True)
    place = dict.fromkeys((one.name for one in found), 0)
    path = [dict.fromkeys(place, levels[0])]
    while True:
        steps = []
        for one in found:
            index = place[one.name]
            if index + 1 < len(levels):
                now, then = levels[index], levels[index + 1]
                saved = one.values * (now - then)
                lost = max(0.0, one.drop(then) - one.drop(now))
                steps.append((lost / max(saved, 1), -saved, one.name))
        if not steps:
            return path
        place[min(steps)[2]] += 1
        path.append({name: levels[index] for name, index in place.items()})
