"""How many bits a sum needs, and which float type holds them.

A float32 holds every integer of up to 24 bits, a float64 of up to 53. All values
here are integers times a power of two, so a computation whose every
intermediate result fits gives exactly what integer hardware gives.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import torch

from qspinn.fixed_point.format import FixedPointFormat, Format, PerChannelFormat

FLOAT32_BITS = 24
FLOAT64_BITS = 53


def formats_of(fmt: Format) -> tuple[FixedPointFormat, ...]:
    """One format, or one per channel."""
    return fmt.formats if isinstance(fmt, PerChannelFormat) else (fmt,)


def finest(fmt: Format) -> int:
    """The largest number of fraction bits in ``fmt``."""
    return max(one.fraction_bits for one in formats_of(fmt))


def magnitude(fmt: Format) -> Fraction:
    """The largest absolute value in ``fmt``."""
    return max(max(-Fraction(one.min), Fraction(one.max)) for one in formats_of(fmt))


def fraction_bits_of(value: float) -> int:
    """The number of fraction bits that an exact number needs (negative for 4, 8, ...)."""
    if value == 0.0:
        return 0
    numerator, denominator = value.as_integer_ratio()
    trailing = (numerator & -numerator).bit_length() - 1
    return denominator.bit_length() - 1 - trailing


def bits_for(largest: Fraction, fraction_bits: int) -> int:
    """Bits of the largest integer, without sign, of a sum on a grid."""
    codes = largest * Fraction(2) ** fraction_bits
    return math.ceil(codes).bit_length()


def accumulator_grid(weight: Format, bias: Format | None, inputs: Format | None) -> int:
    """Fraction bits of the exact sum of weights times inputs, plus bias.

    ``inputs=None`` means spikes, which are 0 or 1.
    """
    grid = finest(weight) + (0 if inputs is None else finest(inputs))
    return grid if bias is None else max(grid, finest(bias))


@lru_cache(maxsize=1024)  # asked for at each change of a format while a network trains
def accumulator_bits(
    weight: Format, bias: Format | None, inputs: Format | None, fan_in: int
) -> int:
    """Word length, sign included, that no sum of this layer can exceed.

    The worst case over all weights that the formats allow. Each output channel
    has a sum of its own, on the grid of its own weights.
    """
    largest_input = Fraction(1) if inputs is None else magnitude(inputs)
    weights, biases = formats_of(weight), (None,) if bias is None else formats_of(bias)
    channels = max(len(weights), len(biases))
    longest = 0
    for channel in range(channels):
        one, other = weights[channel % len(weights)], biases[channel % len(biases)]
        largest = fan_in * magnitude(one) * largest_input
        largest += 0 if other is None else magnitude(other)
        longest = max(longest, bits_for(largest, accumulator_grid(one, other, inputs)))
    return 1 + longest


def accumulator_limit(
    weight: Format, bias: Format | None, inputs: Format | None, fan_in: int
) -> Fraction:
    """The largest absolute value that a sum of this layer can have."""
    largest_input = Fraction(1) if inputs is None else magnitude(inputs)
    largest = fan_in * magnitude(weight) * largest_input
    return largest if bias is None else largest + magnitude(bias)


def dtype_for(bits: int, place: str) -> torch.dtype:
    """The float type whose integers of ``bits`` bits (without sign) are exact.

    Raises:
        ValueError: Where even a float64 is too small.
    """
    if bits <= FLOAT32_BITS:
        return torch.float32
    if bits <= FLOAT64_BITS:
        return torch.float64
    raise ValueError(
        f"{place}: exact results need {bits} bits, a float64 holds {FLOAT64_BITS}; "
        "write shorter word lengths"
    )


def charge_bits(
    membrane: FixedPointFormat,
    current_grid: int,
    decay: tuple[int, Fraction] | None,
    decay_input: bool,
    largest_current: Fraction | None = None,
) -> int:
    """Bits that the exact charge needs wherever its result is inside the range.

    Outside the range the result saturates, and rounding, which is monotone,
    cannot bring it back; so only results inside count (plus one bit of margin
    for the step across the end).

    Args:
        membrane: Format of the membrane potential.
        current_grid: Fraction bits of the input current.
        decay: Fraction bits and largest value of the leak factor; ``None`` for no leak.
        decay_input: Whether the current decays too.
        largest_current: Given where the membrane wraps: then the charge must be
            exact at any size.
    """
    span = Fraction(membrane.max) - Fraction(membrane.min) + Fraction(membrane.step)
    grid = max(current_grid, membrane.fraction_bits)
    gain = Fraction(1)
    if decay is not None:
        decay_grid, gain = max(decay[0], 0), max(gain, decay[1])
        if decay_input:
            grid += decay_grid
        else:
            grid = max(current_grid, membrane.fraction_bits + decay_grid)
    if largest_current is not None:
        span += gain * (largest_current + span)
    return bits_for(span, grid) + 1


def filter_bits(
    trace: FixedPointFormat,
    input_grid: int,
    largest_input: Fraction,
    decay_grid: int,
    largest_decay: Fraction,
) -> int:
    """Bits that the exact ``trace - (1 - x) k trace + x`` of a synapse filter needs.

    Args:
        trace: Format of the trace.
        input_grid: Fraction bits of the input ``x``.
        largest_input: Its largest absolute value.
        decay_grid: Fraction bits of the leak ``k``.
        largest_decay: Its largest value.
    """
    held = magnitude(trace)
    largest = held + (1 + largest_input) * largest_decay * held + largest_input
    return bits_for(largest, max(input_grid, 0) + max(decay_grid, 0) + trace.fraction_bits) + 1


def product_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The float type in which a product of matrices, or a convolution, is exact on a device.

    A float32 may be multiplied in less: a GPU computes convolutions in TF32 by default and by
    Winograd's algorithm, which round, and ``torch.set_float32_matmul_precision`` may ask for TF32
    or bfloat16 anywhere. A float64 is always multiplied as such.

    Args:
        dtype: The type that holds all values and sums.
        device: Where the product is computed.
    """
    if dtype == torch.float32 and (device.type == "cuda" or not _multiplies_in_full()):
        return torch.float64
    return dtype


def spike_product_dtype(largest: int, terms: int) -> torch.dtype:
    """The float type in which a product of a matrix with one of spikes is exact on any device.

    float32 only where factors have 8 bits, which no reduced precision shortens: torch may be told
    to round those of float32 products to 11 bits (TF32) or to 8 (bfloat16).

    Args:
        largest: The largest factor, a whole number; the other side holds 0 and 1.
        terms: Products that a sum has.

    Raises:
        ValueError: Sums of more than 53 bits.
    """
    if largest <= 1 << 8 and largest * terms <= 1 << FLOAT32_BITS:
        return torch.float32
    if largest * terms <= 1 << FLOAT64_BITS:
        return torch.float64
    raise ValueError(
        f"sums of {terms} numbers up to {largest} exceed 53 bits: write formats with fewer "
        "bits, or backend='reference'"
    )


def _multiplies_in_full() -> bool:
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # set by torch's other interface, which this one does not read
        return False
