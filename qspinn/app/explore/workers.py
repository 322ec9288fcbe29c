"""Persistent worker processes, any of which may die."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from qspinn.app.orphans import end_with_launcher

ATTEMPTS = 2
"""Processes that may die before they begin with the same task."""
MOST_IN_A_ROW = 8
"""Processes that may do so in a row: with more, the tasks are not the cause."""


@dataclass(frozen=True)
class Died:
    """The process that had a task was ended from outside.

    Attributes:
        exit_code: Of the process; minus the number of the signal that ended it.
        began: Whether the process had begun with the task.
    """

    exit_code: int | None
    began: bool = True

    def __str__(self) -> str:
        code = self.exit_code
        when = "" if self.began else " before it began, twice"
        if code is not None and code < 0:
            return f"the process was ended by signal {-code}{when} (9: perhaps for want of memory)"
        return f"the process ended with exit code {code}{when}"


class WorkersCannotStart(RuntimeError):
    """One process after the other died before it began with a task."""


class Began:
    """What a process sends when it has read a task, and begins with it."""


class Worker:
    """A process that does one task at a time.

    Args:
        function: Does a task; a function of a module, since the process imports it.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.index: int | None = None
        self.began = False
        self.process: SpawnProcess = context.Process(target=_serve, args=(function, theirs))
        with _without_interrupts():
            self.process.start()
        theirs.close()

    def give(self, index: int, task: object) -> None:
        """Hand over a task."""
        self.index, self.began = index, False
        # Nothing can be sent to a dead process: take() reports it.
        with contextlib.suppress(ConnectionError):
            self.connection.send(task)

    def take(self) -> tuple[int, Any]:
        """Return the task's index and its result, :class:`Began` or :class:`Died`."""
        assert self.index is not None
        index = self.index
        try:
            result = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            result = Died(self.process.exitcode, self.began)
        if isinstance(result, Began):
            self.began = True
        else:
            self.index = None
        return index, result

    def end(self) -> None:
        """End the process."""
        self.process.terminate()
        self.connection.close()
        self.process.join()


def map_in_workers(
    function: Callable[[Any], Any], tasks: Sequence[Any], workers: int
) -> Iterator[tuple[int, Any]]:
    """Do tasks in so many processes; yield each task's index and result as they get done.

    If a process dies, the result of its task is :class:`Died`, and another process takes its
    place. If it dies before it began with the task, as while it imports, another
    process is given the task, once. The processes end with this one, however it ends.

    Args:
        function: Does a task. It must not raise, and must be defined at the top of a module.
        tasks: What can be pickled, as can the results.
        workers: Processes, 1 or more.

    Raises:
        WorkersCannotStart: One process after the other dies before it begins with a task.
    """
    team = Team(function, tasks)
    try:
        while team.waiting or team.busy:
            while team.waiting and len(team.busy) < workers:
                team.give_next(Worker(function))
            for connection in wait(list(team.busy)):
                yield from team.hear(connection)  # type: ignore[arg-type]
    finally:
        for worker in team.busy.values():
            worker.end()


class Team:
    """Processes, and the tasks that they have and that wait.

    Args:
        function: Does a task.
        tasks: All of them.
    """

    def __init__(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> None:
        self.function = function
        self.tasks = tasks
        self.waiting = deque(range(len(tasks)))
        self.busy: dict[Connection, Worker] = {}
        self.lost: Counter[int] = Counter()
        self.has_begun = False
        self.lost_in_a_row = 0

    def give_next(self, worker: Worker) -> None:
        """Give a process the task that has waited longest; end it if there is none."""
        if not self.waiting:
            worker.end()
            return
        index = self.waiting.popleft()
        self.busy[worker.connection] = worker
        worker.give(index, self.tasks[index])

    def hear(self, connection: Connection) -> Iterator[tuple[int, Any]]:
        """Take what a process sends, and yield the result of its task if that is what it is."""
        worker = self.busy[connection]
        index, result = worker.take()
        if isinstance(result, Began):
            self.has_begun, self.lost_in_a_row = True, 0
            return
        del self.busy[connection]
        if not isinstance(result, Died):
            self.give_next(worker)
            yield index, result
            return
        worker.end()
        if result.began:
            yield index, result
            return
        self.lost[index] += 1
        self.lost_in_a_row += 1
        if self.lost[index] < ATTEMPTS:
            self.waiting.appendleft(index)
        elif self.has_begun and self.lost_in_a_row < MOST_IN_A_ROW:
            yield index, result
        else:
            raise WorkersCannotStart(f"no process can start ({result}): what it printed says why")


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Makes processes that are started here ignore Ctrl-C from the beginning.

    It reaches all processes of a terminal: the launcher reports it and ends the others.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(function: Callable[[Any], Any], connection: Connection) -> None:
    """What a process does."""
    end_with_launcher()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gone = EOFError, ConnectionError  # of the process that hands out the tasks
    while True:
        try:
            task = connection.recv()
            connection.send(Began())
        except gone:
            return
        result = function(task)
        try:
            connection.send(result)
        except gone:
            return
