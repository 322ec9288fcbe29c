"""Share of correct classifications."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


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


class Accuracy(Metric):
    """Accuracy in [0, 1] over everything seen since the last reset, exact at any batch size.

    Its whole state is two counters (right, total), so ranks add up exactly. Before the first
    update it is NaN.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    correct: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("correct", default=torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, scores: Tensor, labels: Tensor) -> None:
        """Adds a batch: scores ``[N, classes]``, labels ``[N]``."""
        # Not in place: after a reset under inference_mode that would fail outside of it.
        self.correct = self.correct + count_correct(scores, labels)
        self.total = self.total + len(labels)

    def compute(self) -> Tensor:
        """Right / total, float32 ``[]``."""
        return self.correct / self.total
