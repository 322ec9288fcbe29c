"""The model file: written and read back, refused where anything in it is wrong."""

import doctest
import hashlib
import json
import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import qspinn.export.container
from qspinn.export.container import (
    ContainerSizes,
    DamagedModelError,
    PackedTensor,
    checksum,
    read_container,
    write_container,
)
from tests.export.test_packing import tensors as drawn_tensors
from tests.reference import model_file

WEIGHT = PackedTensor(np.array([[1, -2, 3], [-4, 0, 2]]), 3, True)
TENSORS = {
    "fc.weight": WEIGHT,
    "fc.threshold": PackedTensor(np.array(9), 5, False),
    "none": PackedTensor(np.zeros((0, 3), np.int64), 32, True),
    "fc.membrane": PackedTensor(np.array([-(2**31), 2**31 - 1]), 32, True),
}
HEADER = {"operations": ["linear", {"of": "fc", "scale": 0.1}], "time_steps": 4, "note": None}

NAMES = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=20)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4)
)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.qspinn"
    write_container(path, HEADER, TENSORS)
    return path


@given(
    st.dictionaries(NAMES, VALUES, max_size=4),
    st.dictionaries(NAMES, drawn_tensors().map(lambda case: case[0]), max_size=5),
)
def test_what_is_written_is_read(tmp_path_factory, header, tensors):
    path = tmp_path_factory.mktemp("model") / "model.qspinn"
    sizes = write_container(path, header, tensors)
    read_header, read_tensors = read_container(path)
    assert json.dumps(read_header) == json.dumps(header)  # 1 and 1.0 and True are different here
    assert list(read_tensors.items()) == list(tensors.items())
    second_header, second_tensors = model_file.read(path.read_bytes())
    assert second_header == header
    assert second_tensors == {
        name: (list(tensor.shape), tensor.codes.ravel().tolist())
        for name, tensor in tensors.items()
    }
    assert sizes.file_bytes == path.stat().st_size
    assert sizes.payload_bits == sum(tensor.payload_bits for tensor in tensors.values())
    assert 0 <= sizes.padding_bits <= 7 * len(tensors)
    assert 8 * sizes.file_bytes == 8 * sizes.header_bytes + sizes.payload_bits + sizes.padding_bits
    assert sizes.header_bytes % 8 == 0


def test_equal_models_are_equal_bytes(model, tmp_path):
    write_container(tmp_path / "again", HEADER, TENSORS)
    assert (tmp_path / "again").read_bytes() == model.read_bytes()


def test_the_safetensors_library_reads_it(model):
    numpy = pytest.importorskip("safetensors.numpy")
    read = numpy.load_file(model)
    assert {name: array.tobytes() for name, array in read.items()} == {
        name: tensor.data for name, tensor in TENSORS.items()
    }


def test_sizes_of_one_file_add_up():
    with pytest.raises(ValueError, match="the file has 80 bits, and its parts have 81"):
        ContainerSizes(file_bytes=10, header_bytes=8, payload_bits=10, padding_bits=7)


def test_the_checksum_covers_all_but_itself(model):
    content = model.read_bytes()
    assert checksum(model) == model_file.digest(content)
    assert content[35:99].decode() == checksum(model)
    whole = hashlib.sha256(content[:35] + b"0" * 64 + content[99:]).hexdigest()
    assert checksum(model) == whole


def test_the_checksum_of_a_changed_file_is_refused(model):
    content = bytearray(model.read_bytes())
    for place in (40, 200, len(content) - 1):
        changed = content.copy()
        changed[place] ^= 1
        model.write_bytes(changed)
        for read in (checksum, read_container):
            with pytest.raises(DamagedModelError, match=r"model\.qspinn: .*; \w+"):
                read(model)


def test_a_file_that_is_there_is_replaced_as_a_whole(model, monkeypatch):
    before = model.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        write_container(model, {}, {})
    assert caught.value.filename == str(model)
    assert model.read_bytes() == before
    assert list(model.parent.iterdir()) == [model]
    monkeypatch.undo()
    write_container(model, {}, {})
    assert read_container(model) == ({}, {})
    assert list(model.parent.iterdir()) == [model]


def test_folders_are_made_and_links_are_followed(tmp_path):
    write_container(tmp_path / "new" / "folder" / "model.qspinn", HEADER, TENSORS)
    os.symlink(tmp_path / "new" / "folder" / "model.qspinn", tmp_path / "link")
    assert read_container(tmp_path / "link") == (HEADER, TENSORS)


class Text(str):
    __slots__ = ()


def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("header", "error", "message"),
    [
        ({"a": (1, 2)}, TypeError, r"\['a'\] is of type tuple; give dict, list"),
        ({"a": [0, {"b": np.float64(1)}]}, TypeError, r"\['a'\]\[1\]\['b'\] is of type float64"),
        ({"a": Text("b")}, TypeError, "of type Text"),
        ({"a": {1: 2}}, TypeError, r"the name 1 in \['a'\] is no str"),
        ({"a": float("nan")}, ValueError, r"the number in \['a'\] is nan"),
        ({"a": -float("inf")}, ValueError, "is -inf; numbers are finite"),
        ({"a": 2**63}, ValueError, r"the integer in \['a'\] has more than 64 bits"),
        ({"a": "\ud800"}, ValueError, "half a surrogate pair"),
        ({"\udfff": 1}, ValueError, "half a surrogate pair"),
        ({"a": nested(63)}, ValueError, "nested more than 64 deep"),
        ({"a": [0] * 250_001}, ValueError, "at most 250,000 are read"),
        ({"a": "b" * (8 << 20)}, ValueError, "the header takes 8,.* store what is large as tens"),
    ],
)
def test_headers_that_could_not_be_read_are_not_written(tmp_path, header, error, message):
    with pytest.raises(error, match=message):
        write_container(tmp_path / "model.qspinn", header, {})
    assert not list(tmp_path.iterdir())


