"""The example and the reader of docs/model_file.md."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from qspinn.export.container import checksum, read_container


@pytest.fixture(scope="module")
def text(repository: Path) -> str:
    return (repository / "docs" / "model_file.md").read_text()


@pytest.fixture
def written(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Names of the two snippets, run in a folder that holds the example from then on."""
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(snippets) == 2
    names: dict[str, Any] = {}
    for snippet in snippets:
        exec(snippet, names)
    return names


def test_the_bytes_are_those_that_are_shown(text: str, written: dict[str, Any]) -> None:
    (dump,) = re.findall(r"```\n(00000000.*?)```", text, re.S)
    lines = [line.split("  |")[0].split()[1:] for line in dump.splitlines()]
    assert Path("model.qspinn").read_bytes() == bytes.fromhex("".join(map("".join, lines)))
    assert f"prints `{written['sizes']}`" in text


def test_the_positions_are_those_of_the_tables(text: str, written: dict[str, Any]) -> None:
    content = Path("model.qspinn").read_bytes()
    rows = re.findall(r"^\| (\d+) to (\d+) \| `([{\"].*)` \|$", text, re.M)
    assert len(rows) == 2
    for first, last, contents in rows:
        assert content[int(first) : int(last) + 1].decode() == contents
    assert content[143:146] == b'1",'


def test_the_shell_computes_the_checksum(text: str, written: dict[str, Any]) -> None:
    (command,) = re.findall(r"^\(head .*$", text, re.M)
    shell = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert shell.stdout.split()[0] == checksum("model.qspinn")


def test_the_reader_reads_the_same(written: dict[str, Any]) -> None:
    header, tensors = read_container("model.qspinn")
    flat = {name: (list(t.shape), t.codes.ravel().tolist()) for name, t in tensors.items()}
    assert written["read_model"]("model.qspinn") == (header, flat)
    assert flat["weight"] == ([2, 3], [1, -2, 3, -4, 0, 2])
