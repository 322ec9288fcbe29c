"""What a device model takes, counted again by hand."""

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn

from qspinn.export import device_model, device_report, save_model
from qspinn.export.formats import FORMATS, OptionError, check_format, converted, export
from qspinn.export.lowering import program_of
from qspinn.export.report import buffer_bits, sizes_of
from qspinn.export.summary import columns, summary
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import quantize_module

STEPS = 2


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = nn.Sequential(
        layer.Linear(4, 6, step_mode="m"),
        neuron.LIFNode(step_mode="m", v_threshold=0.5),
        layer.Linear(6, 3, step_mode="m", bias=False),
        neuron.IFNode(step_mode="m", v_threshold=0.5),
    ).eval()
    x = (torch.rand(STEPS, 1, 4) > 0.5).float()
    roles = {"membrane": {"word_length": 7}}
    quantized = quantize_module(network, QuantizationPlan.uniform(5, roles=roles), x)
    return device_model(quantized, x, name="net", classes=("a", "b", "c"))


def test_memory_is_counted_to_the_bit(model, tmp_path):
    sizes = save_model(model, tmp_path / "model.qspinn")
    assert sizes_of(model, tmp_path / "model.qspinn") == sizes
    report = device_report(model, sizes=sizes)
    weights, biases, thresholds, leaks = 4 * 6 + 6 * 3, 6, 2, 1
    assert report.tensor_bits == 5 * (weights + biases + thresholds + leaks)
    assert report.state_bits == 7 * (6 + 3)
    assert report.table_bits == sizes.payload_bits - report.tensor_bits
    assert report.footprint_bits == report.tensor_bits + report.state_bits


def test_buffers_hold_what_is_still_needed(model):
    # The most are held while the first neurons fire: the sums that they take, and their spikes.
    weight, bias = model.tensors["0.weight"], model.tensors["0.bias"]
    up = weight.format.fraction_bits - bias.format.fraction_bits
    codes = weight.codes * 2.0 ** max(0, -up)
    biases = bias.codes * 2.0 ** max(0, up)
    low = (np.minimum(codes, 0).sum(1) + biases).min()
    high = (np.maximum(codes, 0).sum(1) + biases).max()
    bits = next(n for n in range(1, 64) if -(2 ** (n - 1)) <= low and high < 2 ** (n - 1))
    program = program_of(model)
    assert buffer_bits(program) == 6 * bits + 6 * 1
    assert device_report(model).buffer_bits == 6 * bits + 6


def test_the_table_says_what_is_known(model):
    names = [name for name, _ in device_report(model).rows()]
    assert names[0] == "footprint"
    assert "activation sparsity" not in names
    work = {"synaptic_operations": 12.0, "state_updates": 18.0, "energy_nj": 0.5, "lines": ["x"]}
    rows = dict(device_report(model, work, sparsity=0.875).rows())
    assert rows["activation sparsity"] == "87.50%"
    assert rows["synaptic operations, effective"] == "12"
    assert rows["state accesses, read and written"] == "36"
    assert rows["energy, estimated"] == "0.5 nJ"
    assert "energy, that ANN in float32" not in rows


def test_the_summary_names_every_operation_and_tensor(model):
    text = "\n".join(summary(model))
    assert text.startswith("net: 2 time steps, a frame at each step\ninput: 4 values in UQ1.0")
    assert "classes: a, b, c" in text
    for name, tensor in model.tensors.items():
        (line,) = [one for one in text.splitlines() if one.startswith(f"{name} ")]
        assert str(tensor.format) in line
        assert line.endswith(f" {tensor.bits}")
    assert columns([]) == []


def test_formats_and_options_that_there_are_not_are_named(model, tmp_path, monkeypatch):
    with pytest.raises(OptionError, match="format=x: is no format; write one of packed"):
        check_format("x")
    with pytest.raises(OptionError, match="bits=: format=packed has no such option; it has none"):
        export("packed", model, tmp_path, {"bits": "3"})

    def made(model, output, *, bits: int = 8, test: bool = False, name: str = "", report=None):
        return [bits, test, name, report]

    monkeypatch.setitem(FORMATS, "made", made)
    given = {"bits": "-3", "test": "true", "name": "x"}
    assert converted("made", given) == {"bits": -3, "test": True, "name": "x"}
    assert export("made", model, tmp_path, given, "the report") == [-3, True, "x", "the report"]
    for option, says in (("bits", "write a whole number"), ("test", "write true or false")):
        with pytest.raises(OptionError, match=f"{option}=yes: {says}"):
            export("made", model, tmp_path, {option: "yes"})
    with pytest.raises(OptionError, match="dt=x: write a number"):
        converted("nir", {"dt": "x"})
    with pytest.raises(OptionError, match="it has bits, test, name"):
        export("made", model, tmp_path, {"report": "x"})


def test_packed_is_the_file_and_its_summary(model, tmp_path):
    save_model(model, tmp_path / "model.qspinn")
    files = export("packed", model, tmp_path / "new" / "folder")
    assert [file.name for file in files] == ["model.qspinn", "summary.txt"]
    assert files[0].read_bytes() == (tmp_path / "model.qspinn").read_bytes()
    assert files[1].read_text().splitlines() == summary(model)
