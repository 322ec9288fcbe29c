"""The gate of a grid: what it stops, what it leaves behind, and that it changes no record."""

import importlib.util
import shutil
from dataclasses import replace

import pytest
from lightning.pytorch.callbacks import Callback

from qspinn.app.choose.sources import read_sources
from qspinn.app.compose.completing import complete, to_plain
from qspinn.app.compose.gate_settings import GateSettings, gate_settings, pruner_among
from qspinn.app.errors import ConfigurationError
from qspinn.app.explore.exploring import Candidate, evaluate, explore
from qspinn.app.explore.strategies import explore_by_strategy
from qspinn.app.explore.sweep import in_order
from qspinn.app.run.gate import CandidateStopped
from qspinn.app.run.train import train
from qspinn.learning import SupervisedLearning
from qspinn.records import (
    GateReport,
    comparable,
    read_gate_report,
    write_gate_report,
    write_record,
)
from qspinn.selection import select
from tests.app.conftest import TINY

GATE = "exploration.gate.enabled=true"
# No network gains 100 points: whatever is asked, the answer is that the target is missed.
HOPELESS = "exploration.max_drop=-1"
ANYTHING = "exploration.max_drop=1"
SCHEMES = ("ptq", "itq")


@pytest.fixture(scope="module")
def trained_store(composed, tmp_path_factory):
    """Return a store with the 32-bit training of seed 0; tests get copies."""
    folder = tmp_path_factory.mktemp("trained")
    train(composed(f"baselines.dir={folder / 'store'}"), folder / "run")
    return folder / "store"


@pytest.fixture
def of(composed, trained_store, tmp_path):
    """Return a function from overrides to a configuration whose store outlives the test's runs."""
    shutil.copytree(trained_store, tmp_path / "store")

    def make(*overrides):
        return composed(f"baselines.dir={tmp_path / 'store'}", *overrides)

    return make


@pytest.fixture
def steps(monkeypatch):
    """Return a list of the steps that are made: train, val or test."""
    made = []
    for phase in ("training", "validation", "test"):
        original = getattr(SupervisedLearning, f"{phase}_step")

        def noting(self, batch, batch_idx, phase=phase, original=original):
            made.append(phase)
            return original(self, batch, batch_idx)

        monkeypatch.setattr(SupervisedLearning, f"{phase}_step", noting)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_it_lets_through_has_the_record_that_it_would_have(of, tmp_path, scheme):
    settings = f"quantization.scheme={scheme}", "quantization.rounding=stochastic", ANYTHING
    free = train(of(*settings, "baselines.train_for_itq=true"), tmp_path / "free")
    gated = train(of(*settings, GATE), tmp_path / "gated" / "one")
    assert comparable(gated) == comparable(free)
    report = tmp_path / "gated" / "one" / "gate.json"
    assert report.exists() is (scheme == "itq")
    if scheme == "itq":
        curve = read_gate_report(report).points
        assert list(curve) == [0.1, 0.333333, 0.666667]
        rows = (tmp_path / "free" / "metrics.csv").read_text().splitlines()
        column = rows[0].split(",").index("val/accuracy")
        assert list(curve.values())[1:] == [float(row.split(",")[column]) for row in rows[1:3]]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_it_stops(of, tmp_path, steps, capsys, scheme):
    settings = f"quantization.scheme={scheme}", GATE, "exploration.gate.samples=64"
    train(of(*settings, ANYTHING, "seed=3"), tmp_path / "other" / "one")  # has the libraries ready
    folder = tmp_path / "grid" / "one"
    if scheme == "itq":
        train(of("quantization.scheme=ptq", ANYTHING), tmp_path / "other" / "two")
    steps.clear()
    with pytest.raises(CandidateStopped, match=r"are needed|has to end with"):
        train(of(*settings, HOPELESS), folder)
    report = read_gate_report(folder / "gate.json")
    assert report.stage == ("training" if scheme == "itq" else "drift")
    assert (report.drift is not None) is (scheme == "ptq")
    assert not (folder / "record.json").exists()
    assert not (folder / "failure.json").exists()
    if scheme == "itq":
        assert "test" not in steps
        assert steps.count("training") < 12
        assert not (folder / "checkpoints" / "last.ckpt").exists()
    assert f"stopped: {report.stopped}" in capsys.readouterr().out
    (line,) = read_sources([str(tmp_path / "grid")]).stopped
    assert line == f"{folder / 'gate.json'}: {report.stopped}"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_run_that_was_stopped_can_be_had_in_full(of, tmp_path, steps, scheme):
    settings = f"quantization.scheme={scheme}", "quantization.rounding=stochastic"
    free = train(of(*settings, "baselines.train_for_itq=true"), tmp_path / "free")
    folder = tmp_path / "grid" / "one"
    for _ in range(2):
        with pytest.raises(CandidateStopped) as stop:
            train(of(*settings, GATE, HOPELESS), folder)
    created = stop.value.report.created
    steps.clear()
    with pytest.raises(CandidateStopped) as again:
        train(of(*settings, GATE, HOPELESS), folder)
    assert again.value.report.created == created
    assert "training" not in steps
    full = train(of(*settings, "baselines.train_for_itq=true"), folder)
    assert comparable(full) == comparable(free)
    assert not (folder / "gate.json").exists()


