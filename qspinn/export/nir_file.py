"""Reads a NIR file (HDF5) that somebody else wrote, and nothing else that it may point to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import nir

MAX_BYTES = 2**30
MAX_DEPTH = 16
MAX_OBJECTS = 1_000_000


class NirError(ValueError):
    """A NIR graph, or a file of one, that cannot be used; says which node, and why."""


def refusal(name: str, node: object, why: str) -> NirError:
    """The error for one node of a graph."""
    return NirError(f"node {name!r} ({type(node).__name__}): {why}")


def read_nir(path: str | Path, max_bytes: int = MAX_BYTES) -> nir.NIRGraph:
    """The graph in a ``.nir`` file.

    Only groups and arrays of numbers or text that lie in the file itself are read: links to other
    files, arrays stored elsewhere and groups that contain themselves are refused. Types are not
    checked here; :func:`qspinn.export.network_from_nir` infers all shapes again.

    Args:
        path: The file.
        max_bytes: The most that all arrays together may take once unpacked. A small file can claim
            arrays of any size.

    Raises:
        FileNotFoundError: There is no such file.
        NirError: The file is no NIR graph, or is refused.
    """
    try:
        with h5py.File(path, "r") as file:
            if "node" not in file:
                raise NirError("it has no group 'node'")
            data = _Reader(max_bytes).member(file, "node", 0)
        if not isinstance(data, dict):
            raise NirError("'node' is not a group")
        for graph in _graphs_in(data):
            graph["type_check"] = False
        read = nir.dict2NIRNode(data)
    except FileNotFoundError:
        raise
    except Exception as error:  # the library checks by assertions, and by what happens to fail
        reason = f"{error}" if isinstance(error, NirError) else f"{type(error).__name__}: {error}"
        raise NirError(f"{path}: not a NIR file that can be read: {reason}") from error
    if not isinstance(read, nir.NIRGraph):
        raise NirError(f"{path}: holds a {type(read).__name__}, where a NIRGraph is expected")
    return read


class _Reader:
    """Copies an HDF5 group into nested dictionaries, within limits."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.seen: set[int] = set()

    def group(self, group: Any, depth: int) -> dict[str, Any]:
        if depth > MAX_DEPTH:
            raise NirError(f"{group.name}: nested more than {MAX_DEPTH} deep")
        return {name: self.member(group, name, depth) for name in group}

    def member(self, group: Any, name: str, depth: int) -> Any:
        where = f"{group.name}/{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise NirError(f"{where}: a link to elsewhere, which is not followed")
        item = group[name]
        address = h5py.h5o.get_info(item.id).addr
        if address in self.seen or len(self.seen) >= MAX_OBJECTS:
            raise NirError(f"{where}: stored under two names, or one of too many objects")
        self.seen.add(address)
        if isinstance(item, h5py.Group):
            return self.group(item, depth + 1)
        if isinstance(item, h5py.Dataset):
            return self.array(item, where)
        raise NirError(f"{where}: neither a group nor an array")

    def array(self, dataset: Any, where: str) -> Any:
        if dataset.external or dataset.is_virtual:
            raise NirError(f"{where}: its values lie in another file")
        if dataset.dtype.kind not in "biufS" and h5py.check_string_dtype(dataset.dtype) is None:
            raise NirError(f"{where}: values of type {dataset.dtype}, neither numbers nor text")
        self.bytes += dataset.size * dataset.dtype.itemsize if dataset.shape is not None else 0
        if self.bytes > self.max_bytes:
            raise NirError(
                f"{where}: the arrays up to this one take {self.bytes} bytes, more than "
                f"max_bytes={self.max_bytes}"
            )
        value = dataset[()]
        return value.decode("utf-8") if isinstance(value, bytes) else value


def _graphs_in(data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if data.get("type") == "NIRGraph":
        assert isinstance(data, dict)
        yield data
        for node in data["nodes"].values():
            yield from _graphs_in(node)
