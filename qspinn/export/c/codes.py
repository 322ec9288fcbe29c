"""Packed codes in C: constant arrays, and functions that read them where they are used."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from qspinn.export.c.lanes import LaneOrder
from qspinn.export.c.text import array, bytes_of
from qspinn.export.model import Codes, StoredTensor
from qspinn.export.packing import pack
from qspinn.fixed_point import Format

__all__ = ["WHOLE", "PackedArrays", "kind_of"]

WHOLE = (8, 16, 32)
"""Word lengths of types of C, in arrays of which codes lie as they are."""

WINDOW_BYTES = 4
"""What a read beyond the last byte of an array may touch, and so is added to it."""


@dataclass(eq=False)
class PackedArrays:
    """The constant arrays of a model, and the functions that their word lengths need.

    Attributes:
        texts: Definitions of arrays, in order.
        readers: Definitions of functions, by name.
        payload_bits: Of all codes.
    """

    texts: list[str] = field(default_factory=list)
    readers: dict[str, str] = field(default_factory=dict)
    payload_bits: int = 0

    def add(self, name: str, codes: Codes, word_length: int, signed: bool, number: str = "") -> str:
        """An array of codes; an expression of the code with a number."""
        self.payload_bits += int(codes.size) * word_length
        if word_length in WHOLE:
            self.texts.append(array(kind_of(word_length, signed), name, codes.reshape(-1)))
        else:
            data = pack(codes, word_length, signed) + bytes(WINDOW_BYTES)
            self.texts.append(array("uint8_t", name, np.frombuffer(data, np.uint8)))
        return self.read(name, word_length, signed, number) if number else ""

    def add_weights(
        self, name: str, codes: Codes, fmt: Format, sums: str, factor: str | None
    ) -> str:
        """An array of weights; the name of a function that adds them, see :meth:`adder`."""
        self.add(name, StoredTensor.of(codes, fmt).packed.codes, fmt.word_length, fmt.signed)
        return self.adder(fmt.word_length, fmt.signed, sums, factor, fmt.is_sign)

    def read(self, name: str, word_length: int, signed: bool, number: str) -> str:
        """An expression of one code of an array, constant or not."""
        if word_length in WHOLE:
            wide = "(int64_t)" if word_length == 32 and not signed else ""
            return f"{wide}{name}[{number}]"
        return f"{self._getter(word_length, signed)}({name}, {number})"

    def write(self, name: str, word_length: int, number: str, code: str) -> str:
        """A statement that stores one code of an array of codes that are not negative."""
        if word_length in WHOLE:
            return f"{name}[{number}] = ({kind_of(word_length, False)}){code};"
        return f"{self.putter(word_length)}({name}, {number}, (int32_t){code});"

    def add_lanes(self, name: str, codes: Codes, order: LaneOrder) -> None:
        """An array of codes ``[inputs, outputs]``, of which two are added at a time."""
        self.payload_bits += int(codes.size) * order.word_length
        self.texts.append(array(order.kind, name, order.array(codes)))

    def lane_adder(self, order: LaneOrder, factor: bool) -> str:
        """The name of a function that adds codes, or codes times a number, two at a time.

        ``(sums, codes, blocks)``, and the number, of the type ``uint32_t``, if there is one.
        """
        name = f"{'mac' if factor else 'add'}_{'s' if order.signed else 'u'}{order.word_length}"
        name += "_signs" if order.is_sign else ""
        name += f"_twice_{order.unit}" + (f"x{order.together}" if order.together > 1 else "")
        self.readers.setdefault(name, order.adder(name, factor))
        return name

    def _getter(self, word_length: int, signed: bool) -> str:
        """The name of a function that reads one code: ``(codes, number)``."""
        name = f"get_{'s' if signed else 'u'}{word_length}"
        if name not in self.readers:
            kind = "int64_t" if word_length == 32 and not signed else "int32_t"
            self._window(word_length)
            value = _extended(f"(window >> (bit & 7u)) & {_mask(word_length)}", word_length, signed)
            self.readers[name] = (
                f"static {kind} {name}(const uint8_t *codes, uint32_t number)\n{{\n"
                f"    const uint32_t bit = number * {word_length}u;\n"
                f"    const {_word(word_length)} window = {_window_of(word_length)}"
                "(codes + (bit >> 3));\n"
                f"    return {value};\n}}"
            )
        return name

    def adder(
        self, word_length: int, signed: bool, sums: str, factor: str | None, is_sign: bool = False
    ) -> str:
        """The name of a function that adds codes, or codes times a number, to sums.

        ``(sums, codes, first, count)``, and the number, of the type `factor`, if there is one. Of
        signs, a bit that is set adds -1, and one that is not 1.
        """
        name = f"{'add' if factor is None else 'mac'}_{'s' if signed else 'u'}{word_length}"
        name += "_signs" if is_sign else ""
        name += "" if sums == "int32_t" else f"_{8 * bytes_of(sums)}"
        name += "_by64" if factor == "int64_t" else ""
        if name in self.readers:
            return name
        if word_length in WHOLE:
            kind = kind_of(word_length, signed)
            self.readers[name] = _of_whole(name, kind, sums, factor)
            return name
        self._window(word_length)
        wide = _word(word_length) == "uint64_t"
        together = max(1, ((40 if wide else 32) - 7) // word_length)
        mask, (times, taken) = _mask(word_length), _factor(sums, factor)

        def one(place: int) -> str:
            shifted = f"window >> {place * word_length}" if place else "window"
            value = _extended(f"({shifted}) & {mask}", word_length, signed)
            if is_sign:
                value = f"1 - 2 * (int32_t)(({shifted}) & {mask})"
            return f"sums[{place}] += ({sums})({value}){times};"

        read = f"{_window_of(word_length)}(codes + (bit >> 3)) >> (bit & 7u);"
        lines = [
            f"static void {name}({sums} *restrict sums, const uint8_t *restrict codes,",
            f"    uint32_t first, uint32_t count{taken})",
            "{",
            f"    uint32_t bit = first * {word_length}u;",
        ]
        if together > 1:
            lines += [
                f"    for (; count >= {together}u; count -= {together}u) {{",
                f"        const {_word(word_length)} window = {read}",
                *(f"        {one(place)}" for place in range(together)),
                f"        sums += {together};",
                f"        bit += {together * word_length}u;",
                "    }",
            ]
        lines += [
            "    for (; count > 0; count--) {",
            f"        const {_word(word_length)} window = {read}",
            f"        {one(0)}",
            "        sums++;",
            f"        bit += {word_length}u;",
            "    }",
            "}",
        ]
        self.readers[name] = "\n".join(lines)
        return name

    def putter(self, word_length: int) -> str:
        """The name of a function that stores one code: ``(codes, number, code)``."""
        name = f"put_{word_length}"
        if name not in self.readers:
            self.readers[name] = _PUT.format(name=name, bits=word_length, mask=_mask(word_length))
        return name

    def _window(self, word_length: int) -> None:
        self.readers.setdefault("window_of", _WINDOW)
        if _word(word_length) == "uint64_t":
            self.readers.setdefault("long_window_of", _LONG_WINDOW)


_PUT = """static void {name}(uint8_t *codes, uint32_t number, int32_t code)
{{
    uint32_t bit = number * {bits}u, left = {bits}u;
    uint32_t rest = (uint32_t)code & {mask};
    while (left > 0) {{
        const uint32_t place = bit & 7u, space = 8u - place;
        const uint32_t taken = left < space ? left : space;
        const uint32_t mask = ((1u << taken) - 1u) << place;
        uint8_t *const byte = codes + (bit >> 3);
        *byte = (uint8_t)((*byte & ~mask) | ((rest << place) & mask));
        rest >>= taken;
        bit += taken;
        left -= taken;
    }}
}}"""

_WINDOW = """static uint32_t window_of(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}"""
_LONG_WINDOW = """static uint64_t long_window_of(const uint8_t *bytes)
{
    return (uint64_t)window_of(bytes) | (uint64_t)bytes[4] << 32;
}"""


def _of_whole(name: str, kind: str, sums: str, factor: str | None) -> str:
    """As any other, but each code is a number of C."""
    times, taken = _factor(sums, factor)
    return f"""static void {name}({sums} *restrict sums, const {kind} *restrict codes,
    uint32_t first, uint32_t count{taken})
{{
    const {kind} *const row = codes + first;
    uint32_t k;
    for (k = 0; k < count; k++) {{
        sums[k] += ({sums})row[k]{times};
    }}
}}"""


def kind_of(word_length: int, signed: bool) -> str:
    """The type of C of codes of such a word length."""
    return f"{'' if signed else 'u'}int{word_length}_t"


def _factor(sums: str, factor: str | None) -> tuple[str, str]:
    """What a code is multiplied by, and the parameter that it is; C widens to 32 bits itself."""
    if factor is None:
        return "", ""
    return f" * ({'int64_t' if sums == 'int64_t' else 'int32_t'})by", f", {factor} by"


def _word(word_length: int) -> str:
    return "uint32_t" if word_length <= 25 else "uint64_t"


def _window_of(word_length: int) -> str:
    return "window_of" if word_length <= 25 else "long_window_of"


def _mask(word_length: int) -> str:
    return f"0x{(1 << word_length) - 1:x}u"


def _extended(expression: str, word_length: int, signed: bool) -> str:
    """The code with these bits, as a number with a sign."""
    if not signed:
        kind = "int64_t" if word_length == 32 else "int32_t"
        return f"({kind})({expression})"
    half = 1 << (word_length - 1)
    if word_length == 32:
        return f"(int32_t)((int64_t)(({expression}) ^ {half}u) - {half})"
    return f"(int32_t)(({expression}) ^ {half}u) - {half}"
