"""The random bits of :mod:`qspinn.fixed_point.random_bits`, compiled by numba: of uint64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from qspinn.fixed_point import random_bits as bits_of_torch
from qspinn.fixed_point.rebound import digest_of, rebound

__all__ = ["GOLDEN", "U64", "fill_float32", "fill_float64", "random_bits"]

U64 = np.uint64
WORD = (1 << 64) - 1
GOLDEN = U64(bits_of_torch.UNSIGNED["GOLDEN"])


@njit(inline="always")
def _right(z, bits):  # type: ignore[no-untyped-def]
    return z >> U64(bits)


@njit(inline="always")
def _word(number):  # type: ignore[no-untyped-def]
    return U64(number)


random_bits = rebound(
    bits_of_torch,
    {
        "right": _right,
        "word": _word,
        "signed": None,
        "root": None,
        "ONE": U64(1),
        **{name: U64(value) for name, value in bits_of_torch.UNSIGNED.items()},
    },
    njit(inline="always"),
)

_draw = random_bits.draw


def _fills(sources: str) -> tuple[Any, Any]:
    @njit(cache=True, nogil=True)
    def fill_float32(key, first, out):  # type: ignore[no-untyped-def]
        """Fills float32 ``[n]`` with numbers in [0, 1), of the highest 24 bits of each draw."""
        assert len(sources) > 0
        for n in range(out.shape[0]):
            out[n] = np.float32(np.int32(_draw(key, first + n) >> U64(40))) * np.float32(2.0**-24)

    @njit(cache=True, nogil=True)
    def fill_float64(key, first, out):  # type: ignore[no-untyped-def]
        """Fills float64 ``[n]`` with numbers in [0, 1), of the highest 53 bits of each draw."""
        assert len(sources) > 0
        for n in range(out.shape[0]):
            out[n] = np.float64(np.int64(_draw(key, first + n) >> U64(11))) * 2.0**-53

    return fill_float32, fill_float64


fill_float32, fill_float64 = _fills(digest_of(Path(__file__).parent))
