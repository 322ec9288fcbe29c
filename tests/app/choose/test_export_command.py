"""``python -m qspinn.export`` and ``python select.py export=...``, as people run them."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from qspinn.app.choose.exporting import USAGE
from qspinn.app.run.rebuilding import rebuilt_run
from qspinn.app.run.train import train
from qspinn.export import IntegerEngine, StoredTensor, encode, load_model, save_model
from qspinn.export.container import checksum
from qspinn.export.formats import FORMATS
from qspinn.export.tracing import trace
from qspinn.records import read_record, write_record


@pytest.fixture(scope="module")
def runs(composed, tmp_path_factory):
    """PTQ and ITQ runs, also with units of their own; not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    train(composed(), folder / "ptq")
    options = ("quantization.scheme=itq", "quantization.rounding=stochastic")
    train(composed(*options, "network.batch_norm=true"), folder / "itq")
    free = ("quantization.scale=free", "quantization.granularity=channel")
    train(composed(*free, "quantization.word_length=3"), folder / "free")
    train(composed(*free, *options, "network.batch_norm=true"), folder / "free itq")
    return folder


@pytest.fixture
def run(runs, tmp_path):
    """A copy of the PTQ run."""
    return shutil.copytree(runs / "ptq", tmp_path / "run")


@pytest.mark.slow
def test_it_is_a_program(repository, runs, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "qspinn.export",
            f"run={runs / 'ptq'}",
            "format=packed",
            "output=out",
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": str(repository), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{runs / 'ptq' / 'model.qspinn'}: ConvSNN\n")
    assert done.stdout.endswith("Written: out/model.qspinn\nWritten: out/summary.txt\n")
    copied = tmp_path / "out" / "model.qspinn"
    assert copied.read_bytes() == (runs / "ptq" / "model.qspinn").read_bytes()


def test_help_is_the_usage(command):
    assert command("--help") == (0, USAGE, "")
    assert all(name in USAGE for name in FORMATS)


def test_the_table_holds_the_numbers_of_the_record(command, runs):
    record = read_record(runs / "ptq" / "record.json")
    for place in (runs / "ptq", runs / "ptq" / "record.json"):
        code, out, err = command(f"run={place}")
        assert (code, err) == (0, "")
        rows = dict(line.strip().split("  ", 1) for line in out.splitlines()[1:])
        rows = {name: value.strip() for name, value in rows.items()}
        assert rows["model file"] == f"{record.device_model['file_bytes']:,} bytes"
        assert rows["footprint"].endswith(f"({record.footprint_bits:,} bits)")
        assert rows["energy, estimated"].endswith(" nJ")
        effective = rows["synaptic operations, effective"].replace(",", "")
        assert float(effective) == pytest.approx(record.work["synaptic_operations"], rel=1e-2)


def test_a_file_needs_no_run(command, runs, tmp_path):
    path = shutil.copy(runs / "ptq" / "model.qspinn", tmp_path / "a.qspinn")
    code, out, err = command(f"model={path}", "format=packed", f"output={tmp_path / 'b'}")
    assert (code, err) == (0, "")
    assert "model file" in out
    assert "energy" not in out
    assert (tmp_path / "b" / "summary.txt").read_text().startswith("ConvSNN: 2 time steps")


@pytest.mark.parametrize(
    ("name", "option", "files"),
    [
        ("c", "name=net", ["model.qspinn", "net.c", "net.h", "net_main.c", "summary.txt"]),
        ("nir", "dt=0.5", ["model.qspinn", "network.nir"]),
        ("hls4ml", None, ["hls4ml_config.json"]),
    ],
)
def test_every_format_is_written(command, runs, tmp_path, name, option, files):
    of = (f"run={runs / 'ptq'}", f"format={name}", f"output={tmp_path / 'out'}")
    code, out, err = command(*of, *([] if option is None else [option]))
    assert (code, err) == (0, "")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == files
    assert all(f"Written: {tmp_path / 'out' / file}\n" in out for file in files)


def test_the_record_of_a_run_keeps_its_units(runs):
    for name in ("free", "free itq"):
        record = read_record(runs / name / "record.json")
        weights = [one for path, one in record.formats.items() if path.endswith(".weight")]
        assert all("|" in one["unit"] and " rest " in one["unit"] for one in weights)
        assert record.config["quantization"]["scale"] == "free"
        assert record.device_model["difference"] is None
    assert all(
        "unit" not in one for one in read_record(runs / "ptq" / "record.json").formats.values()
    )


@pytest.mark.parametrize("name", ["ptq", "itq", "free", "free itq"])
def test_the_network_of_a_run_is_made_anew_and_equal(command, runs, name):
    code, out, err = command(f"run={runs / name}", "compare=torch", "sample=3")
    assert (code, err) == (0, "")
    assert out == "sample 3: the integer engine and the torch network are equal\n"


