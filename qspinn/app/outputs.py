"""Keeps errors of standard output and standard error from ending the program."""

from __future__ import annotations

import codecs
import contextlib
import io
import logging
import os
import sys

# Replacements for the non-ASCII characters in tables, bars and messages.
_PLAIN = {
    "×": "x",
    "±": "+-",
    "−": "-",
    "–": "-",
    "—": "-",
    "…": "...",
    "≤": "<=",
    "≥": ">=",
    "→": "->",
    "µ": "u",
    "μ": "mu",
    "•": "*",
    "·": ".",
    "█": "#",
    "▌": "#",
}
_HANDLER = "qspinn.plain"


def protect_outputs() -> None:
    """Discard output that cannot be written instead of ending the program.

    After a closed pipe or terminal, or on a full disk, the run continues silently. Characters that
    the encoding lacks are replaced. Closed descriptors 0 to 2 are opened on the null device, so
    that no other file gets one of these numbers.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    codecs.register_error(_HANDLER, _replace)
    sys.stdout = _protected(sys.stdout, 1)
    sys.stderr = _protected(sys.stderr, 2)


class LogFile(logging.FileHandler):
    """A log file that ignores errors when it cannot be written.

    ``conf/hydra/job_logging`` names it for Hydra. On a full disk Python's own handler prints a
    traceback for each line, which hides the error that matters.
    """

    def __init__(self, filename: str, mode: str = "a") -> None:
        try:
            super().__init__(filename, mode, encoding="utf-8")
        except OSError:
            super().__init__(filename, mode, encoding="utf-8", delay=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, if it can be."""
        with contextlib.suppress(OSError):  # when it is opened only now
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Report errors of the line itself, and ignore errors of the disk."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class _Forgiving(io.FileIO):
    """A file that ignores errors of writing."""

    def write(self, content: object) -> int:
        """Write, or pretend to."""
        try:
            return super().write(content)  # type: ignore[arg-type]
        except OSError:
            return memoryview(content).nbytes  # type: ignore[arg-type]


def _protected(stream: io.TextIOBase | object, descriptor: int) -> io.TextIOWrapper:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    is_terminal = os.isatty(descriptor)
    raw = _Forgiving(descriptor, "wb", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors=_HANDLER,
        line_buffering=is_terminal or descriptor == 2,
        write_through=descriptor == 2,
    )


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Replacements for characters that an encoding does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, _boxed(character)) for character in part), error.end


def _boxed(character: str) -> str:
    """Lines of tables as ASCII draws them."""
    is_line = "\u2500" <= character <= "\u257f"
    if not is_line:
        return "?"
    return "-" if character in "─━═╌╍┄┅┈┉╴╶╸╺" else "|" if character in "│┃║" else "+"
