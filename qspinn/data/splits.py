"""Splits into training, validation and test: without chance, and equally of each class."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Indices = npt.NDArray[np.int64]


def rank_in_class(labels: Tensor) -> Tensor:
    """For each label ``[M]``, how many equal ones precede it, ``int64`` ``[M]``."""
    if len(labels) == 0:
        return labels
    one_hot = torch.nn.functional.one_hot(labels)
    return (one_hot.cumsum(0) * one_hot).sum(1) - 1


def fold_of(labels: Indices, folds: int) -> Indices:
    """For each label ``[M]`` the fold that tests on it: number i of a class is in i mod folds."""
    ranks: Indices = rank_in_class(torch.from_numpy(labels)).numpy()
    return ranks % folds


def stratified_tail(labels: Indices, indices: Indices, fraction: float) -> tuple[Indices, Indices]:
    """Splits off the last part of each class, in the order of ``indices``.

    Args:
        labels: ``int64`` ``[M]``, of all samples.
        indices: ``int64`` ``[I]``, the samples to split.
        fraction: The part of each class that is split off, 0 to 1; rounded to whole samples.

    Returns:
        What stays, and what is split off; both in the order of ``indices``.
    """
    chosen = labels[indices]
    sizes = np.bincount(chosen)
    kept = sizes - np.rint(fraction * sizes).astype(np.int64)
    is_tail = rank_in_class(torch.from_numpy(chosen)).numpy() >= kept[chosen]
    return indices[~is_tail], indices[is_tail]


def natural(name: str) -> tuple[str | tuple[int, str], ...]:
    """Sort key of a name in which numbers count as numbers: ``9`` comes before ``10``."""
    parts = re.split(r"([0-9]+)", name)
    return tuple(_value(part) if index % 2 else part for index, part in enumerate(parts))


def _value(digits: str) -> tuple[int, str]:
    """What sorts as the number does: Python refuses to read one of more than 4,300 digits."""
    digits = digits.lstrip("0")
    return len(digits), digits