@pytest.mark.slow
def test_other_settings_judge_anew(of, tmp_path):
    folder = tmp_path / "grid" / "one"
    with pytest.raises(CandidateStopped):
        train(of(GATE, HOPELESS), folder)
    assert train(of(GATE, ANYTHING), folder).scheme == "ptq"
    assert not (folder / "gate.json").exists()


@pytest.mark.slow
def test_a_grid_loses_neither_its_best_nor_its_front(of, tmp_path):
    grid = [
        (f"quantization.word_length={length}", f"quantization.rounding={rounding}", ANYTHING)
        for length in (6, 3, 4)
        for rounding in ("truncate", "nearest")
    ]
    # What can be gained is not limited, so that only what was measured decides.
    strict = ("exploration.gate.chance=1000", "exploration.gate.tolerance=0")
    found = {}
    for name, more in (("full", ()), ("gated", (GATE, *strict))):
        made = [Candidate(of(*one, *more), tmp_path / name / f"{i}") for i, one in enumerate(grid)]
        done = list(explore(in_order(made)))
        assert all(one.error is None for one in done)
        sources = read_sources([str(tmp_path / name)])
        assert len(sources.runs) == sum(one.record is not None for one in done)
        assert len(sources.stopped) == sum(one.stopped is not None for one in done)
        found[name] = select(sources.runs), done
    full, gated = found["full"][0], found["gated"][0]
    assert sum(one.stopped is not None for one in found["gated"][1]) >= 2
    assert gated.winner.group.record.config == full.winner.group.record.config
    assert gated.hypervolume == full.hypervolume
    assert len(gated.front) == len(full.front)


@pytest.mark.slow
def test_a_dominated_one_is_never_tested(of, tmp_path, steps):
    settings = (GATE, ANYTHING, "exploration.gate.chance=1000")
    best = train(of(*settings, "quantization.word_length=4"), tmp_path / "grid" / "4")
    steps.clear()
    came = evaluate(Candidate(of(*settings, "quantization.word_length=2"), tmp_path / "grid" / "2"))
    if came.record is not None:  # it is smaller, and so on the front
        assert came.record.footprint_bits < best.footprint_bits
    steps.clear()
    twin = of(*settings, "quantization.word_length=4", "quantization.rounding=truncate")
    came = evaluate(Candidate(twin, tmp_path / "grid" / "4t"))
    report = tmp_path / "grid" / "4t" / "gate.json"
    if came.stopped is None:
        assert came.record.validation_accuracy >= best.validation_accuracy
    else:
        assert "test" not in steps
        measured = read_gate_report(report).validation_accuracy
        assert measured is None or measured < best.validation_accuracy


def test_nothing_is_computed_where_nothing_can_be_gained(of, tmp_path, steps):
    settings = GATE, ANYTHING, "exploration.gate.chance=0", "exploration.gate.tolerance=1"
    train(of(*settings, "quantization.word_length=8"), tmp_path / "grid" / "8")
    for scheme in SCHEMES:
        steps.clear()
        larger = of(*settings, "quantization.word_length=12", f"quantization.scheme={scheme}")
        came = evaluate(Candidate(larger, tmp_path / "grid" / f"12{scheme}"))
        if came.stopped is None:  # the first one was less accurate than the 32-bit network
            pytest.fail(f"evaluated: {came}")
        assert "would add" in came.stopped
        assert steps == []


