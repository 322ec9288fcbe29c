"""A tensor of codes, kept packed: it takes the memory that is counted for it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from qspinn.export.packing import Codes, check_packed, check_word, pack, packed_bytes, unpack

__all__ = ["MOST_DIMENSIONS", "PackedTensor", "check_shape"]

MOST_DIMENSIONS = 32
_BLOCK = 1 << 16
"""Codes that are unpacked at once; a multiple of 8, so that each block begins with a byte."""
MOST_VALUES = 1 << 48
"""What the dimensions that are not 0 multiply to at most: of an empty tensor, too."""


@dataclass(frozen=True, init=False)
class PackedTensor:
    """A tensor of integer codes, packed at their word length.

    Two are equal if they hold the same codes in the same shape and with the same words.

    Attributes:
        data: The packed codes, in C order; see :mod:`qspinn.export.packing`.
        shape: Dimensions of the tensor.
        word_length: Bits of a code, 1 to 32.
        signed: Whether codes are in two's complement.

    Example:
        >>> import numpy as np
        >>> tensor = PackedTensor(np.array([[1, -2, 3]]), word_length=3, signed=True)
        >>> tensor.data.hex(), tensor.payload_bits, tensor.padding_bits
        ('f100', 9, 7)
        >>> tensor.codes.tolist()
        [[1, -2, 3]]
    """

    data: bytes = field(repr=False)
    shape: tuple[int, ...]
    word_length: int
    signed: bool

    def __init__(self, codes: npt.NDArray[np.integer[Any]], word_length: int, signed: bool) -> None:
        """Pack codes.

        Args:
            codes: Integers of any integer dtype, shape `shape`.
            word_length: Bits of a code, 1 to 32.
            signed: Whether codes are in two's complement.

        Raises:
            TypeError: An argument has another type.
            ValueError: A code is out of range, or the shape or the word length cannot be stored.
        """
        data = pack(codes, word_length, signed)
        check_shape(codes.shape)
        self._set(data, codes.shape, word_length, signed)

    @classmethod
    def shortest(cls, codes: npt.NDArray[np.integer[Any]]) -> PackedTensor:
        """The tensor of codes in the shortest words that hold all of them."""
        signed = bool((codes < 0).any())
        largest = int(max(codes.max(initial=0), -1 - codes.min(initial=0)))
        return cls(codes, max(1, largest.bit_length() + signed), signed)

    @classmethod
    def from_packed(
        cls, data: bytes, shape: tuple[int, ...], word_length: int, signed: bool
    ) -> PackedTensor:
        """The tensor of codes that are packed already.

        Raises:
            TypeError: An argument has another type.
            ValueError: The shape or the word length cannot be, `data` is not as long as they say,
                or a padding bit is not 0.
        """
        if type(data) is not bytes:
            raise TypeError(f"data is {type(data).__name__}; give bytes")
        check_word(word_length, signed)
        check_shape(shape)
        check_packed(data, word_length, math.prod(shape))
        tensor = cls.__new__(cls)
        tensor._set(data, tuple(shape), word_length, signed)
        return tensor

    def _set(self, data: bytes, shape: tuple[int, ...], word_length: int, signed: bool) -> None:
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "word_length", word_length)
        object.__setattr__(self, "signed", signed)

    @property
    def codes(self) -> Codes:
        """The codes, int64 ``[*shape]``: unpacked each time, 8 bytes per code."""
        return unpack(self.data, self.word_length, self.signed, self.count).reshape(self.shape)

    @property
    def extremes(self) -> tuple[int, int]:
        """The smallest and the largest code, found block by block; 0 and 0 of an empty tensor."""
        low = high = None
        for first in range(0, self.count, _BLOCK):
            count = min(_BLOCK, self.count - first)
            begin = first * self.word_length // 8
            part = self.data[begin : begin + packed_bytes(count, self.word_length)]
            codes = unpack(part, self.word_length, self.signed, count)
            low = min(int(codes.min()), low if low is not None else int(codes.min()))
            high = max(int(codes.max()), high if high is not None else int(codes.max()))
        return low or 0, high or 0

    @property
    def count(self) -> int:
        """How many codes."""
        return math.prod(self.shape)

    @property
    def payload_bits(self) -> int:
        """Bits of the codes."""
        return self.count * self.word_length

    @property
    def padding_bits(self) -> int:
        """Bits that are left in the last byte, 0 to 7."""
        return 8 * packed_bytes(self.count, self.word_length) - self.payload_bits


def check_shape(shape: tuple[int, ...]) -> None:
    """See that a shape can be stored and be that of an array.

    Raises:
        TypeError: A dimension is no int.
        ValueError: There are too many dimensions, one is negative, or they are too large.
    """
    if len(shape) > MOST_DIMENSIONS:
        raise ValueError(
            f"a shape has {len(shape)} dimensions; at most {MOST_DIMENSIONS} are stored"
        )
    product = 1
    for size in shape:
        if type(size) is not int:
            raise TypeError(f"the dimension {size!r:.80} of a shape is no int")
        if size < 0:
            raise ValueError(f"the dimension {size} of the shape {list(shape)} is negative")
        product *= size or 1
    if product > MOST_VALUES:
        raise ValueError(f"the shape {list(shape)} is too large: at most 2^48 values are stored")
