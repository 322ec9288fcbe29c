"""The table of runs: what is written reads back, and what is wrong is named."""

import csv

import pytest

from qspinn.records import RecordError
from qspinn.report.table import NEEDED, read_table, write_table
from qspinn.selection import Run, Target, select

SUMMARY = {
    "parameters": {"quantized": 60, "total": 64},
    "states": {"quantized": 10, "total": 10},
    "lines": [],
}


@pytest.fixture
def runs(make_record):
    base = {"baseline_accuracy": 0.98}
    roles = {
        "footprint_bits_by_role": {"weight": 600, "membrane": 200},
        "word_lengths": {"weight": [4, 8], "membrane": [10]},
    }
    return [
        Run(
            "a,\"b'/record.json",
            make_record(bits=800, accuracy=0.1 + 0.87, **base, **roles, summary=SUMMARY),
        ),
        Run("a/1", make_record(bits=800, accuracy=0.99, seed=1, **base, **roles)),
        Run("c", make_record(bits=400, accuracy=0.9, scheme="itq", rounding="stochastic")),
        Run("d\nline", make_record(bits=3200, scheme="none", accuracy=0.98)),
        Run("e", make_record(bits=1600, accuracy=0.97, status="interrupted", **base)),
    ]


def test_a_selection_reads_back_as_the_same_selection(runs, tmp_path):
    chosen = select(runs, Target(max_drop=0.02))
    path = write_table(chosen, tmp_path / "made" / "selection.csv")
    found = list(read_table(path))
    assert all(isinstance(run, Run) for run in found)
    again = select(found, Target(max_drop=0.02))
    assert [row.group.path for row in again.rows] == [row.group.path for row in chosen.rows]
    assert [row.reward for row in again.rows] == [row.reward for row in chosen.rows]
    assert [item.reasons for item in again.dropped] == [item.reasons for item in chosen.dropped]
    assert again.reason == chosen.reason
    assert again.hypervolume == chosen.hypervolume
    first = {run.path: run.record for run in found}["a,\"b'/record.json"]
    assert first.summary == SUMMARY
    assert first.word_lengths == {"weight": [4, 8], "membrane": [10]}
    assert first.footprint_bits_by_role == {"weight": 600, "membrane": 200}
    assert write_table(again, tmp_path / "again.csv").read_bytes() == path.read_bytes()


def test_what_a_device_holds_reads_back(make_record, tmp_path):
    target = Target.of({"flash": "700bit", "ram": "200bit", "energy": "2nJ"})
    measured = {
        "flash_bits": 650,
        "ram_bits": 150,
        "learning_ram_bits": 780,
        "fidelity": {"agreement": 0.9},
        "work": {"energy_nj": 1.5},
        "device_model": {"file_bytes": 100},
    }
    runs = [Run("a", make_record(**measured)), Run("b", make_record(setting_key="1" * 64))]
    path = write_table(select(runs, target), tmp_path / "selection.csv")
    found = {run.path: run.record for run in read_table(path)}
    for name, value in measured.items():
        assert getattr(found["a"], name) == value
        assert getattr(found["b"], name) is None
    again = select([Run(path, record) for path, record in found.items()], target)
    assert again.winner.group.path == "a"
    with open(path, newline="", encoding="utf-8") as file:
        assert [row["number"] for row in csv.DictReader(file)] == ["1", "2"]


def test_the_columns_say_what_became_of_each_run(runs, tmp_path):
    path = write_table(select(runs, Target(max_drop=0.02)), tmp_path / "selection.csv")
    with open(path, newline="", encoding="utf-8") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert rows["a,\"b'/record.json"]["quantized_parameters_share"] == "0.9375"
    assert rows["a,\"b'/record.json"]["quantized_states_share"] == "1.0"
    assert rows["a/1"]["quantized_parameters_share"] == ""
    assert rows["a/1"]["state"] == "front"
    assert rows["a/1"]["runs"] == "2"
    assert float(rows["a/1"]["mean_accuracy"]) == pytest.approx(0.98)
    assert rows["c"]["state"] == "dropped"
    assert "points of accuracy" in rows["c"]["reasons"]
    assert rows["e"]["reasons"].startswith("the run is interrupted")


HEAD = ",".join(NEEDED)


def written(tmp_path, *lines, head=HEAD):
    path = tmp_path / "table.csv"
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


def test_a_table_made_by_hand(tmp_path):
    path = written(
        tmp_path,
        "ptq,nearest,net,data,0,0.9,800,3200",
        "ptq,nearest,net,data,1,0.8,800,3200",
        "",
        "none,,net,data,0,0.95,3200,3200",
    )
    runs = list(read_table(path))
    chosen = select(runs, Target(max_drop=None))
    assert sorted(len(row.group.runs) for row in chosen.rows) == [1, 2]
    assert runs[0].path == f"{path}, line 2"
    # The 32-bit run of the same seed is the baseline of the others.
    by_seed = {group.seeds: group.baseline_accuracy for row in chosen.rows if (group := row.group)}
    assert by_seed == {(0,): 0.95, (0, 1): None}
    alone = select(runs, Target(max_drop=0.06), group_seeds=False)
    assert next(row.group.drop for row in alone.rows) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("ptq,nearest,net,data,0,0.9,800", "7 cells under 8 columns"),
        ("ptq,nearest,net,data,zero,0.9,800,3200", "column 'seed': 'zero' is not a whole number"),
        ("ptq,nearest,net,data,0,high,800,3200", "column 'accuracy': 'high' is not a number"),
        ("ptq,nearest,net,data,0,nan,800,3200", "'accuracy': got nan"),
        ("ptq,nearest,net,data,0,90,800,3200", "'accuracy': got 90.0"),
        ("ptq,nearest,net,data,0,0.9,,3200", "column 'footprint_bits' is empty"),
        ("ptq,nearest,net,data,0,0.9,8.5,3200", "'8.5' is not a whole number"),
        ("ptq,,net,data,0,0.9,800,3200", "field 'rounding'"),
        ("qat,nearest,net,data,0,0.9,800,3200", "'scheme': got 'qat'"),
        ("ptq,nearest,,data,0,0.9,800,3200", "'network': got ''"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, line, says):
    good = "ptq,nearest,net,data,0,0.9,800,3200"
    first, second = read_table(written(tmp_path, line, good))
    assert isinstance(first, str)
    assert first.startswith(f"{tmp_path}/table.csv, line 2: ")
    assert says in first
    assert isinstance(second, Run)


def test_pairs_that_are_none(tmp_path):
    path = written(
        tmp_path,
        "ptq,nearest,net,data,0,0.9,800,3200,weight",
        "ptq,nearest,net,data,0,0.9,800,3200,weight=8/x",
        head=HEAD + ",word_lengths",
    )
    first, second = read_table(path)
    assert "write role=value pairs such as weight=8" in first
    assert "column 'word_lengths': 'x' is not a whole number" in second


@pytest.mark.parametrize(
    ("head", "says"),
    [
        ("scheme,rounding", "Missing columns: network, data, seed"),
        (HEAD + ",colour", "unknown columns: colour"),
        (HEAD + ",seed", "each once"),
        ("", "Missing columns: scheme"),
    ],
)
def test_what_is_no_table_of_runs(tmp_path, head, says):
    with pytest.raises(RecordError, match=says):
        list(read_table(written(tmp_path, head=head)))


def test_a_file_that_is_no_text(tmp_path):
    with pytest.raises(RecordError, match="cannot be read as a table"):
        list(read_table(tmp_path / "absent.csv"))
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecordError, match="cannot be read as a table"):
        list(read_table(tmp_path / "bytes.csv"))