@pytest.mark.slow
def test_a_setting_that_was_stopped_is_not_tried_with_other_seeds(of, tmp_path, steps):
    grid = tmp_path / "grid"
    with pytest.raises(CandidateStopped):
        train(of(GATE, HOPELESS, "seed=0"), grid / "0")
    train(of("seed=1", ANYTHING), tmp_path / "elsewhere")  # trains the 32-bit network of seed 1
    steps.clear()
    with pytest.raises(CandidateStopped, match=r"^seed 0 agrees"):
        train(of(GATE, HOPELESS, "seed=1"), grid / "1")
    assert steps == []
    other = evaluate(
        Candidate(of(GATE, HOPELESS, "seed=1", "quantization.word_length=3"), grid / "2")
    )
    assert not other.stopped.startswith("seed")


@pytest.mark.slow
def test_a_setting_that_was_evaluated_is_evaluated_with_all_seeds(of, tmp_path, capsys):
    """Means over different seeds are not to be compared."""
    grid = tmp_path / "grid"
    train(of(GATE, ANYTHING, "seed=0"), grid / "0")
    # The target is another now, and would stop it.
    assert train(of(GATE, HOPELESS, "seed=1"), grid / "1").seed == 1
    assert "evaluated in full with seed 0" in capsys.readouterr().out
    with pytest.raises(CandidateStopped):
        train(of(GATE, HOPELESS, "seed=1", "quantization.word_length=3"), grid / "2")


def test_damaged_neighbours_are_passed_over(of, tmp_path):
    grid = tmp_path / "grid"
    for name, text in (("record.json", "{"), ("gate.json", "[]")):
        (grid / name).mkdir(parents=True)
        (grid / name / name).write_text(text)
    assert train(of(GATE, ANYTHING), grid / "one").scheme == "ptq"


def test_the_order_of_a_grid(of, tmp_path):
    given = [
        Candidate(
            of(GATE, f"quantization.scheme={s}", f"quantization.word_length={w}", f"seed={seed}"),
            tmp_path / f"{seed}{s}{w}",
        )
        for seed in (1, 0)
        for s in ("itq", "ptq")
        for w in (8, 2)
    ]
    names = [one.folder.name for one in in_order(given)]
    assert names == ["0ptq2", "0ptq8", "0itq2", "0itq8", "1ptq2", "1ptq8", "1itq2", "1itq8"]
    free = [Candidate(of(), tmp_path / name) for name in "ba"]
    assert in_order(free) == free


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["exploration.gate.enabled=1"], "exploration.gate.enabled=1; write true or false"),
        (["+exploration.gate.chances=1"], "the keys are enabled, tolerance, chance"),
        (["exploration.gate=yes"], "exploration.gate='yes': the keys are"),
        ([GATE, "exploration.gate.chance=-1"], "exploration.gate.chance=-1 is not a number"),
        ([GATE, "exploration.gate.samples=0"], "exploration.gate.samples=0; write a number"),
        ([GATE, "exploration.gate.fractions=0.1"], "exploration.gate.fractions=0.1; write a list"),
        ([GATE, "exploration.gate.fractions=[1.5]"], r"exploration.gate.fractions=\[1.5\]"),
        ([GATE, "exploration.gate.pruner=best"], "exploration.gate.pruner='best'; write null or"),
        ([GATE, "exploration.max_drop=7"], "exploration.max_drop=7 is not a number"),
        ([GATE, "baselines.dir=null"], "exploration.gate.enabled=true .* write baselines.dir="),
    ],
)
def test_values_that_cannot_be(of, tmp_path, overrides, said):
    with pytest.raises(ConfigurationError, match=said):
        train(of(*overrides), tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_no_gate(composed):
    for overrides in (
        (),
        ("exploration.gate=null",),
        ("~exploration.gate",),
        ("exploration=null",),
    ):
        assert gate_settings(to_plain(complete(composed(*overrides)))["exploration"]) is None
    assert gate_settings({"max_drop": 0.02, "gate": {"enabled": True}}) == GateSettings(
        max_drop=0.02
    )


def test_the_defaults_are_those_of_the_configuration(composed):
    settings = gate_settings(to_plain(complete(composed(GATE)))["exploration"])
    assert settings == GateSettings(fractions=[0.1])


def test_a_search_measures_all_that_it_asks_for(of, tmp_path):
    with pytest.raises(ConfigurationError, match=r"strategy=greedy: .* write false"):
        explore_by_strategy(of(GATE, "exploration.strategy=greedy"), tmp_path)


def test_a_pruner_without_optuna(monkeypatch):
    original = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "optuna" else original(name)
    )
    assert GateSettings().pruner is None
    with pytest.raises(
        ValueError, match=r"pruner=halving needs Optuna; pip install '\.\[search\]'"
    ):
        GateSettings(pruner="halving")


