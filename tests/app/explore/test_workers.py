"""Processes that stay, and of which one may die."""

import os
import signal
import subprocess
import sys
import time
import types

import pytest

from qspinn.app.explore.workers import Died, WorkersCannotStart, map_in_workers


def square(number):
    """Return the square and who computed it; a negative number ends the process."""
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2, os.getpid()


def test_every_task_is_done_by_few_processes():
    results = dict(map_in_workers(square, range(7), workers=2))
    assert {index: result[0] for index, result in results.items()} == {n: n**2 for n in range(7)}
    processes = {result[1] for result in results.values()}
    assert len(processes) <= 2
    assert os.getpid() not in processes


def test_a_process_that_dies_takes_only_its_task_with_it():
    results = dict(map_in_workers(square, [1, -1, 3, -1, 5], workers=2))
    assert {index for index, result in results.items() if isinstance(result, Died)} == {1, 3}
    assert [results[index][0] for index in (0, 2, 4)] == [1, 9, 25]
    assert results[1].exit_code == -signal.SIGKILL
    assert "signal 9" in str(results[1])


class Fatal:
    """A task that ends the process that reads it, so many times."""

    def __init__(self, folder, times):
        self.folder, self.times = folder, times

    def __setstate__(self, state):
        self.__dict__.update(state)
        reads = len(list(self.folder.iterdir()))
        (self.folder / str(reads)).touch()
        if reads < self.times:
            os._exit(7)


def reads(task):
    return task if isinstance(task, int) else len(list(task.folder.iterdir()))


def test_a_task_whose_process_died_before_it_began_is_given_to_another(tmp_path):
    results = dict(map_in_workers(reads, [5, Fatal(tmp_path, times=1), 6], workers=1))
    assert results == {0: 5, 1: 2, 2: 6}


def test_a_task_that_no_process_can_begin_with_is_given_up(tmp_path):
    results = dict(map_in_workers(reads, [5, Fatal(tmp_path, times=9), 6], workers=1))
    assert results == {0: 5, 1: Died(7, began=False), 2: 6}
    assert "exit code 7 before it began, twice" in str(results[1])


def test_processes_that_cannot_start_are_not_started_for_ever(monkeypatch, capfd):
    module = types.ModuleType("only_known_here")
    exec("def function(task): return task", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_known_here", module)
    with pytest.raises(WorkersCannotStart, match="exit code 1"):
        list(map_in_workers(module.function, range(1000), workers=2))
    errors = capfd.readouterr().err
    assert 2 <= errors.count("No module named 'only_known_here'") <= 4


def test_an_idle_process_that_is_killed_costs_nothing():
    results = map_in_workers(square, [1, 2, 3], workers=1)
    index, (_, process) = next(results)  # which has been given the next task, or will be
    os.kill(process, signal.SIGKILL)
    rest = dict(results)
    assert index == 0
    assert rest[2][0] == 9
    assert isinstance(rest[1], Died) or rest[1][0] == 4


def test_no_tasks_need_no_process():
    assert list(map_in_workers(square, [], workers=2)) == []


PARENTS = {
    "workers": """
from qspinn.app.explore.workers import map_in_workers
if __name__ == "__main__":
    for _ in map_in_workers(time.sleep, [600], workers=1):
        pass
""",
    "joblib": """
from joblib import Parallel, delayed
def job():
    end_with_launcher()
    time.sleep(600)
if __name__ == "__main__":
    Parallel(n_jobs=2)([delayed(job)(), delayed(job)()])
""",
    "fork server": """
import multiprocessing
def job():
    end_with_launcher()
    time.sleep(600)
if __name__ == "__main__":
    process = multiprocessing.get_context("forkserver").Process(target=job)
    process.start()
    process.join()
""",
    "submitit": """
import subprocess, sys
CONTROLLER = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
JOB = "import time; from qspinn.app.orphans import *; end_with_launcher(); time.sleep(600)"
announce_launcher()
os.environ["SUBMITIT_EXECUTOR"] = "local"
subprocess.run([sys.executable, "-c", CONTROLLER, JOB])
""",
}


def descendants_of(process):
    """All processes that it started, and that these started."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found = [process]
    for parent in found:
        found += [child for child, its_parent in pairs if its_parent == parent]
    return found[1:]


def is_running(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


@pytest.mark.few(0.1)
@pytest.mark.parametrize("kind", PARENTS)
def test_processes_end_with_the_launcher_that_was_killed(repository, tmp_path, kind):
    script = tmp_path / "parent.py"
    script.write_text(f"import os, time\nfrom qspinn.app.orphans import *\n{PARENTS[kind]}")
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    parent = subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, env=environment)
    # One is multiprocessing's own, which watches over resources.
    wait_until(lambda: len(descendants_of(parent.pid)) >= 2)
    time.sleep(1)
    processes = descendants_of(parent.pid)
    parent.kill()
    parent.wait()
    controller = processes[:1] if kind == "submitit" else []  # ends with its job
    wait_until(lambda: not any(is_running(one) for one in processes if one not in controller))


INTERRUPTED = """
import os, signal, sys, time
from qspinn.app.explore.workers import map_in_workers

def task(number):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is not ended while it works
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(0.5)
    return number

if __name__ == "__main__":
    try:
        list(map_in_workers(task, [1, 2], 2))
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_a_process_that_ends_when_nobody_listens_any_more_says_nothing(repository, tmp_path):
    (tmp_path / "interrupted.py").write_text(INTERRUPTED)
    done = subprocess.run(
        [sys.executable, tmp_path / "interrupted.py"],
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def test_an_interrupt_of_the_terminal_is_told_by_one_process(repository, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        f"import time\n{PARENTS['workers']}".replace("[600]", "[600, 0, 600]")
        .replace("pass", "print('done', flush=True)")
        .replace("workers=1", "workers=2")
    )
    with subprocess.Popen(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(repository)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        assert parent.stdout.readline() == "done\n"
        processes = descendants_of(parent.pid)
        os.killpg(parent.pid, signal.SIGINT)
        _, errors = parent.communicate(timeout=60)
    assert errors.count("Traceback") == errors.count("KeyboardInterrupt") == 1
    wait_until(lambda: not any(is_running(one) for one in processes))


LONE = """
import os, time
from qspinn.app.orphans import *
announce_launcher()
os.environ["SUBMITIT_EXECUTOR"] = "slurm"
if os.fork() == 0:
    os.setsid()
    end_with_launcher()
    time.sleep(2)
    open("done", "w").close()
"""


@pytest.mark.slow
def test_a_job_of_a_cluster_and_a_run_in_the_background_outlive_who_started_them(
    repository, tmp_path
):
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    subprocess.run([sys.executable, "-c", LONE], cwd=tmp_path, env=environment, check=True)
    wait_until(lambda: (tmp_path / "done").exists())
