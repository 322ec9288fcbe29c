"""Ends jobs with the launcher that started them on this machine, however the launcher ends.

A killed launcher would leave processes behind that keep training beside those of the next launch of
the same command. Jobs on a cluster (Slurm, a running Ray) belong to the cluster: their launcher may
end, and they are not watched. Neither are runs without a launcher.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path

# Submitit's local executor starts a process that starts the job: a job cannot know by itself which
# process is the launcher.
LAUNCHER = "QSPINN_LAUNCHER_PROCESS"
SECONDS = 0.5

_watching = threading.Event()


def announce_launcher() -> None:
    """Announce this process as the launcher to the processes that it will start."""
    os.environ[LAUNCHER] = str(os.getpid())


def end_with_launcher() -> None:
    """End this process when the launcher that started it is gone, and at once if it is already.

    That holds for processes of :mod:`multiprocessing` and loky (joblib), and for Submitit's local
    jobs. Elsewhere it does nothing. Files that the process was writing are left as after any kill.
    """
    if _watching.is_set():
        return
    gone = _waits_for_launcher()
    if gone is not None:
        _watching.set()
        threading.Thread(target=_end_after, args=(gone,), daemon=True, name="launcher").start()


def _waits_for_launcher() -> Callable[[], None] | None:
    """A function that returns when the launcher is gone; None where there is none to watch."""
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        return _wait_for_parent(parent.pid, parent.sentinel)
    if os.environ.get("SUBMITIT_EXECUTOR") == "local":
        return _wait_for_grandparent(os.environ.get(LAUNCHER, ""))
    return None


def _wait_for_parent(process: int, sentinel: int | None) -> Callable[[], None] | None:
    """Watch the process that started this one through Python.

    Args:
        process: Its id.
        sentinel: Becomes ready when it has ended; loky has none.
    """
    is_direct = os.getppid() == process  # not so behind a fork server
    if sentinel is None and sys.platform == "win32":  # where a parent's id stays when it is gone
        return None

    def watch() -> None:
        if sentinel is None:
            while os.getppid() == process:
                time.sleep(SECONDS)
        else:
            while not wait([sentinel], SECONDS) and (os.getppid() == process or not is_direct):
                pass

    return watch


def _wait_for_grandparent(launcher: str) -> Callable[[], None] | None:
    """Watch the process that started the one that started this one."""
    controller = os.getppid()
    first = _parent_of(controller)
    if not launcher or first is None or str(first) not in (launcher, "1"):
        return None  # no /proc, or another launcher than the one that was announced

    def watch() -> None:
        while os.getppid() == controller and str(_parent_of(controller)) == launcher:
            time.sleep(SECONDS)

    return watch


def _parent_of(process: int) -> int | None:
    """The parent of a process; None where there is no /proc."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(status.rpartition(")")[2].split()[1])


def _end_after(gone: Callable[[], None]) -> None:
    gone()
    with contextlib.suppress(Exception):
        print("the launcher is gone, and this job ends with it", file=sys.stderr, flush=True)
    os._exit(1)
