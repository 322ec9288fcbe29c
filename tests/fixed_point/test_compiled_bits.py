"""Compiled random bits: those of torch, and a cache that follows every source."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qspinn.fixed_point.compiled_bits import GOLDEN, U64, random_bits
from qspinn.fixed_point.noise import Draws, noise_like
from qspinn.fixed_point.rebound import digest_of
from tests.reference import splitmix


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float32, 24), (torch.float64, 53)])
def test_noise_is_the_highest_bits_of_each_draw(dtype: torch.dtype, bits: int) -> None:
    draws = Draws(1234567)
    found = torch.cat([noise_like(torch.empty(n, dtype=dtype), draws) for n in (3, 4)])
    expected = [word >> (64 - bits) for word in splitmix.words(1234567, 0, 7)]
    assert (found * 2**bits).tolist() == expected


def test_one_constant_on_all_engines() -> None:
    assert int(GOLDEN) == splitmix.GAMMA
    assert int(random_bits.draw(U64(7), 3)) == splitmix.nth(7, 3)


def test_the_digest_follows_every_file(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "inner" / "b.py").write_text("2")
    before = digest_of(tmp_path)
    assert digest_of(tmp_path) == before
    (tmp_path / "inner" / "b.py").write_text("3")
    assert digest_of(tmp_path) != before
