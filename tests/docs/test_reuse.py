"""The snippet of docs/reuse.md, as a reader would run it."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Forked = Callable[..., subprocess.CompletedProcess[str]]

MARKER = "# What qspinn adds to the project\n"


@pytest.fixture(scope="module")
def snippets(repository: Path) -> list[str]:
    text = (repository / "docs" / "reuse.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) == 2
    return blocks


@pytest.mark.parametrize("number", [0, 1])
def test_fewer_than_twenty_lines_are_added(snippets: list[str], number: int) -> None:
    project, added = snippets[number].split(MARKER)
    assert "qspinn" not in project
    code = [line for line in added.splitlines() if line.strip() and not line.startswith("#")]
    assert len(code) < 20
    assert "InTrainingQuantization(" in added
    assert "PostTrainingQuantization(" in added


def printed_by(snippet: str, repository: Path, folder: Path, forked: Forked) -> str:
    script = folder / "project.py"
    script.write_text(snippet)
    unreachable = "http://127.0.0.1:9"
    run = forked(
        [str(script)],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(repository),
            "http_proxy": unreachable,
            "https_proxy": unreachable,
        },
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_snippet_runs_and_prints_what_it_promises(
    snippets: list[str], repository: Path, tmp_path: Path, forked: Forked
) -> None:
    printed = printed_by(snippets[0], repository, tmp_path, forked)
    accuracies = re.findall(r"^(32-bit|PTQ|ITQ): +accuracy (\d\.\d{3})$", printed, re.M)
    assert [name for name, _ in accuracies] == ["32-bit", "PTQ", "ITQ"]
    # Ten classes: far from chance, in 32-bit and quantised.
    assert all(float(accuracy) > 0.8 for _, accuracy in accuracies)
    bits, times = re.search(r"^(\d+) bits, (\d\.\d) times fewer", printed, re.M).groups()
    weights = 8 * 9 + 10 * 128
    others = (8 + 10) + 8 * 64 + 2  # biases, membranes, threshold and decay
    assert int(bits) == 4 * weights + 6 * others
    assert float(times) == round(32 * (weights + others) / int(bits), 1)


def test_a_network_that_learns_by_itself(
    snippets: list[str], repository: Path, tmp_path: Path, forked: Forked
) -> None:
    printed = printed_by(snippets[1], repository, tmp_path, forked)
    found = re.findall(r"^(32-bit|PTQ|ITQ): +distance (\d\.\d\d)", printed, re.M)
    assert [name for name, _ in found] == ["32-bit", "PTQ", "ITQ"]
    # Random weights are at 2.9; the noise of the images alone at 0.4.
    assert all(float(distance) < 1.0 for _, distance in found)
    assert "weights UQ0.3\n" in printed
    weights, wins = 64 * 10, 10
    assert f"{3 * weights} bits to classify, {3 * weights + 16 * wins} to learn\n" in printed


def test_plain_pytorch(repository: Path, tmp_path: Path, forked: Forked) -> None:
    text = (repository / "docs" / "reuse.md").read_text()
    (snippet,) = re.findall(r"```py\n(.*?)```", text, re.S)
    printed = printed_by(snippet, repository, tmp_path, forked)
    accuracies = re.findall(r"(\d\.\d{3}) (?:in 32-bit|quantised|when loaded)", printed)
    assert len(accuracies) == 3
    assert all(float(accuracy) > 0.8 for accuracy in accuracies)
    assert accuracies[1] == accuracies[2]
    assert "quantised: 100% of the parameters, 100% of the states\n" in printed
    weights, others = 8 * 9 + 10 * 128, (8 + 10) + 8 * 64 + 2
    assert f"{4 * weights + 6 * others} bits, " in printed
    pattern = r"^layers.5.weight: Q(-?\d+)\.(\d+), torch.int\d+, (-\d+) to (\d+)$"
    found = re.search(pattern, printed, re.M)
    whole, fraction, lowest, highest = map(int, found.groups())
    assert whole + fraction == 3
    assert -8 <= lowest < 0 < highest <= 7
