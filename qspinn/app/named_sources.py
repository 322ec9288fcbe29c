"""The source files behind the classes that a configuration names, other than of libraries."""

from __future__ import annotations

import hashlib
import inspect
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.utils import get_object

__all__ = ["named_sources"]


def named_sources(node: Any) -> dict[str, str]:
    """Return the SHA-256 of each source file that a configuration's classes come from.

    These are the file of each class or function outside of qspinn, and the files of the modules
    that it imports, as far as these are no installed libraries: a helper beside a network's file
    counts as the file itself does. What a function imports when it is called is not seen.

    Args:
        node: Plain types, with ``_target_`` in them.
    """
    found: dict[str, str] = {}
    for target in dict.fromkeys(_targets(node)):
        thing = inspect.unwrap(get_object(target))
        for module in _modules(inspect.getmodule(thing)):
            path = Path(str(module.__file__))
            found[module.__name__] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if isinstance(target, str) and not target.startswith("qspinn."):
            yield target
        for item in node.values():
            yield from _targets(item)
    elif isinstance(node, list):
        for item in node:
            yield from _targets(item)


def _modules(first: ModuleType | None) -> list[ModuleType]:
    """A module and the modules that it has names from, and so on; without libraries."""
    found: dict[str, ModuleType] = {}
    waiting = [first]
    while waiting:
        module = waiting.pop()
        if module is None or module.__name__ in found or not _is_somebodys(module):
            continue
        found[module.__name__] = module
        for value in list(vars(module).values()):
            name = value.__name__ if isinstance(value, ModuleType) else _module_of(value)
            waiting.append(sys.modules.get(name) if name else None)
    return list(found.values())


def _module_of(value: object) -> str | None:
    name = getattr(value, "__module__", None)
    return name if isinstance(name, str) else None


def _is_somebodys(module: ModuleType) -> bool:
    """Whether it is neither of Python, nor of an installed package, nor of qspinn."""
    file = getattr(module, "__file__", None)
    if not file or not str(file).endswith(".py") or module.__name__.split(".")[0] == "qspinn":
        return False
    path = Path(file).resolve()
    return path.is_file() and not any(path.is_relative_to(place) for place in _library_places())


def _library_places() -> set[Path]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    places = {sysconfig.get_path(name) for name in names}
    places |= {*site.getsitepackages(), site.getusersitepackages()}
    return {Path(place).resolve() for place in places if place}
