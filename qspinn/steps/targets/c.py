"""Steps in C99: a function for one step of one layer, whose constants are literals in it.

Python itself runs a step, on symbols instead of numbers: what is known while translating folds, and
branches on it are taken. The range of each symbol proves that nothing overflows, decides between
int32_t and int64_t, and drops what cannot happen, such as bounds that are never reached. The syntax
tree of a step says what its variables are called.

The code needs <stdint.h> and `ARITHMETIC_SHIFT`.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from qspinn.fixed_point import random_bits
from qspinn.steps import words
from qspinn.steps.targets.c_symbols import (
    ANY,
    WORD_MAX,
    WORDS,
    Symbol,
    chosen,
    ends,
    text_of,
    width_of,
)

__all__ = ["ARITHMETIC_SHIFT", "CFunction", "Multiple", "Range", "c_function", "c_random"]

ARITHMETIC_SHIFT = "typedef char arithmetic_shift[(-1 >> 1) == -1 ? 1 : -1];"
"""Compiles only where shifts to the right keep the sign, as they do in all code made here."""

_IDENTIFIER = re.compile(
    "(?!(auto|break|case|char|const|continue|default|do|double|else|enum|extern|float|for|goto|if|"
    "inline|int|long|register|restrict|return|short|signed|sizeof|static|struct|switch|typedef|"
    "union|unsigned|void|volatile|while|u?int(32|64)_t)$)[A-Za-z_][A-Za-z_0-9]*"
)
_LINE = 96


class Range(NamedTuple):
    """What a parameter of a function can be.

    Attributes:
        low: The smallest number.
        high: The largest one.
    """

    low: int
    high: int


class Multiple(NamedTuple):
    """What a step takes as a parameter times a constant.

    Attributes:
        factor: What the parameter of the function can be.
        of: The constant.
    """

    factor: Range
    of: int


RANDOM = Range(0, WORD_MAX)
"""A word of random bits."""


@dataclass(frozen=True)
class CFunction:
    """A function in C.

    Attributes:
        name: Its name.
        text: Its definition.
        parameters: What it takes, in order, and what each can be: arguments of the step and fields
            of its numbers, but for those that the result does not depend on.
        kind: The type of all whole numbers in it.
        bits: What the longest of them needs, with its sign.
        low: The smallest result.
        high: The largest one.
    """

    name: str
    text: str
    parameters: Mapping[str, Range]
    kind: str
    bits: int
    low: int
    high: int

    def call(self, given: Mapping[str, str]) -> str:
        """A call in C. ``given``: parameter -> expression; there may be more of them."""
        return f"{self.name}({', '.join(given[one] for one in self.parameters)})"


def c_function(step: Callable[..., Any], name: str, arguments: Mapping[str, Any]) -> CFunction:
    """One step as a function in C.

    Args:
        step: A function of :mod:`qspinn.steps`.
        name: Of the function in C.
        arguments: Argument of the step -> what it is. An integer becomes a literal, a `Range` or a
            `Multiple` makes a parameter, and an array of integers, of which each channel or neuron
            has one, makes one with the range of the array. A named tuple holds any of these;
            parameters are called as its fields. ``random`` may be left out: it is a parameter of
            64 bits.

    Raises:
        ValueError: Exact results need more than 64 bits; or what is given is not enough.
    """
    wanted = list(inspect.signature(step).parameters)
    given = {"random": RANDOM, **arguments}
    if missing := [one for one in wanted if one not in given]:
        raise ValueError(f"{name}: the step {step.__name__} takes {', '.join(missing)}, too")
    known = _translated(sys.modules[step.__module__])
    try:
        return _written(step, name, known[step.__name__], {one: given[one] for one in wanted})
    except ValueError as error:
        raise ValueError(f"{name}: {error}, in the step {step.__name__}") from error


def c_random(prefix: str = "", spreads: bool = True) -> str:
    """The random bits in C: ``mix``, ``draw``, ``spread`` and ``stream`` of uint64_t.

    See :mod:`qspinn.fixed_point.random_bits`.

    Args:
        prefix: Of the names in C.
        spreads: Whether ``spread`` is among them; some compilers warn of what is not used.
    """
    known = _translated(random_bits)
    known |= {"right": lambda z, bits: z >> bits, "word": lambda number: number}
    known |= {"ONE": 1, **random_bits.UNSIGNED}
    texts = []
    steps: list[Callable[..., Any]] = [
        random_bits.mix,
        random_bits.draw,
        random_bits.spread,
        random_bits.stream,
    ]
    if not spreads:
        steps.remove(random_bits.spread)
    for step in steps:
        arguments = dict.fromkeys(inspect.signature(step).parameters, RANDOM)
        function = _written(step, prefix + step.__name__, known[step.__name__], arguments)
        texts.append(function.text)
        known[step.__name__] = _call_of(function)
    return "\n".join(texts)


def _call_of(function: CFunction) -> Callable[..., Symbol]:
    form = function.call(dict.fromkeys(function.parameters, "{}"))
    return lambda *given: Symbol(form, given, 0, WORD_MAX, is_word=True)


def _translated(module: ModuleType) -> dict[str, Any]:
    """The functions of a module of steps, for symbols, and all else that it knows."""
    known: dict[str, Any] = {"_named": _named, "_either": _either}
    for name, one in vars(module).items():
        if not isinstance(one, FunctionType):
            known.setdefault(name, one)
        elif one.__module__ == words.__name__:
            known[name] = WORDS.get(one.__name__, one)
        elif one.__module__ != module.__name__ and one.__module__.startswith("qspinn.steps."):
            known[name] = _translated(sys.modules[one.__module__])[one.__name__]
    exec(_code(module), known)
    return known


@functools.cache
def _code(module: ModuleType) -> CodeType:
    tree = ast.parse(inspect.getsource(module))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return compile(_Naming().visit(tree), module.__name__, "exec")


class _Naming(ast.NodeTransformer):
    """Has functions tell `_named` what their results and variables are called."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.function = node.name
        node.decorator_list = []
        self.generic_visit(node)
        return ast.fix_missing_locations(node)

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:
        self.generic_visit(node)
        if isinstance(node.targets[0], ast.Name):
            node.value = self._call("_named", node.value, node.targets[0].id, True)
        return node

    def visit_Return(self, node: ast.Return) -> ast.Return:
        self.generic_visit(node)
        if node.value is not None:
            node.value = self._call("_named", node.value, self.function, False)
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.Call:
        self.generic_visit(node)
        nothing = ast.arguments([], [], None, [], [], None, [])
        branches = [ast.Lambda(nothing, branch) for branch in (node.body, node.orelse)]
        return ast.Call(ast.Name("_either", ast.Load()), [node.test, *branches], [])

    def _call(self, function: str, value: ast.expr, name: str, is_variable: bool) -> ast.Call:
        constants = [ast.Constant(one) for one in (name, self.function, is_variable)]
        return ast.Call(ast.Name(function, ast.Load()), [value, *constants], [])


