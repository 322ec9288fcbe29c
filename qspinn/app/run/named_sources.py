"""The source files of the classes that a configuration names, without libraries."""

from __future__ import annotations

import ast
import hashlib
import inspect
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from hydra.utils import get_object


def named_sources(node: Any) -> dict[str, str]:
    """Return the SHA-256 of each source file that a configuration's classes come from.

    These are the file of each class or function outside of qspinn, and the files of the modules
    that it imports, also within functions, except installed libraries. Imports of names that are
    computed at run time are not found.
    """
    found: dict[str, str] = {}
    places = _library_places()
    for target in dict.fromkeys(_targets(node)):
        module = inspect.getmodule(inspect.unwrap(get_object(target)))
        file = getattr(module, "__file__", None)
        if module is not None and file and str(file).endswith(".py"):
            files = {module.__name__: Path(file), **_imported(module.__name__, Path(file), places)}
            for name, path in files.items():
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
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


def _imported(name: str, file: Path, places: set[Path]) -> dict[str, Path]:
    """The files of a module and of the modules that it imports, and so on; without libraries."""
    found: dict[str, Path] = {}
    waiting: list[tuple[str, Path | None]] = [(name, file)]
    while waiting:
        name, path = waiting.pop()
        if path is None or name in found or not _is_third_party(name, path, places):
            continue
        found[name] = path
        waiting += [(other, _file_of(other)) for other in _import_names(name, path)]
    return found


def _import_names(name: str, path: Path) -> set[str]:
    """The modules that the statements of a file may import, with the packages around them."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    names: set[str] = set()
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError):  # for another Python version, and perhaps never imported
        return names
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1]
            start = ".".join([*(parts if node.level else []), *filter(None, [node.module])])
            names |= {start, *(f"{start}.{alias.name}" for alias in node.names)}
    parents = {
        other.rsplit(".", count)[0]
        for other in (*names, name)
        for count in range(1, other.count(".") + 1)
    }
    return {other for other in names | parents if other and other != name}


def _file_of(name: str) -> Path | None:
    """The source of a module, found without importing it; None if it has none."""
    module = sys.modules.get(name)
    if module is not None:
        file = getattr(module, "__file__", None)
        return Path(file) if file and file.endswith(".py") else None
    path: list[str] | None = None
    spec = None
    for part in name.split("."):
        try:
            # By its last part only: of a folder without __init__.py, the finder wants the parent to
            # be imported, if the name has one.
            spec = PathFinder.find_spec(part, path)
        except (ImportError, ValueError):
            return None
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or [])
    origin = None if spec is None else spec.origin
    return Path(origin) if origin and origin.endswith(".py") else None


def _is_third_party(name: str, file: Path, places: set[Path]) -> bool:
    """Whether it is neither of Python, nor of an installed package, nor of qspinn."""
    if name.split(".")[0] == "qspinn" or name.split(".")[0] in sys.stdlib_module_names:
        return False
    path = file.resolve()
    return path.is_file() and not any(path.is_relative_to(place) for place in places)


def _library_places() -> set[Path]:
    """Where installed packages are: of this Python, and wherever else pip has put some."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    places = {sysconfig.get_path(name) for name in names}
    places |= {*site.getsitepackages(), site.getusersitepackages()}
    places |= {place for place in sys.path if any(Path(place).glob("*.dist-info"))}
    return {Path(place).resolve() for place in places if place}
