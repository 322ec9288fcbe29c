"""The unsupervised network goes on learning in C: what the simulation learns, bit by bit."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from qspinn.export import DeviceModel
from qspinn.export.c import CSizes, write_c
from qspinn.export.coding import encode
from qspinn.export.declared import declared_model
from tests.export.c_programs import FAST, GCC, SANITIZED, STRICT, TYPES, needs_compiler
from tests.export.test_plastic_model import pixels
from tests.stdp.cases import ROUNDINGS, lively, quantizers

pytestmark = needs_compiler


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
    """A learner that was compiled."""

    model: DeviceModel
    path: Path
    kind: str
    sizes: CSizes

    def run(self, images: Tensor, labelling: tuple[Tensor, Tensor] | None, test: Tensor) -> Learned:
        """Learns from images, labels neurons with others, and shows the rest."""
        dtype = TYPES[self.kind]
        parts = [encode(self.model, images).astype(dtype).tobytes()]
        count = 0
        if labelling is not None:
            shown, labels = labelling
            count = len(labels)
            codes = encode(self.model, shown).astype(dtype)
            marked = np.concatenate([codes, labels.numpy()[:, None].astype(dtype)], 1)
            parts.append(marked.tobytes())
        parts.append(encode(self.model, test).astype(dtype).tobytes())
        command = [str(self.path), str(len(images)), str(count)]
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
    for extra in ("main", "learn_main"):
        command = [str(GCC), *STRICT, *flags, "-o", extra, "net.c", f"net_{extra}.c"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:3000]
    header = (folder / "net.h").read_text(encoding="utf-8")
    kind = header.split("void net_step(net_state *s, const ")[1].split(" ")[0]
    return Program(model, folder / "learn_main", kind, sizes)


def check_equal(learned: Learned, network: Any) -> None:
    """Weights, thetas and counters are those of the simulation."""
    assert learned.presentations == int(network.presentations)
    assert np.array_equal(learned.turns, network.turns.numpy())
    assert np.array_equal(learned.theta, network._held("theta").numpy())
    assert np.array_equal(learned.weight, network._held("weight").numpy())


def check_network(
    folder: Path, rounding: str, layout: str, flags: Any, overflow: str = "saturate", **changes: Any
) -> None:
    """A tiny network after some images, begun anew and gone on with."""
    network = lively("numba", **changes)
    network.use_fixed_point(quantizers(network, 8, rounding, overflow, weight=5, v=9))
    images = pixels(14, network.input_shape, 3)
    network.present(images[:2], learning=True)
    before = network.weight.clone()
    model = declared_model(network, images[:1], "network", (), None, learning=True)
    program = compiled(model, folder, layout, flags)
    learned = program.run(images[2:10], None, images[10:])
    network.present(images[2:10], learning=True)
    check_equal(learned, network)
    assert not torch.equal(before, network.weight)
    assert np.array_equal(learned.shown, network.present(images[10:]).spike_counts.numpy())


CASES: list[dict[str, Any]] = [
    {},
    {"rate_pre": 0.0, "trace_target": 0.0},
    {"normalise": "update"},
    {"normalise": "update", "update": "deferred", "refractory": 0},
    {"update": "deferred", "inhibition_delay": 3},
    {"update": "deferred", "weight_sum": None, "one_winner": False},
    {"weight_sum": None, "inhibition_delay": 1, "time_steps": 70},
    {"one_winner": False, "inhibition_delay": 3, "refractory": 0, "rate_pre": 0.1},
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_settings(tmp_path: Path, case: int) -> None:
    rounding = ("stochastic", "nearest")[case % 2]
    layout = ("packed", "aligned")[case // 2 % 2]
    check_network(tmp_path, rounding, layout, FAST, **CASES[case])
