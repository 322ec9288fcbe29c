"""Packed codes as one large Python integer: slow, obvious, and without NumPy.

Code `i` of `w` bits counts `2^(i w)` of it, and its bytes are written from the least significant
one on. Written from the definition alone.
"""

from __future__ import annotations

from collections.abc import Iterable


def packed(codes: Iterable[int], word_length: int) -> bytes:
    total = count = 0
    for code in codes:
        total += (code % 2**word_length) * 2 ** (count * word_length)
        count += 1
    return total.to_bytes(-(-count * word_length // 8), "little")


def unpacked(data: bytes, word_length: int, signed: bool, count: int) -> list[int]:
    total = int.from_bytes(data, "little")
    codes = []
    for _ in range(count):
        total, code = divmod(total, 2**word_length)
        codes.append(code - 2**word_length if signed and code >= 2 ** (word_length - 1) else code)
    assert total == 0
    return codes
