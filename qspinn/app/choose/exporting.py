"""What ``python -m qspinn.export`` does: the device model of a run as files, and beside others."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from qspinn.app.examples import as_the_module, held_out_sample
from qspinn.app.run.rebuilding import rebuilt_run, run_data
from qspinn.app.show.explain import record_of
from qspinn.export import (
    DeviceModel,
    DeviceReport,
    device_report,
    encode,
    first_difference,
    load_model,
)
from qspinn.export.container import checksum
from qspinn.export.difference import Difference, first_difference_of_trace
from qspinn.export.formats import FORMATS, OptionError, check_format, converted, export
from qspinn.export.report import sizes_of
from qspinn.export.summary import columns
from qspinn.export.trace_file import read_trace
from qspinn.records import RECORD_NAME, RunRecord, printable_lines, shortened

__all__ = ["USAGE", "export_run", "main", "model_path"]

USAGE = f"""\
Export the device model of a run, or say what it takes.

  python -m qspinn.export run=outputs/2026-01-31/12-00-00
  python -m qspinn.export run=outputs/2026-01-31/12-00-00 format=packed output=FOLDER
  python -m qspinn.export run=outputs/2026-01-31/12-00-00 format=c learning=true output=FOLDER
  python -m qspinn.export run=outputs/2026-01-31/12-00-00 compare=torch sample=3

run=      the output folder of a run, or its record.json
model=    a file model.qspinn, in place of a run
format=   what to write: {", ".join(FORMATS)}
output=   the folder to write into
compare=  torch (the network of the run, made anew), or a trace of a device (.csv, .npz):
          the first value that differs from the integer engine
sample=   of the run's held-out data, for compare=; 0 if left out
input=    a file .npy with one sample as the network takes it, in place of sample=
learning= an option of format=c; true: the network goes on learning on the device
Any other key is an option of the format, too. See docs/export.md.
"""
_KEYS = ("run", "model", "format", "output", "compare", "sample", "input")
TORCH = "torch"


class UsageError(ValueError):
    """A wrong command line."""


@dataclass(frozen=True)
class _Wanted:
    """The command line, checked."""

    run: str | None
    model: str | None
    format: str | None
    output: str | None
    compare: str | None
    sample: int
    input: str | None
    options: Mapping[str, Any]


def model_path(folder: Path, record: RunRecord) -> Path:
    """Return the file of the device model of a run, which is checked to be that.

    Raises:
        ValueError: There is none, or another one.
    """
    found = record.device_model
    if found is None or not found.keys() & {"file", "refused"}:
        why = "nothing is quantised" if record.scheme == "none" else "none was saved"
        raise ValueError(
            f"{folder} has no device model: {why}; run it again with quantization.save_model=true "
            "(and fresh=true) in this version of qspinn"
        )
    if "refused" in found:
        raise ValueError(f"{folder} has no device model: {found['refused']}")
    path = folder / str(found["file"])
    if checksum(path) != found["sha256"]:
        raise ValueError(
            f"{path} is not the file that the run wrote: its checksum is another one than that of "
            f"{RECORD_NAME}; copy both again from where the run was done"
        )
    return path


def export_run(
    folder: Path,
    record: RunRecord,
    name: str,
    output: Path,
    options: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Export the device model of a run, print what the format says of it, and return the files.

    Raises:
        ValueError: The run has no device model, or one that differs from its network.
        OSError: A file cannot be read or written.
    """
    path = model_path(folder, record)
    _check_same(path, record)
    model = load_model(path)
    return export(name, model, output, options, _report(model, path, record), say=print)