@pytest.mark.parametrize("pruner", ["median", "halving"])
def test_pruners_have_seen_the_other_trainings(pruner):
    others = [{0.1: 0.5 + 0.1 * i, 0.5: 0.6 + 0.1 * i, 1.0: 0.7 + 0.1 * i} for i in range(3)]
    assert "prunes it" in pruner_among(pruner, others)(0.1, 0.2)
    assert pruner_among(pruner, others)(0.1, 0.9) is None
    assert pruner_among(pruner, [])(0.1, 0.2) is None


def test_hyperband_judges_the_same_each_time():
    others = [{0.1: 0.1 * i, 1.0: 0.1 * i} for i in range(9)]
    told = {tuple(pruner_among("hyperband", others)(0.1, v) for v in (0.0, 0.9)) for _ in range(3)}
    assert len(told) == 1


@pytest.mark.slow
def test_a_pruner_stops_a_run(of, tmp_path):
    settings = GATE, ANYTHING, "quantization.scheme=itq", "exploration.gate.chance=1000"
    for length in (4, 5, 6):
        folder = tmp_path / "grid" / f"{length}"
        train(of(*settings, f"quantization.word_length={length}"), folder)
        # As if other trainings had been better, though not so much that it would say it all.
        report = read_gate_report(folder / "gate.json")
        better = {progress: min(1.0, value + 0.2) for progress, value in report.curve.items()}
        write_gate_report(replace(report, curve=better), folder / "gate.json")
    pruner = "exploration.gate.pruner=median", "exploration.gate.behind=100"
    with pytest.raises(CandidateStopped, match=r"MedianPruner prunes it"):
        train(of(*settings, *pruner, "quantization.word_length=8"), tmp_path / "grid" / "last")


def test_callbacks_of_the_user_are_kept(of, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Callback, "on_exception", lambda self, *given: seen.append(given[-1]))
    with pytest.raises(CandidateStopped):
        train(of(GATE, HOPELESS), tmp_path / "one")
    assert all(isinstance(one, CandidateStopped) for one in seen)


def test_select_counts_what_was_stopped(tmp_path, run_select, make_record):
    write_record(make_record(bits=800, baseline_accuracy=0.98), tmp_path / "grid/a/record.json")
    report = {
        "stage": "training",
        "share": 0.1,
        "settings": {},
        "config_hash": "a",
        "baseline_key": "b",
        "setting_key": "c",
        "seed": 0,
        "created": "2026-01-01",
    }
    for name, why in (("a", "of old"), ("b", "far behind"), ("c", "as far behind")):
        write_gate_report(GateReport(stopped=why, **report), tmp_path / "grid" / name / "gate.json")
    passed = GateReport(**{**report, "stage": None, "stopped": None})
    write_gate_report(passed, tmp_path / "grid" / "d" / "gate.json")
    code, out, err = run_select("runs=grid")
    assert code == 0
    assert out.startswith("Records: 1 read, 0 skipped, 2 stopped early\n")
    assert (
        err == "stopped: 2 candidates by exploration.gate, such as grid/b/gate.json: far behind\n"
    )


@pytest.mark.slow
def test_a_grid_in_processes(launch, tmp_path):
    arguments = (
        *("-m", "launcher=workers", f"hydra.sweep.dir={tmp_path / 'grid'}", GATE, HOPELESS),
        *(f"baselines.dir={tmp_path / 'store'}", *TINY, "exploration.workers=2"),
        *("quantization.word_length=4,5", "seed=0,1"),
    )
    done = launch(*arguments)
    assert done.returncode == 0, done.stderr
    assert "0 done, 0 failed, 4 stopped early" in done.stdout
    basic = launch(*(one for one in arguments if not one.startswith(("launcher", "exploration.w"))))
    assert basic.returncode == 0, basic.stderr
    assert basic.stdout.count("stopped before: ") == 4
