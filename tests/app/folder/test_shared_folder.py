"""Several runs that meet in one folder: nothing is lost, and nothing is mixed."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hydra import compose, initialize_config_dir

from qspinn.app.compose.completing import complete, to_plain
from qspinn.app.errors import ConfigurationError
from qspinn.app.explore.exploring import Candidate, evaluate
from qspinn.app.folder.failures import record_failure
from qspinn.app.folder.folder import RunFolder
from qspinn.app.folder.lock import LOCK_NAME, holder_of, locked
from qspinn.app.folder.new_folder import OutputFolder, check_output
from qspinn.app.folder.ownership import FolderError
from qspinn.app.run.train import train
from qspinn.records import comparable, find_records, read_record

ONE_EPOCH = "trainer.max_epochs=1"
PATIENCE = 120

# Takes the lock of a folder, says so, forks a child that lives on, and waits to be killed.
HOLDER = """
import os, sys, time
from pathlib import Path
from qspinn.app.folder.lock import locked
with locked(Path(sys.argv[1]), {"seed": 0}, lambda holder: None):
    if sys.argv[2] == "fork" and os.fork() == 0:
        time.sleep(600)
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def hold(tmp_path):
    """Return a function that has another process take the lock of a folder."""
    started = []

    def start(*, fork=False):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path), "fork" if fork else "alone"],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)  # the child of a killed process as well
        process.wait()


def in_threads(function, tasks):
    """Run a task per thread, all begun at once; return results, or the errors."""
    start = threading.Barrier(len(tasks))

    def run(task):
        start.wait(PATIENCE)
        try:
            return function(task)
        except ConfigurationError as error:
            return error

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(run, tasks))


def values_of(composed, *overrides):
    return to_plain(complete(composed(*overrides)))


def test_a_lock_is_one_threads_at_a_time_and_leaves_nothing(tmp_path):
    inside, most = [], []

    def work(number):
        with locked(tmp_path, {"seed": number}, lambda holder: None) as is_new:
            assert is_new
            with locked(tmp_path, None, lambda holder: None) as again:
                assert not again
            inside.append(number)
            most.append(len(inside))
            assert holder_of(tmp_path).config == {"seed": number}
            time.sleep(0.01)
            inside.remove(number)

    assert in_threads(work, range(5)) == [None] * 5
    assert most == [1] * 5
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_holds_nothing_nor_do_its_children(hold, tmp_path):
    process = hold(fork=True)
    holder = holder_of(tmp_path)
    assert (holder.process, holder.config) == (process.pid, {"seed": 0})
    with pytest.raises(RuntimeError, match="busy"), locked(tmp_path, None, _busy):
        pass
    process.kill()
    process.wait()
    with locked(tmp_path, None, lambda holder: time.sleep(0.01)) as is_new:
        assert is_new
    assert not (tmp_path / LOCK_NAME).exists()


def _busy(holder):
    raise RuntimeError("busy")


