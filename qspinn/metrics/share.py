"""The share of one kind among all events."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class Share(Metric):
    """Part / whole of counts, over everything seen since the last reset, exact at any batch size.

    Its whole state is two counters, so ranks add up exactly. NaN while the whole is 0.
    """

    full_state_update = False
    higher_is_better = None
    is_differentiable = False
    part: Tensor
    whole: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("part", default=torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("whole", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, part: int, whole: int) -> None:
        """Adds counts.

        Raises:
            ValueError: A part that is negative, or more than the whole.
        """
        if not 0 <= part <= whole:
            raise ValueError(f"part={part} of whole={whole}: expected 0 to {whole}")
        # Not in place: after a reset under inference_mode that would fail outside of it.
        self.part = self.part + part
        self.whole = self.whole + whole

    def compute(self) -> Tensor:
        """Part / whole, float32 ``[]``."""
        return self.part / self.whole
