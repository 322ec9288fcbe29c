"""What a step in C computes: expressions, with the range of numbers that each can be.

Whole numbers are exact, and what does not fit in an integer of C is found in their ranges. Words of
random bits are uint64_t, and wrap around.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from qspinn.steps import words

__all__ = ["WORDS", "WORD_MAX", "Symbol", "ends", "literal", "made", "text_of", "width_of"]

WORD_MAX = (1 << 64) - 1

# How an expression is written: how tightly it binds, and how its parts must at least. Parts of
# shifts and & get parentheses that C does not need: compilers warn where they are left out.
_ATOM, _UNARY, _TIMES, _PLUS, _SHIFT, _COMPARE, _BITS, _CHOICE, ANY = range(9, 0, -1)
_FORMS: dict[str, tuple[int, ...]] = {
    "-{}": (_UNARY, _UNARY),
    "({kind}){}": (_UNARY, _UNARY),
    "({kind})1 << {}": (_SHIFT, _UNARY),
    "{} * {}": (_TIMES, _TIMES, _UNARY),
    "{} / {}": (_TIMES, _UNARY, _UNARY),
    "{} % {}": (_TIMES, _UNARY, _UNARY),
    "{} + {}": (_PLUS, _PLUS, _TIMES),
    "{} - {}": (_PLUS, _PLUS, _TIMES),
    "{} >> {}": (_SHIFT, _UNARY, _UNARY),
    **{f"{{}} {sign} {{}}": (_COMPARE, _PLUS, _PLUS) for sign in ("<", "<=", ">", ">=")},
    **{f"{{}} {sign} {{}}": (_COMPARE, _PLUS, _PLUS) for sign in ("==", "!=")},
    "{} & {}": (_BITS, _UNARY, _UNARY),
    "{} ^ {}": (_BITS, _UNARY, _UNARY),
    "{} ? {} : {}": (_CHOICE, _COMPARE, _COMPARE, _CHOICE),
}


def ends(x: Any) -> tuple[int, int]:
    """The smallest and the largest number that something can be."""
    return (x.low, x.high) if isinstance(x, Symbol) else (x, x)


def made(form: str, parts: tuple[Any, ...], low: int, high: int, is_word: bool = False) -> Any:
    """An expression, or the only number that it can be."""
    return low if low == high else Symbol(form, parts, low, high, is_word)


def _operation(form: str, a: Any, b: Any, low: int, high: int) -> Any:
    """Of two whole numbers, or of two words."""
    kinds = {x.is_word for x in (a, b) if isinstance(x, Symbol)}
    if len(kinds) > 1:
        raise ValueError("random bits are computed with: take some by `top_bits`")
    if True in kinds and not 0 <= low <= high <= WORD_MAX:
        low, high = 0, WORD_MAX
    return made(form, (a, b), low, high, True in kinds)


def _corners(operation: Callable[[int, int], int], a: Any, b: Any) -> tuple[int, int]:
    """Range of what grows or falls with both numbers."""
    found = [int(operation(i, j)) for i in ends(a) for j in ends(b)]
    return min(found), max(found)


def _is(x: Any, number: int) -> bool:
    return isinstance(x, int) and x == number


def _sum(a: Any, b: Any) -> Any:
    if isinstance(a, int):
        a, b = b, a
    if _is(b, 0):
        return a
    if isinstance(b, int) and b < 0:
        return _difference(a, -b)
    return _operation("{} + {}", a, b, *_corners(operator.add, a, b))


def _difference(a: Any, b: Any) -> Any:
    if isinstance(b, int) and b <= 0:
        return _sum(a, -b)
    if _is(a, 0):
        return b.parts[0] if b.form == "-{}" else made("-{}", (b,), -b.high, -b.low)
    return _operation("{} - {}", a, b, *_corners(operator.sub, a, b))


def _product(a: Any, b: Any) -> Any:
    if _is(a, 1) or _is(b, 1):
        return b if _is(a, 1) else a
    return _operation("{} * {}", a, b, *_corners(operator.mul, a, b))


def _quotient(a: Any, b: Any) -> Any:
    """Rounded down, where C rounds towards 0."""
    (low, high), least, most = ends(a), *ends(b)
    if least <= 0:
        raise ValueError("a divisor may be 0 or negative")
    if isinstance(b, int) and b & (b - 1) == 0:
        return _right(a, b.bit_length() - 1)
    toward_zero = [abs(i) // j * (1 if i > 0 else -1) for i in (low, high) for j in (least, most)]
    whole = _operation("{} / {}", a, b, min(toward_zero), max(toward_zero))
    rest = _operation("{} % {}", a, b, 1 - most if low < 0 else 0, most - 1 if high > 0 else 0)
    result = _difference(whole, rest < 0)
    if isinstance(result, Symbol):
        result.low, result.high = _corners(operator.floordiv, a, b)
    return result


def _left(a: Any, b: Any) -> Any:
    """As a product: C does not define shifts of negative numbers to the left."""
    if isinstance(b, int):
        return _product(a, 1 << b)
    return _product(a, made("({kind})1 << {}", (b,), *_corners(operator.lshift, 1, b)))


def _right(a: Any, b: Any) -> Any:
    found = _shifted(a, b)
    if isinstance(found, Symbol) and isinstance(b, int) and _widest(found) > 32:
        whole, rest = _split(a, b)
        apart = whole + _shifted(rest, b)
        if isinstance(apart, Symbol) and _widest(apart) <= 32:
            apart.low, apart.high = max(apart.low, found.low), min(apart.high, found.high)
            return apart
    return found


def _shifted(a: Any, b: Any) -> Any:
    low, high = _corners(operator.rshift, a, b)
    if _is(b, 0) or low == high:
        return a if _is(b, 0) else low
    b = min(b, 63) if isinstance(b, int) else b
    if ends(b)[1] > 63:
        raise ValueError(f"numbers are shifted by up to {ends(b)[1]} bits, and have 64")
    return made("{} >> {}", (a, b), low, high, isinstance(a, Symbol) and a.is_word)


def _split(x: Any, bits: int) -> tuple[Any, ...]:
    """``whole`` and ``rest``: x = whole 2^bits + rest, and so x >> bits = whole + (rest >> bits).

    A factor leaves the rest that is nearest to 0: 2^21 - 3 leaves -3, and what is added at least 0.
    """
    if isinstance(x, int):
        return x >> bits, x & ((1 << bits) - 1)
    inside, factor = _factor_of(x)
    if factor != 1:
        times = (factor + (1 << bits >> 1)) >> bits
        return inside * times, inside * (factor - (times << bits))
    if x.form in ("{} + {}", "{} - {}", "{} ? {} : {}"):
        *condition, a, b = x.parts
        sums = {"{} + {}": operator.add, "{} - {}": operator.sub}
        combined = sums.get(x.form) or functools.partial(chosen, *condition)
        return tuple(map(combined, _split(a, bits), _split(b, bits)))
    return 0, x


def _factor_of(x: Symbol) -> tuple[Symbol, int]:
    """A symbol, and the constant that it is multiplied by."""
    factor = 1
    while x.form == "{} * {}" and (numbers := [one for one in x.parts if isinstance(one, int)]):
        factor *= numbers[0]
        x = next(one for one in x.parts if isinstance(one, Symbol))
    return x, factor


def _widest(x: Any) -> int:
    """Bits of the longest number that is computed on the way to this one, its sign included."""
    is_number = isinstance(x, Symbol) and not x.is_word
    return max([width_of(x), *map(_widest, x.parts)]) if is_number else 0


def _and(a: Any, b: Any) -> Any:
    if isinstance(a, int):
        a, b = b, a
    if isinstance(b, int) and b >= 0:
        if a.form == "{} & {}" and isinstance(a.parts[1], int):
            return _and(a.parts[0], a.parts[1] & b)
        if b & (b + 1) == 0 and a.low >= 0 and a.high <= b:
            return a
    (low, high), (other_low, other_high) = ends(a), ends(b)
    masks = [most for least, most in (ends(a), ends(b)) if least >= 0]
    widest = 1 << max(abs(end).bit_length() for end in (low, high, other_low, other_high))
    return _operation("{} & {}", a, b, *((0, min(masks)) if masks else (-widest, widest - 1)))


def _both(operation: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    """An operator, and the one for a symbol on the right."""
    return operation, lambda a, b: operation(b, a)


def _comparison(sign: str, compare: Callable[[int, int], bool]) -> Any:
    """1 or 0; known already where the ranges decide."""

    def compared(a: Any, b: Any) -> Any:
        low, high = _corners(compare, a, b)
        (least, most), (other_least, other_most) = ends(a), ends(b)
        if sign in ("==", "!=") and least <= other_most and other_least <= most:
            low, high = 0, 1
        symbol = _operation(f"{{}} {sign} {{}}", a, b, low, high)
        if isinstance(symbol, Symbol):
            symbol.is_word = False
        return symbol

    return compared


@dataclass(eq=False)
class Symbol:
    """A number that is not known while translating.

    Attributes:
        form: How it is written, with a place for each part; of a parameter: its name.
        parts: What it is computed from: symbols and integers.
        low: The smallest number that it can be.
        high: The largest one.
        is_word: Whether it is a word of random bits.
        hint: A name for it.
        owner: The function that has a variable of that name; "": none.
    """

    form: str
    parts: tuple[Any, ...]
    low: int
    high: int
    is_word: bool = False
    hint: str = ""
    owner: str = ""

    def __bool__(self) -> bool:
        raise ValueError("a branch depends on what is known at run time only: write `chosen`")

    def __neg__(self) -> Any:
        return _difference(0, self)

    __add__, __radd__ = _both(_sum)
    __sub__, __rsub__ = _both(_difference)
    __mul__, __rmul__ = _both(_product)
    __floordiv__, __rfloordiv__ = _both(_quotient)
    __lshift__, __rlshift__ = _both(_left)
    __rshift__, __rrshift__ = _both(_right)
    __and__, __rand__ = _both(_and)
    __xor__, __rxor__ = _both(lambda a, b: _operation("{} ^ {}", a, b, 0, WORD_MAX))
    __lt__, __le__ = _comparison("<", operator.lt), _comparison("<=", operator.le)
    __gt__, __ge__ = _comparison(">", operator.gt), _comparison(">=", operator.ge)
    __eq__, __ne__ = _comparison("==", operator.eq), _comparison("!=", operator.ne)
    __hash__ = object.__hash__


def chosen(condition: Any, a: Any, b: Any) -> Any:
    """See `words.chosen`."""
    (low, high), (other_low, other_high) = ends(a), ends(b)
    return _select(condition, a, b, min(low, other_low), max(high, other_high))


def larger(x: Any, bound: Any) -> Any:
    """See `words.larger`."""
    return _select(x < bound, bound, x, *_corners(max, x, bound))


def _smaller(x: Any, bound: Any) -> Any:
    """The smaller of two numbers."""
    return _select(x > bound, bound, x, *_corners(min, x, bound))


def clamped(x: Any, low: Any, high: Any) -> Any:
    """See `words.clamped`."""
    inside = _smaller(x, high)
    return _select(x < low, low, inside, *_corners(max, inside, low))


def top_bits(random: Any, bits: Any) -> Any:
    """See `words.top_bits`."""
    if isinstance(random, int):
        return words.top_bits(random, bits)
    # Where there may be 0 bits, a shift by 64 - bits is not defined in C.
    drawn = random >> (64 - bits) if isinstance(bits, int) else random >> 1 >> (63 - bits)
    return made("({kind}){}", (drawn,), *ends(drawn)) if isinstance(drawn, Symbol) else drawn


def _select(condition: Any, a: Any, b: Any, low: int, high: int) -> Any:
    if not isinstance(condition, Symbol):
        return a if condition else b
    if condition.low > 0 or condition.high < 0:
        return a
    return made("{} ? {} : {}", (condition, a, b), low, high)


WORDS = {one.__name__: one for one in (chosen, larger, clamped, top_bits)}
"""Words of steps that have to know symbols; the others are those of Python numbers."""


def literal(number: int, is_word: bool) -> str:
    """An integer in C."""
    return f"UINT64_C(0x{number:016X})" if is_word and number >> 31 else str(int(number))


def width_of(symbol: Symbol) -> int:
    """Bits that a type needs, sign included, which computes this from its parts."""
    if symbol.is_word:
        return 0
    numbers = [x for x in (symbol, *symbol.parts) if not (isinstance(x, Symbol) and x.is_word)]
    longest = 1 + max(abs(end).bit_length() for x in numbers for end in ends(x))
    return max(longest, 1 + ends(symbol.parts[1])[1]) if symbol.form == "{} >> {}" else longest


def text_of(x: Any, at_least: int, names: Mapping[int, str], kind: str, is_word: bool) -> str:
    """An expression in C.

    Args:
        x: What is computed.
        at_least: How tightly it must bind, else it is in parentheses.
        names: Identity of a symbol -> the variable that has it.
        kind: Type of whole numbers.
        is_word: Whether an integer is one of words.
    """
    if not isinstance(x, Symbol):
        text, binds = literal(x, is_word), _UNARY if x < 0 else _ATOM
    elif id(x) in names:
        return names[id(x)]
    else:
        binds, *needs = _FORMS.get(x.form, (_ATOM, *(ANY for _ in x.parts)))
        of_words = any(part.is_word for part in x.parts if isinstance(part, Symbol))
        parts = [
            text_of(part, need, names, kind, of_words)
            for part, need in zip(x.parts, needs, strict=True)
        ]
        text = x.form.format(*parts, kind=kind)
    return text if binds >= at_least else f"({text})"
