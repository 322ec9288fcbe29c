"""What meets the target, what does not, and by how much."""

import math

import numpy as np
import pytest

from qspinn.selection import Group, Run, Target, candidates


def miss(record, **target):
    """What the record misses, None when it is a candidate."""
    split = candidates([Group((Run("run", record),))], Target(**target))
    assert len(split.kept) + len(split.dropped) == 1
    return split.dropped[0] if split.dropped else None


def test_the_default_is_one_point_below_the_baseline(make_record):
    assert miss(make_record(accuracy=0.95, baseline_accuracy=0.959)) is None
    dropped = miss(make_record(accuracy=0.95, baseline_accuracy=0.98))
    assert dropped is not None
    assert dropped.reasons == ("loses 3.00 points of accuracy, 2.00 too many",)
    assert dropped.missing_accuracy == pytest.approx(0.02)
    assert dropped.excess_bits == 0


@pytest.mark.parametrize("correct", range(0, 1001, 7))
def test_a_drop_of_exactly_the_bound_is_allowed(make_record, correct):
    # Accuracies are float32 ratios of counts: ten images fewer of 1000 is one point.
    def accuracy(count):
        return float(np.float32(count) / np.float32(1000))

    base = accuracy(correct)
    if correct >= 10:
        assert miss(make_record(accuracy=accuracy(correct - 10), baseline_accuracy=base)) is None
    if correct >= 11:
        assert miss(make_record(accuracy=accuracy(correct - 11), baseline_accuracy=base))


def test_one_image_of_a_million_too_few_is_seen(make_record):
    assert miss(make_record(accuracy=0.969999, baseline_accuracy=0.98)) is not None
    assert miss(make_record(accuracy=0.999999), max_drop=None, min_accuracy=1.0) is not None


def test_a_gain_can_be_asked_for(make_record):
    record = make_record(accuracy=0.97, baseline_accuracy=0.97)
    assert miss(record, max_drop=0.0) is None
    assert miss(record, max_drop=-0.001) is not None


def test_bounds_themselves_are_allowed(make_record):
    record = make_record(accuracy=0.97, bits=800)
    assert miss(record, max_drop=None, min_accuracy=0.97, max_bits=800) is None
    dropped = miss(record, max_drop=None, min_accuracy=0.975, max_bits=799)
    assert dropped is not None
    assert dropped.reasons == (
        "accuracy 97.00%, 0.50 points too low",
        "footprint 800 bits, 1 too many",
    )
    assert dropped.excess_bits == 1


def test_without_a_baseline_the_drop_is_unknown(make_record):
    dropped = miss(make_record())
    assert dropped is not None
    assert "quantization.scheme=none" in dropped.reasons[0]
    assert math.isinf(dropped.missing_accuracy)
    assert miss(make_record(), max_drop=None) is None


def test_an_interrupted_run_is_no_candidate(make_record):
    dropped = miss(make_record(status="interrupted"), max_drop=None)
    assert dropped is not None
    assert "interrupted" in dropped.reasons[0]


def test_the_order_is_kept(make_record):
    runs = [Group((Run(str(i), make_record(accuracy=i / 10)),)) for i in range(10)]
    split = candidates(reversed(runs), Target(max_drop=None, min_accuracy=0.5))
    assert [run.path for run in split.kept] == list("98765")
    assert [item.group.path for item in split.dropped] == list("43210")


@pytest.mark.parametrize(
    ("bounds", "says"),
    [
        ({"max_drop": 1.5}, r"target\.max_drop=1\.5 is not a number in \[-1, 1\]; .* 0\.01"),
        ({"max_drop": "1%"}, r"target\.max_drop='1%'"),
        ({"max_drop": True}, r"target\.max_drop=True"),
        ({"min_accuracy": 97}, r"target\.min_accuracy=97 .* 0\.97 or 97%"),
        ({"min_accuracy": math.nan}, r"target\.min_accuracy=nan"),
        ({"max_bits": 0}, r"target\.max_bits=0 is not a number of at least 1"),
    ],
)
def test_bounds_that_cannot_be_are_refused(bounds, says):
    with pytest.raises(ValueError, match=says):
        Target(**bounds)


def test_a_target_in_words():
    assert str(Target()) == "accuracy at most 1 point below the baseline"
    assert str(Target(max_drop=None)) == "none"
    assert str(Target(0.005, 0.97, 800_000)) == (
        "accuracy at most 0.5 points below the baseline, accuracy at least 97%, "
        "footprint at most 800,000 bits"
    )
