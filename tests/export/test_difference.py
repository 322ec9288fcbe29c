"""The first difference between a device model and what it is compared with is the right one."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn

from qspinn.export import (
    StoredTensor,
    device_model,
    encode,
    first_difference,
    verify,
)
from qspinn.export.difference import answers_differ, first_difference_of_trace
from qspinn.export.trace_file import TraceError, TraceRows, read_trace
from qspinn.export.tracing import names_of, trace, with_potentials
from qspinn.export.verification import samples_to_verify
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import quantize_module

STEPS = 3


class Network(nn.Module):
    """Static images, a convolution that is computed once, in either step mode."""

    def __init__(self, step_mode="m", mean=True):
        super().__init__()
        self.mean = mean
        self.conv = nn.Conv2d(1, 2, 3)
        self.first = neuron.LIFNode(v_threshold=0.5, step_mode=step_mode, detach_reset=True)
        self.linear = layer.Linear(2 * 2 * 2, 3, step_mode=step_mode)
        self.last = neuron.IFNode(v_threshold=0.25, step_mode=step_mode)
        self.step_mode = step_mode

    def forward(self, x):
        current = self.conv(x)
        if self.step_mode == "s":
            steps = [self.last(self.linear(self.first(current).flatten(1))) for _ in range(STEPS)]
            spikes = torch.stack(steps)
        else:
            repeated = current.unsqueeze(0).expand(STEPS, *current.shape)
            spikes = self.last(self.linear(self.first(repeated).flatten(2)))
        return spikes.mean(0) if self.mean else spikes


def images(count=4):
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(3))


def quantized(step_mode="m", mean=True, **plan):
    torch.manual_seed(0)
    network = Network(step_mode, mean).eval()
    with torch.no_grad():
        network.linear.weight.abs_()
    return quantize_module(network, QuantizationPlan.uniform(6, **plan), images())


def changed(model, name, index, by=1):
    """The model with another code in one place."""
    held = model.tensors[name]
    codes = held.codes.copy()
    codes[index] += by
    tensors = {**model.tensors, name: StoredTensor.of(codes, held.format)}
    return replace(model, tensors=tensors)


@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "truncate"])
def test_a_model_is_equal_to_its_network(step_mode, mean, rounding):
    network = quantized(step_mode, mean, rounding=rounding)
    model = device_model(network, images(1))
    assert model.output.scale == (Fraction(1, STEPS) if mean else 1)
    assert verify(model, network, images()).equal
    assert first_difference(model, network, images()) is None


@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_a_wrong_weight_shows_in_its_own_layer(step_mode):
    network = quantized(step_mode)
    good = device_model(network, images(1))
    fmt = good.tensors["conv.bias"].format
    found = first_difference(changed(good, "conv.bias", 1), network, images())
    # A bias of the second channel is one step larger: that is in every one of its sums.
    assert (found.sample, found.step, found.layer, found.neuron) == (0, 0, "conv", (1, 0, 0))
    assert found.value - found.other_value == fmt.step
    assert found.code * 2.0**-found.fraction_bits == found.value
    sums = network.conv(images(1))
    assert found.other_value == sums[0, 1, 0, 0].item()
    text = str(found)
    assert text.startswith("sample 0, time step 0, layer conv, neuron (1, 0, 0): the integer eng")
    assert f"code {found.code} (value {found.value:.9g}), the torch network" in text


@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_a_wrong_threshold_shows_in_the_first_spike_that_it_changes(step_mode):
    network = quantized(step_mode)
    good = device_model(network, images(1))
    held = good.tensors["last.v_threshold"]
    wrong = changed(good, "last.v_threshold", ..., 12)
    found = first_difference(wrong, network, images())
    # By hand: the integer potentials, with either threshold.
    expected = None
    for sample in range(4):
        own = trace(good, encode(good, images()[sample : sample + 1]))
        currents, potential = own.values["linear"], own.values["last.v"]
        up = potential.fraction_bits - currents.fraction_bits
        v = np.zeros(3, int)
        threshold = int(held.codes) << (potential.fraction_bits - held.format.fraction_bits)
        larger = threshold + (12 << (potential.fraction_bits - held.format.fraction_bits))
        for step in range(STEPS):
            x = currents.codes[step, 0].reshape(-1)
            h = v + (np.left_shift(x, up) if up >= 0 else np.floor(x / 2**-up + 0.5).astype(int))
            places = np.flatnonzero((h >= threshold) != (h >= larger))
            if len(places) and expected is None:
                expected = (sample, step, "last", (int(places[0]),))
            v = np.where(h >= threshold, 0, h)
        if expected:
            break
    assert expected is not None
    place = (found.sample, found.step, found.layer.removesuffix(".v"), found.neuron)
    assert place == expected


def test_the_potential_is_compared_before_the_spikes():
    network = quantized()
    model = device_model(network, images(1))
    assert names_of(with_potentials(model)) == (
        *("input", "conv", "first", "linear", "last", "first.v", "last.v"),
    )
    assert list(trace(model, encode(model, images())).values) == [
        *("input", "conv", "first", "first.v", "linear", "last", "last.v"),
    ]


def test_a_difference_in_what_is_read_out_is_found_in_the_answers():
    network = quantized(mean=False)
    model = device_model(network, images(1))
    wrong = replace(model, output=replace(model.output, scale=Fraction(1, 2)))
    found = first_difference(wrong, network, images())
    assert found is not None
    assert found.layer == "output"
    assert found.other == 2 * found.code


def test_averages_over_three_steps_are_compared_as_whole_numbers():
    network = quantized()
    model = device_model(network, images(1))
    output = np.array([0.0, np.float32(1) / np.float32(3), 1.0])
    equal = np.array([[0, 1, 3]])
    assert answers_differ(model, equal, 0, output, 0) is None
    found = answers_differ(model, equal, 0, output + np.array([0, 0, 0.001]), 7)
    assert (found.sample, found.neuron, found.code) == (7, (2,), 3)
    assert found.other == pytest.approx(3.003)
    with pytest.raises(ValueError, match="returned 2 values, and the device model has 3 answers"):
        answers_differ(model, equal, 0, output[:2], 0)


def test_sums_that_no_float32_holds_are_compared_as_it_rounds_them():
    model = device_model(quantized(), images(1))
    sums = (np.arange(model.answers) << 26) + 3
    output = sums.astype(np.float32).astype(np.float64) * float(model.output.scale)
    assert not np.array_equal(output, sums * float(model.output.scale))
    assert answers_differ(model, sums, 0, output, 0) is None
    output[-1] *= 1.001
    assert answers_differ(model, sums, 0, output, 0).neuron == (model.answers - 1,)


def test_nothing_of_the_network_changes():
    network = quantized(rounding="stochastic")
    model = device_model(network, images(1))
    before = {path: dict(one._forward_hooks) for path, one in network.named_modules()}
    flags = {path: one.training for path, one in network.named_modules()}
    stored = {path: getattr(one, "store_v_seq", None) for path, one in network.named_modules()}
    state = torch.get_rng_state()
    verify(model, network, images())
    first_difference(changed(model, "conv.bias", 0), network, images())
    assert torch.equal(torch.get_rng_state(), state)
    assert {p: dict(one._forward_hooks) for p, one in network.named_modules()} == before
    assert {path: one.training for path, one in network.named_modules()} == flags
    now = {path: getattr(one, "store_v_seq", None) for path, one in network.named_modules()}
    assert now == stored


def test_verification_stops_at_the_first_sample_that_differs():
    network = quantized()
    model = device_model(network, images(1))
    good = verify(model, network, images())
    assert good.equal
    assert good.samples == 4
    assert str(good) == "the integer engine gives exactly the network's outputs, on 4 samples"
    codes = trace(model, encode(model, images())).values
    spikes = np.concatenate([codes[name].codes.reshape(-1) for name in ("first", "last")])
    assert good.sparsity == pytest.approx(1 - spikes.mean())
    bad = verify(changed(model, "conv.bias", 0), network, images())
    assert not bad.equal
    assert bad.samples == 1
    assert str(bad).startswith("the integer engine differs from the network: sample 0, time step")


def test_fewer_samples_are_verified_of_a_large_network():
    model = device_model(quantized(), images(1))
    # One image: 2 x 2 x 2 sums of 9 products, and in each of 3 steps 3 sums of 8.
    products = 72 + STEPS * 24
    assert samples_to_verify(model, 4, 4 * products) == 4
    assert samples_to_verify(model, 4, 3 * products) == 3
    assert samples_to_verify(model, 4, products - 1) == 1


def rows_of(model, x, names, shift=None):
    """The trace of a device, row by row; `shift` changes one value."""
    rows = []
    for name in names:
        values = trace(model, encode(model, x)).values[name].codes
        flat = values.reshape(len(values), -1)
        rows += [
            (step, name, place, int(flat[step, place]))
            for step in range(len(flat))
            for place in range(flat.shape[1])
        ]
    if shift is not None:
        step, name, place, value = rows[shift]
        rows[shift] = (step, name, place, value + 1)
    return rows


def write_csv(path, rows):
    lines = ["step,layer,neuron,value", *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_npz(path, rows):
    step, name, place, value = (np.array(column) for column in zip(*rows, strict=True))
    np.savez(path, step=step, layer=name, neuron=place, value=value)
    return path


@pytest.mark.parametrize(("write", "ending"), [(write_csv, "csv"), (write_npz, "npz")])
def test_a_trace_of_a_device_is_compared(tmp_path, write, ending):
    network, x = quantized(), images(1)
    model = device_model(network, x)
    codes = encode(model, x)
    every = ["linear", "conv", "last.v", "first"]
    rows = rows_of(model, x, every)
    path = write(tmp_path / f"trace.{ending}", rows)
    assert first_difference_of_trace(model, codes, read_trace(path)) is None
    # Any part of a trace will do, in any order.
    some = [rows[3], rows[0], rows[-1]]
    path = write(tmp_path / f"some.{ending}", some)
    assert first_difference_of_trace(model, codes, read_trace(path)) is None
    step, name, place, value = rows[4]  # of the linear layer, in the second step
    assert (step, name) == (1, "linear")
    wrong = rows_of(model, x, every, shift=4)
    wrong[-1] = (*wrong[-1][:3], wrong[-1][3] + 1)  # and later
    path = write(tmp_path / f"wrong.{ending}", wrong[::-1])
    found = first_difference_of_trace(model, codes, read_trace(path), sample=5)
    assert (found.sample, found.step, found.layer, found.neuron) == (5, 1, "linear", (place,))
    assert (found.code, found.other, found.against) == (value, value + 1, "the trace")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ((0, "elsewhere", 0, 1), "layer 'elsewhere' is none of the model's; there are input, conv"),
        (
            (3, "linear", 0, 1),
            "layer linear: there is no step 3, neuron 0; it has the steps 0 to 2",
        ),
        ((0, "linear", 3, 1), "there is no step 0, neuron 3; .* and the neurons 0 to 2"),
        ((1, "conv", 0, 1), "there is no step 1, neuron 0; it has the steps 0 to 0"),
        ((-1, "linear", 0, 1), "there is no step -1"),
    ],
)
def test_a_place_that_there_is_not_is_named(tmp_path, row, says):
    x = images(1)
    model = device_model(quantized(), x)
    rows = read_trace(write_csv(tmp_path / "trace.csv", [row]))
    with pytest.raises(TraceError, match=says):
        first_difference_of_trace(model, encode(model, x), rows)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"begins with '.*; write step,layer,neuron,value"),
        ("step,layer,value\n", "begins with 'step,layer,value'; write step,layer,neuron,value"),
        ("step,layer,neuron,value\n", "the trace has no rows"),
        ("step,layer,neuron,value\n1,a,2\n", "line 2: 3 cells instead of 4"),
        ("step,layer,neuron,value\n1,a,2,0.5\n", "line 2: value is '0.5'; write a whole number"),
        ("step,layer,neuron,value\n1,a,0,1\nx,a,2,5\n", "line 3: step is 'x'"),
        (f"step,layer,neuron,value\n1,a,0,{2**70}\n", "line 2: value is '1180"),
        ("step,layer,neuron,value\n1,\xff,0,1\n", "is no CSV file in UTF-8"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(tmp_path, text, says):
    path = tmp_path / "trace.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(TraceError, match=says):
        read_trace(path)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"step": np.zeros(1, int)}, "has no array 'layer'"),
        ({"step": np.zeros(2, int)}, "need one axis of one length"),
        ({"step": np.zeros(1)}, "'step' is of type float64; write whole numbers"),
        ({"layer": np.zeros(1, int)}, "'layer' is of type int64; write an array of texts"),
        ({"layer": np.array(["a"], object)}, "is no NPZ file of plain arrays"),
    ],
)
def test_an_npz_file_that_is_no_trace_is_refused(tmp_path, arrays, says):
    whole = np.zeros(1, int)
    good = {"step": whole, "layer": np.array(["a"]), "neuron": whole, "value": whole}
    given = arrays if says.startswith("has no") else good | arrays
    np.savez(tmp_path / "trace.npz", **given)
    with pytest.raises(TraceError, match=says):
        read_trace(tmp_path / "trace.npz")
    (tmp_path / "trace.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(TraceError, match="is no NPZ file"):
        read_trace(tmp_path / "trace.npz")
    (tmp_path / "trace.txt").write_text("")
    with pytest.raises(TraceError, match=r"a trace is a \.csv or an \.npz file"):
        read_trace(tmp_path / "trace.txt")


def test_rows_are_grouped_by_layer():
    rows = TraceRows(
        np.array([0, 1, 2]), np.array(["b", "a", "b"]), np.array([3, 4, 5]), np.array([6, 7, 8])
    )
    found = {name: [one.tolist() for one in part] for name, part in rows.by_layer().items()}
    assert found == {"b": [[0, 2], [3, 5], [6, 8]], "a": [[1], [4], [7]]}
