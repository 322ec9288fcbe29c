"""Steps compiled by numba: importing this lets its functions call words and steps.

A word is replaced by the type of what it is given: whole numbers are computed in int64, real ones
in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from qspinn.fixed_point.compiled_bits import U64
from qspinn.steps import neurons, plasticity, roundings, traces, words

PART: Any = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Options of functions that only compiled ones call: what Python or C would call them by is left
out, which takes an eighth of the time of compiling."""


def _word(
    word: Callable[..., Any], whole: Callable[..., Any], real: Callable[..., Any] | None = None
) -> None:
    """Gives a word its meanings; None: the same for both."""

    def choose(x: Any, *others: Any) -> Callable[..., Any]:
        return real if real is not None and isinstance(x, types.Float) else whole

    overload(word, jit_options={**PART, "forceinline": True}, strict=False)(choose)


def _unchanged(x, bits):  # type: ignore[no-untyped-def]
    return x


_word(words.up, lambda x, bits: np.int64(x) << bits, _unchanged)
_word(words.down, lambda x, bits: np.int64(x) >> bits, _unchanged)
_word(
    words.larger,
    lambda x, bound: max(np.int64(x), np.int64(bound)),
    lambda x, bound: max(x, np.float32(bound)),
)
_word(
    words.clamped,
    lambda x, low, high: min(max(x, low), high),
    lambda x, low, high: min(max(x, np.float32(low)), np.float32(high)),
)
_word(words.whole_quotient, lambda a, b: a // b)
_word(words.quotient, lambda a, b: a // b, lambda a, b: a / b)
_word(words.top_bits, lambda random, bits: np.int64((random >> U64(1)) >> U64(63 - bits)))
_word(
    roundings.rounded,
    lambda exact, bits, to, random: roundings.shifted(exact, bits, to.mode, random),
    lambda exact, bits, to, random: exact,
)
_word(
    roundings.fitted,
    lambda x, to: roundings.limited(x, to.low, to.high, to.wrap),
    lambda x, to: x,
)
_word(
    roundings.kept,
    lambda exact, bits, to, random: roundings.limited(
        roundings.shifted(exact, bits, to.mode, random), to.low, to.high, to.wrap
    ),
    lambda exact, bits, to, random: exact,
)


@overload(words.chosen, jit_options={**PART, "forceinline": True}, strict=False)
def _chosen(condition, a, b):  # type: ignore[no-untyped-def]
    # Of the wider of both types: a literal must not widen a float32.
    if isinstance(a, types.Float) or isinstance(b, types.Float):
        return lambda condition, a, b: np.float32(a) if condition else np.float32(b)
    return lambda condition, a, b: np.int64(a) if condition else np.int64(b)


def _steps(*modules: ModuleType) -> None:
    for module in modules:
        for name, step in vars(module).items():
            is_own = isinstance(step, FunctionType) and step.__module__ == module.__name__
            if is_own and name not in ("rounded", "fitted", "kept"):
                register_jitable(**PART, forceinline=True)(step)


_steps(roundings, neurons, traces, plasticity)
