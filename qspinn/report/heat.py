"""Bits of each tensor in each candidate of the front: how a precision is mixed, layer by layer."""

from __future__ import annotations

import re
from typing import Any

from qspinn.selection import Selection

MOST_CANDIDATES = 24
"""Of the front, the best first."""

# A format is `Qi.f` or `UQi.f`, or one for each channel, joined by bars, all of as many bits.
_FORMAT = re.compile(r"(U?)Q(-?\d+)\.(-?\d+)")


def heat_values(selection: Selection) -> dict[str, Any]:
    """Names of the tensors, and of each candidate number, title and bits (None: in 32-bit).

    Tensors that have the same bits in all of them are left out where others differ.
    """
    front = [row.group for row in selection.front if row.group.record.formats][:MOST_CANDIDATES]
    found = [
        {path: word_length(entry["format"]) for path, entry in group.record.formats.items()}
        for group in front
    ]
    tensors = list(dict.fromkeys(path for bits in found for path in bits))
    differing = [path for path in tensors if len({bits.get(path) for bits in found}) > 1]
    tensors = differing or tensors
    names = selection.names
    return {
        "tensors": tensors,
        "candidates": [
            {
                "number": names.numbers[group.path],
                "title": names.titles[group.path],
                "bits": [bits.get(path) for path in tensors],
            }
            for group, bits in zip(front, found, strict=True)
        ],
    }


def word_length(text: str) -> int | None:
    """Bits of a number in a format: 8 of `Q0.7`; None where it is another notation."""
    found = _FORMAT.match(text)
    if found is None:
        return None
    return (not found[1]) + int(found[2]) + int(found[3])
