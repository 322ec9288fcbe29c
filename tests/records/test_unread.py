"""What is known to be right by its text is what the checks let pass, and nothing else."""

import copy
import json
import pickle

import pytest

from qspinn.records import RecordError, RecordReader, RunRecord, write_record
from qspinn.records.fields import FIELD_CHECKS, LAYER_WORK, SHARES, WORK
from qspinn.records.json_text import parse_json
from qspinn.records.unread import Unread
from tests.mutations import mutations

LAYER = {
    **dict.fromkeys(SHARES, 0.25),
    **{"layer": "net.1", "neurons": 10, "role": "membrane", "membrane_distance": 0.5},
    **{"first_step": 1, "first_neuron": [0, 3]},
}
EQUAL = {"first_step": None, "first_neuron": None, "membrane_distance": None}
FIDELITY = {
    **{"agreement": 0.984375, "first_layer": "net.1", "samples": 64},
    **{"layers": [LAYER, LAYER | EQUAL, LAYER | {"layer": ""}]},
    **{"notes": [], "warnings": ["layer net.1: 50% silent", "another"]},
}
NUMBERS = {"energy_nj": 30.5, "energy_compute_nj": 10.25, "energy_memory_nj": 20.25}
WORKS = dict.fromkeys(LAYER_WORK, 1.5) | NUMBERS
WORK_FIELD = {
    **dict.fromkeys(WORK, 20344.0),
    **NUMBERS,
    **{"time_steps": 4, "samples": 64, "energy_model": "Horowitz, ISSCC 2014: 45 nm"},
    **{"layers": {"net.1": WORKS, "net.2": WORKS | {"additions": 1.5e-07}}},
    **{"lines": ["work per sample: 247 (13.6% of 1,817)", "energy"]},
}
FIELDS = {"fidelity": FIDELITY, "work": WORK_FIELD}


def text_of(name, value):
    text = json.dumps({name: value}, sort_keys=True, indent=2)
    return text.removeprefix("{\n  ").removesuffix("\n}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *FIELDS.items(),
        ("fidelity", FIDELITY | {"agreement": None, "first_layer": None, "layers": []}),
        ("fidelity", FIDELITY | {"layers": [LAYER | {"silent": 1e-05, "overlap": 1.0}]}),
        ("work", WORK_FIELD | {"layers": {"net": dict.fromkeys(LAYER_WORK, 0.0)}}),
    ],
)
def test_what_runs_write_is_parsed_when_it_is_asked_for(name, value):
    unread = Unread.of(text_of(name, value))
    assert unread.name == name
    assert unread.value() == FIELD_CHECKS[name](name, value)
    assert unread.value() is unread.value()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("fidelity", '"agreement": 0.984375', '"agreement": 1.5'),
        ("fidelity", '"agreement": 0.25', '"agreement": 1.01'),
        ("fidelity", '"overlap": 0.25', '"overlap": 5e-0'),
        ("fidelity", '"overlap": 0.25', '"overlap": 5e-00'),
        ("fidelity", '"rate": 0.25', '"rate": -0.25'),
        ("fidelity", '"rate": 0.25', '"rate": true'),
        ("fidelity", '"rate": 0.25', '"rate": null'),
        ("fidelity", '"rate": 0.25', '"rate": "0.25"'),
        ("fidelity", '"first_step": 1', '"first_step": null'),
        ("fidelity", '"first_step": 1', '"first_step": 1.0'),
        ("fidelity", '"first_step": 1', f'"first_step": {2**63}'),
        ("fidelity", '"membrane_distance": 0.5', '"membrane_distance": 1e999'),
        ("fidelity", '"membrane_distance": 0.5', '"membrane_distance": -0.5'),
        ("fidelity", '"samples": 64', '"samples": 0'),
        ("fidelity", '"another"', '""'),
        ("fidelity", '"another"', '"\\u001b"'),
        ("work", '"energy_nj": 30.5,\n    "float', '"energy_nj": 30.6,\n    "float'),
        ("work", '"additions": 1.5', '"additions": -1.5'),
        ("work", '"additions": 1.5', '"additions": true'),
        ("work", '"bits_moved": 1.5', '"bits_moved": 1e999'),
        ("work", '"bits_moved": 1.5', '"bits_moved": null'),
        ("work", '"net.2"', '""'),
        ("work", '"samples": 64', '"samples": 6.4'),
        ("work", '"energy"', "3"),
        ("work", '"energy"', '""'),
    ],
)
def test_what_is_wrong_is_refused_with_the_words_of_the_check(
    tmp_path, make_record, name, old, new
):
    path = write_record(make_record(**FIELDS), tmp_path / "record.json")
    changed = path.read_text().replace(old, new, 1)
    assert changed != path.read_text()
    path.write_text(changed)
    with pytest.raises(RecordError) as expected:
        RunRecord.from_dict(json.loads(changed))
    with pytest.raises(RecordError) as found:
        RecordReader().read(path)
    assert str(found.value) == f"{path}: {expected.value}"
    assert found.value.field == expected.value.field


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("work", '"net.2"', '"net.1"'),
        ("work", '"energy_model"', '"energy_nj"'),
        ("fidelity", '"notes"', '"layers"'),
    ],
)
def test_a_name_that_occurs_twice_is_refused(tmp_path, make_record, name, old, new):
    path = write_record(make_record(**FIELDS), tmp_path / "record.json")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(RecordError, match="occurs twice"):
        RecordReader().read(path)
    assert Unread.of(text_of(name, FIELDS[name]).replace(old, new)) is None


@pytest.mark.parametrize(("seed", "name"), [(0, "fidelity"), (1, "work")])
def test_no_change_is_taken_that_the_checks_refuse(seed, name):
    taken = 0
    for content in mutations(text_of(name, FIELDS[name]).encode(), seed, 4000):
        text = content.decode(errors="replace")
        unread = Unread.of(text)
        if unread is not None:
            value = parse_json(f"{{{text}}}")
            assert list(value) == [name]
            assert unread.value() == FIELD_CHECKS[name](name, value[name])
            taken += 1
    assert taken > 20


def test_a_record_with_unread_fields_is_a_record(tmp_path, make_record):
    record = make_record(**FIELDS, validation_accuracy=0.5)
    path = write_record(record, tmp_path / "record.json")
    read = RecordReader().read(path)
    assert all(isinstance(vars(read)[name], Unread) for name in FIELDS)
    for one in (read, copy.deepcopy(read), pickle.loads(pickle.dumps(read))):
        assert one == record
        assert (one.energy_nj, one.agreement) == (30.5, 0.984375)
    assert RecordReader().read(path).to_dict() == record.to_dict()
    assert RecordReader().read(path).measured_on("validation").work == WORK_FIELD
    assert (RunRecord.work, RunRecord.fidelity) == (None, None)
