"""`python select.py`, as people run it."""

import json
import subprocess
import sys
import time

import pytest

from qspinn.records import RunFailure, write_failure, write_record


@pytest.fixture
def outputs(tmp_path, make_record):
    """Four good runs in two folders; the first of these is what `runs` is by default."""
    runs = {
        "outputs/none": make_record(scheme="none", bits=3200, accuracy=0.98),
        "outputs/ptq8": make_record(bits=800, accuracy=0.979, baseline_accuracy=0.98),
        "outputs/itq4": make_record(scheme="itq", bits=400, accuracy=0.975),
        "more/itq2": make_record(scheme="itq", bits=200, accuracy=0.9),
    }
    for name, record in runs.items():
        write_record(record, tmp_path / name / "record.json")
    return tmp_path


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_folders_of_a_sweep_need_no_quotes(run_select, tmp_path, make_record):
    for bits, scheme in ((800, "ptq"), (400, "itq")):
        name = f"outputs/case=small,scheme={scheme}/record.json"
        record = make_record(scheme=scheme, bits=bits, baseline_accuracy=0.98)
        write_record(record, tmp_path / name)
    code, out, err = run_select("runs=outputs/case=small*")
    assert (code, err) == (0, "")
    assert out.startswith("Records: 2 read")
    code, out, err = run_select("runs=outputs/case=small,scheme=itq", "output.dir=chosen=1")
    assert (code, err) == (0, "")
    assert out.startswith("Records: 1 read")
    assert (tmp_path / "chosen=1" / "selection.json").is_file()


def test_paths_are_taken_from_where_the_command_was_started(outputs, run_select):
    code, out, err = run_select(
        "hydra.job.chdir=true",
        "hydra.run.dir=elsewhere",
        "runs=[outputs,more/*/record.json]",
        "output.dir=chosen",
        "output.json=one.json",
    )
    assert (code, err) == (0, "")
    assert out.startswith("Records: 4 read")
    assert (outputs / "chosen" / "selection.html").is_file()
    assert (outputs / "one.json").is_file()


def test_what_is_deleted_is_no_bound_and_no_file(outputs, run_select):
    before = files(outputs)
    code, out, err = run_select(
        "~target.max_drop", "~output", "~show", "~allow_mixed", "~group_seeds"
    )
    assert (code, err) == (0, "")
    assert "Winner: " in out
    assert files(outputs) == before
    for key, shown, says in (
        ("target", "target=None", "the keys are"),
        ("reward", "reward=None", "write reward._"),
        ("runs", "runs=null", "write a"),
    ):
        code, _, err = run_select(f"~{key}")
        assert code == 1
        assert shown in err
        assert says in err
        assert "Traceback" not in err


def test_the_default_selects_in_outputs_and_leaves_nothing_behind(outputs, run_select):
    before = files(outputs)
    code, out, err = run_select()
    assert (code, err) == (0, "")
    assert out.startswith("Records: 3 read, 0 skipped\n")
    assert "Winner: outputs/itq4/record.json has the best reward" in out
    assert "\x1b" not in out
    assert files(outputs) == before


def test_folders_globs_and_lists(outputs, run_select):
    code, out, _ = run_select("runs=[outputs/n*,outputs/ptq8,more]")
    assert code == 0
    assert "Records: 3 read" in out
    assert "Winner: outputs/ptq8/" in out
    assert run_select("runs=*")[1].startswith("Records: 4 read")
    assert run_select("runs=outputs/ptq8/record.json")[1].startswith("Records: 1 read")


def test_settings_reach_the_selection(outputs, run_select):
    assert "Winner: outputs/none/" in run_select("reward.mu=0", "target.max_drop=0.001")[1]
    out = run_select("runs=*", "target.max_drop=null", "target.max_bits=300", "reward.mu=2")[1]
    assert "Winner: more/itq2/" in out
    assert "footprint 400 bits, 100 too many" in out
    assert "... and 2 more" in run_select("runs=*", "target.max_bits=300", "show=2")[1]


