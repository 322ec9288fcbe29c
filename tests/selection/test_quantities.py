"""Memory, energy and shares as people write them."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qspinn.selection.parts import find_part, parts
from qspinn.selection.quantities import (
    read_energy,
    read_memory,
    read_share,
    shown_energy,
    shown_memory,
)


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("64KiB", 64 * 1024 * 8),
        ("64 KiB", 64 * 1024 * 8),
        ("64kib", 64 * 1024 * 8),
        ("64kB", 64_000 * 8),
        ("64KB", 64_000 * 8),
        ("1.5MiB", 12_582_912),
        ("1MB", 8_000_000),
        ("200B", 1600),
        ("200 bytes", 1600),
        ("4096bit", 4096),
        ("4Kibit", 4096),
        ("4kbit", 4000),
        ("1e3 bits", 1000),
    ],
)
def test_memory(text, bits):
    assert read_memory("target.flash", text) == bits


@pytest.mark.parametrize(
    "text", ["64", 64, 64.0, "64K", "KiB", "-1KiB", "0KiB", "", "1 2KiB", True]
)
def test_memory_without_a_unit_or_a_number_is_refused(text):
    with pytest.raises(ValueError, match=r"target\.ram=.* with its unit, for example 64KiB"):
        read_memory("target.ram", text)


@pytest.mark.parametrize(
    ("text", "nanojoules"),
    [("300nJ", 300.0), ("5uJ", 5000.0), ("5 µJ", 5000.0), ("1.5mJ", 1.5e6), ("20pJ", 0.02)],
)
def test_energy(text, nanojoules):
    assert read_energy("target.energy", text) == pytest.approx(nanojoules)


@pytest.mark.parametrize("text", ["5", 5, "5W", "-5uJ", "5MJ", "5uj"])
def test_what_is_no_energy_is_refused(text):
    with pytest.raises(ValueError, match=r"target\.energy=.* for example 5uJ"):
        read_energy("target.energy", text)


def test_shares():
    assert read_share("x", "1%") == pytest.approx(0.01)
    assert read_share("x", "0.5 points") == pytest.approx(0.005)
    assert read_share("x", "0.02") == 0.02
    assert read_share("x", 0.02) == 0.02
    with pytest.raises(ValueError, match=r"x='1 percent' is not a number; write for example 0\.01"):
        read_share("x", "1 percent")


@given(st.integers(1, 2**50))
def test_what_is_shown_is_what_was_meant_to_three_digits(bits):
    number, unit = shown_memory(bits).replace(",", "").split()
    size = {"bits": 1, "B": 8, "KiB": 8 * 1024, "MiB": 8 * 1024**2, "GiB": 8 * 1024**3}[unit]
    shown = Fraction(number) * size
    assert abs(shown - bits) <= max(Fraction(bits, 180), 4)


def test_energy_is_shown_in_the_unit_that_fits():
    shown = [shown_energy(value) for value in (0.3, 12.5, 1250.0, 2.5e6, 3e9)]
    assert shown == ["0.30 nJ", "12.5 nJ", "1.25 uJ", "2.50 mJ", "3.00 J"]


def test_the_table_of_parts():
    assert find_part("STM32F103C8").ram == 20 * 1024 * 8
    assert all(part.flash > part.ram > 0 and part.source for part in parts().values())
    with pytest.raises(ValueError, match=r"target\.part='z80' .* write one of atmega328p, "):
        find_part("z80")
