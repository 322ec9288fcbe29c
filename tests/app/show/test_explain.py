"""`python -m qspinn.explain`, as people run it."""

import subprocess
import sys

import pytest

from qspinn.records import RunFailure, write_failure, write_record


@pytest.fixture
def explain(repository, tmp_path):
    """Return a function that runs it in a folder of its own: (code, out, err)."""

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "qspinn.explain", *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(repository), "PATH": ""},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def outputs(tmp_path, make_record):
    for name in ("a=1,b=[2]", "c"):
        record = make_record(network=f"net_{name[0]}", fidelity={"agreement": 0.5})
        write_record(record, tmp_path / "outputs" / name / "record.json")
    return tmp_path / "outputs"


def test_a_folder_or_its_record_is_explained(explain, outputs):
    for path in ("outputs/a=1,b=[2]", "outputs/a=1,b=[2]/record.json"):
        code, out, err = explain(f"run={path}")
        assert (code, err) == (0, "")
        assert out.startswith("net_a on mnist_subset")
        assert "50.00% of the samples" in out
        assert "\x1b" not in out
        assert max(map(len, out.splitlines())) <= 80


def test_a_folder_around_one_run_is_enough(explain, outputs):
    (outputs / "c" / "record.json").unlink()
    assert explain("run=outputs")[:2] == explain("run=outputs/a=1,b=[2]")[:2]


def test_of_several_runs_one_has_to_be_named(explain, outputs):
    code, out, err = explain("run=outputs")
    assert (code, out) == (1, "")
    assert err == (
        "explain: outputs holds 2 runs; write run= with one of outputs/a=1,b=[2], outputs/c\n"
    )


def test_what_is_no_run_is_named(explain, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "record.json").write_text('{"schema_version": 1}')
    failure = RunFailure(
        error="RuntimeError", message="no\x1b[2J luck", traceback="", config={},
        created="2026-01-02T03:04:05+00:00",
    )  # fmt: skip
    write_failure(failure, tmp_path / "failed" / "failure.json")
    expected = {
        "run=gone": "explain: gone: no such file",
        "run=empty": "explain: empty holds no record.json: a run writes it when it has ended",
        "run=failed": "explain: failed: the run failed with RuntimeError: no\\x1b[2J luck",
        "run=record.json": "explain: record.json: field 'network' is missing",
    }
    for argument, says in expected.items():
        code, out, err = explain(argument)
        assert (code, out) == (1, "")
        assert err.startswith(says.replace("network", "accuracy") if "json:" in says else says)
        assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [[], ["run="], ["outputs"], ["run=a", "run=b"], ["runs=a"]])
def test_another_command_line_is_answered_with_how_to_write_it(explain, arguments):
    code, out, err = explain(*arguments)
    assert (code, out) == (2, "")
    assert "one argument is needed" in err
    assert "python -m qspinn.explain run=outputs/" in err


def test_help_is_no_error(explain):
    code, out, err = explain("--help")
    assert (code, err) == (0, "")
    assert out.startswith("Explain one run")
