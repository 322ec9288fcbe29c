"""A device model as text, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from qspinn.export.lowering import program_of
from qspinn.export.model import DeviceModel, Input, Neuron, Round, State
from qspinn.export.report import DeviceReport, device_report
from qspinn.export.tracing import names_of
from qspinn.fixed_point import PerChannelFormat

__all__ = ["columns", "summary"]


def summary(model: DeviceModel, report: DeviceReport | None = None) -> list[str]:
    """What the model is made of, operation by operation and tensor by tensor, and what it takes."""
    parts = [_heading(model), _operations(model), _tensors(model), _origin(model)]
    lines = [line for part in parts for line in [*part, ""]]
    report = device_report(model) if report is None else report
    return [*lines, *columns(report.rows(), right=True)]


def columns(rows: Sequence[Sequence[str]], right: bool = False) -> list[str]:
    """Rows as text, as wide as their cells; the last column to the right if asked for."""
    if not rows:
        return []
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        if right:
            cells[-1] = row[-1].rjust(widths[-1])
        lines.append("  ".join(cells).rstrip())
    return lines


def _heading(model: DeviceModel) -> Iterator[str]:
    given = model.input
    still = "the same frame at every step" if not model.frame_stride else "a frame at each step"
    yield f"{model.name or 'network'}: {model.steps} time steps, {still}"
    shape = _shape(model.operations[0].shape)
    yield f"input: {shape} values in {given.format} ({given.rounding}, {given.overflow})"
    output = model.output
    over = {"sum": "summed over all steps", "last": "of the last step", "each": "of each step"}
    factor = "" if output.scale == 1 else f"; the network multiplies them by {output.scale}"
    yield f"output: {model.answers} sums, {over[output.over]}{factor}"
    if model.classes:
        yield f"classes: {', '.join(model.classes)}"


def _operations(model: DeviceModel) -> list[str]:
    names, program = names_of(model), program_of(model)
    rows = [("operation", "what", "takes", "output", "format", "rounding", "bits")]
    for number, one in enumerate(model.operations):
        sources = [names[o.source] + (" (step before)" if o.delay else "") for o in one.operands]
        instruction = program.instructions[number]
        rows.append(
            (
                names[number],
                _kind(one.what) + (", once" if one.is_static else ""),
                ", ".join(sources),
                _shape(one.shape),
                *_rounding(one.what),
                str(instruction.word_length),
            )
        )
    return columns(rows)


def _kind(what: Any) -> str:
    kind = getattr(what, "kind", None) or getattr(what, "model", None)
    name = type(what).__name__.lower()
    return name if kind is None else f"{name} {kind}"


def _rounding(what: Any) -> tuple[str, str]:
    if isinstance(what, Neuron):
        return f"v {what.state}", f"{what.rounding}, {what.overflow}"
    if isinstance(what, Input | Round):
        return str(what.format), f"{what.rounding}, {what.overflow}"
    return ("as its neuron" if isinstance(what, State) else "exact"), ""


def _tensors(model: DeviceModel) -> list[str]:
    rows = [("tensor", "shape", "format", "bits")]
    for name, one in model.tensors.items():
        fmt = one.format
        text = str(fmt)
        if isinstance(fmt, PerChannelFormat):
            text = f"{fmt.word_length} bits, per channel"
        rows.append((name, _shape(one.shape), text, f"{one.bits:,}"))
    for name, table in model.tables.items():
        rows.append((name, _shape(table.shape), "table", f"{table.payload_bits:,}"))
    return columns(rows)


def _origin(model: DeviceModel) -> list[str]:
    return [f"{name}: {value}" for name, value in model.origin.items()]


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "1"
