"""What fits a device, what comes next to it, and what one step would buy."""

import pytest

from qspinn.selection import Run, Target, select
from qspinn.selection.verdict import verdict


def run(make_record, name, flash, ram, accuracy, **values):
    bits = flash + ram
    return Run(
        name,
        make_record(
            bits=bits,
            baseline_bits=32000,
            accuracy=accuracy,
            baseline_accuracy=0.98,
            flash_bits=flash,
            ram_bits=ram,
            learning_ram_bits=bits - 10,
            word_lengths={"weight": [max(1, flash // 1000)]},
            config={"seed": 0, "network": {"channels": ram}},
            setting_key=f"{sum(map(ord, name)):064}",
            **values,
        ),
    )


@pytest.fixture
def runs(make_record):
    return [
        run(make_record, "small", 2000, 400, 0.95),
        run(make_record, "middle", 4000, 800, 0.97),
        run(make_record, "hungry", 4100, 3000, 0.975),
        run(make_record, "large", 8000, 800, 0.979),
    ]


def chosen(runs, **target):
    return select(runs, Target.of({"max_drop": "5%", **target}))


def test_the_best_that_fits_wins(runs):
    assert chosen(runs, flash="5kbit", ram="1kbit").winner.group.path == "middle"
    assert chosen(runs, flash="3kbit").winner.group.path == "small"
    assert chosen(runs, ram="500bit").winner.group.path == "small"
    selection = chosen(runs, flash="5kbit", ram="1kbit")
    reasons = {item.group.path: item.reasons for item in selection.dropped}
    assert reasons["hungry"] == ("needs 375 B of RAM, 250 B too many",)
    assert reasons["large"] == ("needs 1,000 B of flash, 375 B too many",)


def test_exactly_what_the_device_has_is_enough(runs):
    assert len(chosen(runs, flash="4000bit", ram="800bit").rows) == 2
    assert len(chosen(runs, flash="3999bit", ram="800bit").rows) == 1


def test_a_device_that_learns_holds_all_but_constants_in_ram(runs):
    selection = chosen(runs, ram="4790bit", flash="10bit", learning=True)
    assert {row.group.path for row in selection.rows} == {"small", "middle"}
    assert "on a device that learns" in str(selection.target)


def test_a_part_stands_for_its_memories(runs):
    target = Target.of({"part": "atmega328p", "ram": "1KiB"})
    assert (target.flash, target.ram) == (32 * 1024 * 8, 1024 * 8)
    assert target.max_drop is None


def test_energy(make_record):
    runs = [
        run(make_record, "a", 2000, 400, 0.95, work={"energy_nj": 200.0}),
        run(make_record, "b", 4000, 400, 0.97, work={"energy_nj": 900.0}),
        run(make_record, "old", 5000, 400, 0.98),
    ]
    selection = chosen(runs, energy="0.5uJ")
    assert [row.group.path for row in selection.rows] == ["a"]
    reasons = {item.group.path: item.reasons for item in selection.dropped}
    assert reasons["b"] == ("takes 900 nJ per sample, 400 nJ too many",)
    assert "energy is not known" in reasons["old"][0]
    assert [item.group.path for item in selection.dropped] == ["b", "old"]


def test_what_old_records_do_not_say_is_not_guessed(make_record):
    old = Run("old", make_record(bits=100, baseline_accuracy=0.97))
    selection = select([old], Target.of({"flash": "1MiB", "ram": "1MiB"}))
    assert selection.winner is None
    assert "how much flash it needs is not known" in selection.dropped[0].reasons[0]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"flash": 64}, r"target\.flash=64 .* for example 64KiB"),
        ({"learning": "yes"}, r"target\.learning='yes'; write true or false"),
        ({"ramm": "1KiB"}, r"target\.ramm: the keys are max_drop, .* learning, part"),
        ({"part": "abc"}, r"target\.part='abc'"),
        ({"max_drop": "150%"}, r"target\.max_drop=1\.5 is not a number in \[-1, 1\]"),
    ],
)
def test_budgets_that_cannot_be(values, says):
    with pytest.raises(ValueError, match=says):
        Target.of(values)


def test_the_verdict_names_runner_up_and_steps(runs):
    selection = chosen(runs, flash="5kbit", ram="1kbit")
    said = verdict(selection)
    assert (
        said.headline
        == "PTQ, 4 bits, nearest, channels 800: 6.7x smaller, 1.00 points below 32-bit."
    )
    assert said.runner_up.group.path == "small"
    assert (said.larger.row.group.path, said.larger.bits) == ("hungry", 2300)
    assert said.larger.accuracy == pytest.approx(0.005)
    assert (said.smaller.row.group.path, said.smaller.bits) == ("small", -2400)
    text = "\n".join(said.details)
    assert "Memory: 600 B instead of 3.91 KiB; 500 B in flash, 800 bits in RAM." in text
    assert "Runner-up: #2 2 bits: 13.3x smaller, 3.00 points below 32-bit." in text
    assert "0.50 points more for 288 B more, #3 4 bits, channels 3000" in text
    assert "misses the target (needs 375 B of RAM, 250 B too many)" in text
    assert "2.00 points less for 300 B less, #2 2 bits." in text


def test_without_a_candidate_the_nearest_is_named(runs):
    said = verdict(chosen(runs, flash="1kbit"))
    assert said.headline.startswith("No candidate meets the target (accuracy at most 5 points")
    assert said.details[0].startswith("The nearest is PTQ, 2 bits, nearest: needs 250 B of")
    assert (said.runner_up, said.larger, said.smaller) == (None, None, None)


def test_the_32_bit_network_may_win(make_record):
    base = make_record(scheme="none", accuracy=0.98)
    runs = [Run("32", base), Run("q", make_record(bits=3000, accuracy=0.5, baseline_accuracy=0.98))]
    assert verdict(select(runs, Target())).headline == (
        "32-bit: no quantised candidate has a higher reward."
    )
