"""The compiled loop: over samples, time steps and calls of kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from qspinn import fixed_point, steps
from qspinn.export.kernels.calls import (
    COMBINE,
    INPUT,
    LARGEST,
    NEURON,
    PRODUCT,
    ROUND,
    SUM,
    SYNAPSE,
)
from qspinn.export.kernels.layer_kernels import combine, fill, largest, multiply, scatter, sums
from qspinn.export.kernels.neuron_kernels import neuron, rounding
from qspinn.export.kernels.plastic_kernels import plastic
from qspinn.fixed_point.rebound import digest_of
from qspinn.steps.targets.numba import PART

__all__ = ["EACH", "LAST", "run"]

TOTAL, LAST, EACH = range(3)
"""What is answered: the sums over all steps, those of the last one, or of each."""


@njit(**PART)
def _compute(call, memory, constants, tables, events, codes, key, first, shown, step):  # type: ignore[no-untyped-def]
    if call.kind == SYNAPSE:
        scatter(call, memory, constants, tables, events)
    elif call.kind == NEURON:
        neuron(call, memory, constants, tables, key, first)
    elif call.kind == SUM:
        sums(call, memory, tables)
    elif call.kind == LARGEST:
        largest(call, memory, tables)
    elif call.kind == ROUND:
        rounding(call, memory, tables, key, first)
    elif call.kind == COMBINE:
        combine(call, memory)
    elif call.kind == PRODUCT:
        multiply(call, memory)
    elif call.kind == INPUT:
        fill(call, memory, codes)
    elif shown is not None:  # else not compiled
        plastic(call, memory, constants, tables, key, first, shown, step)


@njit(**PART)
def _is_computed(call, step, steps):  # type: ignore[no-untyped-def]
    if step < call.begins or (call.final != 0 and step < steps - 1):
        return False
    return call.once == 0 or step == 0


@njit(**PART)
def _outside(call, memory, largest_result):  # type: ignore[no-untyped-def]
    """How many results an accumulator could not hold."""
    count = 0
    for i in range(call.out, call.out + call.size):
        count += memory[i] > largest_result or memory[i] < -largest_result - 1
    return count


def _compiled(sources: str) -> Any:
    """The loop; the digest of its sources, as a variable of its closure, is in its cache key."""

    @njit(cache=True, nogil=True, error_model="numpy")
    def run(calls, start, constants, tables, answers, over, codes, steps, keys, largest_result, memory, events, shown, overflows, found):  # type: ignore[no-untyped-def]  # noqa: E501  # fmt: skip
        """Runs a batch.

        Args:
            calls: Of dtype `CALL`.
            start: What the memory of a sample begins with.
            constants: Weights, biases, thresholds, leaks.
            tables: int32: places.
            answers: Places of the memory whose sum is an answer: ``[answers, terms]``.
            over: TOTAL, LAST or EACH.
            codes: ``[1 or T, N, values]``, of the dtype of `memory`.
            steps: Time steps.
            keys: uint64: of the draws of each operation.
            largest_result: Of an accumulator; -1: none are looked at.
            memory: Room for a sample.
            events: Room for the inputs of a layer.
            shown: Room for a `Shown`; None where no call is of a kind of `PLASTIC`.
            overflows: int64, one per operation; added to.
            found: int64 ``[1 or T, N, answers]``, zeros; filled.
        """
        assert len(sources) > 0  # makes it a part of the cache's key
        samples = codes.shape[1]
        for sample in range(samples):
            memory[: start.shape[0]] = start
            for step in range(steps):
                frame = codes[step if codes.shape[0] > 1 else 0, sample]
                for c in range(calls.shape[0]):
                    call = calls[c]
                    if not _is_computed(call, step, steps):
                        continue
                    turn = 0 if call.final != 0 else step
                    first = turn * (samples * call.size) + sample * call.size
                    key = keys[call.operation]
                    _compute(call, memory, constants, tables, events, frame, key, first, shown, step)  # noqa: E501  # fmt: skip
                    if largest_result >= 0 and call.checks != 0:
                        overflows[call.operation] += _outside(call, memory, largest_result)
                if over == LAST and step < steps - 1:
                    continue
                row = step if over == EACH else 0
                for a in range(answers.shape[0]):
                    for t in range(answers.shape[1]):
                        found[row, sample, a] += np.int64(memory[answers[a, t]])

    return run


_SOURCES = (Path(__file__), Path(str(steps.__file__)), Path(str(fixed_point.__file__)))
run = _compiled(digest_of(*(file.parent for file in _SOURCES)))
