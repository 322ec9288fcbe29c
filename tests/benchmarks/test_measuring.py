"""benchmarks/measuring.py: what is timed, and what a page says of it."""

import subprocess
import sys

import pytest


@pytest.fixture
def measuring(monkeypatch, repository):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import measuring

    return measuring


def test_ways_take_turns_and_the_first_round_does_not_count(measuring):
    order = []
    laps = measuring.interleaved({name: lambda name=name: order.append(name) for name in "ab"}, 9)
    assert order == ["a", "b"] * 10
    assert [len(laps[name].wall) for name in "ab"] == [9, 9]
    assert all(value >= 0 for one in laps.values() for value in one.wall + one.processor)


def test_fewer_rounds_than_a_median_needs(measuring):
    with pytest.raises(ValueError, match="rounds=8: a median needs at least 9"):
        measuring.interleaved({}, 8)


def test_a_ratio_is_of_medians_with_its_range_over_rounds(measuring):
    found = measuring.ratio((4.0, 2.0, 6.0), (1.0, 2.0, 4.0))
    assert found == measuring.Ratio(median=2.0, lowest=1.0, highest=4.0)
    assert found.text() == "**2.00** (1.00 to 4.00)"


def test_processes_that_were_waited_for_count(measuring):
    before = measuring.processor_time()
    subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
    assert measuring.processor_time() - before > 0.02


def test_a_page_names_the_processor_the_versions_and_the_data(measuring):
    about = measuring.machine("torch", "no-such-package")
    line = measuring.circumstances(about, "python benchmarks/x.py", "some images")
    assert f"Machine: {measuring.processor()}, " in line
    assert f"torch {about['torch']}, no-such-package not installed." in line
    assert "Data: some images. Made by `python benchmarks/x.py`." in line
