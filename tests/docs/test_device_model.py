"""The example of docs/device_model.md, and the operations that it lists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qspinn.export.model import KINDS


def test_the_example_prints_what_it_says(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.chdir(tmp_path)
    text = (repository / "docs" / "device_model.md").read_text()
    exec(re.search(r"```python\n(.*?)```", text, re.S).group(1), {})
    assert capsys.readouterr().out == "True\n"


def test_every_operation_is_described(repository: Path):
    text = (repository / "docs" / "device_model.md").read_text()
    section = text.split("## Operations")[1].split("## Fields")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.M) == list(KINDS)
