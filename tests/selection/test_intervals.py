"""Confidence intervals, against published figures and against the equation they solve."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qspinn.selection import difference_margin, wilson_interval

Z = 1.959963984540054

# R. G. Newcombe, Statistics in Medicine 17:857-872 (1998), table I, method 3.
PUBLISHED = [
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0, 0.1611),
    (1, 29, 0.0061, 0.1718),
]


@pytest.mark.parametrize(("right", "samples", "low", "high"), PUBLISHED)
def test_published_figures(right, samples, low, high):
    found = wilson_interval(right / samples, samples)
    assert [round(end, 4) for end in found] == [low, high]


@given(samples=st.integers(1, 10**6), share=st.floats(0, 1))
def test_the_ends_are_as_far_from_the_accuracy_as_chance_goes(samples, share):
    """(p - accuracy)^2 = z^2 p (1 - p) / samples, which is what defines them."""
    accuracy = round(share * samples) / samples
    low, high = wilson_interval(accuracy, samples)
    assert 0 <= low <= accuracy <= high <= 1
    for end in (low, high):
        expected = Z * math.sqrt(end * (1 - end) / samples)
        assert abs(end - accuracy) == pytest.approx(expected, abs=1e-7)


@given(samples=st.integers(1, 10**5), share=st.floats(0, 1))
def test_a_difference_has_a_wider_interval_than_each_accuracy(samples, share):
    low, high = wilson_interval(share, samples)
    assert difference_margin(share, samples) == pytest.approx((high - low) / math.sqrt(2))
