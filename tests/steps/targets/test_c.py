"""Steps in C against the same steps on Python integers: random layers, compiled in one program."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qspinn.fixed_point import OVERFLOWS, ROUNDINGS, FixedPointFormat
from qspinn.stdp.numbers import NeuronNumbers, ThetaNumbers, TraceNumbers, WeightNumbers
from qspinn.steps import neurons, plasticity, roundings, traces
from qspinn.steps.lowering import (
    PotentialNumbers,
    filter_numbers,
    following_numbers,
    leaky_numbers,
    rounding_of,
)
from qspinn.steps.roundings import shifted
from qspinn.steps.targets.c import (
    ARITHMETIC_SHIFT,
    CFunction,
    Multiple,
    Range,
    c_function,
    c_random,
)
from qspinn.steps.words import Rounding, chosen
from tests.reference import splitmix

COMPILERS = [one for one in ("gcc", "clang") if shutil.which(one)] or [
    pytest.param("gcc", marks=pytest.mark.skip(reason="NO COMPILER: nothing of C was tested"))
]
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]
SANITIZED = ["-O1", "-fsanitize=undefined,address", "-fno-sanitize-recover=all"]
WORD = 1 << 64


class Case(NamedTuple):
    """A step, and what it is given."""

    step: Callable[..., Any]
    arguments: dict[str, Any]


def span(random: Random, bits: int = 12) -> Range:
    """Numbers on both sides of 0, or on one."""
    low = random.choice([0, -1, -random.getrandbits(bits), random.getrandbits(bits)])
    return Range(low, low + 1 + random.getrandbits(random.randint(1, bits)))


def codes(fmt: FixedPointFormat) -> Range:
    return Range(fmt.code_min, fmt.code_max)


def some_format(random: Random, signed: bool | None = None) -> FixedPointFormat:
    length = random.choice([2, 3, 4, 8, 12, 16, 24])
    signed = random.random() < 0.7 if signed is None else signed
    fraction = random.randint(-2, length + 2)
    return FixedPointFormat(length - int(signed) - fraction, fraction, signed)


def some_rounding(random: Random, fmt: FixedPointFormat) -> Rounding:
    return rounding_of(fmt, random.choice(ROUNDINGS), random.choice(OVERFLOWS))


def some_leaky(random: Random) -> Case:
    fmt, x_bits = some_format(random), random.randint(0, 6)
    to, leak_bits = some_rounding(random, fmt), random.randint(0, 8)
    leak = random.randint(1, 1 << leak_bits) / (1 << leak_bits)
    rest = random.choice([0, random.randint(fmt.code_min, fmt.code_max)]) * fmt.step
    step = random.choice([neurons.integrate, neurons.leak, neurons.leak_only])
    if step is neurons.integrate:
        n = leaky_numbers(fmt, to, x_bits)
    else:
        n = leaky_numbers(fmt, to, x_bits, leak, rest, step is neurons.leak)
        if random.random() < 0.3:  # of each channel
            n = n._replace(leak=np.array([random.randint(0, 200) for _ in range(3)]))
        if random.random() < 0.2:
            n = n._replace(rest=np.array([fmt.code_min, 0, fmt.code_max]))
    return Case(step, {"v": codes(fmt), "x": span(random), "n": n})


def some_trace(random: Random) -> Case:
    fmt, x_bits, leak = some_format(random), random.randint(0, 6), random.randint(1, 256) / 256
    to, x = some_rounding(random, fmt), span(random)
    step = random.choice(
        [traces.following, traces.refractory, traces.filtered, traces.potential, traces.decaying]
    )
    if step is traces.potential:
        n: Any = PotentialNumbers(to, random.randint(0, 9), random.randint(0, 9), x_bits)
        return Case(step, {"current": x, "r": codes(fmt), "n": n})
    if step is traces.filtered:
        n = filter_numbers(fmt, to, x_bits, leak)
        return Case(step, {"trace": codes(fmt), "x": x, "n": n})
    if step is traces.decaying:
        n = TraceNumbers(random.randint(0, 1 << x_bits), x_bits, random.getrandbits(8), to)
        return Case(step, {"x": codes(fmt), "spike": Range(0, 1), "n": n})
    n = following_numbers(fmt, to, x_bits, leak, random.randint(0, 64) / 32)
    other = {"target": x} if step is traces.following else {"fired": Range(0, 1)}
    return Case(step, {("x" if "target" in other else "r"): codes(fmt), **other, "n": n})


def some_adaptive(random: Random) -> Case:
    fmt, theta = some_format(random), some_format(random, signed=False)
    shifts = [random.randint(0, 9) for _ in range(5)]
    threshold = random.choice([random.getrandbits(10), np.array([3, 70, 1000])])
    n = NeuronNumbers(
        keep=random.getrandbits(8), v_up=shifts[0], down=shifts[1], inhibition=0, reset=0,
        threshold=threshold, fire_up=shifts[2], theta_up=shifts[3], v=some_rounding(random, fmt),
        current_up=0,
    )  # fmt: skip
    up = random.choice([shifts[4], Range(0, shifts[4] + 1)])
    bits = random.choice([0, 5, 24])
    t = ThetaNumbers(
        random.getrandbits(bits), random.getrandbits(bits), bits, some_rounding(random, theta)
    )
    cases = [
        Case(
            neurons.adaptive_charge,
            {"v": codes(fmt), "current": span(random), "lowered": span(random),
             "ready": Range(0, 1), "current_up": up, "n": n},
        ),
        Case(neurons.adaptive_threshold, {"theta": codes(theta), "n": n}),
        Case(neurons.reaches, {"v": codes(fmt), "total": span(random), "n": n}),
        Case(neurons.raised, {"theta": codes(theta), "n": t}),
        Case(neurons.decayed, {"theta": codes(theta), "n": t}),
    ]  # fmt: skip
    return random.choice(cases)


def some_reset(random: Random) -> Case:
    h, spike = span(random), random.choice([Range(0, 1), Range(0, 4)])
    threshold = random.choice([random.randint(1, 300), Range(1, 5), Range(200, 400)])
    return random.choice(
        [
            Case(neurons.counted, {"h": h, "threshold": threshold, "most": random.randint(1, 15)}),
            Case(neurons.reset_to, {"h": h, "spike": spike, "reset": random.randint(-9, 9)}),
            Case(neurons.reset_by, {"h": h, "spike": spike, "threshold": threshold}),
        ]
    )


def some_plasticity(random: Random) -> Case:
    fmt = some_format(random, signed=False)
    fine = random.randint(0, 8)
    n = WeightNumbers(
        spare=fine + random.randint(0, 20), fine=fine, gain_down=random.randint(0, 30),
        trace_target=random.getrandbits(6), to=some_rounding(random, fmt),
        maximum=0, sum=0, rate_pre=0, rate_post=0,
    )  # fmt: skip
    w, rate, change = codes(fmt), random.choice([random.getrandbits(9), span(random)]), span(random)
    cases = [
        Case(plasticity.depression, {"y": w, "rate": rate}),
        Case(plasticity.potentiation, {"x": w, "rate": rate, "n": n}),
        Case(plasticity.changed, {"w": w, "change": change, "n": n}),
        Case(plasticity.fine, {"w": w, "change": change, "n": n}),
        Case(plasticity.scaled, {"p": w, "gain": span(random), "n": n}),
        Case(plasticity.bounded, {"w": span(random), "highest": w, "n": n}),
    ]
    return random.choice(cases)


def some_kept(random: Random) -> Case:
    """Also with shifts of each channel, and those of more bits than the number has."""
    bits = random.choice([0, 1, random.randint(2, 40), Range(0, 12), np.array([3, 7])])
    to = some_rounding(random, some_format(random))
    if random.random() < 0.2:
        to = to._replace(low=np.array([-8, -4]), high=np.array([7, 3]), wrap=False)
    return Case(roundings.kept, {"exact": span(random, 20), "bits": bits, "to": to})


def total(a: Any, b: Any) -> Any:
    return a + b


def differences(a: Any, b: Any) -> Any:
    negative = -a
    return a - (b - a) - (a + b) * 3 - -(b - 2) + -negative


def fraction(a: Any, b: Any) -> Any:
    return a // b + a // 4


def relations(a: Any, b: Any) -> Any:
    first = (a == b) + 2 * (a != b) + 4 * (a < b)
    return first + 8 * (a <= b) + 16 * (a > b) + 32 * (a >= b)


def masks(a: Any, b: Any) -> Any:
    return (a & b) + (b & 12 & 10) * 64 + (a & 7) * 1024


def shifts(a: Any, b: Any) -> Any:
    return (a >> b) + (3 << b)


def distant(a: Any, b: Any) -> Any:
    return (a >> 35) + b


def choices(a: Any, b: Any) -> Any:
    short = a if b else 5
    return (short if a > b else b) if a else short - 1


def some_operation(random: Random) -> Case:
    """Operators themselves, and numbers of nearly 32 bits."""
    operations = [total, differences, fraction, relations, masks, shifts, distant, choices]
    step = random.choice(operations)
    bits = random.choice([1, 2, 3, 20, 30, 31, 32, 40])
    a = random.choice([span(random, bits), Range(0, (1 << bits) - 1), Range(-(1 << bits), 0)])
    touching = [Range(a.high, a.high + 2), Range(a.low - 2, a.low)]
    b = random.choice([span(random, bits), a, *touching])
    if step is fraction:
        b = Range(random.randint(1, 3), random.randint(4, 40))
    elif step is relations:
        b = random.choice([a, *touching])
    elif step is shifts:
        b = random.choice([Range(0, 1), Range(0, 20), Range(1, 31)])
    return Case(step, {"a": a, "b": b})


KINDS = [
    some_leaky,
    some_trace,
    some_adaptive,
    some_reset,
    some_plasticity,
    some_kept,
    some_operation,
]


def case_of(seed: int) -> Case:
    random = Random(seed)
    return KINDS[seed % len(KINDS)](random)


def function_of(case: Case, name: str = "step") -> CFunction:
    return c_function(case.step, name, case.arguments)


def known(value: Any, row: Mapping[str, int], *path: str) -> Any:
    """What a step is given, with the numbers of a row in the places of parameters."""
    if hasattr(value, "_fields") and not isinstance(value, Range | Multiple):
        fields = zip(value._fields, value, strict=True)
        return type(value)(*(known(one, row, *path, field) for field, one in fields))
    if isinstance(value, Multiple):
        return known(value.factor, row, *path) * value.of
    if isinstance(value, Range | np.ndarray):
        least = value.low if isinstance(value, Range) else int(value.min())
        return row.get("_".join(path[1:] or path), least)
    return value


def expected(case: Case, row: Mapping[str, int]) -> int:
    given = {key: known(one, row, key) for key, one in case.arguments.items()}
    takes_random = "random" in case.step.__code__.co_varnames[: case.step.__code__.co_argcount]
    return int(case.step(**given, **({"random": row.get("random", 0)} if takes_random else {})))


def integers_in(value: Any) -> Iterator[int]:
    if isinstance(value, tuple | np.ndarray):
        for one in value:
            yield from integers_in(one)
    elif not isinstance(value, bool):
        yield int(value)


def rows_of(case: Case, function: CFunction, count: int, seed: int) -> list[dict[str, int]]:
    """Ends of ranges, numbers next to all constants of the case, and random ones."""
    random = Random(seed)
    constants = list(integers_in(tuple(case.arguments.values())))
    near = [0, *(x + d for x in constants for d in (-1, 0, 1))]
    choices = {}
    for name, (low, high) in function.parameters.items():
        inside = [low, high, *(x for x in near if low <= x <= high)]
        choices[name] = [*inside, *(random.randint(low, high) for _ in range(len(inside) + 2))]
    return [{name: random.choice(some) for name, some in choices.items()} for _ in range(count)]


DRIVER = """#include <stdint.h>
#include <stdio.h>