def _named(value: Any, name: str, function: str, is_variable: bool) -> Any:
    """The same value. A variable's name is better than a function's, and that of a caller best."""
    is_free = isinstance(value, Symbol) and (is_variable or value.owner in ("", function))
    if is_free and value.parts:
        value.hint, value.owner = name, function if is_variable else ""
    return value


def _either(condition: Any, body: Callable[[], Any], orelse: Callable[[], Any]) -> Any:
    if isinstance(condition, Symbol):
        return chosen(condition, body(), orelse())
    return body() if condition else orelse()


def _symbolic(value: Any, path: tuple[str, ...], made: dict[str, Symbol]) -> Any:
    """What a step is given; new parameters are added to ``made``."""
    if isinstance(value, Multiple):
        return _symbolic(value.factor, path, made) * value.of
    if hasattr(value, "_fields") and not isinstance(value, Range):
        fields = zip(value._fields, value, strict=True)
        return type(value)(*(_symbolic(one, (*path, field), made) for field, one in fields))
    if isinstance(value, np.ndarray) and value.size and value.dtype.kind in "iu":
        value = Range(int(value.min()), int(value.max()))
    if isinstance(value, Range) and value.low <= value.high:
        name = "_".join(path[1:] or path)
        name = "_".join(path) if name in made else name
        made[name] = Symbol(name, (), value.low, value.high, is_word=value == RANDOM)
        return made[name] if value.low < value.high else value.low
    if isinstance(value, int | np.integer | np.bool_):
        return int(value)
    raise ValueError(f"{'.'.join(path)} is {value!r}, and no whole number")


