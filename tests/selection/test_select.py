"""The whole selection: who wins, in which order, and why."""

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qspinn.selection import EnergyReward, LinearReward, MixedRunsError, Run, Target, select

ANY = Target(max_drop=None)


def setting(index):
    return {"setting_key": f"{index:064}"}


def runs_of(make_record, points, **values):
    """One run per (bits, accuracy), called 0, 1, ..."""
    return [
        Run(f"{index:03}", make_record(bits=bits, accuracy=accuracy, **setting(index), **values))
        for index, (bits, accuracy) in enumerate(points)
    ]


def test_the_reward_is_accuracy_minus_the_share_of_memory(make_record):
    record = make_record(bits=800, baseline_bits=3200, accuracy=0.9)
    assert LinearReward(mu=0.2)(record) == pytest.approx(0.9 - 0.2 / 4)
    assert LinearReward(mu=0)(record) == 0.9


@pytest.mark.parametrize("mu", [-0.1, math.nan, math.inf, "0.1", None, True])
def test_a_weight_that_cannot_be_is_refused(mu):
    with pytest.raises(ValueError, match=r"reward\.mu="):
        LinearReward(mu=mu)


def test_a_selection_by_hand(make_record):
    points = [(3200, 0.98), (800, 0.975), (400, 0.972), (400, 0.9), (900, 0.974), (1600, 0.6)]
    runs = runs_of(make_record, points, baseline_accuracy=0.98)
    chosen = select(runs, Target(max_drop=0.01), LinearReward(mu=0.1))
    assert [row.group.path for row in chosen.front] == ["002", "001", "000"]
    assert [row.reward for row in chosen.front] == pytest.approx([0.9595, 0.95, 0.88])
    assert [(row.group.path, row.dominated_by) for row in chosen.rows[3:]] == [("004", "001")]
    assert [item.group.path for item in chosen.dropped] == ["003", "005"]
    assert chosen.winner is chosen.rows[0]
    assert chosen.reason == (
        "002 has the best reward (0.9595) of 3 on the Pareto front: test accuracy 97.20%, "
        "footprint 400 bits, 8.0x smaller, 0.80 points below the 32-bit baseline."
    )


def test_a_winner_that_is_better_than_its_baseline(make_record):
    chosen = select(runs_of(make_record, [(800, 0.985)], baseline_accuracy=0.98))
    assert chosen.reason.endswith(", 0.50 points above the 32-bit baseline.")


def test_mu_decides(make_record):
    runs = runs_of(make_record, [(3200, 0.98), (400, 0.96)])
    assert select(runs, ANY, LinearReward(mu=0.0)).winner.group.path == "000"
    assert select(runs, ANY, LinearReward(mu=0.5)).winner.group.path == "001"


few = st.tuples(st.sampled_from([100, 200, 400, 800]), st.sampled_from([0.5, 0.75, 0.875, 1.0]))


@given(points=st.lists(few, min_size=1, max_size=12), mu=st.sampled_from([0.0, 0.1, 1.0, 4.0]))
def test_against_the_definitions(make_record, points, mu):
    def beats(a, b):
        return a != b and a[0] <= b[0] and a[1] >= b[1]

    def reward(point):
        return point[1] - mu * point[0] / 3200

    chosen = select(runs_of(make_record, points), ANY, LinearReward(mu))
    expected = [p for p in points if not any(beats(q, p) for q in points)]
    place = {f"{index:03}": point for index, point in enumerate(points)}
    front = [place[row.group.path] for row in chosen.front]
    assert sorted(front) == sorted(expected)
    assert sorted(place) == sorted(row.group.path for row in chosen.rows)
    for row in chosen.rows:
        assert row.reward == pytest.approx(reward(place[row.group.path]))
        if row.dominated_by is not None:
            assert beats(place[row.dominated_by], place[row.group.path])
    best = min(expected, key=lambda point: (-reward(point), point[0]))
    assert place[chosen.winner.group.path] == best
    first = min(path for path, point in place.items() if point == best)
    assert chosen.winner.group.path == first


def test_ties_go_to_the_smaller_then_to_the_name(make_record):
    # The accuracy rises by exactly what the memory costs: all three have the same reward.
    runs = runs_of(make_record, [(800, 0.75), (400, 0.625), (400, 0.625)])
    chosen = select(runs, ANY, LinearReward(mu=1.0))
    assert [row.reward for row in chosen.rows] == [0.5, 0.5, 0.5]
    assert [row.group.path for row in chosen.rows] == ["001", "002", "000"]
    again = select(reversed(runs), ANY, LinearReward(mu=1.0))
    assert [row.group.path for row in again.rows] == ["001", "002", "000"]


