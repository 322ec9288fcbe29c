"""What a record says of its device model is checked."""

import pytest

from qspinn.records import RecordError
from qspinn.records.model_field import check_device_model

FILE = {"file": "model.qspinn", "sha256": "a" * 64}
SIZES = {"file_bytes": 100, "header_bytes": 20, "payload_bits": 630, "padding_bits": 10}


@pytest.mark.parametrize(
    "value",
    [
        FILE,
        FILE | SIZES | {"difference": "sample 0", "lines": ["a"], "activation_sparsity": 0.5},
        {"refused": "network.1: is a transposed convolution"},
        {"file_bytes": 100},
        FILE | {"learning_refused": "stdp.parallel=2: write 1"},
        FILE | {"of_a_later_version": [1]},
    ],
)
def test_what_is_right_is_kept(value):
    assert check_device_model("device_model", value) == value
    assert check_device_model("device_model", value) is not value


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({}, r"device_model'.*expected a mapping with file and sha256, or with refused"),
        ([], "device_model'.*expected a mapping"),
        ({"file": "model.qspinn"}, r"device_model\.sha256"),
        (FILE | {"sha256": "A" * 64}, r"device_model\.sha256'.*64 hexadecimal digits"),
        (FILE | {"file": "../model.qspinn"}, r"device_model\.file'.*relative to the record's fold"),
        (FILE | {"file": "/model.qspinn"}, r"device_model\.file"),
        (FILE | {"file_bytes": -1}, r"device_model\.file_bytes"),
        (FILE | SIZES | {"header_bytes": 21}, r"device_model\.header_bytes'.*expected 20"),
        (FILE | {"activation_sparsity": 1.5}, r"device_model\.activation_sparsity"),
        (FILE | {"difference": 3}, r"device_model\.difference"),
        (FILE | {"learning_refused": None}, r"device_model\.learning_refused"),
        (FILE | {"lines": "a"}, r"device_model\.lines'.*a list of texts"),
        (FILE | {"lines": ["\x1b[0m"]}, r"device_model\.lines\[0\]"),
        (FILE | {"refused": "no"}, r"device_model\.file'.*no file, because there is a refusal"),
        ({"refused": ""}, r"device_model\.refused"),
    ],
)
def test_what_is_wrong_is_named(value, says):
    with pytest.raises(RecordError, match=says):
        check_device_model("device_model", value)
