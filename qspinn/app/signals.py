"""Signals that end a program of qspinn: one line on how to continue, and the right exit code.

Imports nothing heavy, so that it can be the first thing that a program does.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = ("SIGTERM", "SIGINT", "SIGHUP")
_SECONDS = 0.05
"""After which a signal is raised again if some code has suppressed it."""


class Stopped(SystemExit):
    """A signal ended the program; the exit code is 128 plus its number, as in shells.

    Neither an error nor a success of a run: code that catches errors of runs lets it pass.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number

    def __del__(self) -> None:
        """Raise again if the program continues: a bare ``except`` has caught it."""
        is_ours = _state.process == os.getpid() and _state.number is not None
        # Without a frame below this one it has reached the top, and the program ends.
        if is_ours and not _state.is_leaving and sys._getframe().f_back is not None:
            _state.is_raised = False
            with contextlib.suppress(RuntimeError):  # Python is shutting down
                _thread.start_new_thread(_send, (self.number,))


class _State:
    def __init__(self) -> None:
        self.process: int | None = None  # the one that handles signals
        self.number: int | None = None  # of the first signal that came
        self.is_raised = False  # and Stopped is on its way up
        self.is_leaving = False  # it has reached the top
        self.advice: Callable[[], str] = lambda: "the same command goes on with what is left"


_state = _State()


def stop_on_signals() -> None:
    """Let SIGTERM, SIGINT and SIGHUP raise :class:`Stopped` in the main thread of this process.

    A signal that is ignored (``nohup``) stays ignored. A second one ends the process at once.
    Forked processes handle signals like any program.
    """
    _state.process = os.getpid()
    for name in _NAMES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    sys.unraisablehook = _drop


def say_on_stop(advice: Callable[[], str]) -> None:
    """Set how to continue, which is added to the line that is printed when a signal comes."""
    _state.advice = advice


def raise_if_stopped() -> None:
    """Raise :class:`Stopped` if a signal came: an error that it caused is no error of the run.

    Raises:
        Stopped: A signal came to this process.
    """
    if _state.number is not None and _state.process == os.getpid():
        _state.is_raised = True
        raise Stopped(_state.number) from None


@contextmanager
def ending_as_stopped() -> Iterator[None]:
    """End the program by the signal that came, whatever happened to :class:`Stopped` inside.

    Some code may have caught it, or raised another error while it passed.
    """
    try:
        yield
    except BaseException:
        _state.is_leaving = _state.number is not None
        raise_if_stopped()
        raise
    _state.is_leaving = _state.number is not None
    raise_if_stopped()


def _stop(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _state.process:
        _as_any_program(number, frame)
        return
    if _state.is_raised or _state.is_leaving:
        os._exit(128 + number)
    is_first, _state.is_raised = _state.number is None, True
    if is_first:
        _state.number = number
        _ignore_children()
        _say(number)
    raise Stopped(number)


def _as_any_program(number: int, frame: FrameType | None) -> None:
    """The handler of a forked process: a data loader ends quietly on Ctrl-C if Python raises it."""
    if number == signal.SIGINT:
        signal.default_int_handler(number, frame)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _ignore_children() -> None:
    """A signal to all processes ends PyTorch's loaders too, which it would report as errors."""
    child = getattr(signal, "SIGCHLD", None)
    if child is not None and callable(signal.getsignal(child)):
        signal.signal(child, signal.SIG_DFL)


def _drop(unraisable: sys.UnraisableHookArgs) -> None:
    """Ignore a stop that Python drops, such as in a finaliser: it is raised again."""
    if not isinstance(unraisable.exc_value, Stopped):
        sys.__unraisablehook__(unraisable)


def _send(number: int) -> None:
    """Send the signal once more to the main thread, from another one."""
    time.sleep(_SECONDS)
    main = threading.main_thread().ident
    if main is not None and not _state.is_raised and not _state.is_leaving:
        signal.pthread_kill(main, number)


def _say(number: int) -> None:
    """Print to the file descriptor: the stream itself may be what was interrupted."""
    with contextlib.suppress(Exception):
        advice = _state.advice()
        text = f"\nstopped by {signal.Signals(number).name}{f': {advice}' if advice else ''}\n"
        encoding = getattr(sys.stderr, "encoding", None) or "ascii"
        os.write(2, text.encode(encoding, "backslashreplace"))
