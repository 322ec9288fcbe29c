"""Explorations that decide what to evaluate, on tiny networks."""

import json
import random
import shutil

import pytest

from qspinn.app.errors import ConfigurationError
from qspinn.app.explore.exploring import Evaluation
from qspinn.app.explore.strategies import explore_by_strategy
from qspinn.records import find_records, read_record
from qspinn.selection import dominates

LAYERED = "exploration.unit=layer"
CHEAP = (
    "trainer.max_epochs=1",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
    "quantization.calibration_batches=1",
    "exploration.word_lengths=[3,5]",
)


@pytest.fixture(scope="module")
def swept(composed, tmp_path_factory):
    """Return a folder: in out/ each role alone at two word lengths, and in store/ the baseline.

    Searches start from copies of it, as one does that was stopped after its sweep.
    """
    folder = tmp_path_factory.mktemp("swept")
    store = f"baselines.dir={folder / 'store'}"
    explore_by_strategy(composed(*CHEAP, "experiment=significance", store), folder / "out")
    return folder


def test_significance_leaves_a_table_a_picture_and_records(swept, composed, tmp_path, capsys):
    shutil.copytree(swept, tmp_path, dirs_exist_ok=True)
    table = json.loads((tmp_path / "out" / "significance.json").read_text())
    roles = {"weight", "bias", "membrane", "threshold", "decay", "input"}
    assert {row["name"] for row in table} == roles
    assert {row["role"]: row["values"] for row in table}["input"] == 0
    assert all([p["word_length"] for p in row["points"]] == [3, 5] for row in table)
    assert (tmp_path / "out" / "significance.png").stat().st_size > 10_000
    records = [read_record(path) for path in find_records(tmp_path / "out")]
    assert len(records) == 12
    for record in records:  # one role in fixed point, the others as they were
        (role,) = record.word_lengths
        others = {r: bits for r, bits in record.footprint_bits_by_role.items() if r != role}
        baseline = record.baseline_footprint_bits_by_role
        assert others == {r: bits for r, bits in baseline.items() if r != role}
    assert len(list((tmp_path / "store").glob("*/baseline.json"))) == 1
    capsys.readouterr()
    config = composed(*CHEAP, "experiment=significance", f"baselines.dir={tmp_path / 'store'}")
    explore_by_strategy(config, tmp_path / "out")  # started again, it has all records
    assert "alone" in str(next(iter(find_records(tmp_path / "out"))))


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "count"), [("bayesian", 12), ("gp", 0), ("nsga2", 12)])
def test_a_search_leaves_its_front(composed, swept, tmp_path, strategy, count):
    if strategy != "bayesian":
        pytest.importorskip("optuna", reason="not installed: pip install '.[search]'")
    shutil.copytree(swept / "store", tmp_path / "store")
    if count:
        shutil.copytree(swept / "out" / "alone", tmp_path / "out" / "alone")
    config = composed(
        *CHEAP,
        "experiment=search",
        f"exploration.strategy={strategy}",
        f"exploration.evaluations={count + 6}",
        f"baselines.dir={tmp_path / 'store'}",
    )
    explore_by_strategy(config, tmp_path / "out")
    found = json.loads((tmp_path / "out" / "search.json").read_text())
    assert found["evaluations_before"] == count
    assert len(found["evaluated"]) == 6
    alone = [row["word_lengths"] for row in found["alone"]]
    assert len(alone) == count
    assert not count or {"weight": 3} in alone
    assert not count or {"weight": 5} in alone
    assert (tmp_path / "out" / "significance.json").exists() == bool(count)
    known = [*found["alone"], *found["evaluated"]]
    points = [(row["footprint_bits"], row["accuracy"]) for row in known]
    for row in known:  # the front is of all that was evaluated
        point = (row["footprint_bits"], row["accuracy"])
        assert (row in found["front"]) == (not any(dominates(other, point) for other in points))
    records = [read_record(path) for path in find_records(tmp_path / "out" / "mixed")]
    measured = {(r.footprint_bits, r.validation_accuracy) for r in records}
    assert measured == {(row["footprint_bits"], row["accuracy"]) for row in found["evaluated"]}
    for row in found["evaluated"]:
        assert row["word_lengths"].keys() == {"weight", "bias", "membrane", "threshold", "decay"}