def _written(
    step: Callable[..., Any], name: str, translated: Callable[..., Any], given: Mapping[str, Any]
) -> CFunction:
    if not _IDENTIFIER.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of a function in C")
    parameters: dict[str, Symbol] = {}
    result = translated(*(_symbolic(one, (key,), parameters) for key, one in given.items()))
    uses: Counter[int] = Counter()
    symbols = _reached(result, uses)
    parameters = {key: one for key, one in parameters.items() if uses[id(one)]}
    is_word = isinstance(result, Symbol) and result.is_word
    low, high = ends(result)
    bits = max([1 + abs(low).bit_length(), *map(width_of, symbols)])
    if bits > 64 and not is_word:
        raise ValueError(f"exact results need {bits} bits, and int64_t has 64: write shorter words")
    kind = "int32_t" if bits <= 32 else "int64_t"

    def type_of(one: Any) -> str:
        return "uint64_t" if isinstance(one, Symbol) and one.is_word else kind

    names: dict[int, str] = {}
    taken = {name}
    for key, one in parameters.items():
        names[id(one)] = _free(key, taken)
    takes = ", ".join(f"{type_of(one)} {names[id(one)]}" for one in parameters.values())
    lines = []
    for one in symbols:
        # Variables of the step itself, and all that is used more than once.
        if one.parts and one is not result and (uses[id(one)] > 1 or one.owner == step.__name__):
            text = text_of(one, ANY, names, kind, one.is_word)
            names[id(one)] = _free(one.hint or "value", taken)
            lines.append(f"const {type_of(one)} {names[id(one)]} = {text};")
    lines.append(f"return {text_of(result, ANY, names, kind, is_word)};")
    body = "".join(f"    {line}\n" for line in lines)
    head = f"static inline {type_of(result)} {name}({takes or 'void'})"
    note = "" if is_word else _note(parameters, result, bits, kind)
    text = f"{_comment(step, note)}{head}\n{{\n{body}}}\n"
    ranges = {key: Range(*ends(one)) for key, one in parameters.items()}
    return CFunction(name, text, ranges, kind, bits, low, high)


def _reached(result: Any, uses: Counter[int]) -> list[Symbol]:
    """What a result depends on, parts first; how often each is used is counted."""
    if not isinstance(result, Symbol):
        return []
    uses[id(result)] += 1
    if uses[id(result)] > 1:
        return []
    return [*(one for part in result.parts for one in _reached(part, uses)), result]


def _free(name: str, taken: set[str]) -> str:
    """The name, or one with a number after it."""
    candidates = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    found = next(one for one in candidates if _IDENTIFIER.fullmatch(one) and one not in taken)
    taken.add(found)
    return found


def _note(parameters: Mapping[str, Symbol], result: Any, bits: int, kind: str) -> str:
    """What makes the function right."""
    ranges = {key: one for key, one in parameters.items() if not one.is_word}
    low, high = ends(result)
    given = [f"{key} in [{one.low}, {one.high}]" for key, one in ranges.items()]
    return ", ".join([*given, f"result in [{low}, {high}]"]) + f"; {bits} bits at most: {kind}."


def _comment(step: Callable[..., Any], note: str) -> str:
    formula = (step.__doc__ or "").strip().partition("\n")[0].replace("`", "")
    formula = re.sub(r"\bint64\b", "uint64_t", formula)  # what torch holds words in
    texts = [f"{step.__name__}: {formula}", note] if note else [f"{step.__name__}: {formula}"]
    lines = [line for text in texts for line in textwrap.wrap(text, _LINE)]
    inside = "\n * ".join(lines).replace("*/", "* /")
    return f"/* {inside} */\n"
