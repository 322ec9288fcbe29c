"""Codes packed at their word length: no bit between them, so a tensor takes what is counted.

Bits are in little-endian order: bit ``j`` of code ``i`` is bit ``(i * word_length + j) % 8`` of
byte ``(i * word_length + j) // 8``, where bit 0 is the least significant one. Signed codes are in
two's complement. The bits that are left in the last byte, at most 7, are zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from qspinn.fixed_point import MAX_WORD_LENGTH

__all__ = ["Codes", "check_packed", "check_word", "code_range", "pack", "packed_bytes", "unpack"]

Codes = npt.NDArray[np.int64]


def code_range(word_length: int, signed: bool) -> tuple[int, int]:
    """The smallest and the largest code of a word."""
    if signed:
        return -(1 << (word_length - 1)), (1 << (word_length - 1)) - 1
    return 0, (1 << word_length) - 1


def packed_bytes(count: int, word_length: int) -> int:
    """The bytes that so many codes take."""
    return (count * word_length + 7) // 8


def check_word(word_length: int, signed: bool) -> None:
    """See that a word has a length that can be packed.

    Raises:
        TypeError: `word_length` is no int, or `signed` no bool.
        ValueError: The length is not in [1, 32].
    """
    if type(word_length) is not int:
        raise TypeError(
            f"word_length is {_short(word_length)}; give an int, 1 to {MAX_WORD_LENGTH}"
        )
    if type(signed) is not bool:
        raise TypeError(f"signed is {_short(signed)}; give True or False")
    if not 1 <= word_length <= MAX_WORD_LENGTH:
        raise ValueError(f"word_length is {word_length}; give 1 to {MAX_WORD_LENGTH} bits")


def pack(codes: npt.NDArray[np.integer[Any]], word_length: int, signed: bool) -> bytes:
    """Pack codes at their word length.

    Args:
        codes: Integers of any shape and any integer dtype, packed in C order (last index fastest).
        word_length: Bits of a code, 1 to 32.
        signed: Whether codes are in two's complement.

    Returns:
        ``ceil(codes.size * word_length / 8)`` bytes.

    Raises:
        TypeError: `codes` is no array of integers; see also `check_word`.
        ValueError: A code is out of range; the message names the first and its index.
    """
    check_word(word_length, signed)
    _check_codes(codes, word_length, signed)
    count, groups = codes.size, (codes.size + 7) // 8
    words = np.zeros(groups * 8, np.uint32)
    words[:count] = codes.ravel()  # modulo 2^32
    words &= np.uint32((1 << word_length) - 1)
    columns = words.reshape(groups, 8)
    packed = np.zeros((groups, word_length), np.uint8)
    for code, byte, shift in _moves(word_length):
        column = columns[:, code]
        moved = column << shift if shift >= 0 else column >> -shift
        packed[:, byte] |= moved.astype(np.uint8)  # the low 8 bits
    return packed.ravel()[: packed_bytes(count, word_length)].tobytes()


def unpack(
    data: bytes | bytearray | memoryview, word_length: int, signed: bool, count: int
) -> Codes:
    """Unpack codes; the inverse of `pack`.

    Args:
        data: What `pack` returned.
        word_length: Bits of a code, 1 to 32.
        signed: Whether codes are in two's complement.
        count: How many codes.

    Returns:
        int64 ``[count]``.

    Raises:
        TypeError: `count` is no int; see also `check_word`.
        ValueError: `data` has another length than the codes take, or padding bits that are not 0.
    """
    check_word(word_length, signed)
    raw = np.frombuffer(data, np.uint8)
    check_packed(raw, word_length, count)
    groups = (count + 7) // 8
    padded = np.zeros(groups * word_length, np.uint8)
    padded[: raw.size] = raw
    columns = padded.reshape(groups, word_length)
    codes = np.zeros((groups, 8), np.int64)
    for code, byte, shift in _moves(word_length):
        column = columns[:, byte].astype(np.int64)
        codes[:, code] |= column >> shift if shift >= 0 else column << -shift
    codes &= (1 << word_length) - 1
    if signed:  # the highest bit counts negative
        sign = 1 << (word_length - 1)
        codes ^= sign
        codes -= sign
    return codes.ravel()[:count]


def check_packed(
    data: bytes | memoryview | npt.NDArray[np.uint8], word_length: int, count: int
) -> None:
    """See that bytes are those of so many codes, without unpacking them.

    Raises:
        TypeError: `count` is no int.
        ValueError: The number of bytes is another one, or a padding bit is not 0.
    """
    if type(count) is not int:
        raise TypeError(f"count is {_short(count)}; give an int")
    if count < 0:
        raise ValueError(f"count is {count}; give 0 or more")
    expected = packed_bytes(count, word_length)
    if len(data) != expected:
        raise ValueError(
            f"{count} codes of {word_length} bits take {expected} bytes, and there are {len(data)}"
        )
    used = count * word_length % 8
    if used and data[-1] >> used:
        raise ValueError(
            f"the last byte is 0x{data[-1]:02x}, and its upper {8 - used} bits are padding, which "
            f"is zero"
        )


def _moves(word_length: int) -> Iterator[tuple[int, int, int]]:
    """How 8 codes lie in `word_length` bytes, where the pattern begins anew.

    Returns:
        Of each code with each byte that holds bits of it: both indices, and how far the code is
        shifted to the left to have its bits in the byte; negative: to the right.
    """
    for code in range(8):
        first = code * word_length
        for byte in range(first // 8, (first + word_length - 1) // 8 + 1):
            yield code, byte, first - 8 * byte


def _check_codes(codes: Any, word_length: int, signed: bool) -> None:
    if not isinstance(codes, np.ndarray) or codes.dtype.kind not in "iu":
        given = f"an array of {codes.dtype}" if isinstance(codes, np.ndarray) else _short(codes)
        raise TypeError(f"codes are {given}; give a NumPy array of integers")
    low, high = code_range(word_length, signed)
    if codes.size == 0 or (int(codes.min()) >= low and int(codes.max()) <= high):
        return
    bad = (codes < low) | (codes > high)
    index = np.unravel_index(int(np.argmax(bad)), codes.shape)
    raise ValueError(
        f"code {int(codes[index])} at index {[int(i) for i in index]} is out of the range "
        f"[{low}, {high}] of {'signed' if signed else 'unsigned'} words of {word_length} bits; "
        f"saturate or wrap the codes first, or give them more bits"
    )


def _short(value: object) -> str:
    return f"{value!r:.80} ({type(value).__name__})"
