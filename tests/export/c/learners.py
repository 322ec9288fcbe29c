"""Compiles networks that go on learning in C, and lets them learn."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from qspinn.export import DeviceModel
from qspinn.export.c import CSizes, write_c
from qspinn.export.coding import encode
from tests.export.c.c_programs import FAST, GCC, STRICT, TYPES
from tests.stdp.cases import codes_of


@dataclass(frozen=True)
class Learned:
    """What a program in C wrote.

    Attributes:
        weight: Codes ``[inputs, neurons]``.
        theta: Codes ``[neurons]``.
        turns: ``[neurons]``.
        presentations: How many.
        labels: ``[neurons]``, where there are any.
        bytes: Of the struct.
        shown: Lines of what was shown in the end.
    """

    weight: np.ndarray
    theta: np.ndarray
    turns: np.ndarray
    presentations: int
    labels: np.ndarray
    bytes: int
    shown: np.ndarray


@dataclass(frozen=True)
class Program:
    """A learner that was compiled.

    Attributes:
        model: The model.
        path: Of the program.
        kind: Type of a code of its input.
        sizes: What the writer says that it takes, where it was called here.
    """

    model: DeviceModel
    path: Path
    kind: str
    sizes: CSizes | None = None

    def run(
        self, images: Tensor | None, labelling: tuple[Tensor, Tensor] | None, test: Tensor
    ) -> Learned:
        """Learns from images, labels neurons with others, and shows the rest."""
        dtype = TYPES[self.kind]
        learned = count = 0
        parts = []
        if images is not None:
            learned = len(images)
            parts.append(encode(self.model, images).astype(dtype).tobytes())
        if labelling is not None:
            shown, labels = labelling
            count = len(labels)
            codes = encode(self.model, shown).astype(dtype)
            marked = np.concatenate([codes, labels.numpy()[:, None].astype(dtype)], 1)
            parts.append(marked.tobytes())
        parts.append(encode(self.model, test).astype(dtype).tobytes())
        command = [str(self.path), str(learned), str(count)]
        done = subprocess.run(command, input=b"".join(parts), capture_output=True)
        assert done.returncode == 0, done.stderr[:2000].decode()
        rows: dict[str, list[list[int]]] = {}
        for line in done.stdout.decode().splitlines():
            words = line.split()
            name = words.pop(0) if words[0].isalpha() else "shown"
            rows.setdefault(name, []).append([int(one) for one in words])
        arrays = {name: np.array(values) for name, values in rows.items()}
        return Learned(
            arrays["weight"],
            arrays["theta"][0],
            arrays["turns"][0],
            int(arrays["presentations"][0, 0]),
            arrays.get("labels", np.zeros((1, 0), int))[0],
            int(arrays["bytes"][0, 0]),
            arrays.get("shown", np.zeros((0, 0), int)),
        )


def compiled(
    model: DeviceModel, folder: Path, layout: str = "aligned", flags: Any = FAST
) -> Program:
    """Writes and compiles a learner; any warning is a failure."""
    sizes = write_c(model, folder, "net", layout, learning=True)
    return replace(built(model, folder, "net", flags), sizes=sizes)


def built(model: DeviceModel, folder: Path, name: str = "net", flags: Any = FAST) -> Program:
    """Compiles a learner that was written into a folder; any warning is a failure."""
    for extra in ("main", "learn_main"):
        command = [str(GCC), *STRICT, *flags, "-o", extra, f"{name}.c", f"{name}_{extra}.c"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:3000]
    header = (folder / f"{name}.h").read_text(encoding="utf-8")
    kind = header.split(f"void {name}_step({name}_state *s, const ")[1].split(" ")[0]
    return Program(model, folder / "learn_main", kind)


def check_equal(found: Learned, network: Any) -> None:
    """Weights, thetas and counters are those of the simulation."""
    assert found.presentations == int(network.presentations)
    assert np.array_equal(found.turns, network.turns.numpy())
    weight, theta = codes_of(network)
    assert np.array_equal(found.theta, theta.numpy())
    assert np.array_equal(found.weight, weight.numpy())
