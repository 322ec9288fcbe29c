"""`python -m benchmarks check`: what it measures, and what it compares."""

import json
import math

import pytest


@pytest.fixture
def check(monkeypatch, repository):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import check

    return check


def stored_of(check, path, ratios):
    machine = {"processor": "any", "torch": "any"}
    path.write_text(json.dumps({"machine": machine, "ratios": ratios}), encoding="utf-8")
    return ["--stored", str(path)]


def test_a_check_fails_beyond_the_margin_after_a_second_look(check, monkeypatch, tmp_path, capsys):
    looks = {"slow once": iter((4.0, 1.5)), "slow": iter((4.0, 3.9))}

    def measured(group):
        return {name: next(values) for name, values in looks.items()}

    monkeypatch.setattr(check, "GROUPS", {"any": None})
    monkeypatch.setattr(check, "measured", measured)
    arguments = stored_of(check, tmp_path / "ratios.json", {"slow once": 1.0, "slow": 2.0})
    assert check.main([*arguments, "--margin", "1.6"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[1].split() == ["ratio", "measured", "stored", "limit"]
    assert said[2].split() == ["slow", "once", "1.50", "1.00", "1.60"]
    assert said[3].split() == ["slow", "3.90", "2.00", "3.20", "too", "slow"]


def test_a_check_succeeds_within_the_margin(check, monkeypatch, tmp_path):
    monkeypatch.setattr(check, "GROUPS", {"any": None})
    monkeypatch.setattr(check, "measured", lambda _: {"some": 1.5})
    assert check.main(stored_of(check, tmp_path / "ratios.json", {"some": 1.0})) == 0


def test_a_ratio_that_is_not_stored(check, monkeypatch, tmp_path):
    monkeypatch.setattr(check, "GROUPS", {"any": None})
    monkeypatch.setattr(check, "measured", lambda _: {"some": 1.5})
    with pytest.raises(SystemExit, match="has no ratio 'some'; write it with --store"):
        check.main(stored_of(check, tmp_path / "ratios.json", {}))


def test_ratios_that_are_stored_are_those_that_are_measured(check, monkeypatch):
    stored = json.loads(check.STORED.read_text(encoding="utf-8"))["ratios"]
    rounds = []

    def interleaved(ways):
        rounds.append(sorted(ways))
        laps = check.measuring.Laps((1.0,), (1.0,))
        return dict.fromkeys(ways, laps)

    monkeypatch.setattr(check.measuring, "interleaved", interleaved)
    found = {}
    for group in ("training", "rounding"):  # the third one compiles
        found |= check.measured(group)
    assert found.keys() < stored.keys()
    assert all(math.isclose(value, 1) for value in found.values())
    assert all(0.1 < value < 10 for value in stored.values())
