"""Steps compiled by Triton.

Codes are int64, real numbers float32. Roundings and overflows are chosen while compiling.
"""

from __future__ import annotations

import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]

from qspinn.fixed_point import random_bits as bits_of_torch
from qspinn.fixed_point.rebound import rebound
from qspinn.steps import neurons as neuron_steps
from qspinn.steps import roundings as rounding_steps
from qspinn.steps import words

__all__ = ["neurons", "random_bits"]

_MODES = ("NEAREST", "NEAREST_AWAY", "NEAREST_EVEN", "STOCHASTIC", "TOWARD_ZERO")


@triton.jit
def _right(z, bits):  # type: ignore[no-untyped-def]
    return z >> bits


@triton.jit
def _word(number):  # type: ignore[no-untyped-def]
    return number.to(tl.uint64)


@triton.jit
def _up(x, bits):  # type: ignore[no-untyped-def]
    if x.dtype.is_floating():
        return x
    else:
        return x.to(tl.int64) << bits


@triton.jit
def _chosen(condition, a, b):  # type: ignore[no-untyped-def]
    return tl.where(condition, a, b)


@triton.jit
def _clamped(x, low, high):  # type: ignore[no-untyped-def]
    return tl.minimum(tl.maximum(x, low), high)


@triton.jit
def _top_bits(random, bits):  # type: ignore[no-untyped-def]
    return ((random >> 1) >> (63 - bits).to(tl.uint64)).to(tl.int64)


_LANGUAGE = {"tl": tl, "Any": tl.constexpr(None)}  # it looks up annotations, too
_WORDS = {
    **_LANGUAGE,
    "up": _up,
    "chosen": _chosen,
    "clamped": _clamped,
    "top_bits": _top_bits,
    **{name: tl.constexpr(getattr(words, name)) for name in _MODES},
}
_dispatching = ("rounded", "fitted", "kept")
_roundings = rebound(rounding_steps, {**_WORDS, **dict.fromkeys(_dispatching)}, triton.jit)
_shifted, _limited = _roundings.shifted, _roundings.limited


@triton.jit
def _kept(exact, bits, to, random):  # type: ignore[no-untyped-def]
    if exact.dtype.is_floating():
        return exact
    else:
        return _limited(_shifted(exact, bits, to.mode, random), to.low, to.high, to.wrap)


neurons = rebound(neuron_steps, {**_WORDS, "kept": _kept}, triton.jit)
"""`qspinn.steps.neurons`."""

random_bits = rebound(
    bits_of_torch,
    {
        **_LANGUAGE,
        "right": _right,
        "word": _word,
        "signed": None,
        "root": None,
        "ONE": tl.constexpr(1),
        **{name: tl.constexpr(value) for name, value in bits_of_torch.UNSIGNED.items()},
    },
    triton.jit,
)
"""`qspinn.fixed_point.random_bits`, of uint64."""
