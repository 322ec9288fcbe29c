"""Runs exported models in every engine on whole test sets, and times them, for exported.py."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import measuring

import numpy as np
import torch
from torch import Tensor, nn

from qspinn.export import DeviceModel, IntegerEngine, encode
from qspinn.export.compiled import CompiledEngine
from qspinn.export.difference import answers_differ
from qspinn.export.errors import NotExportableError
from qspinn.export.listening import Listener
from qspinn.export.model import Codes
from qspinn.plan import reset_states
from tests.export.c.c_programs import TYPES, CProgram, compiled

FAST, NATIVE = ("-O2",), ("-O3", "-march=native")
TOGETHER = 100
"""Samples in a batch of torch and NumPy."""


@dataclass(frozen=True)
class Subject:
    """A model with what is needed to run it.

    Attributes:
        model: The device model.
        module: The quantised network in torch.
        inputs: Test samples, as the network takes them.
        labels: Of the samples.
        batch_axis: The axis of samples.
        is_drawn: Whether it rounds stochastically while it classifies.
    """

    model: DeviceModel
    module: nn.Module
    inputs: Tensor
    labels: Tensor
    batch_axis: int = 0
    is_drawn: bool = False

    def part(self, begin: int, count: int) -> Tensor:
        """Samples from `begin` on."""
        end = min(begin + count, len(self.labels))
        return self.inputs.narrow(self.batch_axis, begin, end - begin)

    def codes(self, begin: int, count: int) -> Codes:
        """What a device takes of them."""
        return encode(self.model, self.part(begin, count), self.batch_axis)


@dataclass
class Agreement:
    """On how many test samples engines gave the same answers as the program in C.

    Attributes:
        samples: In all.
        torch: Of the quantised network in torch; of one that draws, an integer engine gave the
            network's answers on so many samples with the network's own random bits.
        clear: Of the engine in NumPy.
        compiled: Of the engine in numba; None: it does not run such a model.
        packed: Of the program with packed states.
        correct: Samples that C classified as they are labelled.
    """

    samples: int
    torch: int = 0
    clear: int = 0
    compiled: int | None = None
    packed: int = 0
    correct: int = 0


@dataclass
class Memory:
    """Bytes that the model takes as a program."""

    text: int
    rodata: int
    ram: dict[str, int] = field(default_factory=dict)


def programs(model: DeviceModel, folder: Path) -> dict[str, CProgram]:
    """The model in C: aligned, packed, and aligned with all that the compiler can do."""
    found = {}
    for name, layout, flags in (
        ("aligned", "aligned", FAST),
        ("packed", "packed", FAST),
        ("native", "aligned", NATIVE),
    ):
        (folder / name).mkdir()
        found[name] = compiled(model, folder / name, layout=layout, flags=flags, trace=False)
    return found


def memory(built: dict[str, CProgram]) -> Memory:
    """Of the program at -O2, by the sections of its object file."""
    folder = built["aligned"].path.parent
    subprocess.run(["gcc", "-std=c99", *FAST, "-c", "net.c"], cwd=folder, check=True)
    listing = subprocess.run(["size", "-A", "net.o"], cwd=folder, capture_output=True, check=True)
    sizes = {"text": 0, "rodata": 0}
    for line in listing.stdout.decode().splitlines():
        words = line.split()
        for section in sizes:
            if words and words[0].startswith(f".{section}"):
                sizes[section] += int(words[1])
    ram = {layout: built[layout].sizes.ram_bytes for layout in ("aligned", "packed")}
    return Memory(**sizes, ram=ram)


def agreement(subject: Subject, built: dict[str, CProgram], clear: int) -> Agreement:
    """Runs all engines.

    Args:
        subject: The model.
        built: Its programs.
        clear: Most samples for the engine in NumPy.
    """
    count = len(subject.labels)
    found = Agreement(count)
    fast = _compiled_engine(subject.model)
    engine = IntegerEngine(subject.model)
    grid = engine.program.instructions[subject.model.output.operation].fraction_bits
    for begin in range(0, count, TOGETHER):
        codes = subject.codes(begin, TOGETHER)
        classes, sums = _lines(built["aligned"], codes)
        found.correct += int((classes == subject.labels.numpy()[begin : begin + TOGETHER]).sum())
        found.packed += _equal(sums, _lines(built["packed"], codes)[1])
        if fast is not None:
            found.compiled = (found.compiled or 0) + _equal(sums, fast.run(codes).sums)
        if begin < clear:
            found.clear += _equal(sums, engine.run(codes).sums)
        if not subject.is_drawn:
            found.torch += _equal_to_torch(subject, sums, grid, begin)
    if subject.is_drawn:
        found.torch = _equal_with_its_draws(subject, fast or engine)
    return found


def _compiled_engine(model: DeviceModel) -> CompiledEngine | None:
    try:
        return CompiledEngine(model)
    except NotExportableError:
        return None


def _lines(program: CProgram, codes: Codes) -> tuple[Codes, Codes]:
    """Classes ``[N]``, and answers ``[N, answers]`` (of all steps, where each has its own)."""
    rows = np.array(program.run(codes)[0], np.int64)
    samples = codes.shape[-2]
    if len(rows) == samples:
        return rows[:, 0], rows[:, 1:]
    steps = rows.reshape(samples, -1, rows.shape[1])
    return steps[:, -1, 0], steps[:, :, 1:].transpose(1, 0, 2)


def _equal(first: Codes, second: Codes) -> int:
    """On how many samples all answers are equal."""
    same = first == second
    return int((same.all((0, 2)) if same.ndim == 3 else same.all(1)).sum())


def _equal_to_torch(subject: Subject, sums: Codes, fraction_bits: int, begin: int) -> int:
    with torch.no_grad():
        reset_states(subject.module)
        output = subject.module(subject.part(begin, TOGETHER))
        reset_states(subject.module)
    axis = subject.batch_axis if subject.model.output.over == "each" else 0
    equal = 0
    for number in range(sums.shape[-2]):
        own = output.select(axis, number).double().numpy().reshape(-1)
        mine = sums[..., number : number + 1, :]
        equal += answers_differ(subject.model, mine, fraction_bits, own, begin + number) is None
    return equal


def _equal_with_its_draws(subject: Subject, engine: IntegerEngine | CompiledEngine) -> int:
    """On how many samples an engine gives torch's answers, one by one, with torch's random bits."""
    model, axis, equal = subject.model, subject.batch_axis, 0
    listener = Listener(model, subject.module)
    for number in range(len(subject.labels)):
        sample = subject.part(number, 1)
        heard = listener.hear(sample, inside=False)
        answers = engine.run(encode(model, sample, axis, heard.input_key), keys=heard.keys)
        of = (model, answers.sums, answers.fraction_bits, heard.output, number)
        equal += answers_differ(*of) is None
    return equal


@dataclass(frozen=True)
class Way:
    """One way to classify.

    Attributes:
        name: In tables.
        run: Classifies so many samples.
        samples: How many.
    """

    name: str
    run: Callable[[], object]
    samples: int


def torch_way(name: str, module: nn.Module, inputs: Tensor, samples: int) -> Way:
    """A network in torch."""

    def run() -> None:
        with torch.no_grad():
            module(inputs)
        reset_states(module)

    return Way(name, run, samples)


def c_way(name: str, program: CProgram, codes: Codes) -> Way:
    """A program that reads samples from its standard input."""
    model = program.model
    frames = codes.transpose(1, 0, 2) if model.frame_stride else codes
    steps = str(len(codes) if model.frame_stride else model.steps)
    data = np.ascontiguousarray(frames.astype(TYPES[program.input_kind])).tobytes()
    command = [str(program.path), steps]
    run = partial(subprocess.run, command, input=data, stdout=subprocess.DEVNULL, check=True)
    return Way(name, run, codes.shape[-2])


def timed(ways: Sequence[Way], rounds: int) -> dict[str, float]:
    """Microseconds of processor time per sample: medians of rounds in which all take turns."""
    laps = measuring.interleaved({way.name: way.run for way in ways}, rounds)
    return {way.name: 1e6 * laps[way.name].median_processor / way.samples for way in ways}
