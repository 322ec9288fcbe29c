"""train.py as people start it, in processes of its own."""

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from qspinn.records import find_records, read_failure, read_record

ONE_EPOCH = "trainer.max_epochs=1"


def test_a_bad_value_is_one_line_and_an_exit_code(launch_anew, tmp_path):
    done = launch_anew("quantization.word_length=0", f"hydra.run.dir={tmp_path}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: quantization: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "record.json").exists()


def test_an_unknown_key_is_an_error(launch, tmp_path):
    done = launch("network.time_stepz=3", f"hydra.run.dir={tmp_path}")
    assert done.returncode == 1
    assert "time_stepz" in done.stderr


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_bad_job_and_after_a_restart(launch, tmp_path):
    sweep = (
        "--multirun",
        ONE_EPOCH,
        "seed=1,2",
        "quantization.word_length=4,0",
        f"hydra.sweep.dir={tmp_path}",
    )
    done = launch(*sweep)
    assert done.returncode == 1
    assert "word_length=0; write 1 to 24" in done.stderr
    records = [read_record(path) for path in find_records(tmp_path)]
    assert sorted((r.seed, r.word_lengths["weight"]) for r in records) == [(1, [4]), (2, [4])]
    failures = [read_failure(path) for path in sorted(tmp_path.glob("*/failure.json"))]
    assert {failure.config["seed"] for failure in failures} == {1, 2}
    assert all(failure.error == "ConfigurationError" for failure in failures)
    assert "word_length=0; write 1 to 24" in failures[0].message
    again = launch(*(a.replace("4,0", "4") for a in sweep))
    assert again.returncode == 0, again.stderr
    # Other overrides, the same two jobs: their folders are found again by their names.
    assert again.stdout.count("is the record of this run already") == 2
    assert "epoch 1/1" not in again.stdout


@pytest.mark.slow
def test_a_pipe_gets_no_escape_codes_and_a_terminal_gets_a_bar(launch_anew, repository, tmp_path):
    arguments = ("progress=auto", ONE_EPOCH, f"hydra.run.dir={tmp_path}", "fresh=true")
    piped = launch_anew(*arguments)
    assert piped.returncode == 0, piped.stderr
    assert "\x1b" not in piped.stdout + piped.stderr
    assert "\r" not in piped.stdout + piped.stderr
    assert "epoch 1/1  train/loss" in piped.stdout
    from_terminal = run_on_terminal([*piped.args[1:]], repository)
    assert "epoch 1/1: 100%" in from_terminal
    assert "membrane (bits)" in from_terminal


def run_on_terminal(arguments: list[str], folder: Path) -> str:
    """Run Python with a pseudo-terminal as its output, and return what it wrote."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 120))
    with subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                chunk = os.read(ours, 4096)
            except OSError:  # Linux's way to say that the other side is closed
                break
            if not chunk:
                break
            written += chunk
    os.close(ours)
    assert process.returncode == 0, written
    return written.decode()
