"""Runs that differ in the seed only are one candidate."""

import math
import statistics

import pytest

from qspinn.selection import LinearReward, Run, Target, group_runs, select

ANY = Target(max_drop=None)


@pytest.fixture
def seeds(make_record):
    """Return a function that makes runs of one setting, one per accuracy."""

    def make(bits, accuracies, **values):
        return [
            Run(f"{bits}/{seed}", make_record(bits=bits, accuracy=accuracy, seed=seed, **values))
            for seed, accuracy in enumerate(accuracies)
        ]

    return make


def test_mean_deviation_and_number(seeds):
    accuracies = [0.95, 0.97, 0.99]
    (group,), notes = group_runs(seeds(800, accuracies, baseline_accuracy=0.98)[::-1])
    assert group.seeds == (0, 1, 2)
    assert group.path == "800/0"
    assert group.accuracy == pytest.approx(0.97)
    assert group.accuracy_std == pytest.approx(statistics.stdev(accuracies))
    assert group.drop == pytest.approx(0.01)
    assert group.footprint_bits == 800
    assert type(group.footprint_bits) is int
    assert notes == []


def test_one_run_has_no_deviation_and_keeps_its_very_accuracy(seeds):
    (group,), _ = group_runs(seeds(800, [0.1 + 0.2]))
    assert group.accuracy_std is None
    assert group.accuracy == 0.1 + 0.2


def test_settings_schemes_and_broken_off_runs_stay_apart(seeds):
    runs = [
        *seeds(800, [0.9, 0.91]),
        *seeds(400, [0.9, 0.91]),
        *seeds(800, [0.9], scheme="itq"),
        *seeds(800, [0.9], status="interrupted"),
    ]
    assert [len(group.runs) for group in group_runs(runs)[0]] == [2, 2, 1, 1]
    assert [len(group.runs) for group in group_runs(runs, by_seed=False)[0]] == [1] * 6


def test_roundings_stay_apart_whatever_the_keys_say(seeds):
    runs = [
        *seeds(800, [0.9, 0.91], rounding="nearest", config={}),
        *seeds(800, [0.5, 0.51], rounding="truncate", config={}),
    ]
    assert [group.accuracy for group in group_runs(runs)[0]] == pytest.approx([0.905, 0.505])


def test_what_a_reader_should_know_is_said(seeds, make_record):
    runs = [*seeds(800, [0.9, 0.91]), *seeds(400, [0.9])]
    assert group_runs(runs)[1] == ["the numbers of runs per setting differ (1 to 2 seeds)"]
    twice = [Run("a", make_record()), Run("b", make_record())]
    (note,) = group_runs(twice)[1]
    assert "hold a seed more than once" in note
    shared = {"setting_key": "1" * 64}
    varying = [Run("a", make_record(seed=0, bits=800, **shared))]
    varying.append(Run("b", make_record(seed=1, bits=801, **shared)))
    (group,), (note,) = group_runs(varying)
    assert group.footprint_bits == 800.5
    assert "footprints of 1 settings differ between seeds" in note


def test_target_front_and_reward_are_those_of_the_means(seeds):
    runs = [
        *seeds(800, [0.97, 0.99], baseline_accuracy=0.98),  # one seed alone misses the target
        *seeds(900, [0.975, 0.975], baseline_accuracy=0.98),
        *seeds(400, [0.98, 0.94], baseline_accuracy=0.98),  # one seed alone meets it
    ]
    chosen = select(runs, Target(max_drop=0.005), LinearReward(0.1))
    assert [row.group.path for row in chosen.rows] == ["800/0", "900/0"]
    assert [row.dominated_by for row in chosen.rows] == [None, "800/0"]
    assert chosen.rows[0].reward == pytest.approx(0.98 - 0.1 * 800 / 3200)
    assert [item.group.path for item in chosen.dropped] == ["400/0"]
    assert "(mean of 2 seeds)" in chosen.reason
    assert "98.00% ± 1.41" in chosen.reason
    alone = select(runs, Target(max_drop=0.005), group_seeds=False)
    assert sorted(row.group.path for row in alone.rows) == ["400/0", "800/1", "900/0", "900/1"]


def test_a_group_without_one_baseline_has_none(seeds, make_record):
    runs = seeds(800, [0.9], baseline_accuracy=0.95)
    runs.append(Run("b", make_record(bits=800, seed=1, config=runs[0].record.config | {"seed": 1})))
    (group,), _ = group_runs(runs)
    assert group.baseline_accuracy is None
    assert group.drop is None
    dropped = select(runs).dropped
    assert math.isinf(dropped[0].missing_accuracy)
