"""Names with wildcards. The standard library's `glob` goes into folders by recursion.

It ends with an error in very deep ones, and passes over those that cannot be looked into.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence

Trouble = Callable[[str, OSError], None]
"""Takes a folder that cannot be looked into, and why."""


def matches(pattern: str, trouble: Trouble | None = None) -> list[str]:
    """What a name stands for: the file or folder of that name, else what matches it as a glob.

    `**` stands for a folder and all below it, hidden ones and links aside; at the end of a pattern
    for the folder alone, below which everything is looked through anyway.

    Raises:
        FileNotFoundError: It is no file, no folder and matches nothing.
    """
    if os.path.exists(pattern):
        return [pattern.rstrip(os.sep) or pattern]
    written = pattern.replace(os.altsep, os.sep) if os.altsep else pattern
    top = os.sep if written.startswith(os.sep) else ""
    parts = written.strip(os.sep).split(os.sep)
    found = _outermost(set(_below(top, parts, trouble))) if written else []
    if not found:
        raise FileNotFoundError(f"{pattern!r} is no file, no folder and matches nothing as a glob")
    return [match.rstrip(os.sep) or match for match in found]


def _outermost(found: set[str]) -> list[str]:
    """Without folders in others that were found as well: those are looked through anyway."""
    kept: list[str] = []
    outer = ""
    for match in sorted(found, key=lambda match: match.split(os.sep)):
        if os.path.isdir(match):
            if outer and match.startswith(outer):
                continue
            outer = match.rstrip(os.sep) + os.sep
        kept.append(match)
    return sorted(kept)


def _below(folder: str, parts: Sequence[str], trouble: Trouble | None) -> Iterator[str]:
    """What matches a pattern, given as its parts, in a folder; "" is the current one."""
    place = parts.index("**") if "**" in parts else len(parts)
    before, rest = os.sep.join(parts[:place]), parts[place + 1 :]
    starts = [folder]
    if before:
        found = glob.glob(before, root_dir=folder or None)
        starts = [os.path.join(folder, match) for match in found]
    for start in starts:
        if place == len(parts):
            yield start
        elif all(part == "**" for part in rest):
            if os.path.isdir(start or os.curdir):
                yield start or os.curdir
        else:
            for inner in _folders(start, trouble):
                yield from _below(inner, rest, trouble)


def _folders(start: str, trouble: Trouble | None) -> Iterator[str]:
    """A folder and all below it that can be looked into."""
    waiting = [start]
    while waiting:
        folder = waiting.pop()
        entries = entries_of(folder, trouble)
        if entries is not None:
            yield folder
            names = (e.name for e in entries if e.name[0] != "." and is_folder(e, False))
            waiting += (os.path.join(folder, name) for name in names)


def entries_of(folder: str, trouble: Trouble | None) -> list[os.DirEntry[str]] | None:
    """What is in a folder; None if it cannot be looked into, or has gone meanwhile."""
    try:
        with os.scandir(folder or os.curdir) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if trouble is not None:
            trouble(folder, error)
        return None


def is_folder(entry: os.DirEntry[str], follow_links: bool) -> bool:
    """Whether an entry is a folder, as far as that can be seen."""
    try:
        return entry.is_dir(follow_symlinks=follow_links)
    except OSError:  # a link that leads to itself
        return False
