"""Fixed-point formats: how many bits a number has, and where its binary point lies.

Notation. ``Qi.f`` is signed: one sign bit, `i` integer bits and `f` fraction bits, hence a word of
``1 + i + f`` bits. ``UQi.f`` is unsigned: a word of ``i + f`` bits. The sign bit is counted
separately, so an 8-bit signed number is ``Q1.6``, ``Q0.7`` or ``Q7.0``. Other people's notation
differs: Texas Instruments writes as we do, ARM counts the sign bit among the integer bits (our
``Q1.6`` is ARM's ``Q2.6``).

`i` or `f` may be negative as long as the word keeps at least one bit: ``Q-2.9`` has steps of 2^-9
and a range of [-1/4, 1/4); ``Q9.-2`` counts in steps of 4 up to 508.

``SQi.f`` has the word of ``Qi.f`` and only numbers whose negatives it has as well: the lowest code
is left out. A word of 2 bits is ternary: ``SQ1.0`` is -1, 0 and 1. A word of 1 bit is a sign, and
has no zero: ``SQ0.0`` is -1 and +1, ``SQ-3.3`` is -1/8 and +1/8.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

__all__ = ["MAX_BITS", "MAX_WORD_LENGTH", "FixedPointFormat", "Format", "PerChannelFormat"]
__all__ += ["covering_integer_bits", "parse_format"]

MAX_WORD_LENGTH = 32
"""The longest word, in bits."""

MAX_BITS = 64
"""Integer bits and fraction bits lie in [-MAX_BITS, MAX_BITS]."""

_PATTERN = re.compile(r"([US]?)Q(-?[0-9]{1,4})\.(-?[0-9]{1,4})")
_AXIS_PATTERN = re.compile(r"-?[0-9]{1,4}")


def _require(fits: bool, wanted: str, value: object, remedy: str = "") -> None:
    if not fits:
        raise TypeError(f"{wanted}, got {value!r} ({type(value).__name__}){remedy}")


def _require_int(owner: str, name: str, value: object) -> None:
    fits = isinstance(value, int) and not isinstance(value, bool)
    remedy = "; write a whole number such as 6"
    _require(fits, f"{owner}: {name} must be an int", value, remedy)


def _require_bool(owner: str, name: str, value: object) -> None:
    _require(isinstance(value, bool), f"{owner}: {name} must be True or False", value)


def _require_sign(owner: str, signed: object, symmetric: object) -> None:
    _require_bool(owner, "signed", signed)
    _require_bool(owner, "symmetric", symmetric)
    if symmetric and not signed:
        raise ValueError(
            f"{owner}: signed=False and symmetric=True disagree: only a signed format has the "
            "negative of each of its numbers; write symmetric=False, or signed=True"
        )


def _require_text(owner: str, text: object, example: str) -> None:
    _require(isinstance(text, str), f"{owner}: expected text such as {example!r}", text)


def _as_tuple(owner: str, fraction_bits: object) -> tuple[int, ...]:
    """`fraction_bits` as a checked tuple of at least one int."""
    fits = isinstance(fraction_bits, Iterable) and not isinstance(fraction_bits, (str, bytes))
    wanted = f"{owner}: fraction_bits must hold one int per channel, such as (6, 7, 6)"
    _require(fits, wanted, fraction_bits)
    result = tuple(cast(Iterable[int], fraction_bits))
    if not result:
        raise ValueError(f"{owner}: fraction_bits is empty; give one int per channel")
    for channel, bits in enumerate(result):
        _require_int(owner, f"fraction_bits[{channel}]", bits)
    return result


@dataclass(frozen=True)
class FixedPointFormat:
    """A binary fixed-point format, ``Qi.f``, ``UQi.f`` or ``SQi.f``.

    A number of this format is ``code * step``, with an integer code of `word_length` bits. Signed
    codes are two's complement: the range is [-2^i, 2^i - 2^-f]; unsigned, [0, 2^i - 2^-f];
    symmetric, [-2^i + 2^-f, 2^i - 2^-f], or -2^-f and 2^-f alone, the codes -1 and 1, in 1 bit.

    Args:
        integer_bits: `i`, bits left of the binary point, without the sign bit; may be negative.
        fraction_bits: `f`, bits right of the binary point; may be negative.
        signed: whether there is a sign bit, counted in addition to `i` and `f`.
        symmetric: whether the negative of each number is a number of the format, too.

    Raises:
        TypeError: if a number of bits is not an int, or `signed` or `symmetric` is not a bool.
        ValueError: if a number of bits is outside [-64, 64], or the word is shorter than 1 bit or
            longer than 32; or an unsigned format is to be symmetric.

    Example:
        >>> fmt = FixedPointFormat(1, 6)
        >>> str(fmt), fmt.word_length, fmt.step, fmt.min, fmt.max
        ('Q1.6', 8, 0.015625, -2.0, 1.984375)
    """

    integer_bits: int
    fraction_bits: int
    signed: bool = True
    symmetric: bool = False

    def __post_init__(self) -> None:
        owner = "FixedPointFormat"
        _require_int(owner, "integer_bits", self.integer_bits)
        _require_int(owner, "fraction_bits", self.fraction_bits)
        _require_sign(owner, self.signed, self.symmetric)
        for name in ("integer_bits", "fraction_bits"):
            bits = getattr(self, name)
            if not -MAX_BITS <= bits <= MAX_BITS:
                raise ValueError(
                    f"FixedPointFormat: {name}={bits} in {self} is outside "
                    f"[-{MAX_BITS}, {MAX_BITS}]; scale the data instead"
                )
        if not 1 <= self.word_length <= MAX_WORD_LENGTH:
            parts = "1 (sign) + " if self.signed else ""
            raise ValueError(
                f"FixedPointFormat: {self} has a word length of {parts}{self.integer_bits} + "
                f"{self.fraction_bits} = {self.word_length} bits; it must be 1 to "
                f"{MAX_WORD_LENGTH}: change integer_bits or fraction_bits"
            )

    @classmethod
    def parse(cls, text: str) -> FixedPointFormat:
        """The format that `text` names: ``"Q1.6"``, ``"UQ0.8"``, ``"SQ1.0"``, ``"Q9.-2"``.

        The inverse of `str`. The sign bit of ``Q`` is counted separately: ``Q1.6`` is 8 bits long.

        Raises:
            TypeError: if `text` is not a string.
            ValueError: if `text` is not of this form, or names an impossible format.
        """
        _require_text("FixedPointFormat.parse", text, "Q1.6")
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise ValueError(
                f"FixedPointFormat.parse: {text!r} is no fixed-point format; write 'Qi.f' (signed, "
                f"1+i+f bits), 'UQi.f' (unsigned, i+f bits) or 'SQi.f' (symmetric, 1+i+f bits), "
                f"such as 'Q1.6', 'UQ0.8', 'Q-2.9' or 'SQ1.0'"
            )
        kind, integer_bits, fraction_bits = match.groups()
        return cls(int(integer_bits), int(fraction_bits), kind != "U", kind == "S")

    def __str__(self) -> str:
        kind = "SQ" if self.symmetric else "Q" if self.signed else "UQ"
        return f"{kind}{self.integer_bits}.{self.fraction_bits}"

    @property
    def word_length(self) -> int:
        """Bits of one number, the sign bit included."""
        return int(self.signed) + self.integer_bits + self.fraction_bits

    @property
    def scale(self) -> float:
        """Codes per unit, 2^f; exact."""
        return 2.0**self.fraction_bits

    @property
    def step(self) -> float:
        """The distance between neighbours, 2^-f; exact."""
        return 2.0**-self.fraction_bits

    @property
    def is_sign(self) -> bool:
        """Whether a word is a sign: the numbers are -step and +step, without a zero."""
        return self.symmetric and self.word_length == 1

    @property
    def code_min(self) -> int:
        """The smallest code: -2^(word_length - 1); 0 if unsigned; -code_max if symmetric."""
        if self.symmetric:
            return -self.code_max
        return -(1 << (self.word_length - 1)) if self.signed else 0

    @property
    def code_max(self) -> int:
        """The largest code: 2^(i + f) - 1; 1 of a sign."""
        return 1 if self.is_sign else (1 << (self.integer_bits + self.fraction_bits)) - 1

    @property
    def min(self) -> float:
        """The smallest number, exact."""
        return self.code_min * self.step

    @property
    def max(self) -> float:
        """The largest number, exact."""
        return self.code_max * self.step


@dataclass(frozen=True)
class PerChannelFormat:
    """One fixed-point format for each slice of a tensor along an axis, all of one word length.

    What differs between the slices is where the binary point lies; the codes share one range.

    Args:
        word_length: bits of one number, the sign bit included.
        fraction_bits: `f` of each slice along `axis`; a sequence of ints, at least one.
        signed: whether there is a sign bit (for all slices).
        axis: the axis of the tensor along which the format varies; negative axes count from the
            end.
        symmetric: as of a `FixedPointFormat` (for all slices).

    Raises:
        TypeError: if a value is of the wrong type.
        ValueError: if there is no slice, or the format of a slice is impossible.

    Example:
        >>> str(PerChannelFormat(8, (6, 7)))
        'Q1.6|Q0.7 @0'
    """

    word_length: int
    fraction_bits: tuple[int, ...]
    signed: bool = True
    axis: int = 0
    symmetric: bool = False

    def __post_init__(self) -> None:
        owner = "PerChannelFormat"
        _require_int(owner, "word_length", self.word_length)
        _require_int(owner, "axis", self.axis)
        _require_sign(owner, self.signed, self.symmetric)
        object.__setattr__(self, "fraction_bits", _as_tuple(owner, self.fraction_bits))
        for channel, bits in enumerate(self.fraction_bits):
            try:
                self._format(bits)
            except ValueError as error:
                raise ValueError(f"{owner}: channel {channel}: {error}") from None

    def _format(self, fraction_bits: int) -> FixedPointFormat:
        integer_bits = self.word_length - int(self.signed) - fraction_bits
        return FixedPointFormat(integer_bits, fraction_bits, self.signed, self.symmetric)

    @classmethod
    def parse(cls, text: str) -> PerChannelFormat:
        """The format that `text` names, such as ``"Q1.6|Q0.7 @0"``; the inverse of `str`.

        Raises:
            TypeError: if `text` is not a string.
            ValueError: if `text` is not of this form, or the formats differ in word length or in
                kind (``Q``, ``UQ`` or ``SQ``).
        """
        _require_text("PerChannelFormat.parse", text, "Q1.6|Q0.7 @0")
        body, separator, axis = text.partition(" @")
        if not separator or _AXIS_PATTERN.fullmatch(axis) is None:
            raise ValueError(
                f"PerChannelFormat.parse: {text!r} does not end with its axis; write the format "
                f"of each channel and ' @axis', such as 'Q1.6|Q0.7 @0'"
            )
        formats = tuple(FixedPointFormat.parse(part) for part in body.split("|"))
        first = formats[0]
        kind = (first.word_length, first.signed, first.symmetric)
        for channel, fmt in enumerate(formats):
            if (fmt.word_length, fmt.signed, fmt.symmetric) != kind:
                raise ValueError(
                    f"PerChannelFormat.parse: channel {channel} is {fmt} ({fmt.word_length} bits) "
                    f"but channel 0 is {first} ({first.word_length} bits); all channels need the "
                    f"same word length and sign, and all or none are symmetric"
                )
        fractions = tuple(fmt.fraction_bits for fmt in formats)
        return cls(first.word_length, fractions, first.signed, int(axis), first.symmetric)

    def __str__(self) -> str:
        return f"{'|'.join(str(fmt) for fmt in self.formats)} @{self.axis}"

    @property
    def formats(self) -> tuple[FixedPointFormat, ...]:
        """The format of each slice along `axis`."""
        return tuple(self._format(bits) for bits in self.fraction_bits)

    @property
    def is_sign(self) -> bool:
        """Whether a word is a sign, as of a `FixedPointFormat`."""
        return self.symmetric and self.word_length == 1

    @property
    def code_min(self) -> int:
        """The smallest code of every slice."""
        return self._format(self.fraction_bits[0]).code_min

    @property
    def code_max(self) -> int:
        """The largest code of every slice."""
        return self._format(self.fraction_bits[0]).code_max


Format = FixedPointFormat | PerChannelFormat
"""A format for a whole tensor, or one for each of its channels."""


def parse_format(text: str) -> Format:
    """The format that `text` names, for a whole tensor (``"Q1.6"``) or per channel (``"... @0"``).

    Raises:
        TypeError: if `text` is not a string.
        ValueError: if `text` names no format.
    """
    _require_text("parse_format", text, "Q1.6")
    return (PerChannelFormat if "@" in text else FixedPointFormat).parse(text)


def covering_integer_bits(largest: float) -> int:
    """The smallest `i` with ``2^i >= largest``; 0 for no extent at all."""
    mantissa, exponent = math.frexp(largest)
    return exponent - 1 if mantissa == 0.5 else exponent
