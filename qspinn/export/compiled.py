"""Runs a device model in whole numbers, compiled: the same answers as the clear engine, faster.

Samples are run one after the other, so that all that changes stays in the cache of a processor.
Linear and convolutional layers cost what their inputs that are not 0 cost: the spikes. One compiled
loop, which is kept in numba's cache on disk, runs all models; it is compiled once more, with the
kernels of plastic networks, where a model needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qspinn.export.answers import Answers
from qspinn.export.batches import checked_codes, keys_of
from qspinn.export.kernels.calls import Listing
from qspinn.export.kernels.listing import listing_of
from qspinn.export.kernels.plastic_kernels import Shown
from qspinn.export.kernels.run import EACH, LAST, TOTAL, run
from qspinn.export.lowering import program_of
from qspinn.export.model import DeviceModel, Total
from qspinn.steps.random_spikes import WORD

__all__ = ["CompiledEngine"]

_OVER = {"sum": TOTAL, "last": LAST, "each": EACH}
_WORD = (1 << 64) - 1


class CompiledEngine:
    """Runs a device model on batches, one thread.

    Other threads run meanwhile, so batches can be shared among several engines.

    Args:
        model: The model.
        accumulators: As of :class:`qspinn.export.engine.IntegerEngine`.

    Raises:
        NotExportableError: An operation that only the clear engine computes; the message names it.
    """

    def __init__(self, model: DeviceModel, accumulators: int | None = None) -> None:
        self.model = model
        self.program = program_of(model)
        self.accumulators = accumulators
        self._listings = {model.steps: listing_of(self.program)}

    def run(
        self,
        codes: NDArray[Any],
        *,
        steps: int | None = None,
        keys: Mapping[str, int] | None = None,
        seed: int = 0,
    ) -> Answers:
        """Answers for a batch; see :meth:`qspinn.export.engine.IntegerEngine.run`.

        Args:
            codes: Of frames ``[T, N, values]``, or of images that stay ``[N, values]``.
            steps: Time steps for which images are shown; None: those of the model.
            keys: Layer -> key of the random bits of its roundings; None: from `seed`.
            seed: Of the random bits.

        Raises:
            ValueError: Codes of another shape, or out of the range of the input's format; a number
                of steps below 1, or above those of a sequence; totals over so many steps that
                exact sums need more than 62 bits.
        """
        frames = self._checked(codes)
        if steps is None:
            steps = len(frames) if self.model.frame_stride else self.model.steps
        if steps < 1 or (self.model.frame_stride and steps > len(frames)):
            raise ValueError(f"steps={steps}: write at least 1, and no more than frames are given")
        model = self.model
        listing = self._listing_for(steps)
        drawn = keys_of(model, keys, seed)
        overflows = np.zeros(len(model.operations), np.int64)
        rows = steps if model.output.over == "each" else 1
        found = np.zeros((rows, frames.shape[1], model.answers), np.int64)
        run(
            listing.calls,
            listing.start,
            listing.constants,
            listing.tables,
            listing.answers,
            _OVER[model.output.over],
            np.ascontiguousarray(frames, listing.dtype),
            steps,
            np.array([drawn[i] & _WORD for i in range(len(drawn))], np.uint64),
            -1 if self.accumulators is None else (1 << (self.accumulators - 1)) - 1,
            np.zeros(listing.memory, listing.dtype),
            np.zeros(listing.most_inputs + 1, np.int32),
            _room_shown(listing, steps),
            overflows,
            found,
        )
        return Answers(
            found if model.output.over == "each" else found[0],
            self.program.instructions[model.output.operation].fraction_bits,
            {int(number): int(overflows[number]) for number in np.flatnonzero(overflows)},
            model.output.divisors,
        )

    def _listing_for(self, steps: int) -> Listing:
        """What is run; over more steps than the model has, totals may grow larger."""
        steps = max(steps, self.model.steps)
        if not any(isinstance(one.what, Total) for one in self.model.operations):
            steps = self.model.steps
        if steps not in self._listings:
            longer = program_of(replace(self.model, steps=steps))
            self._listings[steps] = listing_of(longer)
        return self._listings[steps]

    def _checked(self, codes: NDArray[Any]) -> NDArray[np.int64]:
        """``[1 or T, N, values]``."""
        first, codes = self.program.instructions[0], checked_codes(self.model, codes)
        if codes.size and (int(codes.min()) < first.low or int(codes.max()) > first.high):
            raise ValueError(
                f"codes of [{codes.min()}, {codes.max()}]: the input's format holds "
                f"[{first.low}, {first.high}]; saturate them first, as qspinn.export.encode does"
            )
        return codes if self.model.frame_stride else codes[None]


def _room_shown(listing: Listing, steps: int) -> Shown | None:
    """Room for what presentations draw; None, which the loop is also compiled for, for none."""
    if not listing.has_plastic:
        return None
    words = np.zeros((-(-steps // WORD), listing.drawn), np.uint64)
    return Shown(np.zeros(listing.shown, np.uint64), words)
