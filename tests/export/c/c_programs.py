"""Compiles models in C and runs them, as somebody does who was given the three files."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from qspinn.export import DeviceModel
from qspinn.export.c import CSizes, write_c
from qspinn.export.engine import IntegerEngine
from qspinn.export.model import AdaptiveNeuron, Codes, DeviceOperation, Neuron, State
from qspinn.plan.graph import Operand

GCC = shutil.which("gcc") or shutil.which("cc") or shutil.which("clang")
needs_compiler = pytest.mark.skipif(GCC is None, reason="NO COMPILER: nothing of C was tested")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
FAST = ("-O0",)
SANITIZED = ("-O1", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")
TYPES = {
    "uint8_t": np.uint8, "int8_t": np.int8, "uint16_t": np.uint16, "int16_t": np.int16,
    "int32_t": np.int32, "int64_t": np.int64,
}  # fmt: skip


@dataclass(frozen=True)
class CProgram:
    """A model that was compiled.

    Attributes:
        model: The model.
        path: Of the program.
        input_kind: Type of a code of its input.
        sizes: What the writer says that it takes.
    """

    model: DeviceModel
    path: Path
    input_kind: str
    sizes: CSizes

    def run(self, codes: Codes, seed: int = 0) -> tuple[list[list[int]], list[list[int]]]:
        """Lines of answers (class and answers), and lines of states (step, operation, states)."""
        frames = codes.transpose(1, 0, 2) if self.model.frame_stride else codes
        steps = len(codes) if self.model.frame_stride else self.model.steps
        data = np.ascontiguousarray(frames.astype(TYPES[self.input_kind])).tobytes()
        command = [str(self.path), str(steps), str(seed)]
        done = subprocess.run(command, input=data, capture_output=True)
        assert done.returncode == 0, done.stderr[:2000].decode()
        answers, states = [], []
        for line in done.stdout.decode().splitlines():
            words = line.split()
            if words[0] == "state":
                states.append([int(one) for one in words[1:]])
            else:
                answers.append([int(one) for one in words])
        return answers, states


def compiled(
    model: DeviceModel,
    folder: Path,
    *,
    layout: str = "aligned",
    flags: Sequence[str] = FAST,
    name: str = "net",
    trace: bool = True,
) -> CProgram:
    """Writes and compiles a model; any warning is a failure."""
    sizes = write_c(model, folder, name, layout)
    traced = [f"-D{name.upper()}_TRACE"] if trace else []
    command = [str(GCC), *STRICT, *flags, *traced, "-o", name, f"{name}.c", f"{name}_main.c"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]
    header = (folder / f"{name}.h").read_text(encoding="utf-8")
    kind = header.split(f"void {name}_step({name}_state *s, const ")[1].split(" ")[0]
    return CProgram(model, folder / name, kind, sizes)


def expected(
    model: DeviceModel, codes: Codes, seed: int = 0
) -> tuple[list[list[int]], list[list[int]]]:
    """The same lines from the engine in NumPy, one sample after the other."""
    engine = IntegerEngine(with_states(model))
    neurons = [
        n for n, one in enumerate(model.operations) if isinstance(one.what, Neuron | AdaptiveNeuron)
    ]
    begins = len(model.operations)
    answers: list[list[int]] = []
    states: list[list[int]] = []
    for sample in range(codes.shape[-2]):

        def watch(step: int, number: int, values: Codes) -> None:
            if number >= begins:
                states.append([step, neurons[number - begins], *map(int, values.reshape(-1))])

        result = engine.run(codes[..., sample : sample + 1, :], seed=seed, watch=watch)
        if model.output.over == "each":
            totals = np.cumsum(result.sums[:, 0], axis=0)
            rows = zip(totals, result.sums[:, 0], strict=True)
            answers += [[int(total.argmax()), *map(int, sums)] for total, sums in rows]
        else:
            answers.append([int(result.classes[0]), *map(int, result.sums[0])])
    return answers, states


def with_states(model: DeviceModel) -> DeviceModel:
    """The model with operations at its end that read the states of all layers."""
    reads = tuple(
        DeviceOperation(State(), (Operand(number),), one.shape)
        for number, one in enumerate(model.operations)
        if isinstance(one.what, Neuron | AdaptiveNeuron)
    )
    return replace(model, operations=model.operations + reads)


def check_equal(program: CProgram, codes: Codes, seed: int = 0) -> None:
    """Answers of all samples and states of all layers after each step."""
    answers, states = program.run(codes, seed)
    wanted_answers, wanted_states = expected(program.model, codes, seed)
    for number, (got, want) in enumerate(zip(states, wanted_states, strict=True)):
        one = program.model.operations[want[1]]
        assert got[:2] == want[:2]
        assert got == want, f"line {number}, step {want[0]}, operation {want[1]}: {one}"
    assert answers == wanted_answers
