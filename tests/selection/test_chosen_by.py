"""Validation data choose; test data only tell what was chosen."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qspinn.selection import Run, Target, select

ANY = Target(max_drop=None)


def run_of(make_record, path, validation, test, bits=800, **values):
    record = make_record(
        bits=bits, accuracy=test, validation_accuracy=validation, validation_samples=500, **values
    )
    return Run(path, record)


@given(seed=st.integers(0, 10**6))
def test_what_is_chosen_does_not_depend_on_test_figures(make_record, seed):
    """The whole of a selection, but for the sentence that reports."""

    def chosen(chance):
        points = random.Random(seed)
        runs = []
        for number in range(12):
            scheme, bits = points.choice(["ptq", "itq", "none"]), points.choice([400, 800, 1600])
            bits = 3200 if scheme == "none" else bits
            validation, baseline = points.choice([0.9, 0.95, 0.97, 0.98]), 0.975
            baselines = {}
            if scheme != "none":
                baselines = {
                    "validation_baseline_accuracy": baseline,
                    "baseline_accuracy": chance.random(),
                }
            more = {"scheme": scheme, "seed": number % 3, **baselines}
            runs.append(
                run_of(make_record, f"{number:02}", validation, chance.random(), bits, **more)
            )
        return select(runs, Target(max_drop=0.01))

    one, other = chosen(random.Random(1)), chosen(random.Random(2))
    for name in ("reason", "hypervolume", "choices", "notes", "chosen_by"):
        assert getattr(one, name) == getattr(other, name), name
    for rows in ("rows", "dropped"):
        kept = [
            [(row.group.path, row.group.accuracy, row.group.drop) for row in getattr(each, rows)]
            for each in (one, other)
        ]
        assert kept[0] == kept[1]
    assert one.winner is None or one.report != other.report


def test_the_winner_is_reported_by_test_data(make_record):
    baselines = {"baseline_accuracy": 0.95, "validation_baseline_accuracy": 0.985}
    runs = [
        run_of(make_record, "good", 0.98, 0.93, samples=1000, **baselines),
        run_of(make_record, "lucky", 0.96, 0.99, samples=1000, **baselines),
    ]
    chosen = select(runs, ANY, group_seeds=False)
    assert chosen.chosen_by == "validation"
    assert chosen.winner.group.path == "good"
    assert "validation accuracy 98.00% [96.3" in chosen.reason
    assert "0.50 points below" in chosen.reason
    assert chosen.report == (
        "On the test data, which chose nothing: accuracy 93.00% [91.25, 94.42], 2.00 points below "
        "the 32-bit baseline."
    )
    asked = select(runs, ANY, group_seeds=False, chosen_by="test")
    assert asked.winner.group.path == "lucky"
    assert asked.report == ""
    assert "select.by=test" in asked.notes[0]
    assert "too high for other data" in asked.notes[0]


def test_a_twin_gives_both_baselines(make_record):
    config = {"seed": 0, "quantization": {"scheme": "itq"}}
    twin = {"seed": 0, "quantization": {"scheme": "none"}}
    runs = [
        run_of(make_record, "itq", 0.97, 0.93, scheme="itq", config=config),
        run_of(make_record, "none", 0.98, 0.95, bits=3200, scheme="none", config=twin),
    ]
    chosen = select(runs, ANY, group_seeds=False)
    (row,) = [row for row in chosen.rows if row.group.path == "itq"]
    assert row.group.drop == pytest.approx(0.01)
    assert row.group.reported.drop == pytest.approx(0.02)
    assert "2.00 points below" in chosen.report


def test_records_with_test_figures_only(make_record):
    old = [Run("old", make_record(accuracy=0.9)), Run("older", make_record(accuracy=0.8))]
    chosen = select(old, ANY, group_seeds=False)
    assert (chosen.chosen_by, chosen.winner.group.path) == ("test", "old")
    assert any("have only test figures" in note for note in chosen.notes)
    mixed = select([*old, run_of(make_record, "new", 0.7, 0.7)], ANY)
    assert [row.group.path for row in mixed.compared] == ["new"]
    assert any("2 of 3 runs have only test figures" in note for note in mixed.notes)
    runs = [*old, run_of(make_record, "new", 0.7, 0.7)]
    assert len(select(runs, ANY, group_seeds=False, chosen_by="test").rows) == 3


def test_too_few_samples_are_told(make_record):
    few = select([run_of(make_record, "a", 0.97, 0.97)], ANY)
    assert not any("cannot tell" in note for note in few.notes)
    baseline = {"validation_baseline_accuracy": 0.975}
    runs = [run_of(make_record, "a", 0.97, 0.97, **baseline)]
    notes = select(runs, Target(max_drop=0.01)).notes
    assert any("500 samples cannot tell a difference of" in note for note in notes)
    many = [Run("a", make_record(validation_accuracy=0.97, validation_samples=10**5, **baseline))]
    assert not any("cannot tell" in note for note in select(many, Target(max_drop=0.01)).notes)


@pytest.mark.parametrize("chosen_by", ["train", None, 5])
def test_another_judge_is_refused(make_record, chosen_by):
    with pytest.raises(ValueError, match=r"write validation .* or test"):
        select([Run("a", make_record())], chosen_by=chosen_by)
