"""Shares of counts: of correct classifications, and of one kind among all events."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric


class Counters(Metric):
    """A metric whose whole state are counters, so that ranks add up exactly at any batch size.

    Subclasses replace counters by sums, not in place: after a reset under inference_mode that would
    fail outside of it.
    """

    full_state_update = False
    higher_is_better: bool | None = None
    is_differentiable = False
    counters: ClassVar[tuple[str, ...]]

    def __init__(self) -> None:
        super().__init__()
        for name in self.counters:
            self.add_state(name, default=torch.tensor(0), dist_reduce_fx="sum")


class Share(Counters):
    """Part / whole of counts over everything since the last reset. NaN while the whole is 0."""

    counters = ("part", "whole")
    part: Tensor
    whole: Tensor

    def update(self, part: int, whole: int) -> None:
        """Adds counts.

        Raises:
            ValueError: A part that is negative, or more than the whole.
        """
        if not 0 <= part <= whole:
            raise ValueError(f"part={part} of whole={whole}: expected 0 to {whole}")
        self.part = self.part + part
        self.whole = self.whole + whole

    def compute(self) -> Tensor:
        """Part / whole, float32 ``[]``."""
        return self.part / self.whole


class Accuracy(Counters):
    """Accuracy in [0, 1] over everything seen since the last reset, NaN before the first update."""

    higher_is_better = True
    counters = ("correct", "total")
    correct: Tensor
    total: Tensor

    def update(self, scores: Tensor, labels: Tensor) -> None:
        """Adds a batch: scores ``[N, classes]``, labels ``[N]``."""
        self.correct = self.correct + count_correct(scores, labels)
        self.total = self.total + len(labels)

    def compute(self) -> Tensor:
        """Right / total, float32 ``[]``."""
        return self.correct / self.total


def count_correct(scores: Tensor, labels: Tensor) -> Tensor:
    """How many samples have their highest score at their label; of equal scores the first counts.

    Spike counts are small integers and often tie, so the rule matters: the lowest class wins, as in
    implementations that replace the best class only by a strictly better one.

    Args:
        scores: ``[N, classes]``.
        labels: ``int64`` ``[N]``.

    Returns:
        ``int64`` ``[]``.

    Raises:
        ValueError: Shapes that do not fit each other.
    """
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(
            f"scores {list(scores.shape)} and labels {list(labels.shape)}: expected [N, classes] "
            "and [N]"
        )
    return (scores.argmax(1) == labels).sum()
