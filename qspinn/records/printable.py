"""Texts of unknown origin, made fit to be printed."""

from __future__ import annotations

import re

LONGEST = 1000
"""Characters of what is printed of one name or line, where nothing else is said."""

# Control characters (escape sequences of terminals begin with one), line and paragraph separators,
# what changes the direction of writing, and halves of surrogate pairs (bytes that are no UTF-8).
HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


def printable(text: str) -> str:
    """Return the text with whatever a terminal would act on written as an escape."""
    return HIDDEN.sub(_escaped, text)


def printable_lines(text: str) -> str:
    """The same for a text of several lines, which stay lines."""
    return "\n".join(map(printable, text.split("\n")))


def shortened(text: str, longest: int = LONGEST) -> str:
    """The text without its middle where it is so long that it would bury everything else."""
    if len(text) <= longest:
        return text
    cut = longest // 2
    return f"{text[:cut]} [{len(text) - 2 * cut:,} characters] {text[-cut:]}"


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file's name
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
