"""The snippet and the commands of docs/export.md."""

import re
from pathlib import Path
from typing import Any

import pytest

from qspinn.app.choose.exporting import USAGE
from qspinn.export.formats import FORMATS
from qspinn.records.model_field import check_device_model


@pytest.fixture(scope="module")
def text(repository: Path) -> str:
    return (repository / "docs" / "export.md").read_text()


def test_the_snippet_prints_what_is_shown(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.S)
    names: dict[str, Any] = {}
    exec(snippet, names)
    (shown,) = re.findall(r"prints\n\n```\n(the integer.*?)```", text, re.S)
    assert capsys.readouterr().out == shown


def test_every_key_of_a_command_is_one(text: str) -> None:
    commands = re.findall(r"^python -m qspinn\.export (.*)$", text, re.M)
    assert len(commands) >= 5
    for command in commands:
        for argument in command.split():
            assert f"\n{argument.partition('=')[0]}=" in USAGE


def test_every_format_and_every_field_has_a_row(text: str) -> None:
    for name in FORMATS:
        assert f"\n| `{name}` |" in text
    keys = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ", text, re.M)
    listed = {key for row in keys for key in re.findall(r"`(\w+)`", row)}
    given = {"file": "model.qspinn", "sha256": "0" * 64, "difference": None, "lines": []}
    counts = ("file_bytes", "header_bytes", "payload_bits", "padding_bits", "tensor_bits")
    counts += ("table_bits", "state_bits", "buffer_bits", "accumulator_bits", "verified_samples")
    whole = check_device_model("device_model", given | dict.fromkeys(counts, 0))
    assert whole.keys() | {"activation_sparsity", "refused", "learning_refused"} <= listed
