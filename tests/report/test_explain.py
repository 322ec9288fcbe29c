"""One run in words: right numbers, within 80 columns, whatever the record holds."""

import re

import pytest

from qspinn.records import RunRecord
from qspinn.report.explain import WIDTH, explained
from qspinn.report.footprint import device_model_lines

LAYER = {
    "layer": "network.blocks.0.neuron",
    "neurons": 2352,
    "rate": 0.1234,
    "reference_rate": 0.11,
    "silent": 0.38,
    "reference_silent": 0.04,
    "saturated": 0.02,
    "reference_saturated": 0.0,
    "rate_distance": 0.0271,
    "agreement": 0.97,
    "overlap": 0.8123,
    "first_step": 3,
    "first_neuron": [0, 1, 2],
    "membrane_distance": 0.25,
    "role": "membrane",
}
WARNING = "layer network.blocks.0.neuron: 38% silent, 4% before; give membrane 2 bits more"
FIDELITY = {
    "samples": 64,
    "agreement": 0.984375,
    "first_layer": "network.blocks.0.neuron",
    "layers": [LAYER, LAYER | {"layer": "out", "first_step": None, "first_neuron": None}],
    "warnings": [WARNING],
    "notes": [],
}


def text(record: RunRecord) -> str:
    lines = explained(record)
    assert max(map(len, lines)) <= WIDTH
    assert all(line == line.rstrip() and "\x1b" not in line for line in lines)
    assert lines[0]
    assert lines[-1]
    return "\n".join(lines)


def joined(record: RunRecord) -> str:
    """As one line, so that it does not matter where lines end."""
    return re.sub(r"\s+", " ", text(record))


def cells(record: RunRecord, start: str) -> list[str]:
    (line,) = [line for line in text(record).splitlines() if line.strip().startswith(start)]
    return re.split(r"\s{2,}", line.strip())


@pytest.fixture
def record(make_record):
    return make_record(
        bits=1100,
        baseline_bits=3520,
        accuracy=0.9712,
        baseline_accuracy=0.975,
        samples=1000,
        validation_accuracy=0.98,
        validation_baseline_accuracy=0.97,
        validation_samples=500,
        footprint_bits_by_role={"membrane": 300, "weight": 800},
        baseline_footprint_bits_by_role={"membrane": 320, "weight": 3200},
        training_footprint_bits=1500,
        word_lengths={"weight": 8, "membrane": [10, 30]},
        flash_bits=800,
        ram_bits=300,
        learning_ram_bits=1200,
        fidelity=FIDELITY,
        work={"energy_nj": 1234.5},
        summary={
            "parameters": {"quantized": 60, "total": 64},
            "states": {"quantized": 5, "total": 10},
            "lines": ["quantised: 93.7% of the parameters, 50% of the states"],
        },
    )


def test_what_was_quantised_and_what_it_costs(record):
    shown = joined(record)
    assert shown.startswith("conv_snn on mnist_subset, seed 0 quantised after training (PTQ, near")
    assert "bits: weight 8, membrane 10/30" in shown
    assert "quantised: 93.7% of the parameters" in shown
    assert cells(record, "validation data") == [
        "validation data", "97.00% [95.1, 98.2]", "98.00% [96.4, 98.9]", "+1.00 points"
    ]  # fmt: skip
    assert cells(record, "test data")[-1] == "-0.38 points"
    assert cells(record, "weight") == ["weight", "3,200", "800", "8", "4.0x"]
    assert cells(record, "total") == ["total", "3,520", "1,100", "3.2x"]
    assert cells(record, "to classify") == ["to classify", "800", "300"]
    assert cells(record, "to learn") == ["to learn", "300", "1,200"]
    assert "energy per sample, estimated: 1,234 nJ" in shown


