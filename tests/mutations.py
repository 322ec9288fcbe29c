"""Files with something wrong: what fuzzers change, from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator

# What numbers at the edges look like in texts and in bytes.
TEXTS = (b"0", b"-1", b"1e999", b"NaN", b"null", b"true", b'""', b"[]", b"{}", b"9" * 400, b"\x00")
BYTES = (b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\x00" * 8, b"\xff" * 8)


def mutations(content: bytes, seed: int, count: int) -> Iterator[bytes]:
    """Give so many changed forms of a file; now and then one is equal to it.

    A byte or some bytes changed, cut short, bytes put in or taken out, a part repeated or moved,
    zeros, numbers at the edges.

    Args:
        content: Of the sound file.
        seed: The same seed makes the same changes.
        count: How many.
    """
    chance = random.Random(seed)
    for _ in range(count):
        changed = content
        for _ in range(chance.choice((1, 1, 1, 2, 5))):
            changed = _changed(changed, chance)
        yield changed


def _changed(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content) + 1)
    end = min(len(content), start + chance.choice((1, 1, 4, 40, 400)))
    before, part, after = content[:start], content[start:end], content[end:]
    kind = chance.randrange(9)
    if kind == 0:
        return before + bytes(byte ^ (1 << chance.randrange(8)) for byte in part) + after
    if kind == 1:
        return before + chance.randbytes(len(part)) + after
    if kind == 2:
        return before
    if kind == 3:
        return before + after
    if kind == 4:
        return before + chance.randbytes(chance.randrange(1, 9)) + part + after
    if kind == 5:
        return before + part + part + after
    if kind == 6:
        return before + bytes(len(part)) + after
    if kind == 7:
        return before + chance.choice(TEXTS) + after
    return before + chance.choice(BYTES) + content[start + 4 :]
