"""Traces of devices: what was seen in hardware or in another simulation, row by row.

Each row is a value: ``step`` (time step, from 0), ``layer`` (a name, see
:func:`qspinn.export.tracing.names_of`), ``neuron`` (place in the layer's output in C order, from 0)
and ``value`` (its code, a whole number). See ``docs/export.md``.
"""

from __future__ import annotations

import csv
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLUMNS", "TraceError", "TraceRows", "read_trace"]

COLUMNS = ("step", "layer", "neuron", "value")
Numbers = NDArray[np.int64]


class TraceError(ValueError):
    """A file that is no trace of the model."""


@dataclass(frozen=True, eq=False)
class TraceRows:
    """Rows of a trace.

    Attributes:
        steps: Of each row.
        layers: Of each row.
        neurons: Of each row.
        values: Codes.
    """

    steps: Numbers
    layers: NDArray[np.str_]
    neurons: Numbers
    values: Numbers

    def by_layer(self) -> dict[str, tuple[Numbers, Numbers, Numbers]]:
        """Layer -> steps, neurons and values of its rows."""
        found = {}
        for name in dict.fromkeys(self.layers.tolist()):
            rows = self.layers == name
            found[str(name)] = (self.steps[rows], self.neurons[rows], self.values[rows])
        return found


def read_trace(path: str | os.PathLike[str]) -> TraceRows:
    """Reads a trace: a CSV file with the header ``step,layer,neuron,value``, or an NPZ file.

    An NPZ file holds four arrays of one length by these names.

    Raises:
        TraceError: It is neither; the message says what is wrong.
        OSError: The file cannot be read.
    """
    name = os.fspath(path)
    if name.lower().endswith(".npz"):
        columns = _of_npz(name)
    elif name.lower().endswith(".csv"):
        columns = _of_csv(name)
    else:
        raise TraceError(f"{name}: a trace is a .csv or an .npz file; name it so")
    if not len(columns[0]):
        raise TraceError(f"{name}: the trace has no rows")
    return TraceRows(*columns)


def _of_npz(path: str) -> tuple[Numbers, NDArray[np.str_], Numbers, Numbers]:
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in COLUMNS if name not in file]
            if missing:
                raise TraceError(
                    f"{path}: has no array {missing[0]!r}; write arrays {', '.join(COLUMNS)}"
                )
            step, layer, neuron, value = (np.asarray(file[name]) for name in COLUMNS)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, TraceError):
            raise
        raise TraceError(f"{path}: is no NPZ file of plain arrays ({error})") from error
    shapes = {one.shape for one in (step, layer, neuron, value)}
    if len(shapes) > 1 or len(step.shape) != 1:
        raise TraceError(f"{path}: the arrays {', '.join(COLUMNS)} need one axis of one length")
    if layer.dtype.kind != "U":
        raise TraceError(f"{path}: 'layer' is of type {layer.dtype}; write an array of texts")
    for name, one in (("step", step), ("neuron", neuron), ("value", value)):
        if one.dtype.kind not in "iub":
            raise TraceError(f"{path}: {name!r} is of type {one.dtype}; write whole numbers")
    return step.astype(np.int64), layer, neuron.astype(np.int64), value.astype(np.int64)


def _of_csv(path: str) -> tuple[Numbers, NDArray[np.str_], Numbers, Numbers]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = [cell.strip() for cell in next(rows, [])]
            if tuple(header) != COLUMNS:
                raise TraceError(
                    f"{path}: begins with {','.join(header)!r:.80}; write {','.join(COLUMNS)}"
                )
            cells = [(rows.line_num, row) for row in rows if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{path}: is no CSV file in UTF-8 ({error})") from error
    for line, row in cells:
        if len(row) != len(COLUMNS):
            raise TraceError(f"{path}, line {line}: {len(row)} cells instead of {len(COLUMNS)}")
    numbers = [_numbers(path, cells, column) for column in (0, 2, 3)]
    layers = np.array([row[1].strip() for _, row in cells], dtype=np.str_)
    return numbers[0], layers, numbers[1], numbers[2]


def _numbers(path: str, cells: Sequence[tuple[int, list[str]]], column: int) -> Numbers:
    try:
        return np.array([int(row[column]) for _, row in cells], dtype=np.int64)
    except (ValueError, OverflowError):
        for line, row in cells:
            try:
                np.int64(int(row[column]))
            except (ValueError, OverflowError):
                raise TraceError(
                    f"{path}, line {line}: {COLUMNS[column]} is {row[column]!r:.40}; write a "
                    "whole number of 64 bits, such as a code of the device"
                ) from None
        raise
