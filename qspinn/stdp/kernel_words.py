"""What the event-driven kernel computes with, in float32 and in whole numbers.

numba itself widens sums and products of int32 to 64 bits. With 32 bits one instruction works on
twice as many neurons. Results wrap around, and shifts are of 0 to 31 bits: who uses these has made
sure that nothing exceeds 32 bits.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numba import njit, types
from numba.extending import intrinsic, overload

from qspinn.fixed_point.compiled_bits import U64, random_bits
from qspinn.stdp.numbers import NarrowNeuronNumbers
from qspinn.steps.neurons import adaptive_threshold
from qspinn.steps.targets.numba import PART

draw, spread, stream = random_bits.draw, random_bits.spread, random_bits.stream
I32 = np.int32


def _operation(instruction: str) -> Any:
    """An instruction of LLVM on two int32."""

    @intrinsic
    def operation(typing: Any, a: Any, b: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, operands: Any) -> Any:
            return getattr(builder, instruction)(*operands)

        return types.int32(types.int32, types.int32), code

    return operation


add, sub, product = _operation("add"), _operation("sub"), _operation("mul")
left, right = _operation("shl"), _operation("ashr")
bits_of_both = _operation("and_")


def is_float(numbers: Any) -> bool:
    """Whether numba knows a tuple of numbers as one of real numbers."""
    return any(isinstance(one, types.Float) for one in numbers.types)


def by_type(
    stub: Callable[..., Any],
    floating: Callable[..., Any],
    fixed: Callable[..., Any],
    narrow: Callable[..., Any] | None = None,
    inline: Literal["never", "always"] = "never",
) -> None:
    """Lets the kernel call ``stub``; the type of its first argument decides which form is meant.

    A call hands the numbers on one by one: what runs once per step or per neuron is better inlined.
    """

    def choose(numbers: Any, *others: Any) -> Callable[..., Any]:
        if narrow and numbers.instance_class is NarrowNeuronNumbers:
            return narrow
        return floating if is_float(numbers) else fixed

    choose.__signature__ = inspect.signature(stub)  # type: ignore[attr-defined]  # numba compares
    overload(stub, jit_options=PART, inline=inline)(choose)


@njit(inline="always")
def winner(key, t, count):  # type: ignore[no-untyped-def]
    """Which of ``count`` neurons spikes in step t."""
    if count == 1:
        return np.int64(0)
    return np.int64(((draw(key, t) >> U64(32)) * U64(count)) >> U64(32))


def threshold(n, theta):  # type: ignore[no-untyped-def]
    """What a potential must reach; n: of neurons."""


def _threshold_fixed(n, theta):  # type: ignore[no-untyped-def]
    exact = adaptive_threshold(theta, n)
    lowest = -((-exact) >> n.fire_up)  # the lowest code of a potential that is not below
    return min(lowest, n.v.high + 1)  # which no potential reaches, and its type can hold


by_type(threshold, lambda n, theta: adaptive_threshold(theta, n), _threshold_fixed, inline="always")
