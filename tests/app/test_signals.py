"""What signals do: the exit code of a shell, a line that says how to go on, equal records after."""

import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from qspinn.app.launch import how_to_go_on
from qspinn.records import comparable, read_record

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}

# A program that is stopped while it does what the argument says. Nothing heavy is imported.
PROGRAM = """
import gc, os, signal, sys, time, weakref
from qspinn.app.signals import Stopped, ending_as_stopped, say_on_stop, stop_on_signals
stop_on_signals()
say_on_stop(lambda: "the advice")
what = sys.argv[1]

class Slow:
    def __del__(self):
        print("ready", flush=True)
        time.sleep(2)

if what == "freeing":
    Slow()  # the exception is raised in __del__, where Python drops it
if what == "fork":
    if os.fork() == 0:
        print("ready", os.getpid(), flush=True)
        time.sleep(60)
    print("child ended by", os.wait()[1] & 127, flush=True)
    sys.exit(0)
if what == "stubborn":
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        time.sleep(60)
if what == "swallowing":
    for _ in range(2):
        try:
            print("ready", flush=True)
            time.sleep(60)
        except:
            print("swallowed", flush=True)
if what in ("replacing", "returning"):
    with ending_as_stopped():
        try:
            print("ready", flush=True)
            time.sleep(60)
        except BaseException as error:
            kept = error
            if what == "replacing":
                raise RuntimeError("a hook that failed in consequence")
    print("not reached")
if what == "children":
    if os.fork() == 0:
        os.kill(os.getppid(), signal.SIGTERM)
        os._exit(1)
    def failing(number, frame):
        raise RuntimeError("a loader of data was killed")
    signal.signal(signal.SIGCHLD, failing)
print("ready", flush=True)
try:
    time.sleep(60)
except Exception:
    print("taken for an error")
finally:
    time.sleep(0.5)
"""