def test_a_reward_of_ones_own(outputs, run_select, monkeypatch):
    (outputs / "mine.py").write_text(
        "class Small:\n"
        "    def __init__(self, power): self.power = power\n"
        "    def __call__(self, record): return -(record.footprint_bits ** self.power)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(outputs))
    code, out, err = run_select("reward._target_=mine.Small", "~reward.mu", "+reward.power=1")
    assert (code, err) == (0, "")
    assert "Reward: mine.Small\n" in out
    assert "Winner: outputs/itq4/" in out


def test_broken_records_are_named_and_counted(outputs, run_select):
    for name, content in {"half": '{"accuracy": 0.9', "old": '{"schema_version": 0}'}.items():
        (outputs / "outputs" / name).mkdir()
        (outputs / "outputs" / name / "record.json").write_text(content)
    code, out, err = run_select("output.json=made/selection.json")
    assert code == 0
    assert out.startswith("Records: 3 read, 2 skipped\n")
    skipped = err.splitlines()
    assert skipped[0].startswith("skipped: outputs/half/record.json: corrupt or half-written JSON")
    assert skipped[1].startswith("skipped: outputs/old/record.json: field 'schema_version'")
    written = json.loads((outputs / "made" / "selection.json").read_text())
    assert written["winner"] == "outputs/itq4/record.json"
    assert len(written["skipped"]) == 2
    assert "Written: made/selection.json" in out


def test_failed_runs_are_named_and_counted(outputs, run_select):
    failure = RunFailure(
        error="ArithmeticError",
        message="diverged\nand more",
        traceback="",
        config={},
        created="2026-01-02T03:04:05+00:00",
    )
    write_failure(failure, outputs / "outputs" / "bad" / "failure.json")
    write_failure(failure, outputs / "outputs" / "ptq8" / "failure.json")  # mended later
    code, out, err = run_select("output.json=selection.json")
    assert code == 0
    assert out.startswith("Records: 3 read, 0 skipped, 1 failed\n")
    assert err == "failed: outputs/bad/failure.json: ArithmeticError: diverged\n"
    written = json.loads((outputs / "selection.json").read_text())
    assert written["failed"] == ["outputs/bad/failure.json: ArithmeticError: diverged"]


def test_a_folder_gets_everything_and_the_table_reads_back(outputs, run_select, make_record):
    again = make_record(bits=800, accuracy=0.977, seed=1, baseline_accuracy=0.98)
    write_record(again, outputs / "outputs" / "ptq8-1" / "record.json")
    code, out, err = run_select("output.dir=made")
    assert (code, err) == (0, "")
    names = ["front.png", "front.svg", "selection.csv", "selection.html", "selection.json"]
    assert files(outputs / "made") == names
    assert [line for line in out.splitlines() if line.startswith("Written")] == [
        f"Written: made/{name}"
        for name in ("selection.json", "selection.csv", "front.png", "front.svg", "selection.html")
    ]
    assert (outputs / "made" / "front.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (outputs / "made" / "front.svg").read_text()
    chosen = json.loads((outputs / "made" / "selection.json").read_text())
    grouped = {tuple(row["seeds"]): row for row in chosen["candidates"]}
    assert grouped[0, 1]["accuracy"] == pytest.approx(0.978)
    assert grouped[0, 1]["accuracy_std"] == pytest.approx(0.001 * 2**0.5)
    assert 0 < chosen["hypervolume"] < 1
    assert chosen["choices"][0]["from_mu"] == 0
    assert chosen["choices"][-1]["to_mu"] is None
    code, again, _ = run_select("runs=made/selection.csv")
    assert code == 0
    without_files = [line for line in out.splitlines() if not line.startswith("Written")]
    assert again.splitlines() == without_files


def test_seeds_can_be_kept_apart(outputs, run_select, make_record):
    again = make_record(bits=800, accuracy=0.977, seed=1, baseline_accuracy=0.98)
    write_record(again, outputs / "outputs" / "ptq8-1" / "record.json")
    assert "of 3 candidates" in run_select()[1]
    assert "of 4 candidates" in run_select("group_seeds=false")[1]


def test_no_candidate_exits_with_1_and_names_the_nearest(outputs, run_select):
    code, out, err = run_select("target.min_accuracy=0.999", "output.json=selection.json")
    assert code == 1
    assert "Dropped: 3" in out
    assert "No run meets the target" in err
    assert "The nearest is outputs/none/record.json: accuracy 98.00%, 1.90 points too low" in err
    assert json.loads((outputs / "selection.json").read_text())["winner"] is None


@pytest.mark.few(0.25)
@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["runs=absent"], "'absent' is no file, no folder and matches nothing as a glob"),
        (["runs=empty"], "no usable record.json below empty (0 read, 0 skipped)"),
        (["runs=[]"], "runs=[]; write a folder"),
        (["runs=null"], "runs=null; write a folder"),
        (["runs=[1]"], "runs=[1]; write a folder"),
        (["target.max_drop=lots"], "target.max_drop='lots' is not a number"),
        (["target=null"], "the keys are max_drop, min_accuracy, max_bits"),
        (["+target.max_loss=1"], "the keys are max_drop, min_accuracy, max_bits"),
        (["reward.mu=-1"], "reward.mu=-1 is not a finite number"),
        (["reward._target_=qspinn.selection.Nothing"], "Nothing"),
        (["reward=null"], "reward=None is no callable"),
        (["allow_mixed=maybe"], "allow_mixed='maybe'; write true or false"),
        (["group_seeds=maybe"], "group_seeds='maybe'; write true or false"),
        (["runs=absent.csv"], "absent.csv cannot be read as a table"),
        (["runs=wandb:me"], "write wandb:entity/project"),
        (["output.dir=3"], "output.dir=3; write a path"),
        (["show=-1"], "show=-1; write a number of rows, few or all"),
        (["tagret.max_drop=0.1"], "Key 'tagret' is not in struct"),
        (["target.max_dorp=0.1"], "Key 'max_dorp' is not in struct"),
    ],
)
def test_mistakes_are_explained_without_a_traceback(outputs, run_select, overrides, says):
    (outputs / "empty").mkdir()
    code, _, err = run_select(*overrides)
    assert code == 1
    assert says in err
    assert "Traceback" not in err


def test_mixed_runs_are_refused_unless_asked_for(outputs, run_select, make_record):
    other = make_record(network="other", baseline_accuracy=0.97)
    write_record(other, outputs / "outputs" / "other" / "record.json")
    code, _, err = run_select()
    assert code == 1
    assert "network other: 1 run" in err
    assert run_select("allow_mixed=true")[0] == 0


def test_it_imports_nothing_heavy_and_starts_at_once(repository):
    code = (
        "import sys, qspinn.app.choose.select;"
        "print({'torch', 'lightning', 'numpy', 'pandas', 'wandb', 'matplotlib'} & set(sys.modules))"
    )
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True
        )
        seconds.append(time.perf_counter() - start)
        assert done.stdout.strip() == "set()"
    # About 0.25 s on a free machine; importing torch alone takes longer than this bound.
    assert min(seconds) < 1.0


def test_a_reward_that_needs_what_a_record_lacks_says_so(outputs, run_select):
    code, _, err = run_select("reward._target_=qspinn.selection.FaithfulReward")
    assert code == 1
    assert err.startswith("select.py: FaithfulReward: the run of conv_snn with scheme ")
    assert "fidelity_samples=0" in err