%(functions)s
int main(void)
{
    int64_t a[8];
    int64_t result;
    int64_t which;
    while (fread(&which, sizeof which, 1, stdin) == 1) {
        if (fread(a, sizeof a[0], 8, stdin) != 8)
            return 1;
        switch (which) {
%(calls)s
        default:
            return 1;
        }
        fwrite(&result, sizeof result, 1, stdout);
    }
    return 0;
}
"""


def program(functions: list[CFunction], more: str = "") -> str:
    """Reads the number of a function and 8 numbers for it, and writes its result, until the end."""
    calls = []
    for i, function in enumerate(functions):
        given = {
            name: f"({'uint64_t' if name == 'random' else function.kind})a[{place}]"
            for place, name in enumerate(function.parameters)
        }
        calls.append(f"        case {i}:\n            result = {function.call(given)};\n"
                     "            break;")  # fmt: skip
    texts = "\n".join([ARITHMETIC_SHIFT, more, *(function.text for function in functions)])
    return DRIVER % {"functions": texts, "calls": "\n".join(calls)}


def results(compiler: str, source: str, flags: list[str], calls: Any, folder: Path) -> list[int]:
    (folder / "steps.c").write_text(source, encoding="utf-8")
    command = [compiler, *STRICT, *flags, "-o", "steps", "steps.c"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:4000]
    given = np.array(calls, np.uint64).tobytes()
    ran = subprocess.run([str(folder / "steps")], input=given, capture_output=True)
    assert ran.returncode == 0, ran.stderr[:4000].decode()
    return np.frombuffer(ran.stdout, np.int64).tolist()


def check(compiler: str, flags: list[str], seeds: range, rows: int, folder: Path) -> None:
    functions = compared(compiler, flags, [case_of(seed) for seed in seeds], rows, folder)
    assert {function.kind for function in functions} == {"int32_t", "int64_t"}


def compared(
    compiler: str, flags: list[str], cases: list[Case], rows: int, folder: Path
) -> list[CFunction]:
    """The functions of steps, all of which computed what Python does."""
    functions = [function_of(case, f"step_{i}") for i, case in enumerate(cases)]
    calls, wanted = [], []
    for i, (case, function) in enumerate(zip(cases, functions, strict=True)):
        for row in rows_of(case, function, rows, i):
            arguments = [row[name] % WORD for name in function.parameters]
            calls.append([i, *arguments, *[0] * (8 - len(arguments))])
            wanted.append((i, row, expected(case, row)))
    found = results(compiler, program(functions), flags, calls, folder)
    pairs = zip(found, wanted, strict=True)
    wrong = [(functions[i].text, row, want, got) for got, (i, row, want) in pairs if got != want]
    assert not wrong, f"{len(wrong)} wrong, first {wrong[0]}"
    return functions


@pytest.mark.parametrize("compiler", COMPILERS)
def test_every_step_in_c_is_that_of_python(compiler: str, tmp_path: Path) -> None:
    """Under sanitizers, which find what C does not define."""
    check(compiler, SANITIZED, range(280), 40, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [SANITIZED, ["-O2"]])
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.campaign
def test_many_steps_in_c(compiler: str, flags: list[str], tmp_path: Path) -> None:
    check(compiler, flags, range(1000, 2500), 200, tmp_path)


def charged(v: Any, x: Any, ready: Any, k: Any, gain: Any, most: Any, bits: Any, n: Any) -> Any:
    """Terms whose factors need more than 32 bits, and their sum divided by a power of two."""
    exact = v * k * 3 + chosen(ready, x * gain - most, 7) + n.one
    return shifted(exact, bits, n.mode, 0) - (-exact >> bits)


class Shift(NamedTuple):
    one: int
    mode: int


def some_shift(random: Random) -> Case:
    """Factors around multiples of what is shifted away, and numbers at the ends of ranges."""
    bits = random.randint(16, 24)
    near = (random.randint(1, 9) << bits) + random.choice([-1, 1]) * random.getrandbits(6)
    gain = random.choice([near, random.randint(1, 40) << bits, -1 << bits])
    v, x = Range(-1 << random.randint(1, 8), random.getrandbits(8)), span(random, 12)
    arguments = {
        "v": v, "x": x, "ready": Range(0, 1), "k": near, "gain": gain,
        "most": Multiple(Range(0, random.randint(1, 9)), random.randint(-9, 9) << bits),
        "bits": bits, "n": Shift(random.getrandbits(bits), random.choice([0, 1, 3, 4, 5])),
    }  # fmt: skip
    return Case(charged, arguments)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_sums_split_at_shifts_are_those_of_python(compiler: str, tmp_path: Path) -> None:
    cases = [some_shift(Random(seed)) for seed in range(200)]
    found = compared(compiler, SANITIZED, cases, 60, tmp_path)
    kinds = Counter(one.kind for one in found)
    assert kinds["int32_t"] > 50
    assert all(one.bits <= 32 for one in found if one.kind == "int32_t")


def test_a_multiple_of_what_is_shifted_away_needs_no_wide_product() -> None:
    to = rounding_of(FixedPointFormat(3, 12), "nearest")
    n = NeuronNumbers(
        keep=2076285, v_up=0, down=21, inhibition=0, reset=0, threshold=0, fire_up=0, theta_up=0,
        v=to, current_up=0,
    )  # fmt: skip
    arguments = {
        "v": Range(-32768, 32767), "current": Range(0, 631), "ready": 1, "current_up": 25, "n": n,
        "lowered": Multiple(Range(0, 1), 15360 << 21),
    }  # fmt: skip
    function = c_function(neurons.adaptive_charge, "f", arguments)
    assert (function.kind, function.bits) == ("int32_t", 31)
    whole = "v + (current * 16 - lowered * 15360) + ((v * -20867 + 1048576) >> 21);"
    assert f"shifted = {whole}" in function.text


@given(st.integers(0, WORD), st.integers(0, WORD))
@settings(max_examples=100)
def test_results_are_in_the_range_that_is_stated(seed: int, other: int) -> None:
    case = case_of(seed)
    function = function_of(case)
    assert function == function_of(case_of(seed))
    assert function.bits <= {"int32_t": 32, "int64_t": 64}[function.kind]
    for row in rows_of(case, function, 10, other):
        assert function.low <= expected(case, row) <= function.high


@pytest.mark.parametrize("compiler", COMPILERS)
def test_random_bits_in_c_are_those_of_every_engine(compiler: str, tmp_path: Path) -> None:
    numbers = [0, 1, WORD - 1, WORD // 2, 0x123456789ABCDEF, *map(Random(1).getrandbits, [64] * 9)]
    calls, wanted = [], []
    for key, counter, turn in itertools.product(numbers, repeat=3):
        drawn = splitmix.nth(key, counter)
        spread = (drawn + turn * splitmix.GAMMA) % WORD
        for i, want in enumerate([drawn, spread, splitmix.stream(key, counter % (WORD - 1))]):
            calls.append([i, key, counter % (WORD - 1) if i == 2 else counter, turn, 0, 0, 0, 0, 0])
            wanted.append(want)
    every = Range(0, WORD - 1)
    functions = [
        CFunction(f"q_{name}", "", dict.fromkeys(taken, every), "uint64_t", 64, 0, WORD - 1)
        for name, taken in [("draw", "kc"), ("spread", "kct"), ("stream", "kp")]
    ]
    source = program(functions, c_random("q_"))
    found = results(compiler, source, SANITIZED, calls, tmp_path)
    assert [one % WORD for one in found] == wanted


def leaking(rounding: str) -> CFunction:
    fmt = FixedPointFormat(1, 6)
    n = leaky_numbers(fmt, rounding_of(fmt, rounding), 8, 0.375, -0.25)
    arguments = {"v": codes(fmt), "x": Range(-4080, 4080), "n": n}
    return c_function(neurons.leak, "leak_0", arguments)


def test_what_the_c_looks_like() -> None:
    assert (
        leaking("nearest").text
        == """\
