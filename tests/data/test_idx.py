"""The IDX reader against bytes made by hand, and against torchvision's reader."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from qspinn.data import IDXError, parse_idx, read_idx


def idx_bytes(array: np.ndarray, type_byte: int, code: str) -> bytes:
    header = bytes([0, 0, type_byte, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + struct.pack(f">{array.size}{code}", *array.ravel().tolist())


@pytest.mark.parametrize(
    ("type_byte", "code", "dtype"),
    [
        (0x08, "B", np.uint8),
        (0x09, "b", np.int8),
        (0x0B, "h", np.int16),
        (0x0C, "i", np.int32),
        (0x0D, "f", np.float32),
        (0x0E, "d", np.float64),
    ],
)
def test_every_element_type(type_byte: int, code: str, dtype: type) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)

    parsed = parse_idx(idx_bytes(array, type_byte, code))

    assert parsed.dtype == dtype
    assert parsed.dtype.isnative
    np.testing.assert_array_equal(parsed, array)
    parsed[0, 0, 0] = 1  # writable


def test_gzip_is_known_by_its_content(tmp_path: Path) -> None:
    array = np.arange(10, dtype=np.uint8)
    (tmp_path / "labels").write_bytes(gzip.compress(idx_bytes(array, 0x08, "B")))

    np.testing.assert_array_equal(read_idx(tmp_path / "labels"), array)


def test_agrees_with_torchvision(shared_data: Path) -> None:
    from torchvision.datasets.mnist import read_image_file

    path = shared_data / "MNIST" / "raw" / "t10k-images-idx3-ubyte"

    np.testing.assert_array_equal(read_idx(path), read_image_file(str(path)).numpy())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes are too few"),
        (b"\x89PNG\r\n\x1a\n", "not an IDX file: it begins with 0x89504e47"),
        (b"\x00\x00\x07\x01\x00\x00\x00\x00", "not an IDX file"),
        (b"\x00\x00\x08\x03\x00\x00", "header of 3 dimensions is cut off"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x05abc", "11 bytes, but .* asks for 13"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x02abc", "11 bytes, but .* asks for 10"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken"
    path.write_bytes(content)

    with pytest.raises(IDXError, match=message) as caught:
        read_idx(path)

    assert str(path) in str(caught.value)


def test_truncated_gzip(tmp_path: Path) -> None:
    compressed = gzip.compress(idx_bytes(np.arange(200, dtype=np.uint8), 0x08, "B"))
    (tmp_path / "cut.gz").write_bytes(compressed[:-20])

    with pytest.raises(IDXError, match=r"cut\.gz: damaged gzip"):
        read_idx(tmp_path / "cut.gz")
