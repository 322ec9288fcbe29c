"""Processes that stay from one task to the next, and of which one may die."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

__all__ = ["Died", "map_in_workers"]


@dataclass(frozen=True)
class Died:
    """The process that had a task was ended from outside.

    Attributes:
        exit_code: Of the process; minus the number of the signal that ended it.
    """

    exit_code: int | None

    def __str__(self) -> str:
        code = self.exit_code
        if code is not None and code < 0:
            return f"the process was ended by signal {-code} (9: perhaps for want of memory)"
        return f"the process ended with exit code {code}"


class Worker:
    """A process that does one task at a time.

    Args:
        function: Does a task; a function of a module, since the process imports it.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.index: int | None = None
        self.process: SpawnProcess = context.Process(target=_serve, args=(function, theirs))
        self.process.start()
        theirs.close()

    def give(self, index: int, task: object) -> None:
        """Hand over a task."""
        self.index = index
        self.connection.send(task)

    def take(self) -> tuple[int, Any]:
        """Return the task's index and its result, or :class:`Died`."""
        assert self.index is not None
        index, self.index = self.index, None
        try:
            return index, self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            return index, Died(self.process.exitcode)

    def end(self) -> None:
        """End the process."""
        self.connection.close()
        self.process.terminate()
        self.process.join()


def map_in_workers(
    function: Callable[[Any], Any], tasks: Sequence[Any], workers: int
) -> Iterator[tuple[int, Any]]:
    """Do tasks in so many processes; yield each task's index and result as they get done.

    A process that dies takes its task with it, of which :class:`Died` is the result, and another
    one takes its place. The processes end with this one, whatever ends it.

    Args:
        function: Does a task. It must not raise, and belong to a module.
        tasks: What can be pickled, as can the results.
        workers: Processes, 1 or more.
    """
    waiting = deque(enumerate(tasks))
    busy: dict[Connection, Worker] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < workers:
                _start(Worker(function), waiting, busy)
            for connection in wait(list(busy)):
                worker = busy.pop(connection)  # type: ignore[call-overload]
                index, result = worker.take()
                if waiting and not isinstance(result, Died):
                    _start(worker, waiting, busy)
                else:
                    worker.end()
                yield index, result
    finally:
        for worker in busy.values():
            worker.end()


def _start(worker: Worker, waiting: deque[tuple[int, Any]], busy: dict[Connection, Worker]) -> None:
    busy[worker.connection] = worker
    worker.give(*waiting.popleft())


def _serve(function: Callable[[Any], Any], connection: Connection) -> None:
    """What a process does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(function(task))


def _end_with_parent() -> None:
    """End this process with the one that started it, however that ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