/* leak: LIF, the current decays too: Q(v + k (x - (v - rest))), k = 1 / tau.
 * v in [-128, 127], x in [-4080, 4080], result in [-128, 127]; 16 bits at most: int32_t. */
static inline int32_t leak_0(int32_t v, int32_t x)
{
    const int32_t above = v + 16;
    const int32_t exact = v * 32 + 3 * (x - above * 4);
    const int32_t shifted = (exact + 16) >> 5;
    return shifted < -128 ? -128 : shifted > 127 ? 127 : shifted;
}
"""
    )
    stochastic = leaking("stochastic")
    assert "shifted = (exact + (int32_t)(random >> 59)) >> 5;" in stochastic.text
    assert stochastic.call({"v": "v[i]", "x": "sum", "random": "draw(key, i)"}) == (
        "leak_0(v[i], sum, draw(key, i))"
    )
    assert "random" not in leaking("nearest").parameters


def test_constants_of_channels_are_parameters() -> None:
    n = leaky_numbers(FixedPointFormat(1, 6), Rounding(0, -128, 127, False), 8, 0.375)
    arguments = {"v": Range(-128, 127), "x": Range(0, 9), "n": n._replace(leak=np.array([3, 1, 2]))}
    function = c_function(neurons.leak, "leak_0", arguments)
    assert function.parameters == {"v": (-128, 127), "x": (0, 9), "leak": (1, 3)}
    arguments["n"] = n._replace(leak=np.array([3, 3]))
    assert list(c_function(neurons.leak, "leak_0", arguments).parameters) == ["v", "x"]


def test_bounds_that_nothing_reaches_are_left_out() -> None:
    fmt = FixedPointFormat(4, 0)
    n = leaky_numbers(fmt, rounding_of(fmt, "nearest"), 0)
    function = c_function(neurons.integrate, "f", {"v": Range(0, 7), "x": Range(0, 8), "n": n})
    assert function.text.endswith("{\n    return v + x;\n}\n")
    assert (function.low, function.high) == (0, 15)
    constant = c_function(neurons.reset_to, "f", {"h": Range(0, 7), "spike": 1, "reset": 5})
    assert constant.text.endswith("f(void)\n{\n    return 5;\n}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"v": Range(-128, 127), "x": Range(0, 1 << 62)}, "f: exact results need 65 bits"),
        ({"v": Range(-128, 127)}, "f: the step leak takes x, too"),
        ({"v": Range(0, 1), "x": 0.5}, "f: x is 0.5, and no whole number"),
        ({"v": Range(1, 0), "x": 0}, r"f: v is Range\(low=1, high=0\), and no whole number"),
    ],
)
def test_refuses(arguments: dict[str, Any], message: str) -> None:
    n = leaky_numbers(FixedPointFormat(1, 6), Rounding(0, -128, 127, False), 8, 0.375)
    with pytest.raises(ValueError, match=message):
        c_function(neurons.leak, "f", {**arguments, "n": n})


@pytest.mark.parametrize("name", ["", "1st", "layer.0", "int", "int32_t", "über"])
def test_refuses_what_is_no_name_in_c(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a function in C"):
        c_function(neurons.reset_by, name, {"h": 1, "spike": Range(0, 1), "threshold": 1})


def test_refuses_what_cannot_be_decided_while_translating() -> None:
    to = Rounding(0, -8, 7, False)
    arguments = {"exact": Range(0, 9), "bits": 2, "to": to._replace(mode=np.array([0, 1]))}
    with pytest.raises(ValueError, match="f: a branch depends on what is known at run time"):
        c_function(roundings.kept, "f", arguments)
    counted = {"h": Range(0, 9), "threshold": Range(0, 3), "most": 3}
    with pytest.raises(ValueError, match="f: a divisor may be 0 or negative"):
        c_function(neurons.counted, "f", counted)
