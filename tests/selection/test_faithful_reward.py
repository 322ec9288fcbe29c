"""A reward that asks whether the network still does what the trained one did."""

import pytest

from qspinn.selection import FaithfulReward, LinearReward, Run, Target, select

ANY = Target(max_drop=None, min_accuracy=None)


def test_it_is_what_its_formula_says(make_record):
    record = make_record(bits=800, accuracy=0.9, fidelity={"agreement": 0.75})
    reward = FaithfulReward(mu=0.2, nu=0.4)
    assert reward(record) == pytest.approx(0.9 - 0.2 * 800 / 3200 - 0.4 * 0.25)
    assert str(reward) == "accuracy - 0.2 * footprint / baseline footprint - 0.4 * (1 - agreement)"
    assert FaithfulReward(nu=0)(record) == LinearReward()(record)


def test_a_32_bit_network_agrees_with_itself(make_record):
    record = make_record(scheme="none", accuracy=0.9)
    assert FaithfulReward(mu=0.1, nu=5.0)(record) == pytest.approx(0.8)


def test_the_weight_decides_between_two_on_the_front(make_record):
    records = [
        make_record(bits=bits, accuracy=accuracy, fidelity={"agreement": agreement})
        for bits, accuracy, agreement in ((400, 0.970, 0.7), (800, 0.972, 0.99))
    ]
    runs = [Run(str(number), record) for number, record in enumerate(records)]
    assert select(runs, ANY, LinearReward()).winner.group.path == "0"
    assert select(runs, ANY, FaithfulReward()).winner.group.path == "1"


@pytest.mark.parametrize("fidelity", [None, {"agreement": None}])
def test_a_run_that_was_not_compared_is_named(make_record, fidelity):
    record = make_record(fidelity=fidelity, seed=7)
    with pytest.raises(ValueError, match=r"scheme ptq and seed 7 has no agreement .*fresh=true"):
        FaithfulReward()(record)


@pytest.mark.parametrize("name", ["mu", "nu"])
@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf"), True, "much"])
def test_weights_that_cannot_be(name, weight):
    with pytest.raises(ValueError, match=rf"reward\.{name}=.* is not a finite number"):
        FaithfulReward(**{name: weight})
