"""The page of exported.py."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import measuring

from qspinn.atomic import write_text

ONE, BATCHES = "torch, 32-bit, one at a time", (16, 64, 256)
C_WAYS = ("C, -O2", "C, -O2, packed states", "C, -O3 -march=native")
HEAD = ["network", "bits"]
ANSWERS = ["test samples", "32-bit", "record", "C", "torch", "NumPy", "numba", "packed"]
BYTES = ["file", "footprint, flash", "header", "tables", "padding (bits)", ".rodata", ".text"]
BYTES += ["footprint, states", "RAM aligned", "RAM packed"]
TIMES = ["C, -O2", "packed", "-O3 -march=native", "torch, one", "torch, batch"]
TIMES += ["C against one", "against batch"]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Markdown; numbers to the right."""
    lines = [list(head), ["---", "---", *["---:"] * (len(head) - 2)]]
    lines += [[str(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def named(row: dict[str, Any]) -> tuple[str, str]:
    """The first two columns."""
    bits = ", ".join(map(str, row["bits"]))
    return row["title"], bits if row["rounding"] == "nearest" else f"{bits}, {row['rounding']}"


def equal_rows(rows: Iterable[dict[str, Any]]) -> Iterator[list[object]]:
    """How many samples are equal."""
    for row in rows:
        one = row["agreement"]
        compiled = "-" if one["compiled"] is None else f"{one['compiled']:,}"
        torch_equal = f"{one['torch']:,}" + (" (1)" if row["is_drawn"] else "")
        known = row["float_accuracy"]  # None: nothing was learned in 32-bit
        before = "-" if known is None else f"{known:.2%}"
        accuracies = [before, f"{row['accuracy']:.2%}", f"{one['correct'] / one['samples']:.2%}"]
        equal = [torch_equal, f"{one['clear']:,}", compiled, f"{one['packed']:,}"]
        yield [*named(row), f"{one['samples']:,}", *accuracies, *equal]


def memory_rows(rows: Iterable[dict[str, Any]]) -> Iterator[list[object]]:
    """What is stored."""
    for row in rows:
        file, used = row["file"], row["memory"]
        tables, padding = file["table_bits"], file["padding_bits"]
        if file["payload_bits"] != row["flash_bits"] + tables:
            raise SystemExit(f"{row['title']}: the file holds other bits than footprint and tables")
        yield [
            *named(row),
            f"{file['file_bytes']:,}",
            f"{row['flash_bits'] / 8:,.1f}".removesuffix(".0"),
            f"{file['header_bytes']:,}",
            f"{tables / 8:,.1f}".removesuffix(".0"),
            f"{padding:,}",
            f"{used['rodata']:,}",
            f"{used['text']:,}",
            f"{row['ram_bits'] / 8:,.1f}".removesuffix(".0"),
            *(f"{used['ram'][layout]:,}" for layout in ("aligned", "packed")),
        ]


def speed_rows(rows: Iterable[dict[str, Any]]) -> Iterator[list[object]]:
    """Times per sample, and how many times as long torch takes."""
    for row in rows:
        times = row["microseconds"]
        c = [times[name] for name in C_WAYS]
        single = min((value, name) for name, value in times.items() if name.startswith(ONE))
        several = min((v, n) for n, v in times.items() if " at once" in n)
        shown = [f"{single[0]:,.0f}", f"{several[0]:,.0f} ({several[1].split()[2]})"]
        ratios = [f"**{single[0] / min(c):.1f}x**", f"{several[0] / min(c):.1f}x"]
        yield [*named(row), *(f"{one:,.0f}" for one in c), *shown, *ratios]


PAGE = """# Exported models: equal, small, fast

{machine}

The models are trained by `train.py` (the commands are in the script), quantised, and saved by the runs as `model.qspinn`. Test samples are all of the test set.

## The same answers

On how many test samples the program in C (states aligned, -O2) gives exactly the answers of the others: not the class alone, but each sum. `torch` is the quantised network in simulation, `NumPy` and `numba` are the integer engines, `packed` is the program with packed states.

{equal}

(1) Roundings are stochastic while it classifies. The program and the integer engines draw from the same seed; a network in torch has keys of its own, which an integer engine was given, sample by sample.

The network of the NIR paper was read from its NIR file by `network_from_nir`; published is 98.5% (sinabs), on another part of the test set.

## Memory

Bytes, but for the padding. *Footprint* is what the record counts for flash (weights, biases, thresholds, leaks) and for states. The file is footprint (flash), header, wiring tables and padding, and nothing else. *.rodata* and *.text* are of the object file at -O2 for x86-64; *RAM* is the struct of the program, with buffers between layers.

{memory}

## Speed

Microseconds of processor time per sample, medians of {rounds} rounds in which all take turns. C runs one sample after the other. Torch runs the 32-bit network, without quantizers, one sample at a time as a device does, and in the best of batches of {batches}. The ratio is of torch to the fastest C.

{speed}
"""  # noqa: E501


def write(results: Path, found: dict[str, list[dict[str, Any]]], rounds: int) -> None:
    """The results and the page."""
    write_text(json.dumps(found, indent=1) + "\n", results.with_suffix(".json"))
    rows = [row for each in found.values() for row in each]
    compiler = subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=True)
    gcc = compiler.stdout.splitlines()[0].removeprefix("gcc ")
    about = measuring.machine("torch", "numpy") | {"gcc": gcc}
    page = PAGE.format(
        machine=measuring.circumstances(about, "python benchmarks/exported.py --data FOLDER"),
        rounds=rounds,
        batches=", ".join(map(str, BATCHES)),
        equal=table([*HEAD, *ANSWERS], equal_rows(rows)),
        memory=table([*HEAD, *BYTES], memory_rows(rows)),
        speed=table([*HEAD, *TIMES], speed_rows(rows)),
    )
    write_text(page, results.with_suffix(".md"))
