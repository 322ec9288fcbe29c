"""Processes that stay, and of which one may die."""

import os
import signal
import subprocess
import sys
import time

from qspinn.app.workers import Died, map_in_workers


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


def test_no_tasks_need_no_process():
    assert list(map_in_workers(square, [], workers=2)) == []


PARENT = """
import time
from qspinn.app.workers import map_in_workers
if __name__ == "__main__":
    for _ in map_in_workers(time.sleep, [600], workers=1):
        pass
"""


def children_of(process):
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True
    )
    return [int(line) for line in listed.stdout.split()]


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


def test_the_processes_end_with_the_one_that_was_killed(repository, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    parent = subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, env=environment)
    # One is multiprocessing's own, which watches over resources.
    wait_until(lambda: len(children_of(parent.pid)) >= 2)
    time.sleep(1)
    children = children_of(parent.pid)
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(is_running(child) for child in children))
