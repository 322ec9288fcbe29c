"""Runs that learn without labels, whose networks go on learning in C."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from qspinn.app.run import job
from qspinn.app.run.train import train
from qspinn.export import load_model, save_model
from qspinn.export.container import checksum
from qspinn.export.formats import FORMATS, options_of
from qspinn.networks.readouts import MaximumResponse
from qspinn.records import read_record, write_record
from tests.export.c.c_programs import needs_compiler
from tests.export.c.learners import Program, built, check_equal
from tests.export.test_plastic_model import pixels
from tests.stdp.cases import codes_of

QUICK = "experiment=unsupervised_quick"
NO_RULES = "quantization.rules=[]"  # the readout by maximum has no weights
RUNS = {
    "ptq": (),
    "itq": ("quantization.scheme=itq", "quantization.rounding=stochastic"),
    "maximum": ("quantization.scheme=itq", "learning.readout=maximum", NO_RULES),
    "ridge": ("learning.readout=ridge", NO_RULES),
    "parallel": ("network.stdp.parallel=5",),
}
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def runs(
    composed: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, Any]]:
    """Return a function from the name of a run to its folder and its quantised network.

    The folder is not to be changed; the network is a copy.
    """
    folder, networks = tmp_path_factory.mktemp("learning"), {}
    save = job.save_device_model

    def make(name: str) -> tuple[Path, Any]:
        def watched(config: Any, place: Any, network: Any, *rest: Any) -> Any:
            networks[name] = copy.deepcopy(network).eval()
            return save(config, place, network, *rest)

        if name not in networks:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(job, "save_device_model", watched)
                train(composed(QUICK, *RUNS[name]), folder / name)
        return folder / name, copy.deepcopy(networks[name])

    return make


def exported(command: Command, run: Path, output: Path, *options: str) -> tuple[Program, str]:
    """A run that was exported with learning, compiled; and what the command printed."""
    given = (f"run={run}", "format=c", "learning=true", f"output={output}", "name=net", *options)
    code, out, err = command(*given)
    assert (code, err) == (0, "")
    model = load_model(output / "model.qspinn")
    assert (output / "model.qspinn").read_bytes() == (run / "model.qspinn").read_bytes()
    return built(model, output), out


def seen(count: int, seed: int) -> Tensor:
    return pixels(count, (1, 28, 28), seed)


@pytest.mark.few(0.2)
@needs_compiler
@pytest.mark.parametrize("layout", ["aligned", "packed"])
@pytest.mark.parametrize("name", ["ptq", "itq", "ridge"])
def test_the_network_of_a_run_goes_on_learning_in_c(
    runs: Any, command: Command, tmp_path: Path, name: str, layout: str
) -> None:
    run, module = runs(name)
    network = module.network
    before = int(network.presentations), network.turns.clone(), codes_of(network)[0].clone()
    assert before[0] == 400  # of the run: 2 epochs of 4 batches of 50 images
    assert before[1].sum() > 0
    program, out = exported(command, run, tmp_path / "c", f"layout={layout}")

    found = program.run(seen(6, 1), None, seen(4, 2))

    network.present(seen(6, 1), learning=True)
    check_equal(found, network)
    assert found.presentations == before[0] + 6
    assert (network.turns - before[1]).sum() > 0
    assert not torch.equal(before[2], codes_of(network)[0])
    assert np.array_equal(found.shown, network.present(seen(4, 2)).spike_counts.numpy())
    assert found.shown.sum() > 0
    said = "it labels no neurons, which needs learning.readout=maximum; net_show gives the spikes"
    assert said in out
    assert said in (tmp_path / "c" / "summary.txt").read_text(encoding="utf-8")


@needs_compiler
def test_neurons_are_labelled_where_the_readout_of_the_run_is_by_labels(
    runs: Any, command: Command, tmp_path: Path
) -> None:
    run, module = runs("maximum")
    network, labels = module.network, torch.arange(20) % 10
    program, out = exported(command, run, tmp_path / "c")
    assert "it labels neurons on the device" in out

    found = program.run(seen(6, 1), (seen(20, 3), labels), seen(4, 2))
    unlabelled = program.run(None, None, seen(4, 2))

    scores = module(seen(4, 2))
    assert np.array_equal(unlabelled.shown[:, 0], scores.argmax(1).numpy())
    network.present(seen(6, 1), learning=True)
    check_equal(found, network)
    readout = MaximumResponse(network.neurons, 10)
    readout.fit(network.present(seen(20, 3)).spike_counts, labels)
    assert np.array_equal(found.labels, readout.labels.where(readout.labels >= 0, 10).numpy())


def test_the_learning_part_is_in_the_header_and_not_in_the_payload(runs: Any) -> None:
    for name in ("ptq", "itq", "parallel"):
        run, _ = runs(name)
        record = read_record(run / "record.json")
        found = record.device_model
        assert found is not None
        assert found["tensor_bits"] == record.flash_bits
        assert found["payload_bits"] == found["tensor_bits"] + found["table_bits"]
        model = load_model(run / "model.qspinn")
        assert (model.learning is None) == (name == "parallel")
        assert model.learning_refused == found.get("learning_refused")


@pytest.mark.slow
def test_a_run_that_cannot_go_on_learning_says_why(
    runs: Any, command: Command, run_select: Any, tmp_path: Path
) -> None:
    run, _ = runs("parallel")
    record = read_record(run / "record.json")
    assert record.device_model is not None
    reason = record.device_model["learning_refused"]
    assert "stdp.parallel=5: a device is shown one image after the other" in reason
    assert "train with stdp.parallel=1, or export without learning" in reason
    assert record.device_model["difference"] is None

    output = tmp_path / "c"
    code, _, err = command(f"run={run}", "format=c", "learning=true", f"output={output}")
    assert (code, err) == (1, f"export: learning=true: {reason}\n")
    code, _, err = command(f"run={run}", "format=c", f"output={output}")
    assert (code, err) == (0, "")
    copied = ("format=c", "learning=true", f"output={tmp_path / 'd'}")
    code, _, err = command(f"model={output / 'model.qspinn'}", *copied)
    assert (code, err) == (1, f"export: learning=true: {reason}\n")

    options = ("target.max_drop=null", "export=c", "export_options.learning=true")
    code, _, err = run_select(f"runs={run}", *options, "output.dir=out")
    assert code == 1
    assert err == f"select.py: learning=true: {reason}\n"


def test_the_reason_is_printed_at_the_end_of_the_run(
    composed: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(composed(QUICK, *RUNS["parallel"]), tmp_path)
    shown = " ".join(capsys.readouterr().out.split())
    assert "gives the network's exact outputs (4 samples) it cannot go on learning in C: " in shown
    assert "diehl_cook: stdp.parallel=5" in shown


def test_a_network_that_learns_by_gradients_says_so(
    composed: Any, command: Command, tmp_path: Path
) -> None:
    record = train(composed(), tmp_path / "run")
    assert record.device_model is not None
    assert "learning_refused" not in record.device_model
    output = f"output={tmp_path / 'c'}"
    code, _, err = command(f"run={tmp_path / 'run'}", "format=c", "learning=true", output)
    assert code == 1
    assert "learning=true: ConvSNN does not learn by itself; leave learning=true out" in err


def test_a_run_of_an_earlier_version_is_to_be_run_again(
    runs: Any, command: Command, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(runs("ptq")[0], tmp_path / "run"))
    model = load_model(run / "model.qspinn")
    sizes = save_model(replace(model, learning=None), run / "model.qspinn")
    record = read_record(run / "record.json")
    assert record.device_model is not None
    changed = {**record.device_model, **vars(sizes), "sha256": checksum(run / "model.qspinn")}
    write_record(replace(record, device_model=changed), run / "record.json")
    output = f"output={tmp_path / 'c'}"
    assert command(f"run={run}", "format=c", output)[0] == 0
    code, _, err = command(f"run={run}", "format=c", "learning=true", output)
    assert code == 1
    assert "does not say how it learns, as those of earlier versions do not; run it again" in err


@pytest.mark.slow
@needs_compiler
def test_select_exports_a_winner_that_goes_on_learning(
    runs: Any, run_select: Any, tmp_path: Path
) -> None:
    run, module = runs("itq")
    options = ("target.max_drop=null", "export=c", "export_options.learning=true")
    more = ("export_options.name=net", "export_options.layout=packed", "output.dir=out")
    code, out, err = run_select(f"runs={run}", *options, *more)
    assert (code, err) == (0, "")
    assert "\nLearning in C: " in out
    output = tmp_path / "out" / "c"
    found = built(load_model(output / "model.qspinn"), output).run(seen(3, 1), None, seen(2, 2))
    module.network.present(seen(3, 1), learning=True)
    check_equal(found, module.network)


@pytest.mark.few(0.2)
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ("export_options.learning=true",),
            "export_options.learning: nothing is exported; write export=c, too",
        ),
        (
            ("export=nir", "export_options.learning=true"),
            "export_options.learning=: format=nir has no such option; it has dt",
        ),
        (
            ("export=c", "export_options.learning=5"),
            "export_options.learning=5: write true or false",
        ),
        (
            ("export=nir", "export_options.dt=[1]"),
            "export_options.dt=[1]: write one text, number or switch",
        ),
        (("export=c", "export_options=3"), "export_options=3; write options of the format"),
    ],
)
def test_select_refuses_options_before_it_reads_anything(
    run_select: Any, tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    code, out, err = run_select("runs=nowhere", "output.dir=out", *options)
    assert (code, out) == (1, "")
    assert err.startswith(f"select.py: {says}")
    assert not (tmp_path / "out").exists()


def test_every_option_of_a_format_is_a_key_of_select(repository: Path) -> None:
    settings = yaml.safe_load((repository / "conf" / "select.yaml").read_text(encoding="utf-8"))
    wanted = {option for name in FORMATS for option in options_of(name)}
    assert settings["export_options"].keys() == wanted
    assert not any(value is not None for value in settings["export_options"].values())
