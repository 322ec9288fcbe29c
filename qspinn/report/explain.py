"""One run in words and small tables, at most 80 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qspinn.records import RunRecord, printable
from qspinn.report.cells import bits, measured, words
from qspinn.report.footprint import accuracy_rows, device_model_lines, footprint_rows

WIDTH = 80
_INDENT = "  "
_GAP = 2
_NOT_MEASURED = (
    "Not measured: the record is older, or was made with quantization.fidelity_samples=0, or the "
    "log says why it could not be."
)
Row = Sequence[str]


def explained(record: RunRecord) -> list[str]:
    """What was quantised, what it cost, and how the network behaves now.

    Returns:
        Lines of at most ``WIDTH`` characters, in each of which nothing acts on a terminal.
    """
    parts = [
        _heading(record),
        _accuracies(record),
        _footprint(record),
        _memories(record),
        _energy(record),
        _device_model(record),
        _behaviour(record),
    ]
    filled = [list(part) for part in parts]
    return [line for part in filled if part for line in ["", *part]][1:]


def _heading(record: RunRecord) -> Iterator[str]:
    yield from _wrapped(f"{record.network} on {record.data}, seed {record.seed}", "")
    if record.scheme == "none":
        yield "the 32-bit network: nothing is quantised"
        return
    how = {"ptq": "after training", "itq": "while it learned"}[record.scheme]
    yield from _wrapped(
        f"quantised {how} ({record.scheme.upper()}, {record.rounding}), bits: "
        f"{words(record.word_lengths)}",
        "",
    )
    for line in record.summary_lines:
        yield from _wrapped(line)


def _accuracies(record: RunRecord) -> Iterator[str]:
    rows = [["accuracy", "32-bit", "quantised", "change"]]
    rows += [[f"{data} data", *cells] for data, *cells in accuracy_rows(record)]
    if record.scheme == "none":
        rows = [["accuracy", "32-bit"], *([row[0], row[2]] for row in rows[1:])]
    yield from _table(rows)
    if any("[" in row[-1] or "[" in row[-2] for row in rows):
        yield f"{_INDENT}in brackets: the 95% confidence interval"


def _footprint(record: RunRecord) -> Iterator[str]:
    rows = [["footprint (bits)", "32-bit", "quantised", "word length", "change"]]
    rows += footprint_rows(record)
    if record.scheme == "none":
        rows = [row[:2] for row in rows]
    yield from _table(rows)


def _memories(record: RunRecord) -> Iterator[str]:
    if record.flash_bits is None or record.ram_bits is None:
        return
    rows = [["memory of a device (bits)", "flash", "RAM"]]
    rows.append(["to classify", bits(record.flash_bits), bits(record.ram_bits)])
    learning = record.learning_ram_bits
    if learning is not None:
        rows.append(["to learn", bits(record.training_footprint_bits - learning), bits(learning)])
    yield from _table(rows)


def _energy(record: RunRecord) -> Iterator[str]:
    if record.work is None:
        return
    fallback = f"energy per sample, estimated: {record.energy_nj:,.4g} nJ"
    for line in record.work.get("lines", [fallback]):
        yield from _wrapped(line, "")


def _device_model(record: RunRecord) -> Iterator[str]:
    for line in device_model_lines(record):
        yield from _wrapped(line, "")
    for line in (record.device_model or {}).get("lines", []):
        yield from _wrapped(line)


def _behaviour(record: RunRecord) -> Iterator[str]:
    if record.scheme == "none":
        return
    yield "behaviour, against the 32-bit network (docs/fidelity.md)"
    found = record.fidelity
    if found is None:
        yield from _wrapped(_NOT_MEASURED)
        return
    yield from _wrapped(_in_short(found))
    layers: list[Mapping[str, Any]] = found.get("layers", [])
    if layers:
        yield from _table([_LAYER_HEADING, *map(_layer_row, layers)])
        yield from _wrapped(
            "in brackets: the 32-bit network; rate: spikes per 100 steps; silent, saturated: "
            "of the neurons; distance: of the distributions of rates; overlap: spikes of both / "
            "of either; step: the first one that differs"
        )
    for sentence in found.get("warnings", []):
        yield from _wrapped(f"warning: {sentence}")
    for sentence in found.get("notes", []):
        yield from _wrapped(f"note: {sentence}")


def _in_short(found: Mapping[str, Any]) -> str:
    agreement, count, first = found["agreement"], found.get("samples"), found.get("first_layer")
    share = "an unknown share" if agreement is None else measured(agreement, count)
    samples = "the samples" if count is None else f"{count:,} samples"
    said = f"{share} of {samples} get the class that they get in 32-bit"
    if first is not None:
        return f"{said}; the first layer whose spikes differ is {first or 'the network itself'}"
    return f"{said}; no layer's spikes differ" if found.get("layers") else said


_LAYER_HEADING = ["layer", "rate", "silent %", "satur. %", "dist.", "overlap", "step"]


def _layer_row(layer: Mapping[str, Any]) -> Row:
    def both(name: str, digits: int) -> str:
        now, before = layer[name], layer[f"reference_{name}"]
        return f"{100 * now:.{digits}f} ({100 * before:.{digits}f})"

    step = layer.get("first_step")
    return [
        layer["layer"] or "(itself)",
        both("rate", 1),
        both("silent", 0),
        both("saturated", 0),
        f"{100 * layer['rate_distance']:.2f}",
        f"{layer['overlap']:.2f}",
        "-" if step is None else str(step),
    ]


def _table(rows: Sequence[Row]) -> Iterator[str]:
    """Columns as wide as their cells, the first to the left and as wide as there is room."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    room = WIDTH - len(_INDENT) - sum(widths[1:]) - _GAP * (len(widths) - 1)
    if room < _LEAST:  # very large numbers: one line each
        for row in rows[1:]:
            for name, cell in zip(rows[0][1:], row[1:], strict=True):
                yield from _wrapped(f"{_clipped(row[0], WIDTH // 2)}, {name}: {cell}")
        return
    widths[0] = min(widths[0], room)
    for row in rows:
        cells = [_clipped(row[0], widths[0]).ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield (_INDENT + (" " * _GAP).join(cells)).rstrip()


_LEAST = 12
"""Columns that names need at least."""


def _clipped(name: str, width: int) -> str:
    """The end of a path, which tells layers apart."""
    return name if len(name) <= width else f"..{name[len(name) - width + 2 :]}"


def _wrapped(sentence: str, indent: str = _INDENT) -> list[str]:
    """A sentence in lines; the further ones are set in."""
    return textwrap.wrap(
        printable(sentence),
        WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_on_hyphens=False,
    )
