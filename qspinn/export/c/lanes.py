"""Sums of 16 bits in C, two of them in each word of 32 bits: an addition adds two weights.

A word holds the sum of output ``k`` in its low half, and that of output ``k + n / 2`` of `n` in
its high one, each plus 2^15, so that neither is negative. It begins and ends so; in between it is
right modulo 2^32, whatever carries from one half to the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from qspinn.export.model import Codes

__all__ = ["EMPTY", "LONGEST_CODE", "LaneOrder", "lane_order", "sum_of"]

EMPTY = "0x80008000u"
"""Two sums of 0."""
LONGEST_CODE = 15
_BOTH = 0x00010001
_MOST_WORDS = 12
"""Of a block of several elements: longer ones take more code, and no less time."""


@dataclass(frozen=True)
class LaneOrder:
    """How the codes of one input lie in an array, for additions of two at a time.

    The codes of the first half of the outputs are a stream of bits, those of the second half
    another one. An element of the array holds `unit` bits of each, the first ones lower. Signed
    codes are stored plus half their range, so that none is negative; signs, -1 and 1, as 0 and 1.

    Attributes:
        word_length: Bits of a code.
        signed: Whether codes can be negative.
        outputs: Codes of one input.
        unit: 16 or 8.
        is_sign: Whether codes are -1 and 1, in words of 1 bit.
    """

    word_length: int
    signed: bool
    outputs: int
    unit: int
    is_sign: bool = False

    @property
    def kind(self) -> str:
        """Type of an element."""
        return f"uint{2 * self.unit}_t"

    @property
    def elements(self) -> int:
        """Of one input."""
        return self.outputs * self.word_length // (2 * self.unit)

    @property
    def least(self) -> int:
        """The least words of sums that are made from whole elements."""
        return self.unit // math.gcd(self.word_length, self.unit)

    @property
    def together(self) -> int:
        """Elements of a block, where each holds two or four codes; else 1.

        The first codes of all of them belong to words that follow each other, then come the second
        ones, so that compilers can add several words at a time. Of shorter codes, each element
        makes four words and more, and there it saves no time.
        """
        if self.least > 2:
            return 1
        most, whole = _MOST_WORDS // self.least, self.outputs // (2 * self.least)
        return max(one for one in range(1, max(most, 1) + 1) if whole % one == 0)

    @property
    def words(self) -> int:
        """Words of sums in a block."""
        return self.least * self.together

    @property
    def blocks(self) -> int:
        """Of one input."""
        return self.outputs // (2 * self.words)

    @property
    def half(self) -> int:
        """What is added to codes."""
        return 1 << (self.word_length - 1) if self.signed else 0

    def array(self, codes: Codes) -> Codes:
        """Elements of an array, of codes ``[inputs, outputs]``."""
        shape = (len(codes), 2, self.blocks, self.least, self.together, 1)
        held = codes + self.half >> int(self.is_sign)
        ordered = np.swapaxes(held.reshape(shape), 3, 4)
        bits = ordered >> np.arange(self.word_length) & 1
        lanes = bits.reshape(len(codes), 2, -1, self.unit) << np.arange(self.unit)
        low, high = np.moveaxis(lanes.sum(axis=-1), 1, 0)
        return (low | high << self.unit).reshape(-1)

    def adder(self, name: str, factor: bool) -> str:
        """A function that adds the codes of one input to all sums: ``(sums, codes[, by])``."""
        step = self.word_length * self.words // self.unit
        taken = ", uint32_t by" if factor else ""
        lines = [
            f"static void {name}(uint32_t *restrict sums, const {self.kind} *restrict codes,",
            f"    uint32_t blocks{taken})",
            "{",
            "    for (; blocks > 0; blocks--) {",
        ]
        for place in range(step):
            read = f"codes[{place}]"
            if self.unit == 8:  # what is between the lanes is never looked at
                read = f"(uint32_t){read} | (uint32_t){read} << 8"
            lines.append(f"        const uint32_t c{place} = {read};")
        for word in range(self.words):
            first, element = divmod(word, self.together)
            code = self._code(element * self.least + first)
            code = f"2u * {code}" if self.is_sign else code
            code = f"{code} - {hex(self.half * _BOTH)}u" if self.half else code
            code = f"({code}) * by" if factor else code
            lines.append(f"        sums[{word}] += {code};")
        lines += [f"        sums += {self.words};", f"        codes += {step};", "    }", "}"]
        return "\n".join(lines)

    def _code(self, word: int) -> str:
        """Both codes of a word, from the elements that hold their bits."""
        parts, done = [], 0
        while done < self.word_length:
            place, begin = divmod(word * self.word_length + done, self.unit)
            taken = min(self.unit - begin, self.word_length - done)
            mask = hex((((1 << taken) - 1) << done) * _BOTH)
            shift = f" >> {begin - done}" if begin > done else f" << {done - begin}"
            parts.append(f"(c{place}{'' if begin == done else shift} & {mask}u)")
            done += taken
        return parts[0] if len(parts) == 1 else f"({' | '.join(parts)})"


def sum_of(word: str, lane: str) -> str:
    """An expression of the sum in the half of a word that begins at bit `lane`, 0 or 16."""
    shifted = word if lane == "0" else f"{word} >> {lane}"
    return f"(int32_t)({shifted} & 0xffffu) - 32768"


def lane_order(
    word_length: int, signed: bool, outputs: int, is_sign: bool = False
) -> LaneOrder | None:
    """The order with the longest elements that rows fill, where there is one.

    Codes of 16 bits and more fill a half of a word, or do not fit into it.
    """
    if word_length > LONGEST_CODE:
        return None
    for unit in (16, 8):
        order = LaneOrder(word_length, signed, outputs, unit, is_sign)
        if outputs % (2 * order.words) == 0:
            return order
    return None
