"""Functions with other words, and what tells whether compiled ones are up to date."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any


def digest_of(*folders: Path) -> str:
    """Of all Python files in some folders: numba's cache looks only at the file of a function.

    As a variable of a function's closure it is a part of the key of that cache.
    """
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def rebound(
    source: ModuleType, words: Mapping[str, Any], compiled: Callable[[Any], Any]
) -> SimpleNamespace:
    """The functions of a module, compiled, with other meanings of the names that they use.

    Args:
        source: Its functions may call each other and `words`.
        words: Name -> what a compiled function finds under it. A function of `source` with such a
            name is left out.
        compiled: What compiles a function.
    """
    names = {**vars(source), **words}
    made = {
        name: compiled(FunctionType(one.__code__, names, name, one.__defaults__))
        for name, one in vars(source).items()
        if isinstance(one, FunctionType) and one.__module__ == source.__name__ and name not in words
    }
    names.update(made)
    return SimpleNamespace(**made)
