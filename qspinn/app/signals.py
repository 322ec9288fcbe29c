"""Signals that end a program of qspinn: one line that says how to go on, and the right exit code.

Imports nothing heavy, so that it can be the first thing that a program does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

__all__ = ["Stopped", "say_on_stop", "stop_on_signals"]

_NAMES = ("SIGTERM", "SIGINT", "SIGHUP")


class Stopped(SystemExit):
    """A signal ended the program; the exit code is 128 and its number, as shells say it.

    No error of a run, and no success either: whoever catches errors of runs lets it pass.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class _State:
    def __init__(self) -> None:
        self.process: int | None = None
        self.stopping: int | None = None
        self.has_said = False
        self.advice: Callable[[], str] = lambda: "the same command goes on with what is left"


_state = _State()


def stop_on_signals() -> None:
    """Let SIGTERM, SIGINT and SIGHUP raise :class:`Stopped` in the main thread of this process.

    A signal that is ignored (``nohup``) stays so. A second one ends the process at once. Processes
    that are forked from this one do what any program does.
    """
    _state.process = os.getpid()
    for name in _NAMES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    sys.unraisablehook = _again


def say_on_stop(advice: Callable[[], str]) -> None:
    """Say what the line adds that is printed when a signal comes: how to go on."""
    _state.advice = advice


def _stop(number: int, frame: FrameType | None) -> None:
    del frame
    if os.getpid() != _state.process:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    if _state.stopping is not None:
        os._exit(128 + number)
    _state.stopping = number
    if not _state.has_said:
        _state.has_said = True
        _say(number)
    raise Stopped(number)


def _again(unraisable: sys.UnraisableHookArgs) -> None:
    """Raise once more: Python drops an exception that is raised while it frees an object."""
    error = unraisable.exc_value
    if not isinstance(error, Stopped):
        sys.__unraisablehook__(unraisable)
        return
    _state.stopping = None
    main, number = threading.main_thread().ident, error.number
    if main is not None:
        threading.Timer(0.05, lambda: signal.pthread_kill(main, number)).start()


def _say(number: int) -> None:
    """Print by the file descriptor: what was interrupted may be the stream itself."""
    with contextlib.suppress(Exception):
        advice = _state.advice()
        text = f"\nstopped by {signal.Signals(number).name}{f': {advice}' if advice else ''}\n"
        os.write(2, text.encode("ascii", "backslashreplace"))