def test_the_winner_is_on_the_front_whatever_the_reward(make_record):
    runs = runs_of(make_record, [(400, 0.9), (800, 0.9)])
    chosen = select(runs, ANY, lambda record: record.footprint_bits)
    assert [row.group.path for row in chosen.rows] == ["000", "001"]
    assert chosen.winner.reward < chosen.rows[1].reward


def test_the_32_bit_network_competes_and_is_named(make_record):
    runs = [
        Run("float", make_record(scheme="none", bits=3200, accuracy=0.98)),
        Run("itq", make_record(scheme="itq", bits=800, accuracy=0.5)),
    ]
    chosen = select(runs)
    assert chosen.winner.group.is_reference
    assert "It is the 32-bit network itself" in chosen.reason
    assert chosen.dropped[0].group.record.baseline_accuracy == 0.98


def test_no_candidate_names_the_nearest_and_its_distance(make_record):
    runs = runs_of(make_record, [(400, 0.90), (800, 0.93), (900, 0.93)], baseline_accuracy=0.98)
    chosen = select([*runs, Run("unknown", make_record(accuracy=0.99, seed=7))])
    assert chosen.winner is None
    assert chosen.front == ()
    assert chosen.reason == (
        "No run meets the target (accuracy at most 1 point below the baseline): 4 dropped. "
        "The nearest is 001: loses 5.00 points of accuracy, 4.00 too many."
    )
    assert [item.group.path for item in chosen.dropped] == ["001", "002", "000", "unknown"]


def test_nearest_by_memory(make_record):
    runs = runs_of(make_record, [(900, 0.93), (801, 0.90)])
    chosen = select(runs, Target(max_drop=None, max_bits=800))
    assert chosen.dropped[0].group.path == "001"
    assert "footprint 801 bits, 1 too many" in chosen.reason


def test_different_data_or_networks_are_refused_unless_asked_for(make_record):
    runs = [
        Run("a", make_record()),
        Run("b", make_record(**setting(2))),
        Run("c", make_record(network="other")),
    ]
    message = (
        r"data mnist_subset, network conv_snn: 2 runs; data mnist_subset, network other: 1 run\)"
        r".*allow_mixed=true"
    )
    with pytest.raises(MixedRunsError, match=message):
        select(runs, ANY)
    with pytest.raises(MixedRunsError, match="data kmnist"):
        select([runs[0], Run("d", make_record(data="kmnist"))], ANY)
    assert len(select(runs, ANY, allow_mixed=True).rows) == 3


def test_nothing_to_select_from():
    with pytest.raises(ValueError, match="no runs to select from"):
        select([])


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "high", True])
def test_a_reward_that_is_no_number_is_named(make_record, value):
    with pytest.raises(ValueError, match=r"the reward .*<lambda>\) of 000 is"):
        select(runs_of(make_record, [(400, 0.9)]), ANY, lambda _: value)


def test_selecting_imports_no_torch(repository):
    code = (
        "import sys, qspinn.selection, qspinn.report;"
        "print({'torch', 'lightning', 'numpy', 'hydra'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_the_reward_that_weighs_the_energy(make_record):
    work = {"energy_nj": 25.0, "float_energy_nj": 100.0}
    record = make_record(bits=800, baseline_bits=3200, accuracy=0.9, work=work)
    reward = EnergyReward(mu=0.2, nu=0.4)
    assert reward(record) == pytest.approx(0.9 - 0.2 / 4 - 0.4 / 4)
    assert str(reward) == (
        "accuracy - 0.2 * footprint / baseline footprint - 0.4 * energy / float energy"
    )
    chosen = select([Run("a", record)], ANY, reward)
    assert chosen.winner.reward == pytest.approx(0.75)


@pytest.mark.parametrize("work", [None, {"energy_nj": 25.0}])
def test_a_record_without_energies_is_no_record_for_it(make_record, work):
    with pytest.raises(ValueError, match=r"EnergyReward: the run of .* has no energy"):
        EnergyReward()(make_record(work=work))


@pytest.mark.parametrize("name", ["mu", "nu"])
@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf, "0.1", None, True])
def test_weights_of_it_that_cannot_be_are_refused(name, weight):
    with pytest.raises(ValueError, match=rf"reward\.{name}="):
        EnergyReward(**{name: weight})
