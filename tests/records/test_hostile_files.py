"""Record and failure files that hold anything: named and refused, or read as what they say."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from qspinn.records import (
    RecordError,
    RecordReader,
    RunFailure,
    RunRecord,
    find_outcomes,
    printable,
    read_failure,
    read_record,
    write_failure,
    write_record,
)
from tests.mutations import mutations
from tests.records.test_unread import FIELDS

FAST, MANY = 400, 8000


@pytest.fixture
def sound(tmp_path, make_record):
    record = make_record(
        **FIELDS,
        formats={"a.w": {"role": "weight", "format": "Q1.6", "rounding": "n", "overflow": "s"}},
        metrics={"loss": 0.5, "lost": None},
        seconds={"fit": 1.5},
        versions={"torch": "2"},
        summary={
            "parameters": {"quantized": 1, "total": 2},
            "states": {"quantized": 0, "total": 0},
            "lines": ["a line"],
        },
    )
    return write_record(record, tmp_path / "record.json")


def attack_record(file, seed, count):
    """Whatever is read is what a plain parser makes of the same bytes."""
    refused, reader = 0, RecordReader()
    for content in mutations(file.read_bytes(), seed, count):
        file.write_bytes(content)
        try:
            read = reader.read(file)
        except RecordError as error:
            assert str(file) in str(error)
            assert printable(str(error)) == str(error)
            refused += 1
        else:
            assert read == RunRecord.from_dict(json.loads(content.decode("utf-8-sig")))
    assert refused > count / 2


def test_changed_records_are_refused_or_read_as_they_are(sound):
    attack_record(sound, 0, FAST)


@pytest.mark.slow
def test_many_changed_records(sound):
    content = sound.read_bytes()
    for seed in range(1, 4):
        sound.write_bytes(content)
        attack_record(sound, seed, MANY)


def test_changed_failures_are_refused_or_read(tmp_path):
    failure = RunFailure(error="E", message="m", traceback="t", config={"a": 1}, created="now")
    file = write_failure(failure, tmp_path / "failure.json")
    for content in mutations(file.read_bytes(), 0, FAST):
        file.write_bytes(content)
        try:
            read = read_failure(file)
        except RecordError as error:
            assert str(file) in str(error)
        else:
            assert {**vars(read), "schema_version": 1} == json.loads(content)


@pytest.mark.parametrize("number", [10**400, -(10**400), 2**63, 10**4000])
@pytest.mark.parametrize("name", ["footprint_bits", "seed", "training_footprint_bits"])
def test_enormous_numbers_are_refused(sound, name, number):
    values = json.loads(sound.read_text()) | {name: number}
    sound.write_text(json.dumps(values))
    with pytest.raises(RecordError, match=f"field '{name}': got"):
        read_record(sound)


def test_numbers_that_python_does_not_write_out_are_refused(sound):
    values = json.loads(sound.read_text())
    sound.write_text(sound.read_text().replace('"seed": 0', f'"seed": {"9" * 5000}'))
    with pytest.raises(RecordError, match=r"record\.json"):
        read_record(sound)
    with pytest.raises(RecordError, match="a number of 16,610 bits"):
        RunRecord.from_dict(values | {"seed": 10**5000})


@pytest.mark.parametrize("name", ["record.json", "failure.json"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "huge"])
def test_what_is_no_file_of_its_kind_is_refused_at_once(tmp_path, name, kind):
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.touch()
        os.truncate(path, 3 << 30)
    read = read_record if name == "record.json" else read_failure
    reason = "makes? sense" if kind == "huge" else "regular file|directory"
    with pytest.raises(RecordError, match=rf"{name}: cannot be read \(.*({reason})"):
        read(path)


def test_what_became_shorter_is_not_taken_for_all(sound, monkeypatch):
    """A table that was cut would give fewer runs, without a word."""
    read = os.read
    answers = []

    def some(descriptor, count):
        answers.append(count)
        return read(descriptor, min(count, 100))

    monkeypatch.setattr(os, "read", some)
    assert read_record(sound).network == "conv_snn"
    assert len(answers) > 5
    monkeypatch.setattr(os, "read", lambda descriptor, count: read(descriptor, count) and b"")
    with pytest.raises(RecordError, match="became shorter while it was read"):
        read_record(sound)


@pytest.mark.parametrize("depth", [99, 100, 400, 900, 100_000])
@pytest.mark.parametrize("place", ["config", "summary"])
def test_what_is_nested_very_deeply_is_refused(sound, place, depth):
    """What one function can follow another, called from deeper down, could not."""
    values = json.loads(sound.read_text())
    values[place] = values[place] | {"deep": "HERE"}
    sound.write_text(json.dumps(values).replace('"HERE"', '{"a":' * depth + "1" + "}" * depth))
    if depth == 99:
        assert "deep" in getattr(read_record(sound), place)
        return
    with pytest.raises(RecordError, match=r"record\.json: .*nested"):
        read_record(sound)


def test_a_record_that_would_fill_the_memory_is_refused(sound):
    """Python takes 64 bytes for an empty list, of which a text has three."""
    values = json.loads(sound.read_text()) | {"config": {"lists": "HERE"}}
    sound.write_text(json.dumps(values).replace('"HERE"', "[" + "[]," * 20_000_000 + "[]]"))
    with pytest.raises(RecordError, match="commas"):
        read_record(sound)
    member = '"x{0}": [' + "[]," * 300_000 + "[]],"
    members = "\n    ".join(member.format(index) for index in range(10))
    values["config"] = {"last": 1}
    text = json.dumps(values, sort_keys=True, indent=2) + "\n"
    sound.write_text(text.replace('"last"', f'{members}\n    "last"'))
    with pytest.raises(RecordError, match="commas"):
        read_record(sound)


def test_a_record_of_ten_thousand_layers_is_read(make_record, tmp_path):
    own = {"role": "weight", "format": "Q1.6", "rounding": "nearest", "overflow": "saturate"}
    formats = {f"network.layers.{index}.block.convolution.weight": own for index in range(10_000)}
    record = make_record(formats=formats)
    assert read_record(write_record(record, tmp_path / "record.json")) == record


def test_a_network_in_32_bits_is_as_large_as_one(make_record):
    make_record(scheme="none", bits=3200)
    with pytest.raises(RecordError, match=r"'footprint_bits': got 100 .*expected 3200"):
        make_record(scheme="none", bits=100)


@pytest.mark.parametrize("path", ["../last.ckpt", "checkpoints/../../last.ckpt", ".."])
def test_a_checkpoint_lies_in_the_folder_of_its_run(make_record, path):
    with pytest.raises(RecordError, match="relative to the record's folder"):
        make_record(checkpoint=path)


def test_names_that_a_terminal_acts_on_are_refused(make_record):
    for name in ("\x1b[31mred", "two\nlines", "\u202egnp", "\x9b2J", "\ufeffmark"):
        for fields in ({"network": name}, {"metrics": {name: 0.5}}, {"versions": {"torch": name}}):
            with pytest.raises(RecordError, match="without control characters"):
                make_record(**fields)
    assert make_record(network="Netz für Ziffern, 網").network == "Netz für Ziffern, 網"


@pytest.fixture
def deep(tmp_path):
    """Return a function that makes folders in each other, which Python could not delete."""
    here = os.getcwd()

    def make(name, count, record):
        os.chdir(tmp_path)
        try:
            for _ in range(count):
                os.mkdir(name)
                os.chdir(name)
            Path("record.json").write_bytes(record)
        finally:
            os.chdir(here)

    yield make
    subprocess.run(["rm", "-rf", str(tmp_path)], check=True)


def test_very_deep_folders_are_looked_through(tmp_path, sound, deep):
    content = sound.read_bytes()
    sound.unlink()
    deep("d", 1200, content)
    for root in (tmp_path, f"{tmp_path}/**", f"{tmp_path}/**/record.json", f"{tmp_path}/**/d"):
        (found,) = find_outcomes(root)
        assert read_record(found).network == "conv_snn"


def test_what_cannot_be_looked_into_is_told(tmp_path, sound, deep):
    deep("x" * 250, 20, sound.read_bytes())
    (tmp_path / "loop").symlink_to("loop")
    os.mkdir(tmp_path / "loops")
    (tmp_path / "loops" / "record.json").symlink_to("record.json")
    told = []
    found = list(find_outcomes(tmp_path, lambda folder, error: told.append(error)))
    assert [error.strerror for error in told] == ["File name too long"]
    assert found == [str(sound), str(tmp_path / "loops" / "record.json")]
    told.clear()
    pattern = f"{tmp_path}/**/record.json"
    assert set(find_outcomes(pattern, lambda folder, error: told.append(error))) == set(found)
    assert [error.strerror for error in told] == ["File name too long"]
    with pytest.raises(RecordError, match="cannot be read"):
        read_record(found[1])


def test_names_of_bytes_are_shown_as_such():
    assert printable("a\udcffb\x1b[2J\u202e\n") == "a\\xffb\\x1b[2J\\u202e\\x0a"
    assert printable("für 網 ×") == "für 網 ×"
