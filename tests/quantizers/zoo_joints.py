"""Compares what enters layers with exact sums and averages of what left others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.quantizers.zoo_integers import Compared
from tests.reference.integer_graph import as_integers


def compare_joints(
    found: Compared,
    joined: Mapping[str, tuple[tuple[str, str], ...]],
    averaged: Mapping[str, tuple[str, str]],
) -> None:
    """Compares what enters layers with exact sums, or averages of 2 x 2, of what left others."""
    for path, ends in joined.items():
        terms = [as_integers(_values(found, end)) for end in ends]
        grid = max(bits for _, bits in terms)
        total = sum(codes << (grid - bits) for codes, bits in terms)
        _note_joint(found, path, total, grid)
    for path, end in averaged.items():
        codes, bits = as_integers(_values(found, end))
        *lead, high, wide = codes.shape
        windows = codes.reshape(*lead, high // 2, 2, wide // 2, 2)
        _note_joint(found, path, windows.sum(axis=(-3, -1)), bits + 2)


def _values(found: Compared, end: tuple[str, str]) -> Any:
    path, side = end
    calls = found.calls[path]
    return (calls.inputs if side == "in" else calls.outputs)[0].double().numpy()


def _note_joint(found: Compared, path: str, codes: Any, grid: int) -> None:
    expected = codes.astype(np.float64) * 2.0**-grid
    found.joints += 1
    if not np.array_equal(expected, _values(found, (path, "in"))):
        found.wrong.append(f"{path}: what enters is not the exact sum of what left before it")