def test_where_a_model_differs_from_the_network_is_said(command, run):
    model = load_model(run / "model.qspinn")
    held = model.tensors["network.blocks.1.conv.bias"]
    codes = held.codes.copy()
    codes[2] += 1 if codes[2] < 0 else -1
    tensors = {**model.tensors, "network.blocks.1.conv.bias": StoredTensor.of(codes, held.format)}
    save_model(replace(model, tensors=tensors), run / "model.qspinn")
    code, out, err = command(f"run={run}", "compare=torch")
    assert (code, out) == (1, "")
    assert "is not the file that the run wrote" in err
    record = read_record(run / "record.json")
    found = record.device_model | {"sha256": checksum(run / "model.qspinn")}
    write_record(replace(record, device_model=found), run / "record.json")
    code, out, err = command(f"run={run}", "compare=torch", "sample=1")
    assert (code, out) == (3, "")
    assert "sample 1" in err or "sample 0" in err
    assert "time step 0, layer network.blocks.1.conv, neuron (2, 0, 0)" in err
    # What a run has found to differ is not exported.
    found = found | {"difference": "sample 0, somewhere"}
    write_record(replace(record, device_model=found), run / "record.json")
    code, out, err = command(f"run={run}", "format=packed", f"output={run / 'out'}")
    assert code == 1
    assert "does not compute what the network of the run computes" in err
    assert not (run / "out").exists()


def test_a_trace_is_compared_with_the_engine(command, runs, tmp_path):
    model = load_model(runs / "ptq" / "model.qspinn")
    x = np.random.default_rng(0).random((1, 1, 28, 28), np.float32)
    np.save(tmp_path / "x.npy", x)
    import torch

    values = trace(model, encode(model, torch.as_tensor(x))).values["network.output.linear"].codes
    flat = values.reshape(len(values), -1)
    path = tmp_path / "trace.csv"

    def write(values):
        with open(path, "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("step", "layer", "neuron", "value"))
            for (step, place), value in np.ndenumerate(values):
                rows.writerow((step, "network.output.linear", place, value))

    write(flat)
    of = (f"model={runs / 'ptq' / 'model.qspinn'}", f"input={tmp_path / 'x.npy'}")
    code, out, err = command(*of, f"compare={path}")
    assert (code, err) == (0, "")
    assert out == f"sample 0: the integer engine and the {flat.size} values of {path} are equal\n"
    flat[1, 5] += 2
    write(flat)
    code, out, err = command(*of, f"compare={path}")
    assert (code, out) == (3, "")
    assert err == (
        "export: first difference: sample 0, time step 1, layer network.output.linear, neuron (5): "
        f"the integer engine has code {flat[1, 5] - 2} "
        f"(value {(flat[1, 5] - 2) * 2.0 ** -fraction_bits(model):.9g}), the trace {flat[1, 5]} "
        f"(value {flat[1, 5] * 2.0 ** -fraction_bits(model):.9g})\n"
    )
    # The run's own data give the sample as well.
    code, out, err = command(f"run={runs / 'ptq'}", f"compare={path}", "sample=2")
    assert code == 3
    assert "sample 2, " in err


def fraction_bits(model):
    from qspinn.export.lowering import program_of

    program = program_of(model)
    return {one.operation.path: one for one in program.instructions}[
        "network.output.linear"
    ].fraction_bits


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "one of run= and model= is needed"),
        (("run={run}", "model=x"), "one of run= and model= is needed"),
        (("{run}",), "is no key=value"),
        (("run={run}", "run={run}"), "run= is given twice; write it once"),
        (
            ("run={run}", "format=paked", "output=x"),
            "format=paked: is no format; write one of pack",
        ),
        (("run={run}", "format=c", "output=x", "layout=foo"), "write aligned or packed"),
        (("run={run}", "format=packed"), "belong together; write output=FOLDER, too"),
        (("run={run}", "output=x"), "belong together; write format= (packed"),
        (("run={run}", "formt=packed"), "formt= is no key; the keys are run=, model=, format="),
        (
            ("run={run}", "format=packed", "output=x", "bits=3"),
            "bits=: format=packed has no such op",
        ),
        (("run={run}", "sample=1"), "sample= belongs to compare=; write compare=torch, or a trace"),
        (("run={run}", "compare=torch", "sample=-1"), "sample=-1: write a whole number"),
        (("run={run}", "compare=tensorflow"), "write torch, or a file .csv or .npz with a trace"),
        (("run={run}", "compare=torch", "format=packed", "output=x"), "write one of them"),
        (
            ("run={run}", "compare=torch", "sample=1", "input=x.npy"),
            "are two samples; write one of",
        ),
        (
            ("model=x", "compare=torch"),
            "compare=torch needs the network of a run; write run=FOLDER",
        ),
        (("model=x", "compare=a.csv"), "needs a sample; write input=FILE.npy"),
    ],
)
def test_a_wrong_command_line_is_one_clear_sentence(command, runs, tmp_path, arguments, says):
    code, out, err = command(*(text.format(run=runs / "ptq") for text in arguments))
    assert (code, out) == (2, "")
    assert err.startswith("export: ")
    assert says in err.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run=nowhere",), "nowhere: no such file"),
        (("model=nowhere",), "nowhere: there is no such file"),
        (("run={run}", "compare=torch", "sample=99999"), "write a whole number from 0 to 499"),
        (("run={run}", "compare=nowhere.csv"), "nowhere.csv"),
        (("run={run}", "compare={run}/metrics.csv"), "write step,layer,neuron,value"),
        (("run={run}", "compare=torch", "input={run}/record.json"), "is no .npy file of numbers"),
    ],
)
def test_what_is_not_there_is_named(command, runs, arguments, says):
    code, out, err = command(*(text.format(run=runs / "ptq") for text in arguments))
    assert (code, out) == (1, "")
    assert says in err