def test_another_configuration_is_refused_at_once_while_one_runs(composed, hold, tmp_path):
    holder = hold()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(FolderError, match=rf"in use by process {holder.pid} on .*seed: 0 there, 5"):
        train(composed(ONE_EPOCH, "seed=5"), tmp_path)
    error = FolderError("that folder is not this run's")
    record_failure(composed("seed=5"), tmp_path, error)
    record_failure(composed("seed=5"), tmp_path, ValueError("a late one"))
    done = evaluate(Candidate(composed(ONE_EPOCH, "seed=5"), tmp_path))
    assert "in use by" in done.error
    with pytest.raises(FolderError, match="fresh=true deletes nothing under a run"):
        train(composed(ONE_EPOCH, "fresh=true"), tmp_path)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_the_same_configuration_waits_and_reports_the_record_as_its_own(composed, tmp_path, capsys):
    config = composed(ONE_EPOCH)
    folder = RunFolder(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        with folder.held(to_plain(complete(config))):
            waiting = pool.submit(train, config, tmp_path)
            until(lambda: "waiting for the run in" in capsys.readouterr().out)
            record = train(config, tmp_path)
        assert waiting.result(PATIENCE) == record
    assert "is the record of this run already" in capsys.readouterr().out
    assert not (tmp_path / LOCK_NAME).exists()


def until(condition):
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


@pytest.mark.slow
def test_a_failure_is_not_written_beside_a_record_or_into_another_runs_folder(composed, tmp_path):
    train(composed(ONE_EPOCH), tmp_path)
    record_failure(composed(ONE_EPOCH), tmp_path, ValueError("too late"))
    assert not (tmp_path / "failure.json").exists()
    (tmp_path / "record.json").unlink()
    record_failure(composed(ONE_EPOCH, "seed=7"), tmp_path, ValueError("of another run"))
    assert not (tmp_path / "failure.json").exists()
    record_failure(complete(composed(ONE_EPOCH)), tmp_path, ValueError("of this one"))
    assert (tmp_path / "failure.json").exists()
    train(composed(ONE_EPOCH), tmp_path)
    assert not (tmp_path / "failure.json").exists()


def test_a_failure_beside_a_finished_record_is_forgotten(composed, tmp_path):
    record = train(composed(ONE_EPOCH), tmp_path)
    (tmp_path / "record.json").rename(tmp_path / "kept")
    record_failure(complete(composed(ONE_EPOCH)), tmp_path, ValueError("while importing"))
    (tmp_path / "kept").rename(tmp_path / "record.json")
    assert train(composed(ONE_EPOCH), tmp_path) == record
    assert not (tmp_path / "failure.json").exists()


def test_a_folder_whose_file_system_cannot_lock_is_told_so(tmp_path, monkeypatch):
    import errno
    import fcntl

    def cannot(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", cannot)
    before = os.listdir("/dev/fd")
    with pytest.raises(FolderError, match="cannot lock files"), locked(tmp_path, None, _busy):
        pass
    assert os.listdir("/dev/fd") == before
    with open(tmp_path / "other", "w") as file:  # its descriptor has the number of the lock's
        child = os.fork()
        if child == 0:  # what forks closes locks, and nothing else
            os._exit(not os.path.exists(f"/dev/fd/{file.fileno()}"))
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.slow
def test_ten_runs_with_the_default_folder_have_ten(repository, tmp_path, monkeypatch):
    import qspinn.app.run.train  # noqa: F401  (registers the resolvers)

    monkeypatch.chdir(tmp_path)
    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        # The default, but with one name for all, as within one second.
        same = "hydra.run.dir='${qspinn.new_folder:outputs/${now:%Y}/same}'"
        configs = [compose("train", [same], return_hydra_config=True) for _ in range(10)]
        default = compose("train", [], return_hydra_config=True)
    assert default.hydra.run.dir.startswith("outputs/")  # looking at it makes nothing
    assert not (tmp_path / "outputs").exists()
    in_threads(lambda config: OutputFolder().on_run_start(config), configs)
    names = sorted(config.hydra.run.dir.rpartition("/")[2] for config in configs)
    assert names == ["same", "same-10", *(f"same-{number}" for number in range(2, 10))]
    assert all((tmp_path / config.hydra.run.dir).is_dir() for config in configs)
    OutputFolder().on_run_start(default)
    assert (tmp_path / default.hydra.run.dir).is_dir()


@pytest.mark.few(0.3)
@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir"])
@pytest.mark.parametrize("value", ["''", "'  '", ".", "./", "file", "file/below"])
def test_what_is_no_output_folder_is_refused(repository, tmp_path, monkeypatch, capsys, key, value):
    import qspinn.app.run.train  # noqa: F401

    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        config = compose("train", [f"{key}={value}"], return_hydra_config=True)
    start = OutputFolder().on_run_start if key == "hydra.run.dir" else None
    with pytest.raises(SystemExit) as ended:
        (start or OutputFolder().on_multirun_start)(config)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {key}=")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_place_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as root everything can
    with pytest.raises(ConfigurationError, match="nothing can be written"):
        check_output("hydra.run.dir", str(tmp_path / "a" / "b"))


def launch_at_once(repository, commands):
    """Start a process per command and return their results, in order."""
    started = [
        subprocess.Popen(
            [sys.executable, str(repository / "train.py"), *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
        )
        for cwd, command in commands
    ]
    return [(*process.communicate(timeout=600), process.returncode) for process in started]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_processes_with_one_command_make_one_record(
    composed, tiny_arguments, repository, tmp_path
):
    together = tmp_path / "together"
    command = [*tiny_arguments, ONE_EPOCH, f"hydra.run.dir={together}"]
    results = launch_at_once(repository, [(tmp_path, command)] * 10)
    assert [code for _, _, code in results] == [0] * 10, results
    assert sum("epoch 1/1" in out for out, _, _ in results) == 1
    assert sum("is the record of this run already" in out for out, _, _ in results) == 9
    alone = train(composed(ONE_EPOCH), tmp_path / "alone")
    assert comparable(read_record(together / "record.json")) == comparable(alone)


@pytest.mark.campaign
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_processes_with_other_seeds_mix_nothing(tiny_arguments, repository, tmp_path):
    together = tmp_path / "together"
    named = f"hydra.run.dir={together}"
    own = "hydra.run.dir='${qspinn.new_folder:outputs/one_second}'"
    tasks = [(where, seed) for where in (named, own) for seed in range(10)]
    commands = [(tmp_path, [*tiny_arguments, ONE_EPOCH, f"seed={s}", w]) for w, s in tasks]
    results = launch_at_once(repository, commands)
    codes = [code for _, _, code in results]
    assert sorted(codes[:10]) == [0, *[2] * 9], results
    assert codes[10:] == [0] * 10, results
    winner = codes.index(0)
    record = read_record(together / "record.json")
    assert record.seed == winner
    refused = [err for (_, err, code) in results[:10] if code]
    assert all(f"seed: {winner} there" in err for err in refused), refused
    records = {r.seed: r for r in map(read_record, find_records(tmp_path / "outputs"))}
    assert sorted(records) == list(range(10))
    assert comparable(records[winner]) == comparable(record)
    assert not list(tmp_path.rglob("failure.json"))
