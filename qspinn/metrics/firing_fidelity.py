"""How far two spike trains agree, such as those of a network and of its quantised twin."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class FiringFidelity(Metric):
    """Agreement of spike trains with a reference, entry by entry.

    * ``agreement``: share of entries (neuron, sample, time step) that are equal. Silence counts, so
      it is high for any two sparse trains.
    * ``overlap``: spikes in both / spikes in either (Jaccard index): silence does not count. 1
      where neither has a spike.
    * ``rate_ratio``: spikes / spikes of the reference: more than 1 fires too much. NaN where the
      reference is silent.

    Before the first update ``agreement`` is NaN.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    both: Tensor
    given: Tensor
    reference: Tensor
    entries: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("both", "given", "reference", "entries"):
            self.add_state(name, default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, spikes: Tensor, reference: Tensor) -> None:
        """Adds spikes and the reference's, 0 or 1, of one shape, such as ``[T, N, *]``.

        Raises:
            ValueError: Different shapes.
        """
        if spikes.shape != reference.shape:
            raise ValueError(
                f"spikes {list(spikes.shape)} and reference {list(reference.shape)} differ in shape"
            )
        fired, expected = spikes != 0, reference != 0
        self.both = self.both + (fired & expected).sum()
        self.given = self.given + fired.sum()
        self.reference = self.reference + expected.sum()
        self.entries = self.entries + fired.numel()

    def compute(self) -> dict[str, Tensor]:
        """``agreement``, ``overlap`` and ``rate_ratio``, float32 ``[]``."""
        either = self.given + self.reference - self.both
        return {
            "agreement": 1 - (either - self.both) / self.entries,
            "overlap": torch.where(either > 0, self.both / either, 1.0),
            "rate_ratio": torch.where(self.reference > 0, self.given / self.reference, torch.nan),
        }
