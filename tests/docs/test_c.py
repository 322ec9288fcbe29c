"""The examples of docs/c.md: in Python, in C and in a shell, one after the other."""

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qspinn.export.c import CSizes
from qspinn.quantizers import integer_codes
from tests.export.c.c_programs import GCC, STRICT, needs_compiler


@needs_compiler
def test_the_examples_run(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (repository / "docs" / "c.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    python, _ = re.findall(r"```python\n(.*?)```", text, re.S)
    names: dict[str, Any] = {}
    exec(python, names)
    model, spikes = names["model"], names["spikes"]
    codes = names["encode"](model, spikes, batch_axis=1)
    wanted = names["IntegerEngine"](model).run(codes)
    folder = tmp_path / "firmware"
    frames = codes.transpose(1, 0, 2).astype(np.uint8)
    (folder / "codes.bin").write_bytes(np.ascontiguousarray(frames).tobytes())

    (shell,) = re.findall(r"```sh\n(.*?)```", text, re.S)
    done = subprocess.run(
        shell.replace("cc ", f"{GCC} "), shell=True, cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = np.array([line.split() for line in done.stdout.splitlines()], np.int64)
    rows = rows.reshape(3, 6, -1)
    assert np.array_equal(rows[:, :, 1:], wanted.sums.transpose(1, 0, 2))
    assert np.array_equal(rows[:, -1, 0], wanted.classes)

    (c,) = re.findall(r"```c\n(.*?)```", text, re.S)
    given = ", ".join(map(str, frames[1].reshape(-1)))
    main = f"static const uint8_t frames[6][12] = {{{given}}};\n"
    main += "int main(void) { return (int)classify(frames); }\n"
    (folder / "example.c").write_text(c + main, encoding="utf-8")
    command = [str(GCC), *STRICT, "-Wno-missing-braces", "-o", "example", "example.c", "gesture.c"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert subprocess.run([folder / "example"]).returncode == int(wanted.classes[1])


@needs_compiler
def test_the_example_of_learning_runs(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (repository / "docs" / "c.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    _, python = re.findall(r"```python\n(.*?)```", text, re.S)
    names: dict[str, Any] = {}
    exec(python, names)
    folder, images = tmp_path / "firmware", names["images"]
    command = [str(GCC), *STRICT, "-o", "learn", "digits.c", "digits_learn_main.c"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pixels = (images * 256).numpy().astype(np.uint8).tobytes()
    done = subprocess.run([folder / "learn", "20", "0"], input=pixels, capture_output=True)
    names["quantized"].network.present(images, learning=True)
    theta = integer_codes(names["quantized"])["network.theta"].codes
    wanted = "theta " + " ".join(map(str, theta.tolist()))
    assert wanted in done.stdout.decode().splitlines()


def test_the_fields_of_the_sizes_are_described(repository: Path) -> None:
    text = (repository / "docs" / "c.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in text for name in CSizes.__dataclass_fields__)