def test_a_run_without_a_model_says_why(command, run):
    record = read_record(run / "record.json")
    shutil.rmtree(run / "checkpoints")
    code, _, err = command(f"run={run}", "compare=torch")
    assert code == 1
    assert "last.ckpt" in err
    cases = {
        "none was saved; run it again with quantization.save_model=true": None,
        "network.1: is a transposed convolution": {
            "refused": "network.1: is a transposed convolution"
        },
        "none was saved": {"file_bytes": 3},
    }
    for says, found in cases.items():
        write_record(replace(record, device_model=found), run / "record.json")
        code, out, err = command(f"run={run}")
        assert (code, out) == (1, "")
        assert says in err
    (run / "model.qspinn").unlink()
    write_record(record, run / "record.json")
    code, _, err = command(f"run={run}")
    assert (code, "there is no such file" in err) == (1, True)


@pytest.mark.parametrize("scheme", ["ptq", "itq"])
def test_a_network_that_learns_by_itself_is_made_anew_with_its_labels(
    command, composed, tmp_path, scheme
):
    options = (f"quantization.scheme={scheme}", "quantization.word_length=2")
    record = train(composed("experiment=unsupervised_quick", *options), tmp_path)
    assert record.device_model["difference"] is None
    code, out, err = command(f"run={tmp_path}", "compare=torch", "sample=3")
    assert (code, err) == (0, "")
    assert out == "sample 3: the integer engine and the torch network are equal\n"
    rebuilt = rebuilt_run(tmp_path, record)
    images, _ = next(iter(rebuilt.data.val_dataloader()))
    codes = encode(load_model(tmp_path / "model.qspinn"), images)
    found = IntegerEngine(load_model(tmp_path / "model.qspinn")).run(codes).classes
    assert np.array_equal(found, rebuilt.module(images).argmax(1))
    assert len(set(found)) > 1


def test_other_data_than_the_run_had_are_refused(command, run):
    record = read_record(run / "record.json")
    write_record(replace(record, data_fingerprint="content-0"), run / "record.json")
    code, _, err = command(f"run={run}", "compare=torch")
    assert code == 1
    assert "the data of the run have changed since" in err


@pytest.mark.slow
def test_select_exports_the_winner(run_select_with_torch, runs, tmp_path):
    target = "target.max_drop=null"
    options = (f"runs={runs / 'ptq'}", target, "export=packed", f"output.dir={tmp_path / 'out'}")
    code, out, err = run_select_with_torch(*options)
    assert (code, err) == (0, "")
    written = tmp_path / "out" / "packed" / "model.qspinn"
    assert f"Written: {written}" in out
    assert written.read_bytes() == (runs / "ptq" / "model.qspinn").read_bytes()
    page = (tmp_path / "out" / "selection.html").read_text()
    assert "gives the network's exact outputs (4 samples)" in page.replace("\\u0027", "'")
    table = (tmp_path / "out" / "selection.csv").read_text().splitlines()
    row = dict(zip(table[0].split(","), next(csv.reader(table[1:])), strict=True))
    assert int(row["model_bytes"]) == written.stat().st_size


@pytest.mark.slow
def test_select_refuses_a_format_before_it_reads_anything(run_select_with_torch, tmp_path):
    code, out, err = run_select_with_torch(
        "runs=nowhere", "export=paked", f"output.dir={tmp_path / 'out'}"
    )
    assert (code, out) == (1, "")
    assert err == "select.py: export='paked'; write packed, c, nir, hls4ml, or null for none\n"
    code, out, err = run_select_with_torch("runs=nowhere", "export=packed")
    assert (code, out) == (1, "")
    assert "write output.dir=FOLDER" in err
    assert not (tmp_path / "out").exists()


def test_select_says_why_a_winner_is_not_exported(run_select_with_torch, run, tmp_path):
    record = read_record(run / "record.json")
    refused = {"refused": "a: is a transposed convolution"}
    write_record(replace(record, device_model=refused), run / "record.json")
    options = (f"runs={run}", "target.max_drop=null", "export=packed", "output.dir=out")
    code, out, err = run_select_with_torch(*options)
    assert code == 1
    assert "has no device model: a: is a transposed convolution" in err
    assert "Written: " in out  # the selection itself
    assert json.loads((tmp_path / "out" / "selection.json").read_text())