def test_the_lines_of_the_work_are_those_of_the_record(make_record):
    lines = [
        f"{word} synaptic operations and much else of which there is no end" * 3 for word in "ab"
    ]
    shown = joined(make_record(work={"energy_nj": 3.5, "lines": lines}))
    assert all(line in shown for line in lines)
    assert "3.5 nJ" not in shown


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (None, []),
        ({"file_bytes": 100}, []),
        ({"refused": "a: is something"}, ["no device model was saved: a: is something"]),
        (
            {"file": "model.qspinn", "sha256": "0" * 64, "file_bytes": 1234, "verified_samples": 4},
            [
                "device model: model.qspinn, 1,234 bytes, gives the network's exact outputs (4 "
                "samples)"
            ],
        ),
        (
            {"file": "model.qspinn", "sha256": "0" * 64, "learning_refused": "a: write b"},
            ["device model: model.qspinn", "it cannot go on learning in C: a: write b"],
        ),
        (
            {"file": "model.qspinn", "sha256": "0" * 64, "difference": "sample 0, layer a"},
            [
                "device model: model.qspinn; DO NOT USE IT, it differs from the network: sample 0, "
                "layer a"
            ],
        ),
    ],
)
def test_the_device_model_is_named_or_why_there_is_none(make_record, found, says):
    record = make_record(device_model=found)
    assert device_model_lines(record) == says
    shown = joined(make_record(device_model=found and {**found, "lines": ["RAM: 3 bytes"]}))
    assert all(line in shown for line in says)
    assert ("RAM: 3 bytes" in shown) is (found is not None)


def test_how_it_behaves(record):
    shown = joined(record)
    assert "98.44% [91.7, 99.7] of 64 samples get the class that they get in 32-bit" in shown
    assert "the first layer whose spikes differ is network.blocks.0.neuron" in shown
    assert f"warning: {WARNING}" in shown
    (row,) = [line.split() for line in text(record).splitlines() if "blocks.0.neuron  " in line]
    expected = ["12.3", "(11.0)", "38", "(4)", "2", "(0)", "2.71", "0.81", "3"]
    assert row == ["network.blocks.0.neuron", *expected]
    assert cells(record, "out")[-1] == "-"


def test_a_record_without_fidelity_says_so(make_record):
    shown = joined(make_record(baseline_accuracy=0.98))
    assert "Not measured: the record is older, or was made with" in shown
    assert "flash" not in shown
    assert "nJ" not in shown


def test_a_32_bit_network_has_one_column(make_record):
    record = make_record(scheme="none", accuracy=0.9)
    shown = joined(record)
    assert "the 32-bit network: nothing is quantised" in shown
    assert cells(record, "test data") == ["test data", "90.00%"]
    assert cells(record, "total") == ["total", "3,200"]
    assert "behaviour" not in shown


@pytest.mark.parametrize(
    ("fidelity", "says"),
    [
        ({"agreement": None, "notes": ["no class scores"]}, "an unknown share of the samples"),
        ({"agreement": None, "notes": ["no class scores"]}, "note: no class scores"),
        ({"agreement": 1.0, "samples": 8, "layers": [LAYER]}, "no layer's spikes differ"),
        ({"agreement": 1.0, "first_layer": ""}, "differ is the network itself"),
    ],
)
def test_what_is_not_known_is_not_made_up(make_record, fidelity, says):
    assert says in joined(make_record(fidelity=fidelity))


def test_long_names_and_large_numbers_stay_within_the_columns(make_record):
    deep = ".".join(["network", *(f"stage{i}.block{i}" for i in range(20)), "neuron"])
    huge = 2**62
    record = make_record(
        bits=huge,
        baseline_bits=huge + 2**50,
        network="n" * 300,
        fidelity=FIDELITY
        | {
            "layers": [LAYER | {"layer": deep, "first_step": 123456}],
            "first_layer": deep,
            "warnings": [WARNING.replace("network.blocks.0.neuron", deep)],
        },
        formats={},
        word_lengths={"weight": list(range(1, 60))},
    )
    shown = text(record)
    assert "block19.neuron" in shown
    assert f"{huge:,}" in shown


def test_names_do_nothing_to_a_terminal(make_record):
    layer = LAYER | {"layer": "a"}
    record = make_record(fidelity=FIDELITY | {"layers": [layer], "notes": ["x"]})
    object.__setattr__(record, "network", "evil\x1b[2J")
    assert "evil\\x1b[2J" in text(record)
