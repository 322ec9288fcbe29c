"""A record checks itself, and says which field is wrong."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from qspinn.records import (
    SCHEMA_VERSION,
    RecordError,
    RunRecord,
    finite_or_none,
    work_metrics,
)

FULL = {
    "accuracy": 0.975,
    "baseline_accuracy": 0.98,
    "footprint_bits": 900,
    "baseline_footprint_bits": 3200,
    "training_footprint_bits": 1000,
    "footprint_bits_by_role": {"weight": 800, "membrane": 100},
    "baseline_footprint_bits_by_role": {"weight": 2880, "membrane": 320},
    "scheme": "itq",
    "rounding": "stochastic",
    "word_lengths": {"weight": [4, 8], "membrane": [10]},
    "formats": {
        "net.0.weight": {
            "role": "weight",
            "format": "Q0.7",
            "rounding": "stochastic",
            "overflow": "saturate",
        }
    },
    "accumulator_word_lengths": {"net.0": 16},
    "network": "conv_snn",
    "data": "mnist_subset",
    "seed": 3,
    "config": {"seed": 3, "trainer": {"max_epochs": 2, "clip": None, "betas": [0.9, 0.99]}},
    "config_hash": "0" * 64,
    "checkpoint": "checkpoints/last.ckpt",
    "versions": {"torch": "2.11.0"},
    "seconds": {"fit": 12.5},
    "metrics": {"val/accuracy": 0.975, "val/loss": None},
    "status": "completed",
    "created": "2026-01-02T03:04:05+00:00",
    "schema_version": SCHEMA_VERSION,
}

# What records of earlier versions of qspinn do not have.
SUMMARY = {
    "parameters": {"quantized": 60, "total": 64},
    "states": {"quantized": 5, "total": 10},
    "left": [{"reason": "Linear is called twice", "layers": ["net.1"], "values": 4}],
    "lines": ["quantised: 93.7% of the parameters, 50.0% of the states"],
}
LATER = {
    "baseline_key": "1" * 64,
    "setting_key": "2" * 64,
    "summary": SUMMARY,
    "data_fingerprint": "sha256:3",
    "samples": 1000,
    "validation_accuracy": 0.96,
    "validation_baseline_accuracy": 0.97,
    "validation_samples": 500,
    "flash_bits": 800,
    "ram_bits": 100,
    "learning_ram_bits": 960,
    "fidelity": {"agreement": 0.98},
    "work": {"energy_nj": 12.5},
    "device_model": {
        "file": "model.qspinn",
        "sha256": "3" * 64,
        "file_bytes": 1000,
        "header_bytes": 200,
        "payload_bits": 6390,
        "padding_bits": 10,
        "verified_samples": 4,
        "difference": None,
        "lines": ["model file: 1,000 bytes"],
    },
}


@pytest.mark.parametrize("values", [FULL, FULL | LATER])
def test_every_field_is_kept_through_a_dictionary(values):
    record = RunRecord.from_dict(values)
    assert record.to_dict() == values
    assert RunRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_the_example_has_every_field():
    assert set(FULL | LATER) == {item.name for item in dataclasses.fields(RunRecord)}


def test_accuracies_change_places():
    record = RunRecord.from_dict(FULL | LATER)
    assert record.measured_on("test") is record
    choosing = record.measured_on("validation")
    assert (choosing.accuracy, choosing.baseline_accuracy, choosing.samples) == (0.96, 0.97, 500)
    assert choosing.drop == pytest.approx(0.01)
    assert choosing.footprint_bits == record.footprint_bits
    assert RunRecord.from_dict(FULL).measured_on("validation") is None


def test_derived_values():
    record = RunRecord.from_dict(FULL)
    assert record.reduction == 3200 / 900
    assert record.drop == pytest.approx(0.005)
    assert RunRecord.from_dict(FULL | {"baseline_accuracy": None}).drop is None


def test_shares_of_what_is_quantised():
    record = RunRecord.from_dict(FULL | LATER)
    assert (record.parameters_share, record.states_share) == (60 / 64, 0.5)
    assert record.summary_lines == SUMMARY["lines"]
    none_at_all = {"parameters": {"quantized": 0, "total": 0}, "states": SUMMARY["states"]}
    record = RunRecord.from_dict(FULL | {"summary": none_at_all})
    assert (record.parameters_share, record.summary_lines) == (1.0, [])
    older = RunRecord.from_dict(FULL)
    assert (older.parameters_share, older.states_share, older.summary_lines) == (None, None, [])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"states": None}, r"summary\.states"),
        ({"states": {"quantized": 11, "total": 10}}, r"summary\.states\.quantized.*at most .*10"),
        ({"parameters": {"quantized": 1}}, r"summary\.parameters\.total"),
        ({"parameters": {"quantized": -1, "total": 1}}, r"summary\.parameters\.quantized"),
        ({"lines": "all"}, r"summary\.lines.*a list of texts"),
        ({"lines": [3]}, r"summary\.lines\[0\]"),
        ({"left": float("nan")}, r"summary\.left"),
    ],
)
def test_a_summary_that_contradicts_itself(change, says):
    with pytest.raises(RecordError, match=says):
        RunRecord.from_dict(FULL | {"summary": SUMMARY | change})


LAYER = {
    "layer": "net.1",
    "neurons": 12,
    **dict.fromkeys(("rate", "silent", "saturated", "rate_distance", "agreement", "overlap"), 0.5),
    **dict.fromkeys(("reference_rate", "reference_silent", "reference_saturated"), 0.25),
    "first_step": 2,
    "first_neuron": [3, 0],
    "membrane_distance": 1.5,
    "role": "membrane",
}
FIDELITY = {
    "samples": 64,
    "agreement": 0.98,
    "first_layer": "net.1",
    "layers": [LAYER],
    "warnings": ["layer net.1: 50% silent"],
    "notes": [],
}
EQUAL = {"first_step": None, "first_neuron": None, "membrane_distance": None}


@pytest.mark.parametrize(
    "fidelity",
    [
        FIDELITY,
        FIDELITY | {"layers": [LAYER | EQUAL], "first_layer": None},
        FIDELITY | {"layers": [LAYER | {"layer": ""}], "first_layer": ""},
        {"agreement": None, "notes": ["no class scores"]},
    ],
)
def test_a_fidelity_is_kept(fidelity):
    record = RunRecord.from_dict(FULL | {"fidelity": fidelity})
    assert record.to_dict()["fidelity"] == fidelity
    assert record.agreement == fidelity["agreement"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"agreement": 1.01}, r"fidelity\.agreement.*\[0, 1\]"),
        ({"samples": 0}, r"fidelity\.samples.*at least 1"),
        ({"first_layer": 3}, r"fidelity\.first_layer"),
        ({"warnings": "none"}, r"fidelity\.warnings.*a list"),
        ({"notes": [""]}, r"fidelity\.notes\[0\]"),
        ({"layers": {"net.1": LAYER}}, r"fidelity\.layers.*a list"),
        ({"layers": [LAYER, 3]}, r"fidelity\.layers\[1\].*a mapping"),
        ({"layers": [LAYER | {"silent": -0.1}]}, r"fidelity\.layers\[0\]\.silent"),
        ({"layers": [LAYER | {"layer": None}]}, r"fidelity\.layers\[0\]\.layer"),
        ({"layers": [LAYER | {"first_step": None}]}, r"first_neuron.*exactly where"),
        ({"layers": [LAYER | {"first_neuron": [-1]}]}, r"first_neuron\[0\]"),
        ({"layers": [LAYER | {"first_step": 1.5}]}, r"layers\[0\]\.first_step"),
        ({"layers": [LAYER | {"membrane_distance": -1}]}, r"membrane_distance"),
    ],
)
def test_a_fidelity_that_cannot_be(change, says):
    with pytest.raises(RecordError, match=says):
        RunRecord.from_dict(FULL | {"fidelity": FIDELITY | change})
    without = {key: value for key, value in FIDELITY.items() if key != "agreement"}
    with pytest.raises(RecordError, match=r"fidelity\.agreement.*a number"):
        RunRecord.from_dict(FULL | {"fidelity": without})


def test_word_lengths_are_normalized():
    given = {"weight": 8, "bias": (16, 8, 16)}
    record = RunRecord.from_dict(FULL | {"word_lengths": given})
    assert record.word_lengths == {"weight": [8], "bias": [8, 16]}


def test_a_record_does_not_share_what_it_was_made_of():
    config = {"trainer": {"max_epochs": 2}}
    record = RunRecord.from_dict(FULL | {"config": config})
    config["trainer"]["max_epochs"] = 3
    record.to_dict()["config"]["trainer"]["max_epochs"] = 4
    assert record.config == {"trainer": {"max_epochs": 2}}


def test_a_record_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunRecord.from_dict(FULL).accuracy = 1.0  # type: ignore[misc]


WRONG = [
    ("accuracy", 1.01, "[0, 1]"),
    ("accuracy", -0.1, "[0, 1]"),
    ("accuracy", math.nan, "finite"),
    ("accuracy", math.inf, "finite"),
    ("accuracy", True, "a number"),
    ("accuracy", "0.9", "a number"),
    ("accuracy", None, "a number"),
    ("baseline_accuracy", 98.0, "[0, 1]"),
    ("baseline_accuracy", math.nan, "finite"),
    ("footprint_bits", 900.0, "an integer"),
    ("footprint_bits", 0, "at least 1"),
    ("baseline_footprint_bits", True, "an integer"),
    ("training_footprint_bits", 899, "at least 900"),
    ("footprint_bits_by_role", {"weight": 800}, "add up to footprint_bits = 900"),
    ("footprint_bits_by_role", [900], "a mapping"),
    ("footprint_bits_by_role.weight", {"weight": -1, "bias": 901}, "at least 0"),
    ("baseline_footprint_bits_by_role", {"weight": 3201}, "their sum is 3201"),
    ("scheme", "PTQ", "none, ptq, itq"),
    ("rounding", None, "because the scheme is itq"),
    ("rounding", "", "non-empty"),
    ("word_lengths.weight", {"weight": 0}, "at least 1"),
    ("word_lengths.weight", {"weight": [8.0]}, "an integer"),
    ("formats.a", {"a": {"role": "weight"}}, "role, format, rounding, overflow"),
    ("formats.a", {"a": "Q0.7"}, "a mapping"),
    ("accumulator_word_lengths.a", {"a": 0}, "at least 1"),
    ("accumulator_word_lengths", [16], "a mapping"),
    ("network", "", "non-empty"),
    ("data", None, "non-empty"),
    ("seed", 1.0, "an integer"),
    ("config", [1], "a mapping"),
    ("config.a.b[1]", {"a": {"b": [1, math.nan]}}, "finite"),
    ("config.path", {"path": Path("x")}, "plain types"),
    ("config.a", {"a": {1: 2}}, "keys that are strings"),
    ("config_hash", "abc", "64 hexadecimal digits"),
    ("checkpoint", "/tmp/last.ckpt", "relative"),
    ("checkpoint", "checkpoints\\last.ckpt", "forward slashes"),
    ("versions.torch", {"torch": 2}, "non-empty string"),
    ("seconds.fit", {"fit": -1.0}, "[0, inf]"),
    ("metrics.val/loss", {"val/loss": math.nan}, "write null"),
    ("metrics", {"": 1.0}, "non-empty"),
    ("status", "done", "completed, interrupted"),
    ("created", "yesterday", "ISO 8601"),
    ("schema_version", SCHEMA_VERSION + 1, str(SCHEMA_VERSION)),
    ("schema_version", float(SCHEMA_VERSION), str(SCHEMA_VERSION)),
]


@pytest.mark.parametrize(("field", "value", "says"), WRONG)
def test_a_wrong_value_is_refused_with_its_field(field, value, says):
    name = field.split(".")[0]
    with pytest.raises(RecordError) as caught:
        RunRecord.from_dict(FULL | {name: value})
    assert caught.value.field == field
    assert repr(field) in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize("name", sorted(FULL))
def test_a_missing_field_is_named(name):
    with pytest.raises(RecordError, match=f"'{name}' is missing") as caught:
        RunRecord.from_dict({key: value for key, value in FULL.items() if key != name})
    assert caught.value.field == name


def test_an_unknown_field_is_named_and_the_known_ones_listed():
    with pytest.raises(RecordError, match=r"unknown field 'acuracy'; known: accuracy"):
        RunRecord.from_dict(FULL | {"acuracy": 0.9})


def test_rules_of_a_run_without_quantization(make_record):
    assert make_record(scheme="none", baseline_accuracy=0.97).accuracy == 0.97
    with pytest.raises(RecordError, match=r"'baseline_accuracy'.*null or the accuracy 0\.97"):
        make_record(scheme="none", baseline_accuracy=0.98)
    with pytest.raises(RecordError, match=r"'rounding'.*null, because the scheme is none"):
        make_record(scheme="none", rounding="nearest")
    with pytest.raises(RecordError, match=r"'formats'.*empty mapping"):
        make_record(scheme="none", formats=FULL["formats"])


def test_metrics_that_are_not_finite_become_none():
    given = {"a": 1, "b": math.nan, "c": -math.inf}
    assert finite_or_none(given) == {"a": 1.0, "b": None, "c": None}


def test_records_need_the_standard_library_only(repository):
    code = (
        "import sys; before = set(sys.modules); import qspinn.records;"
        "new = {m.split('.')[0] for m in set(sys.modules) - before};"
        "print(sorted(new - sys.stdlib_module_names - {'qspinn'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_work_may_say_more_and_holds_together():
    layer = {"synaptic_operations": 1.5, "energy_nj": 2.0}
    work = {
        **{"energy_nj": 3.0, "energy_compute_nj": 1.0, "energy_memory_nj": 2.0, "samples": 64},
        **{"layers": {"a": layer, "a.b": layer}, "lines": ["one"], "another": "text"},
    }
    record = RunRecord.from_dict(FULL | {"work": work})
    assert (record.work, record.energy_nj) == (work, 3.0)
    assert work_metrics(record.work)["work/energy_nj"] == 3.0
    assert work_metrics(record.work).keys() == {
        *("work/energy_nj", "work/energy_compute_nj", "work/energy_memory_nj", "work/samples")
    }
    assert work_metrics(None) == {}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"energy_nj": -1.0}, "work.energy_nj"),
        ({"energy_nj": None}, "work.energy_nj"),
        ({"ann_energy_nj": "3"}, "work.ann_energy_nj"),
        ({"samples": 0}, "work.samples"),
        ({"time_steps": True}, "work.time_steps"),
        ({"layers": []}, "work.layers"),
        ({"layers": {"a": {"bits_moved": -1}}}, "work.layers.a.bits_moved"),
        ({"layers": {"a": 3}}, "work.layers.a"),
        ({"lines": "one"}, "work.lines"),
        ({"lines": ["\n"]}, r"work.lines\[0\]"),
        ({"energy_compute_nj": 1.0, "energy_memory_nj": 1.0}, "work.energy_nj"),
    ],
)
def test_work_that_cannot_be_is_refused(wrong, field):
    with pytest.raises(RecordError, match=f"field '{field}'"):
        RunRecord.from_dict(FULL | {"work": {"energy_nj": 12.5, **wrong}})
