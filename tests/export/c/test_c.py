"""Models in C against the engine in NumPy: answers, and the states of all layers at each step."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn

from qspinn.export import device_model, encode
from qspinn.export.c import write_c
from qspinn.export.c.text import comment, identifier
from qspinn.export.model import (
    DeviceModel,
    DeviceOperation,
    Input,
    Neuron,
    Output,
    Round,
    StoredTensor,
    Synapse,
)
from qspinn.export.packed_tensor import PackedTensor
from qspinn.fixed_point import OVERFLOWS, ROUNDINGS, FixedPointFormat
from qspinn.plan import QuantizationPlan
from qspinn.plan.graph import Operand
from qspinn.quantizers import attach, calibrate
from tests.export.c.c_programs import (
    FAST,
    GCC,
    SANITIZED,
    STRICT,
    check_equal,
    compiled,
    needs_compiler,
)
from tests.export.random_models import random_codes, random_model
from tests.quantizers.zoo import ZOO
from tests.quantizers.zoo_kinds import KINDS

pytestmark = needs_compiler
LAYOUTS = ("aligned", "packed")
MANY = 400
WEIGHT, STATE = FixedPointFormat(1, 2), FixedPointFormat(3, 4)


def quantized(net, x, bits=6, axis=1, **settings):
    """The device model of a network, calibrated on `x`, and its codes."""
    net.eval()
    plan = QuantizationPlan.uniform(bits, **settings).resolve(net, x)
    attach(net, calibrate(net, plan, x))
    model = device_model(net, x.narrow(axis, 0, 1))
    return model, encode(model, x, axis)


def of_variant(variant, bits):
    granularity = "channel" if bits % 2 else "tensor"
    axis = 0 if variant.static else 1
    return quantized(variant.network(), variant.inputs(), bits, axis, granularity=granularity)


@pytest.mark.few(0.3)
@pytest.mark.parametrize("seed", [*range(6), 2091, 20126])
def test_random_models_compute_the_same_in_c(tmp_path, seed):
    """2091: small codes in words of 32 bits with sums of 16; 20126: sums that nobody takes."""
    model = random_model(seed)
    program = compiled(model, tmp_path, layout=LAYOUTS[seed % 2])
    check_equal(program, random_codes(model, seed, 3), seed)


def test_nothing_undefined_happens_in_a_random_model(tmp_path):
    model = random_model(1000, operations=20)
    program = compiled(model, tmp_path, layout="packed", flags=SANITIZED)
    check_equal(program, random_codes(model, 1, 3))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(2000, 2000 + MANY, 20))
@pytest.mark.campaign
def test_many_random_models_compute_the_same_in_c(tmp_path, first):
    """Under sanitizers, which find what C does not define."""
    for seed in range(first, first + 20):
        model = random_model(seed)
        program = compiled(model, tmp_path / str(seed), layout=LAYOUTS[seed % 2], flags=SANITIZED)
        check_equal(program, random_codes(model, seed, 3), seed)


@pytest.mark.campaign
@pytest.mark.slow
def test_random_models_hold_every_operation_with_every_setting():
    kinds, roundings, neurons, lengths = Counter(), Counter(), Counter(), set()
    for seed in range(2000, 2100):
        for one in random_model(seed).operations:
            kinds[type(one.what).__name__, any(o.delay for o in one.operands)] += 1
            if isinstance(one.what, Neuron | Round):
                roundings[type(one.what), one.what.rounding, one.what.overflow] += 1
            if isinstance(one.what, Neuron):
                what = one.what
                neurons[
                    what.model, what.decay_input, what.reset is None, what.threshold is None
                ] += 1
                lengths.add(what.state.word_length)
    assert {kind for kind, _ in kinds} == {
        "Input", "Synapse", "Neuron", "Round", "Arithmetic", "Pooling", "Gather", "State",
    }  # fmt: skip
    assert {kind for kind, late in kinds if late} == {"Synapse", "Arithmetic", "Gather"}
    assert len(roundings) == 2 * len(ROUNDINGS) * len(OVERFLOWS)
    assert len(neurons) >= 20
    assert {1, 2, 3, 7, 8, 16, 27, 32} <= lengths


@pytest.mark.parametrize("name", ["recurrent containers", "depthwise convolutions"])
@pytest.mark.parametrize("bits", [8, 5])
def test_networks_compute_the_same_in_c(tmp_path, name, bits):
    model, codes = of_variant(KINDS[name].variant, bits)
    check_equal(compiled(model, tmp_path, layout=LAYOUTS[bits % 2]), codes[:, :2])


WITHOUT = ("former", "ottt", "sdt", "masnn", "att_", "SNASNet", "SpikeDHS")
"""Networks with operations that no device model says, or norms over time."""


@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 5])
@pytest.mark.parametrize(
    "variant",
    [one for one in ZOO if not any(word in one.name for word in (*WITHOUT, "101", "152"))],
    ids=lambda one: one.name,
)
@pytest.mark.campaign
def test_the_model_zoo_computes_the_same_in_c(tmp_path, variant, bits):
    model, codes = of_variant(variant, bits)
    program = compiled(model, tmp_path, layout=LAYOUTS[bits % 2], flags=SANITIZED)
    check_equal(program, codes[:1] if variant.static else codes[:, :1])


def neurons_of(kind):
    torch.manual_seed(3)
    step = {"step_mode": "m"}
    made = {
        "levels": lambda: neuron.ILIFNode(**step),
        "filter": lambda: layer.SynapseFilter(3.0, **step),
        "below": lambda: neuron.IFNode(v_reset=-0.25, **step),
        "soft": lambda: neuron.LIFNode(v_reset=None, decay_input=False, **step),
    }[kind]()
    net = nn.Sequential(
        layer.Conv2d(2, 4, 3, **step), neuron.LIFNode(**step), layer.Flatten(**step),
        nn.Linear(64, 12), made, nn.Linear(12, 5), neuron.IFNode(**step),
    )  # fmt: skip
    return net, (torch.rand(5, 3, 2, 6, 6) < 0.4).float()


@pytest.mark.few(0.25)
@pytest.mark.parametrize("kind", ["levels", "filter", "below", "soft"])
def test_every_kind_of_neuron_computes_the_same_in_c(tmp_path, kind):
    net, x = neurons_of(kind)
    model, codes = quantized(net, x, 7, rounding="stochastic")
    check_equal(compiled(model, tmp_path, layout="packed"), codes, seed=5)


def test_a_convolution_whose_neurons_are_in_one_row_computes_the_same_in_c(tmp_path):
    step = {"step_mode": "m"}
    torch.manual_seed(1)
    net = nn.Sequential(
        layer.Conv2d(2, 3, 3, **step), layer.Flatten(**step), neuron.LIFNode(**step),
        nn.Linear(48, 4), neuron.IFNode(**step),
    )  # fmt: skip
    x = (torch.rand(3, 2, 2, 6, 6) < 0.4).float()
    model, codes = quantized(net, x, 8)
    check_equal(compiled(model, tmp_path), codes)


def chain(*, weight=WEIGHT, state=STATE, name="chain", **neuron):
    """Three inputs, three weights, and one layer of two neurons: the smallest model with all."""
    codes = np.array([[3, -2, 1], [1, 2, weight.code_min]])
    tensors = {"w": StoredTensor.of(codes, weight)}
    if "threshold" in neuron:
        fmt = FixedPointFormat(31 - state.fraction_bits, state.fraction_bits)
        tensors["t"] = StoredTensor.of(np.array(neuron.pop("threshold")), fmt)
        neuron["threshold"] = "t"
    spikes = Input(FixedPointFormat(1, 0, signed=False))
    operations = (
        DeviceOperation(spikes, (), (3,)),
        DeviceOperation(Synapse("w"), (Operand(0),), (2,), "layer", taken=(3,)),
        DeviceOperation(Neuron("if", state, **neuron), (Operand(1),), (2,), "layer.n"),
    )
    tables = {"o": PackedTensor.shortest(np.array([[0], [1]]))}
    return DeviceModel(operations, Output(2, "o"), tensors, tables, None, 3, 4, name)


def fan(layers):
    """Layers of neurons side by side: each a tensor of weights for three inputs, and neurons."""
    spikes = Input(FixedPointFormat(1, 0, signed=False))
    operations, tensors = [DeviceOperation(spikes, (), (3,))], {}
    for weight, threshold, what in layers:
        number, size = len(operations), len(weight.codes)
        tensors[f"w{number}"] = weight
        if threshold is not None:
            tensors[f"t{number}"] = threshold
            what = replace(what, threshold=f"t{number}")
        layer = Synapse(f"w{number}")
        operations.append(DeviceOperation(layer, (Operand(0),), (size,), taken=(3,)))
        operations.append(DeviceOperation(what, (Operand(number),), (size,)))
    tables = {"o": PackedTensor.shortest(np.arange(operations[-1].size)[:, None])}
    output = Output(len(operations) - 1, "o")
    return DeviceModel(tuple(operations), output, tensors, tables, None, 3, 4, "fan")


def test_weights_and_states_of_every_word_length(tmp_path):
    """Many rows, so that several codes are read at once."""
    layers = []
    for length in range(1, 33):
        fmt = FixedPointFormat(length - 1, 0)
        random = np.random.default_rng(length)
        codes = random.integers(fmt.code_min, fmt.code_max, (13, 3), endpoint=True)
        layers.append((StoredTensor.of(codes, fmt), None, Neuron("if", fmt, overflow="wrap")))
    model = fan(layers)
    check_equal(compiled(model, tmp_path, layout="packed"), random_codes(model, 1, 4))


def test_extreme_thresholds(tmp_path):
    """Also those below 0, which make a potential larger when they are subtracted."""
    state = FixedPointFormat(29, 2)
    coarse = FixedPointFormat(31, 0)
    weight = StoredTensor.of(np.array([[3, -2, 1], [1, 2, -8]]), FixedPointFormat(1, 2))
    layers = []
    for code in (-(1 << 31), -7, 0, (1 << 31) - 1, [-5, 1 << 30]):
        for fmt in (state, coarse):
            for reset in (None, -3):
                what = Neuron("if", state, reset=reset, initial=state.code_max - 9)
                layers.append((weight, StoredTensor.of(np.array(code), fmt), what))
    model = fan(layers)
    program = compiled(model, tmp_path, flags=SANITIZED)
    check_equal(program, random_codes(model, 0, 4))


@pytest.mark.slow
@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.campaign
def test_every_rounding_of_a_network(tmp_path, rounding, overflow):
    net, x = neurons_of("soft")
    model, codes = quantized(net, x, 5, rounding=rounding, overflow=overflow)
    check_equal(compiled(model, tmp_path, layout="packed", flags=SANITIZED), codes, seed=11)


def test_random_roundings_follow_from_the_seed(tmp_path):
    model = chain(state=FixedPointFormat(3, 1), rounding="stochastic", threshold=9)
    program = compiled(model, tmp_path)
    codes = random_codes(model, 2, 5)
    for seed in (0, 1, 2**63 - 1):
        check_equal(program, codes, seed)
    found = {str(program.run(codes, seed)[1]) for seed in range(8)}
    assert len(found) > 1
    assert program.run(codes, 3) == program.run(codes, 3)


@pytest.mark.parametrize(
    "name",
    ["for", "int", "a b/c d", "*/ evil(); /*", "??/", "3d", "π", "trailing\\", "\n#error", ""],
)
def test_names_of_models_and_layers_cannot_break_the_code(tmp_path, name):
    model = chain(threshold=9)
    operations = tuple(replace(one, path=name) for one in model.operations)
    model = replace(model, operations=operations, name=name)
    folder = tmp_path / "a folder; with spaces"
    sizes = write_c(model, folder)
    stem = identifier(name or "network")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [f"{stem}.h", f"{stem}.c", f"{stem}_main.c"]
    )
    command = [str(GCC), *STRICT, *FAST, "-o", "net", f"{stem}.c", f"{stem}_main.c"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sizes.payload_bits == 6 * 4 + 32


@pytest.mark.parametrize("text", ["*/", "**/", "/*/", "*\n/", "?" * 9 + "/", "a" * 300, "\u202e"])
def test_comments_end_where_they_end(text):
    written = comment(f"before {text} after")
    assert written.endswith("after */")
    assert written.count("*/") == 1
    assert written.count("/*") == 1
    assert "\u202e" not in written


@pytest.mark.parametrize("name", ["Net", "1net", "a-b", "a b", "_a", ""])
def test_names_that_are_none_in_c_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="write a name in C, such as"):
        write_c(chain(), tmp_path, name)
    assert not any(tmp_path.iterdir())


def test_an_unknown_layout_is_refused(tmp_path):
    with pytest.raises(ValueError, match="layout='loose': write one of packed, aligned"):
        write_c(chain(), tmp_path, layout="loose")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_code_is_the_same_each_time(tmp_path, layout):
    written = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        write_c(random_model(7), folder, "net", layout)
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert written[0] == written[1]
    assert len(written[0]) == 3


def test_the_code_takes_no_heap_no_float_and_no_library(tmp_path):
    for seed in range(6):
        write_c(random_model(seed), tmp_path, f"net{seed}")
        text = (tmp_path / f"net{seed}.c").read_text() + (tmp_path / f"net{seed}.h").read_text()
        assert set(re.findall(r"#include (.*)", text)) == {f'"net{seed}.h"', "<stdint.h>"}
        assert not re.search(r"\b(float|double|malloc|calloc|free|realloc)\b", text)


def test_sizes_are_those_of_the_arrays_and_the_struct(tmp_path):
    net, x = neurons_of("soft")
    model, _ = quantized(net, x, 5)
    aligned = write_c(model, tmp_path, "net", "aligned")
    packed = write_c(model, tmp_path, "net", "packed")
    assert packed.payload_bits == aligned.payload_bits == model.stored_bits
    states = model.state_bits
    assert states / 8 <= packed.state_bytes <= states / 8 + 5 * 3
    assert aligned.state_bytes == states / 5
    assert packed.constant_bytes >= model.stored_bits / 8 - 8
    probe = tmp_path / "probe.c"
    probe.write_text(
        '#include <stdio.h>\n#include "net.h"\nint main(void) {\n'
        '    printf("%u", (unsigned)sizeof(net_state));\n    return 0;\n}\n'
    )
    subprocess.run([str(GCC), "-o", "probe", "probe.c"], cwd=tmp_path, check=True)
    found = int(subprocess.run([tmp_path / "probe"], capture_output=True, check=True).stdout)
    assert packed.ram_bytes <= found <= packed.ram_bytes + 64


def test_input_that_ends_within_a_sample_is_reported(tmp_path):
    program = compiled(chain(threshold=9), tmp_path, trace=False)
    done = subprocess.run([program.path, "4"], input=bytes(7), capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"the input ends within a sample" in done.stderr


def test_answers_that_no_type_of_c_holds_are_refused(tmp_path):
    model = chain(weight=FixedPointFormat(31, 0), state=FixedPointFormat(31, 0))
    table = {"o": PackedTensor.shortest(np.zeros((2, 1 << 17), np.int64))}
    model = replace(model, tables=table)
    with pytest.raises(ValueError, match=r"sums of answers, .* need \d+ bits"):
        write_c(model, tmp_path)


@pytest.mark.few(0.34)
@pytest.mark.parametrize("bits", [3, 4, 5, 6, 7, 8])
def test_sums_of_16_bits_lie_two_in_a_word(tmp_path, bits):
    """Read by neurons, and by a pooling, which takes them in the order of the model."""
    torch.manual_seed(bits)
    net = nn.Sequential(
        layer.Conv2d(2, 16, (3, 4), stride=(1, 3), padding=1, bias=bits % 2 == 0, step_mode="m"),
        neuron.LIFNode(step_mode="m"),
        layer.Conv2d(16, 16, 3, stride=2, padding=2, step_mode="m"),
        layer.AvgPool2d(2, step_mode="m"),
        neuron.IFNode(step_mode="m"),
        layer.Flatten(step_mode="m"),
        layer.Linear(96, 32, step_mode="m"),
        neuron.LIFNode(step_mode="m"),
        layer.Linear(32, 4, step_mode="m"),
        neuron.IFNode(step_mode="m"),
    )
    x = (torch.rand(4, 3, 2, 9, 14) < 0.4).float()
    granularity = "channel" if bits > 4 else "tensor"
    model, codes = quantized(net, x, bits, granularity=granularity)
    program = compiled(model, tmp_path, layout=LAYOUTS[bits % 2], flags=SANITIZED)
    text = (tmp_path / "net.c").read_text()
    assert "_twice_" in text
    check_equal(program, codes)
