"""Runs take the 32-bit accuracy of their twins, and of nobody else."""

import pytest

from qspinn.selection import Run, fill_baselines


@pytest.fixture
def run(make_record):
    def make(path, **values):
        return Run(path, make_record(**values))

    return make


def baselines(runs):
    filled, notes = fill_baselines(runs)
    assert [item.path for item in filled] == [item.path for item in runs]
    return {item.path: item.record.baseline_accuracy for item in filled}, notes


def test_a_32_bit_run_is_its_own_baseline(run):
    assert baselines([run("a", scheme="none", accuracy=0.9)]) == ({"a": 0.9}, [])


def test_itq_takes_it_from_the_twin_of_its_own_seed(run):
    runs = [
        run("itq0", scheme="itq", seed=0),
        run("itq1", scheme="itq", seed=1),
        run("itq2", scheme="itq", seed=2),
        run("none0", scheme="none", seed=0, accuracy=0.98),
        run("none1", scheme="none", seed=1, accuracy=0.99),
    ]
    expected = {"itq0": 0.98, "itq1": 0.99, "itq2": None, "none0": 0.98, "none1": 0.99}
    assert baselines(runs) == (expected, [])
    filled, _ = fill_baselines(runs)
    assert [item.baseline_path for item in filled] == ["none0", "none1", None, None, None]


def test_what_was_measured_is_never_replaced(run):
    runs = [
        run("ptq", baseline_accuracy=0.95),
        run("none", scheme="none", accuracy=0.98),
        run("itq", scheme="itq", baseline_accuracy=0.9),
    ]
    assert baselines(runs)[0] == {"ptq": 0.95, "none": 0.98, "itq": 0.9}


def test_a_ptq_run_is_a_twin_where_no_32_bit_run_is(run):
    ptq = run("ptq", baseline_accuracy=0.95)
    itq = run("itq", scheme="itq")
    assert baselines([itq, ptq])[0]["itq"] == 0.95
    none = run("none", scheme="none", accuracy=0.94)
    assert baselines([itq, ptq, none])[0]["itq"] == 0.94


def test_one_itq_run_is_a_twin_of_another_only_with_a_measured_baseline(run):
    other = run("b", scheme="itq", bits=400)
    assert baselines([run("a", scheme="itq"), other])[0] == {"a": None, "b": None}


def test_twins_that_disagree_set_the_strictest_target_and_are_noted(run):
    runs = [
        run("itq", scheme="itq"),
        run("none-a", scheme="none", accuracy=0.97),
        run("none-b", scheme="none", accuracy=0.98),
        run("itq-2", scheme="itq", bits=400),
    ]
    found, notes = baselines(runs)
    assert found["itq"] == found["itq-2"] == 0.98
    assert notes == [
        "2 twins measured different 32-bit accuracies (0.97 to 0.98); the highest counts, of none-b"
    ]


@pytest.mark.parametrize(
    "difference",
    [
        {"config": {"seed": 0, "network": {"channels": [8, 32]}, "quantization": {}}},
        {"network": "other"},
        {"data": "other"},
        {"status": "interrupted"},
    ],
)
def test_a_run_that_differs_otherwise_is_no_twin(run, difference):
    runs = [run("itq", scheme="itq"), run("none", scheme="none", **difference)]
    assert baselines(runs)[0]["itq"] is None


def test_a_run_on_other_data_is_no_twin_and_is_noted(run):
    """The configuration names the data, and does not say what lies there."""
    runs = [
        run("itq", scheme="itq", data_fingerprint="now"),
        run("none-then", scheme="none", accuracy=0.99, data_fingerprint="then"),
    ]
    found, (note,) = baselines(runs)
    assert found["itq"] is None
    assert "the data changed between runs" in note
    runs.append(run("none-old", scheme="none", accuracy=0.96))
    assert baselines(runs)[0]["itq"] == 0.96
    runs.append(run("none-now", scheme="none", accuracy=0.95, data_fingerprint="now"))
    assert baselines(runs)[0]["itq"] == 0.95
    runs.append(run("itq-old", scheme="itq"))
    assert baselines(runs)[0]["itq-old"] == 0.99


def test_that_the_data_changed_is_noted_where_nothing_is_missing(run):
    runs = [run(name, baseline_accuracy=0.9, data_fingerprint=name) for name in "ab"]
    assert "mnist_subset: 2" in baselines(runs)[1][0]
    assert baselines(runs[:1] * 2)[1] == []


def test_the_given_runs_stay_as_they_are(run):
    runs = [run("itq", scheme="itq"), run("none", scheme="none")]
    fill_baselines(runs)
    assert [item.record.baseline_accuracy for item in runs] == [None, None]
