"""The snippet of docs/reuse.md, as a reader would run it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

MARKER = "# What qspinn adds to the project\n"


@pytest.fixture(scope="module")
def snippet(repository: Path) -> str:
    blocks = re.findall(
        r"```python\n(.*?)```", (repository / "docs" / "reuse.md").read_text(), re.S
    )
    assert len(blocks) == 1
    return blocks[0]


def test_fewer_than_twenty_lines_are_added(snippet: str) -> None:
    project, added = snippet.split(MARKER)
    assert "qspinn" not in project
    code = [line for line in added.splitlines() if line.strip() and not line.startswith("#")]
    assert len(code) < 20
    assert "InTrainingQuantization(" in added
    assert "PostTrainingQuantization(" in added


def test_the_snippet_runs_and_prints_what_it_promises(
    snippet: str, repository: Path, tmp_path: Path
) -> None:
    script = tmp_path / "project.py"
    script.write_text(snippet)
    unreachable = "http://127.0.0.1:9"
    run = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(repository),
            "http_proxy": unreachable,
            "https_proxy": unreachable,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    accuracies = re.findall(r"^(32-bit|PTQ|ITQ): +accuracy (\d\.\d{3})$", run.stdout, re.M)
    assert [name for name, _ in accuracies] == ["32-bit", "PTQ", "ITQ"]
    # Ten classes: far from chance, in 32-bit and quantised.
    assert all(float(accuracy) > 0.8 for _, accuracy in accuracies)
    bits, times = re.search(r"^(\d+) bits, (\d\.\d) times fewer", run.stdout, re.M).groups()
    weights = 8 * 9 + 10 * 128
    others = (8 + 10) + 8 * 64 + 2  # biases, membranes, threshold and decay
    assert int(bits) == 4 * weights + 6 * others
    assert float(times) == round(32 * (weights + others) / int(bits), 1)