def _check_same(path: Path, record: RunRecord) -> None:
    difference = (record.device_model or {}).get("difference")
    if difference is not None:
        raise ValueError(
            f"{path} does not compute what the network of the run computes, and is not exported: "
            f"{difference}"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says.

    Exits with 2 on a wrong command line, with 1 if there is no such model, and with 3 where
    ``compare`` finds a difference.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given in (["-h"], ["--help"]):
        print(USAGE, end="")
        return
    try:
        wanted = _parsed(given)
    except (UsageError, OptionError) as error:
        _exit(str(error), 2)
    try:
        found = _done(wanted)
    except (ValueError, OSError) as error:
        _exit(str(error), 1)
    if found is not None:
        _exit(f"first difference: {found}", 3)


def _done(wanted: _Wanted) -> Difference | None:
    record, folder = None, Path()
    if wanted.run is not None:
        record = record_of(wanted.run)
        folder = Path(wanted.run)
        folder = _own_folder(folder) if folder.is_dir() else folder.parent
        path = model_path(folder, record)
    else:
        path = Path(str(wanted.model))
    model = load_model(path)
    report = _report(model, path, record)
    if wanted.compare is not None:
        return _compared(wanted, model, folder, record)
    print(f"{path}: {model.name}")
    print("\n".join(f"  {line}" for line in columns(report.rows(), right=True)))
    if wanted.format is not None:
        output = Path(str(wanted.output))
        if record is not None:
            _check_same(path, record)
        for file in export(wanted.format, model, output, wanted.options, report, say=print):
            print(f"Written: {file}")
    return None


def _own_folder(folder: Path) -> Path:
    """The folder of the one run in it, as :func:`record_of` finds it."""
    if (folder / RECORD_NAME).is_file():
        return folder
    return next(folder.rglob(RECORD_NAME)).parent


def _report(model: DeviceModel, path: Path, record: RunRecord | None) -> DeviceReport:
    known = {} if record is None or record.device_model is None else record.device_model
    work = None if record is None else record.work
    sparsity = known.get("activation_sparsity")
    return device_report(model, work, sizes=sizes_of(model, path), sparsity=sparsity)


def _compared(
    wanted: _Wanted, model: DeviceModel, folder: Path, record: RunRecord | None
) -> Difference | None:
    _be_quiet()
    against = str(wanted.compare)
    sample = None if wanted.input is None else _input(wanted.input)
    if against == TORCH:
        assert record is not None  # checked with the command line
        rebuilt = rebuilt_run(folder, record)
        if sample is None:
            sample = held_out_sample(rebuilt.data, wanted.sample)
        network = rebuilt.module
        found = first_difference(model, network, as_the_module(sample, network))
        what = "the torch network"
    else:
        rows = read_trace(against)
        if sample is None:
            assert record is not None
            sample = held_out_sample(run_data(folder, record), wanted.sample)
        found = first_difference_of_trace(model, encode(model, sample), rows, wanted.sample)
        what = f"the {len(rows.values):,} values of {against}"
    if found is None:
        print(f"sample {wanted.sample}: the integer engine and {what} are equal")
    return found


def _be_quiet() -> None:
    """Making a run's network anew is none of the things that Lightning has hints about."""
    warnings.filterwarnings("ignore", module=r"lightning")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _input(path: str) -> Tensor:
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: is no .npy file of numbers ({error})") from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub" or not values.ndim:
        raise ValueError(f"{path}: is no .npy file with one array of numbers")
    if len(values) != 1:
        raise ValueError(
            f"{path}: has the shape {list(values.shape)}; write one sample, with a first axis of 1"
        )
    return torch.as_tensor(values.astype(np.float32))


def _parsed(given: Sequence[str]) -> _Wanted:
    values: dict[str, str] = {}
    for text in given:
        key, sign, value = text.partition("=")
        if not sign or not key or not value:
            raise UsageError(f"{text!r:.80} is no key=value\n\n{USAGE}")
        if key in values:
            raise UsageError(f"{key}= is given twice; write it once")
        values[key] = value
    options = {key: value for key, value in values.items() if key not in _KEYS}
    if ("run" in values) == ("model" in values):
        raise UsageError(f"one of run= and model= is needed\n\n{USAGE}")
    name = values.get("format")
    if options and name is None:
        key = next(iter(options))
        raise UsageError(f"{key}= is no key; the keys are {', '.join(f'{one}=' for one in _KEYS)}")
    if name is not None:
        options = converted(check_format(name), options)
    if (name is None) != ("output" not in values):
        needed = "output=FOLDER" if name is not None else f"format= ({', '.join(FORMATS)})"
        raise UsageError(f"format= and output= belong together; write {needed}, too")
    _check_compare(values)
    return _Wanted(
        run=values.get("run"),
        model=values.get("model"),
        format=name,
        output=values.get("output"),
        compare=values.get("compare"),
        sample=_whole(values.get("sample", "0")),
        input=values.get("input"),
        options=options,
    )


def _check_compare(values: Mapping[str, str]) -> None:
    against = values.get("compare")
    if against is None:
        for key in ("sample", "input"):
            if key in values:
                raise UsageError(f"{key}= belongs to compare=; write compare=torch, or a trace")
        return
    if "format" in values:
        raise UsageError("compare= and format= do different things; write one of them")
    if against == TORCH and "run" not in values:
        raise UsageError("compare=torch needs the network of a run; write run=FOLDER")
    if against != TORCH and not against.lower().endswith((".csv", ".npz")):
        raise UsageError(f"compare={against:.80}: write torch, or a file .csv or .npz with a trace")
    if "run" not in values and "input" not in values:
        raise UsageError("compare= with model= needs a sample; write input=FILE.npy")
    if "sample" in values and "input" in values:
        raise UsageError("sample= and input= are two samples; write one of them")


def _whole(text: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise UsageError(f"sample={text:.80}: write a whole number, such as sample=3")
    return int(text)


def _exit(message: str, code: int) -> NoReturn:
    sys.stdout.flush()
    print(f"export: {printable_lines(shortened(message))}".rstrip(), file=sys.stderr)
    raise SystemExit(code)
