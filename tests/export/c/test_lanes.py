"""Additions of two weights at a time in C: every word length, against sums of Python."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from qspinn.export.c.lanes import EMPTY, LONGEST_CODE, LaneOrder, lane_order, sum_of
from qspinn.export.c.text import array
from qspinn.export.packing import code_range, packed_bytes
from tests.export.c.c_programs import GCC, SANITIZED, STRICT, needs_compiler

INPUTS = 5
SIZES = (2, 4, 6, 8, 12, 16, 24, 32, 40, 48, 96, 400)
MAIN = """
int main(void)
{{
    uint32_t i, lane;
{calls}
    return 0;
}}
"""
CALL = """    for (i = 0; i < {words}u; i++) {{
        sums[i] = {empty};
    }}
    for (i = 0; i < {inputs}u; i++) {{
        add_{n}(sums, codes_{n} + i * {elements}u, {blocks}u);
        mac_{n}(sums, codes_{n} + i * {elements}u, {blocks}u, (uint32_t)factors[i]);
    }}
    for (lane = 0; lane < 32u; lane += 16u) {{
        for (i = 0; i < {words}u; i++) {{
            printf("%d ", (int)({value}));
        }}
    }}
    printf("\\n");
"""


def orders(word_length: int) -> list[LaneOrder]:
    """Of signed codes and others, and rows of many lengths."""
    pairs = [(signed, size) for signed in (True, False) for size in SIZES]
    found = [lane_order(word_length, signed, size) for signed, size in pairs]
    return [one for one in found if one is not None]


@pytest.mark.few(0.1)
@needs_compiler
@pytest.mark.parametrize("word_length", range(1, LONGEST_CODE + 1))
def test_sums_are_those_of_python(tmp_path, word_length):
    check_sums(tmp_path, orders(word_length))


def check_sums(tmp_path, orders, ends=None):
    """Codes at the ends of their range, and factors of both signs, under sanitizers."""
    generator = np.random.default_rng(orders[0].word_length)
    factors = np.array([1, -1, 1, 0, -2])
    texts, calls, wanted = [], [], []
    for n, order in enumerate(orders):
        low, high = ends or code_range(order.word_length, order.signed)
        codes = generator.integers(low, high + 1, (INPUTS, order.outputs))
        codes = np.where(codes == 0, high, codes) if ends else codes
        codes = np.where(generator.random(codes.shape) < 0.3, low, codes)
        codes[:, -1], codes[:, 0] = high, low
        sums = codes.sum(0) + factors @ codes
        codes[:, abs(sums) >= 1 << 15] = 0  # a sum that has 16 bits no longer
        stored = order.array(codes)
        assert stored.size == INPUTS * order.elements
        assert stored.size * order.unit * 2 == codes.size * order.word_length
        texts += [array(order.kind, f"codes_{n}", stored)]
        texts += [order.adder(f"add_{n}", False), order.adder(f"mac_{n}", True)]
        calls.append(CALL.format(
            n=n, words=order.outputs // 2, elements=order.elements, blocks=order.blocks,
            inputs=INPUTS, empty=EMPTY, value=sum_of("sums[i]", "lane"),
        ))  # fmt: skip
        wanted.append((codes.sum(0) + factors @ codes).tolist())
    assert wanted
    head = "#include <stdint.h>\n#include <stdio.h>\nstatic uint32_t sums[200];\n"
    head += array("int32_t", "factors", factors)
    (tmp_path / "sums.c").write_text("\n".join([head, *texts, MAIN.format(calls="".join(calls))]))
    command = [str(GCC), *STRICT, *SANITIZED, "-o", "sums", "sums.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    ran = subprocess.run([str(tmp_path / "sums")], capture_output=True, text=True, check=True)
    assert [[int(one) for one in line.split()] for line in ran.stdout.splitlines()] == wanted


@needs_compiler
def test_sums_of_signs_are_those_of_python(tmp_path):
    orders = [lane_order(1, True, size, is_sign=True) for size in SIZES]
    check_sums(tmp_path, [one for one in orders if one is not None], (-1, 1))


@pytest.mark.parametrize("word_length", range(1, 33))
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("outputs", [4, 16, 48, 96, 400])
def test_rows_take_no_more_than_packed_ones(word_length, signed, outputs):
    order = lane_order(word_length, signed, outputs)
    if order is None:
        assert word_length > LONGEST_CODE or outputs < 32 or word_length % 2 or outputs % 16
        return
    codes = np.array([code_range(word_length, signed)] * (3 * outputs // 2)).reshape(3, outputs)
    stored = order.array(codes)
    assert stored.min() >= 0
    assert stored.max() < 1 << (2 * order.unit)
    assert stored.size * 2 * order.unit // 8 == packed_bytes(3 * outputs, word_length)


@pytest.mark.parametrize("word_length", range(LONGEST_CODE + 1, 33))
@pytest.mark.parametrize("signed", [False, True])
def test_longer_codes_stay_packed(word_length, signed):
    """Sums of small codes in long words fit into 16 bits; codes as they are stored do not."""
    assert lane_order(word_length, signed, 32) is None


@pytest.mark.parametrize("outputs", [1, 3, 10, 15, 25])
def test_rows_of_other_lengths_stay_packed(outputs):
    assert lane_order(3, True, outputs) is None
