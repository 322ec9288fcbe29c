"""How the spikes of a layer differ from those of a reference, such as its twin in 32-bit."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from qspinn.metrics.accuracy import Counters

SATURATED = 0.95
"""A neuron is saturated that fires at this share of all steps, or more."""

_NEVER = torch.iinfo(torch.int64).max


class FiringFidelity(Counters):
    """Agreement of spike trains with a reference, entry by entry.

    * ``agreement``: share of entries (neuron, sample, time step) that are equal. Silence counts, so
      it is high for any two sparse trains.
    * ``overlap``: spikes in both / spikes in either (Jaccard index): silence does not count. 1
      where neither has a spike.
    * ``rate_ratio``: spikes / spikes of the reference: more than 1 fires too much. NaN where the
      reference is silent.

    Before the first update ``agreement`` is NaN.
    """

    higher_is_better = True
    counters: ClassVar[tuple[str, ...]] = ("both", "given", "reference", "entries")
    both: Tensor
    given: Tensor
    reference: Tensor
    entries: Tensor

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


class FiringDrift(FiringFidelity):
    """Spikes of a layer against those of a reference, neuron by neuron.

    In addition to the results of :class:`FiringFidelity` it gives the following, and the first
    three for the reference as well, as ``reference_...``:

    * ``rate``: spikes per neuron and time step, in [0, 1];
    * ``silent``: share of neurons that never fired, in any sample;
    * ``saturated``: share of neurons that fired at ``SATURATED`` of all steps of all samples, or
      more;
    * ``rate_distance``: earth mover's (Wasserstein-1) distance between the two distributions of the
      neurons' rates. For n neurons each it is ``mean |r_(i) - r'_(i)|`` over the sorted rates
      (Villani, Topics in Optimal Transportation, 2003, remark 2.19), so 0 if neurons have only
      swapped their rates;
    * ``first``: first time step at which any neuron differs in any sample, times the number of
      neurons, plus the flat index of the first neuron that differs then; -1 where none does;
    * ``membrane_distance``: ``sqrt(mean((v - v')^2)) / threshold``; NaN without potentials.

    All counts are whole numbers, so the result does not depend on the batches.
    """

    # One counter per neuron; a scalar until the first batch says how many there are.
    counters = (*FiringFidelity.counters, "spikes", "expected", "steps", "potentials")
    spikes: Tensor
    expected: Tensor
    steps: Tensor
    first: Tensor
    squares: Tensor
    potentials: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("first", default=torch.tensor(_NEVER), dist_reduce_fx="min")
        self.add_state("squares", default=torch.tensor(0.0), dist_reduce_fx="sum")

    @property
    def neurons(self) -> tuple[int, ...]:
        """The axes of the layer."""
        return tuple(self.spikes.shape)

    def update(
        self,
        spikes: Tensor,
        reference: Tensor,
        potentials: Tensor | None = None,
        reference_potentials: Tensor | None = None,
        threshold: float | None = None,
    ) -> None:
        """Adds spikes and the reference's, ``[T, N, *]`` with neurons ``*``, 0 or 1.

        Args:
            spikes: Of the layer.
            reference: Of the reference.
            potentials: ``[T, N, *]``; compared where the reference's and the threshold are given
                as well.
            reference_potentials: Likewise.
            threshold: At which the neurons fire.

        Raises:
            ValueError: Different shapes, fewer than three axes, or other neurons than before.
        """
        if spikes.ndim < 3:
            raise ValueError(f"spikes {list(spikes.shape)}: expected [T, N, *]")
        if self.steps > 0 and spikes.shape[2:] != self.spikes.shape:
            raise ValueError(
                f"spikes of neurons {list(spikes.shape[2:])}, before of {list(self.spikes.shape)}"
            )
        super().update(spikes, reference)
        fired, expected = spikes != 0, reference != 0
        self.spikes = self.spikes + fired.sum((0, 1))
        self.expected = self.expected + expected.sum((0, 1))
        self.steps = self.steps + spikes.shape[0] * spikes.shape[1]
        differs = (fired != expected).any(1).flatten()
        if differs.any():
            self.first = torch.minimum(self.first, differs.int().argmax())
        if potentials is not None and reference_potentials is not None and threshold:
            apart = (potentials.float() - reference_potentials.float()) / threshold
            self.squares = self.squares + apart.square().sum()
            self.potentials = self.potentials + apart.numel()

    def compute(self) -> dict[str, Tensor]:
        """Everything listed above, ``[]``: ``first`` int64, the rest floating-point."""
        # In float64, which not all devices have: a mean of shares must not leave [0, 1].
        spikes, expected = self.spikes.cpu(), self.expected.cpu()
        ranked = (counts.flatten().sort().values for counts in (spikes, expected))
        distance = torch.sub(*ranked).abs().double().mean() / self.steps.cpu()
        never = self.first == _NEVER
        return {
            **super().compute(),
            **self._of("", spikes),
            **self._of("reference_", expected),
            "rate_distance": distance,
            "first": torch.where(never, -1, self.first),
            "membrane_distance": (self.squares / self.potentials).sqrt(),
        }

    def _of(self, prefix: str, counts: Tensor) -> dict[str, Tensor]:
        steps = self.steps.cpu()
        percent = round(100 * SATURATED)  # in whole numbers, which do not miss the limit by an ulp
        return {
            f"{prefix}rate": counts.sum() / (steps * counts.numel()),
            f"{prefix}silent": (counts == 0).double().mean(),
            f"{prefix}saturated": (100 * counts >= percent * steps).double().mean(),
        }
