"""What operations cost, at the points that are documented and between them."""

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qspinn.plan import EnergyModel
from qspinn.plan.energy import FLOAT


def line(points, at):
    """Straight lines through the origin and exact points; the last goes on."""
    points = [(Fraction(0), Fraction(0)), *((Fraction(x), Fraction(y)) for x, y in points)]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if at <= x1 or (x1, y1) == points[-1]:
            return y0 + (y1 - y0) * (at - x0) / (x1 - x0)
    raise AssertionError


def test_the_documented_points():
    model = EnergyModel()
    assert (model.addition(8), model.addition(32)) == pytest.approx((0.03, 0.1))
    assert (model.multiplication(8, 8), model.multiplication(32, 32)) == pytest.approx((0.2, 3.1))
    assert (model.addition(FLOAT), model.multiplication(FLOAT, 8)) == (0.9, 3.7)
    assert model.multiplication(4, FLOAT) == 3.7


@given(st.integers(1, 64), st.integers(1, 64))
def test_between_and_beyond_them(a, b):
    model = EnergyModel()
    assert model.addition(a) == pytest.approx(float(line([(8, "0.03"), (32, "0.1")], a)))
    expected = line([(64, "0.2"), (1024, "3.1")], a * b)
    assert model.multiplication(a, b) == pytest.approx(float(expected))
    assert model.multiplication(a, b) == model.multiplication(b, a)


@pytest.mark.parametrize(
    ("held", "cost"),
    [
        (1, 10),
        (8 * 8192, 10),
        (8 * 8192 + 1, 20),
        (8 * 32768, 20),
        (8 * 32768 + 1, 100),
        (8 * 1048576, 100),
        (8 * 1048576 + 1, 1300),
    ],
)
def test_a_bit_costs_its_share_in_the_smallest_memory_that_fits(held, cost):
    assert EnergyModel().per_bit(held) == cost / 64


def test_figures_can_be_replaced():
    model = EnergyModel(integer_add=[[4, 1]], memories=[[1, 2]], access_bits=2, dram=8)
    assert (model.addition(2), model.addition(8)) == (0.5, 2.0)
    assert (model.per_bit(8), model.per_bit(9)) == (1.0, 4.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"integer_add": [[8, 0.1], [8, 0.2]]},
        {"integer_add": []},
        {"integer_multiply": [[32, 1], [8, 2]]},
        {"memories": [[8, -1]]},
        {"memories": 3},
        {"memories": [["a", 1]]},
        {"float_add": 0},
        {"dram": float("nan")},
        {"access_bits": "64"},
        {"float_multiply": True},
    ],
)
def test_figures_that_cannot_be_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"EnergyModel: {name}="):
        EnergyModel(**wrong)
