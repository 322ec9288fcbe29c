"""A run saves its quantised network as a device model, and checks it."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from qspinn.app.errors import ConfigurationError
from qspinn.app.run import device_model as saving
from qspinn.app.run.train import train
from qspinn.export import StoredTensor, load_model
from qspinn.export.container import checksum
from qspinn.records import read_record

SIZES = ("file_bytes", "header_bytes", "payload_bits", "padding_bits")


@pytest.mark.few(0.2)
@pytest.mark.parametrize(
    "options",
    [
        ("quantization.scheme=ptq",),
        ("quantization.scheme=itq", "network.batch_norm=true"),
        ("quantization.rounding=stochastic", "quantization.word_length=5"),
    ],
)
def test_the_network_that_was_evaluated_is_saved(composed, tmp_path, options):
    record = train(composed(*options), tmp_path)
    found = record.device_model
    path = tmp_path / found["file"]
    assert path.name == "model.qspinn"
    assert found["sha256"] == checksum(path)
    assert found["file_bytes"] == path.stat().st_size
    assert (found["verified_samples"], found["difference"]) == (4, None)
    model = load_model(path)
    assert model.origin["config_hash"] == record.config_hash
    assert model.name == record.network
    stored = {name: str(tensor.format) for name, tensor in model.tensors.items()}
    assert stored.items() <= {n: one["format"] for n, one in record.formats.items()}.items()
    # What the plan counts is what lies in the file.
    assert found["tensor_bits"] == record.flash_bits
    assert found["state_bits"] == record.ram_bits
    assert found["tensor_bits"] + found["table_bits"] == found["payload_bits"]
    assert 0 < found["activation_sparsity"] < 1
    assert "device_model" in record.seconds
    assert read_record(tmp_path / "record.json") == record


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["ptq", "itq"])
def test_a_run_without_it_is_the_same_run(composed, tmp_path, scheme):
    # Stochastic rounding draws random numbers: saving takes none of them.
    options = (f"quantization.scheme={scheme}", "quantization.rounding=stochastic")
    with_model = train(composed(*options), tmp_path / "a")
    state = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    without = train(composed(*options, "quantization.save_model=false"), tmp_path / "b")
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.random.get_state()[1].tolist() == state[1]  # noqa: NPY002
    assert without.device_model is None
    assert not (tmp_path / "b" / "model.qspinn").exists()
    assert without.config_hash == with_model.config_hash
    changed = ("device_model", "seconds", "created", "config")
    kept = {name: value for name, value in with_model.to_dict().items() if name not in changed}
    assert without.to_dict() | kept == without.to_dict()
    # The same run gives the same file.
    again = train(composed(*options), tmp_path / "c")
    assert again.device_model == with_model.device_model


def test_a_32_bit_run_has_none(composed, tmp_path):
    record = train(composed("quantization.scheme=none"), tmp_path)
    assert record.device_model is None
    assert not (tmp_path / "model.qspinn").exists()
    assert "device_model" not in record.seconds


def test_what_no_device_model_says_does_not_end_the_run(composed, tmp_path, caplog, capsys):
    with caplog.at_level(logging.WARNING):
        record = train(composed("quantization.roles.bias.format=float32"), tmp_path)
    found = record.device_model
    assert set(found) == {"refused"}
    assert "stay in 32-bit floating point" in found["refused"]
    assert "write a plan that quantises them" in found["refused"]
    assert f"no model.qspinn is written: {found['refused']}" in caplog.text
    assert "no device model was saved" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "model.qspinn").exists()
    assert read_record(tmp_path / "record.json") == record


def test_a_model_that_differs_is_reported_loudly(composed, tmp_path, monkeypatch, caplog, capsys):
    build = saving.device_model_of

    def wrong(*args, **kwargs):
        model, copied = build(*args, **kwargs)
        name = "network.blocks.0.conv.bias"
        held = model.tensors[name]
        codes = np.where(held.codes > 0, held.codes - 1, held.codes + 1)
        changed = {**model.tensors, name: StoredTensor.of(codes, held.format)}
        return replace(model, tensors=changed), copied

    monkeypatch.setattr(saving, "device_model_of", wrong)
    with caplog.at_level(logging.WARNING):
        record = train(composed(), tmp_path)
    said = record.device_model["difference"]
    assert "time step 0, layer network.blocks.0.conv, neuron (0, 0, 0)" in said
    assert "model.qspinn does not compute what the network computes" in caplog.text
    assert said in caplog.text
    assert "DO NOT USE IT" in " ".join(capsys.readouterr().out.split())


def test_an_error_of_the_code_does_not_end_the_run(composed, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise KeyError("x")

    monkeypatch.setattr(saving, "verify", broken)
    record = train(composed(), tmp_path)
    assert record.device_model == {"refused": "KeyError: 'x'"}
    assert not (tmp_path / "model.qspinn").exists()


@pytest.mark.slow
def test_a_fresh_run_deletes_the_model_and_no_other_file(composed, tmp_path):
    train(composed(), tmp_path)
    model = tmp_path / "model.qspinn"
    changed = composed("fresh=true", "quantization.save_model=false", "seed=1")
    train(changed, tmp_path)
    assert not model.exists()
    model.write_bytes(b"somebody's")
    with pytest.raises(ConfigurationError, match=r"model\.qspinn is not what a run of qspinn"):
        train(composed("fresh=true"), tmp_path)
    assert model.read_bytes() == b"somebody's"


@pytest.mark.parametrize("value", ["1", "null", "packed"])
def test_a_switch_that_is_none_is_refused_before_training(composed, tmp_path, value):
    with pytest.raises(ConfigurationError, match=r"quantization\.save_model=.*; write true or fal"):
        train(composed(f"quantization.save_model={value}"), tmp_path)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.slow
def test_the_module_stays_as_it_is(composed, tmp_path, monkeypatch):
    seen = {}
    save = saving.save_device_model

    def hooks(module):
        return {
            path: (list(one._forward_hooks), list(one._forward_pre_hooks), type(one), one.training)
            for path, one in module.named_modules()
        }

    def watched(config, folder, network, *rest):
        before = (
            {name: value.clone() for name, value in network.state_dict().items()},
            hooks(network),
        )
        found = save(config, folder, network, *rest)
        after = network.state_dict(), hooks(network)
        seen["equal"] = all(torch.equal(before[0][name], value) for name, value in after[0].items())
        seen["hooks"] = before[1] == after[1]
        return found

    monkeypatch.setattr("qspinn.app.run.job.save_device_model", watched)
    train(composed("quantization.scheme=itq"), tmp_path)
    assert seen == {"equal": True, "hooks": True}


def test_a_failed_quantisation_is_no_model(composed, tmp_path, monkeypatch):
    def broken(*args):
        raise RuntimeError("no batch")

    monkeypatch.setattr("qspinn.callbacks.post_training.calibrated_and_repaired", broken)
    with pytest.raises(RuntimeError, match="no batch"):
        train(composed(), tmp_path)
    assert not (tmp_path / "model.qspinn").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unsupervised_quick", "decolle_mnist_quick"])
@pytest.mark.parametrize("scheme", ["ptq", "itq"])
def test_networks_that_compute_by_themselves_are_saved(composed, tmp_path, name, scheme):
    options = (f"experiment={name}", f"quantization.scheme={scheme}")
    found = train(composed(*options), tmp_path).device_model
    assert (found["verified_samples"], found["difference"]) == (4, None)
    assert load_model(tmp_path / "model.qspinn").answers
