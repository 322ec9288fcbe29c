"""The share of a whole."""

import pytest
import torch

from qspinn.metrics import Share


def test_shares_of_uneven_batches_are_exact() -> None:
    share = Share()
    for part, whole in ((1, 3), (0, 0), (2_000_000_000, 4_000_000_000)):
        share.update(part, whole)

    assert int(share.part) == 2_000_000_001  # more than 32 bits
    assert share.compute().item() == pytest.approx(2_000_000_001 / 4_000_000_003)
    share.reset()
    share.update(0, 5)
    assert share.compute() == 0


def test_without_events_there_is_no_share() -> None:
    share = Share()
    share.update(0, 0)
    assert share.compute().isnan()


def test_a_reset_under_inference_mode_goes_on_outside() -> None:
    share = Share()
    with torch.inference_mode():
        share.reset()
    share.update(1, 4)
    assert share.compute() == 0.25


@pytest.mark.parametrize(("part", "whole"), [(-1, 3), (4, 3)])
def test_a_part_is_no_more_than_the_whole(part: int, whole: int) -> None:
    with pytest.raises(ValueError, match=f"part={part} of whole=3: expected 0 to 3"):
        Share().update(part, whole)