@pytest.mark.few(0.2)
@pytest.mark.parametrize("strategy", ["significance", "bayesian", "gp", "greedy", "nsga2"])
def test_what_is_found_does_not_depend_on_test_figures(
    composed, make_record, tmp_path, monkeypatch, strategy
):
    """Made-up candidates: validation accuracies by their sizes, test accuracies by chance."""
    import qspinn.app.explore.strategies as strategies

    if strategy in ("gp", "nsga2"):
        pytest.importorskip("optuna", reason="not installed: pip install '.[search]'")

    def evaluated_by(chance):
        def explore(candidates, workers):
            for candidate in candidates:
                rules = candidate.config.quantization.rules
                lengths = {rule.role: rule.word_length for rule in rules if "word_length" in rule}
                bits = sum(100 * length for length in lengths.values())
                record = make_record(
                    bits=bits + 3200,
                    baseline_bits=9000,
                    accuracy=chance.random(),
                    baseline_accuracy=chance.random(),
                    validation_accuracy=1 - 1 / (bits + 3),
                    validation_baseline_accuracy=1.0,
                    word_lengths={role: [length] for role, length in lengths.items()},
                    formats={
                        role: {"role": role, "format": "-", "rounding": "-", "overflow": "-"}
                        for role in lengths
                    },
                )
                yield Evaluation(candidate, record, None, 0.0)

        return explore

    monkeypatch.setattr(strategies, "report", lambda evaluations, count: list(evaluations))
    found = []
    for seed in (1, 2):
        monkeypatch.setattr(strategies, "explore", evaluated_by(random.Random(seed)))
        out = tmp_path / str(seed)
        config = composed(
            "experiment=search",
            f"exploration.strategy={strategy}",
            "exploration.word_lengths=[3,5]",
            "exploration.evaluations=20",
        )
        returned = explore_by_strategy(config, out)
        found.append([returned, *(file.read_text() for file in sorted(out.glob("*.json")))])
    assert found[0] == found[1]
    assert len(found[0]) == (2 if strategy in ("significance", "gp") else 3)


@pytest.mark.slow
def test_candidates_that_fail_are_told_in_the_end(composed, tmp_path, monkeypatch):
    import qspinn.app.explore.strategies as strategies

    original = strategies.explore

    def failing(candidates, workers):
        for candidate in candidates:
            if "bias=5" in candidate.folder.name:
                candidate.config.quantization.word_length = 0
        return original(candidates, workers)

    monkeypatch.setattr(strategies, "explore", failing)
    config = composed(
        *CHEAP,
        "experiment=significance",
        "exploration.roles=[bias,decay]",
        f"baselines.dir={tmp_path / 'store'}",
    )
    with pytest.raises(RuntimeError, match="1 candidates failed"):
        explore_by_strategy(config, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("alone/*/failure.json"))) == 1
    assert len(list(find_records(tmp_path / "out"))) == 3


@pytest.mark.slow
def test_layers_have_precisions_of_their_own(composed, tmp_path):
    config = composed(
        *CHEAP,
        LAYERED,
        "experiment=search",
        "exploration.word_lengths=[4]",
        "exploration.evaluations=24",  # 21 groups, and three combinations
        "exploration.strategy=greedy",
        f"baselines.dir={tmp_path / 'store'}",
    )
    explore_by_strategy(config, tmp_path / "out")
    table = json.loads((tmp_path / "out" / "significance.json").read_text())
    assert sum(row["role"] == "weight" for row in table) == 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["exploration.strategy=magic"], "strategy='magic'; write null or one of significance"),
        (["exploration.unit=neuron"], "unit='neuron'; write one of role, layer"),
        (["exploration.roles=[theta]"], r"roles=\['theta'\]; write null, or a list of bias, decay"),
        (["exploration.roles=weight"], "roles='weight'; write null, or a list of"),
        (["exploration.word_lengths=8"], "word_lengths=8; write a list"),
        (["exploration.word_lengths=[0,8]"], "word_lengths=.*from 1 to 24"),
        (["exploration.workers=0"], "workers=0; write a number of processes"),
        (["exploration.strategy=gp", "exploration.evaluations=0"], "=0; write 1 or more"),
        (["quantization.scheme=none"], "no precision to explore"),
        (["exploration.by=luck"], "by='luck'; write validation or test"),
        (["trainer.limit_val_batches=0"], "nothing is held out of the training data; write"),
    ],
)
def test_bad_values_are_reported(composed, tmp_path, overrides, message):
    config = composed("experiment=significance", *overrides)
    with pytest.raises(ConfigurationError, match=message):
        explore_by_strategy(config, tmp_path)
    assert not list(tmp_path.iterdir())