def hear_hang_ups():
    """Tests that run under nohup ignore them, and their children would inherit that."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def start(what, repository, **options):
    options.setdefault("preexec_fn", hear_hang_ups)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, what],
        cwd=repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    return process, process.stdout.readline().split()


@pytest.mark.parametrize("number", CODES)
def test_the_exit_code_is_that_of_the_signal(repository, number):
    process, _ = start("sleep", repository)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == CODES[number]
    assert err.strip() == f"stopped by {number.name}: the advice"
    assert out == ""


def test_an_exception_that_python_drops_is_raised_again(repository):
    process, _ = start("freeing", repository)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert err.count("stopped by SIGTERM") == 1


@pytest.mark.parametrize("what", ["swallowing", "replacing", "returning"])
def test_no_code_keeps_the_program_from_ending_as_stopped(repository, what):
    """Such as a bare except, or a hook that fails because of it."""
    process, _ = start(what, repository)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert err.strip() == "stopped by SIGTERM: the advice"
    assert out.startswith("swallowed" if what == "swallowing" else "")
    assert "not reached" not in out


def test_children_that_the_same_signal_ends_are_no_error(repository):
    process, _ = start("children", repository)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert (out, err.strip()) == ("", "stopped by SIGTERM: the advice")


def test_a_forked_loader_sees_the_interrupt_of_any_python_program(repository):
    """Else it would die of it, and be an error of the program that it loads for."""
    process, (_, child) = start("fork", repository)
    os.kill(int(child), signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in err
    assert "stopped" not in err


def test_only_programs_of_qspinn_stop_on_signals():
    """Whoever imports qspinn into a program of their own keeps their handlers."""
    import qspinn.app.launch
    import qspinn.callbacks  # noqa: F401

    for number in CODES:
        handler = signal.getsignal(number)
        assert getattr(handler, "__module__", None) != "qspinn.app.signals"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("run", "hydra.run.dir={}/run"),
        ("my run", "'hydra.run.dir='\"'\"'{}/my run'\"'\"''"),
        ("a,b", "'hydra.run.dir='\"'\"'{}/a,b'\"'\"''"),
    ],
)
def test_the_line_says_what_is_to_be_typed(tmp_path, name, shown):
    """Read back as a shell and Hydra would read it."""
    folder = tmp_path / name
    line = how_to_go_on(OmegaConf.create({}), folder)
    assert line == f"the same command with {shown.format(tmp_path)} starts it anew there"
    argument = next(word for word in shlex.split(line) if word.startswith("hydra.run.dir="))
    assert OverridesParser.create().parse_override(argument).value() == str(folder)
    search = OmegaConf.create({"exploration": {"strategy": "greedy"}})
    assert how_to_go_on(search, folder).endswith(" goes on with what is left")
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    assert how_to_go_on(OmegaConf.create({}), folder).endswith(" goes on from its last checkpoint")


def test_a_second_signal_ends_at_once(repository):
    process, _ = start("stubborn", repository)
    process.send_signal(signal.SIGTERM)
    assert "stopped" in process.stderr.readline() + process.stderr.readline()
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130


def test_what_was_ignored_stays_ignored(repository):
    """As with nohup."""
    process, _ = start(
        "sleep", repository, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    )
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143


def test_a_forked_child_does_what_any_program_does(repository):
    process, (_, child) = start("fork", repository)
    os.kill(int(child), signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert out.strip() == f"child ended by {int(signal.SIGTERM)}"
    assert "stopped" not in err


def wait_for(process, text):
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"{text!r} was never printed: {process.stderr.read()}")


@pytest.mark.slow
def test_a_run_that_is_stopped_ends_in_the_same_record(launch_started, tmp_path):
    """SIGTERM, then SIGINT, then to the end."""
    run = ("quantization.scheme=itq", "quantization.rounding=stochastic", "trainer.max_epochs=6")
    whole = launch_started(*run, f"hydra.run.dir={tmp_path / 'whole'}")
    whole.communicate(timeout=300)
    assert whole.returncode == 0
    folder = tmp_path / "stopped"
    for number, epoch in ((signal.SIGTERM, 1), (signal.SIGINT, 3)):
        process = launch_started(*run, f"hydra.run.dir={folder}")
        wait_for(process, f"epoch {epoch + 1}/6")
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
        assert process.returncode == CODES[number]
        assert f"stopped by {number.name}" in err
        assert f"hydra.run.dir={folder} goes on from its last checkpoint" in err
        assert "Traceback" not in err
        assert not (folder / "failure.json").exists()
        assert not (folder / "record.json").exists()
    process = launch_started(*run, f"hydra.run.dir={folder}")
    process.communicate(timeout=300)
    assert process.returncode == 0
    records = [read_record(tmp_path / name / "record.json") for name in ("whole", "stopped")]
    assert comparable(records[0]) == comparable(records[1])


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "workers"])
def test_a_grid_ends_with_all_its_processes(launch_started, tmp_path, launcher):
    sweep = f"hydra.sweep.dir={tmp_path / 'sweep'}"
    grid = ("-m", "seed=0,1,2", "trainer.max_epochs=2000", sweep, f"launcher={launcher}")
    process = launch_started(*grid, "exploration.workers=2")
    until = time.monotonic() + 200
    while not list(tmp_path.rglob("metrics.csv")) and time.monotonic() < until:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "the same command goes on with what is left" in err
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("failure.json"))
    found = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True)
    assert found.stdout == ""


@pytest.mark.slow
def test_a_signal_to_all_processes_is_one_stop(launch_started, tmp_path):
    """As of a cluster or a terminal: the loaders of data end too, and are no error of the run."""
    many = ("trainer.max_epochs=2000", "data.num_workers=2")
    process = launch_started(*many, f"hydra.run.dir={tmp_path / 'run'}", start_new_session=True)
    wait_for(process, "epoch 2/2000")
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "stopped by SIGTERM" in err
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("failure.json"))