def test_a_header_at_the_limit_of_depth_is_read(tmp_path):
    write_container(tmp_path / "m", {"a": nested(62)}, {})
    assert read_container(tmp_path / "m")[0] == {"a": nested(62)}


@pytest.mark.parametrize("name", ["", "__metadata__", "a\nb", "a\u202eb", "\ud800", "a" * 201])
def test_names_that_cannot_be_are_not_written(tmp_path, name):
    with pytest.raises(ValueError, match="cannot be the name of a tensor; give 1 to 200"):
        write_container(tmp_path / "m", {}, {name: WEIGHT})


def test_other_types_are_not_written(tmp_path):
    with pytest.raises(TypeError, match="the tensor 'a' is of type ndarray; give a PackedTensor"):
        write_container(tmp_path / "m", {}, {"a": np.zeros(3)})
    with pytest.raises(TypeError, match="the name 1 of a tensor is no str"):
        write_container(tmp_path / "m", {}, {1: WEIGHT})


def foreign(content=b"", **metadata):
    """A safetensors file of somebody else's."""
    header = {"__metadata__": {"format": "pt", **metadata}}
    header["w"] = {"dtype": "F32", "shape": [len(content) // 4], "data_offsets": [0, len(content)]}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content


OTHERS = {
    "empty": (b"", "the file is empty; copy the file again"),
    "text": (b"name,value\na,1\n", r"it is no model, but a text file that begins with 'name,value"),
    "short text": (b"hello", "it is no model, but a text file that begins with 'hello'"),
    "JSON": (json.dumps(HEADER).encode(), "a text file that begins with '{\"operations"),
    "long text": ("ä".encode() * 5000, "a text file"),
    "ZIP": (b"PK\x03\x04" + bytes(100), "a ZIP archive, as a checkpoint of PyTorch is; check the"),
    "pickle": (pickle.dumps(HEADER), "something that begins with the bytes 80 04"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\n", "the pointer of Git LFS"),
    "zeros": (bytes(100), "something that begins with the bytes 00 00"),
    "safetensors": (
        foreign(bytes(8)),
        "a safetensors file, but not of a device model; check the p",
    ),
    "rewritten": (foreign(format="qspinn-device-model"), "rewritten by another program"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_named_for_what_they_are(tmp_path, name):
    content, message = OTHERS[name]
    path = tmp_path / "model.qspinn"
    path.write_bytes(content)
    for read in (read_container, checksum):
        with pytest.raises(DamagedModelError, match=message) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")


def test_what_is_no_file_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path, "it is a folder; check the path"),
        (tmp_path / "pipe", "it is no regular file"),
        (tmp_path / "missing", "there is no such file; check the path"),
        (tmp_path / "file" / "model.qspinn", r"it cannot be read \(Not a directory\); check"),
        ("model\0.qspinn", "cannot be the name of a file"),
    ):
        for read in (read_container, checksum):
            with pytest.raises(DamagedModelError, match=message):
                read(path)


def test_a_file_that_may_not_be_read_is_named(model, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("qspinn.export.opening.os.open", refuse)
    with pytest.raises(DamagedModelError, match=r"it cannot be read \(Permission denied\)"):
        read_container(model)


def test_a_machine_without_enough_memory_says_so(model, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr("qspinn.export.container.parse_header", fail)
    with pytest.raises(DamagedModelError, match="more memory than there is; read it on a larger"):
        read_container(model)


@pytest.mark.slow
def test_every_truncated_file_is_said_to_be_so(model):
    content = model.read_bytes()
    for size in range(3, len(content)):  # fewer could be a text
        model.write_bytes(content[:size])
        with pytest.raises(DamagedModelError, match=r"the end is missing|it ends after \d+ bytes"):
            read_container(model)


def test_bytes_after_the_end_are_refused(model):
    model.write_bytes(model.read_bytes() + b"\0")
    with pytest.raises(DamagedModelError, match="something follows after the end; copy"):
        read_container(model)


@pytest.mark.parametrize("version", ["0", "2", "01", "999999999"])
def test_other_versions_are_named_whatever_else_they_hold(tmp_path, version):
    path = tmp_path / "model.qspinn"
    path.write_bytes(model_file.written("", "", b"", version=version, more="?"))
    message = f"it is of version {int(version)}, and this qspinn reads version 1; read it with the"
    for read in (read_container, checksum):
        with pytest.raises(DamagedModelError, match=message):
            read(path)


def test_the_second_writer_writes_what_is_read(tmp_path):
    path = tmp_path / "model.qspinn"
    entry = {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}
    word = {"shape": [2, 3], "word_length": 3, "signed": True}
    path.write_bytes(model_file.written({"w": entry}, {"w": word}, WEIGHT.data, '{"a": 1}'))
    assert read_container(path) == ({"a": 1}, {"w": WEIGHT})


def test_the_example():
    assert doctest.testmod(qspinn.export.container) == (0, 8)
