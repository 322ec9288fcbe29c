"""The benchmarks that there are: how long each takes, what it needs, and what it is about."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import peers

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Entry:
    """A script of this folder.

    Attributes:
        minutes: That it takes with these arguments, roughly, on one core of a server.
        arguments: That make all it can measure; ``{data}`` stands for the folder of the data.
            None: it compares things that somebody has to make first, and says so in its help.
        data: Folders that must lie in the folder of the data.
        tools: Programs that must be on the system.
        modules: Python packages beyond requirements.txt.
        peers: Packages that it compares with, of :data:`peers.PEERS`.
        optional: Those without which it measures everything else.
    """

    minutes: float
    arguments: tuple[str, ...] | None = ()
    data: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


MNIST, NMNIST = "MNIST/raw", "N-MNIST-small"
CLIPS, STRANGERS = "dvs128_gesture_clips", "strangers"
OF_NMNIST = f"{{data}}/{NMNIST}"
MICROCONTROLLERS = ("arm-none-eabi-gcc", "qemu-system-arm", "riscv64-unknown-elf-gcc")

ENTRIES = {
    "check": Entry(1),
    # Speed and memory.
    "aedat": Entry(3),
    "compiled_step": Entry(2),
    "decolle_memory": Entry(10),
    "exploration": Entry(10),
    "exported": Entry(120, ("--data", "{data}"), (MNIST, NMNIST), tools=("gcc",), modules=("nir",)),
    "integer_engine": Entry(10, ("--data-root", "{data}"), (MNIST,)),
    "microcontroller": Entry(5, tools=MICROCONTROLLERS),
    "quantize": Entry(1),
    "select_records": Entry(5),
    "stdp": Entry(
        30, ("--data-root", "{data}", "--epoch", "--scaling"), (MNIST,), peers=("bindsnet",)
    ),
    "training_step": Entry(8, optional=("snntorch", "brevitas")),
    # Accuracy.
    "few_bits": Entry(600, ("--mnist", "{data}", "--nmnist", OF_NMNIST), (MNIST, NMNIST)),
    "gestures": Entry(1200),
    "itq_batch_norm": Entry(15, ("--root", "{data}"), (MNIST,)),
    "learned_steps": Entry(60, ("--nmnist", OF_NMNIST), (NMNIST,)),
    "mnist": Entry(40),
    "nmnist": Entry(900, (f"data.root={OF_NMNIST}",), (NMNIST,)),
    "strangers": Entry(
        30, ("--check", "data.root={data}"), (STRANGERS, NMNIST, CLIPS), modules=("scipy", "nir")
    ),
    "synthetic_gesture": Entry(10, ("--clips", f"{{data}}/{CLIPS}"), (CLIPS,)),
    "unsupervised": Entry(600, ("--data-root", "{data}", "--part", "quantised"), (MNIST,)),
    # Exploration, selection, and runs that end early.
    "budgets": Entry(1, None),
    "chance": Entry(1, None),
    "gate": Entry(400, ("--data", "{data}"), (MNIST,)),
    "gate_replay": Entry(1, None),
    "kills": Entry(20),
    "samplers": Entry(300, modules=("optuna", "scipy")),
    "search": Entry(300),
}


def names() -> list[str]:
    """The scripts that can be run, by name: those that are more than helpers of others."""
    return sorted(
        path.stem
        for path in FOLDER.glob("[!_]*.py")
        if "\nif __name__ ==" in path.read_text(encoding="utf-8")
        and not path.stem.startswith("peer_")
    )


def about(name: str) -> str:
    """The first line of a script's docstring."""
    text = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8")))
    return (text or "").partition("\n")[0].rstrip(".:")


def duration(minutes: float) -> str:
    """For people."""
    return f"{minutes:.0f} min" if minutes < 60 else f"{minutes / 60:.0f} h"


def data_folder() -> Path:
    """Where the data lie if nobody says so: as for the tests, else as for train.py."""
    return Path(os.environ.get("QSPINN_DATA", FOLDER.parent / "data"))


@dataclass(frozen=True)
class Need:
    """Something that a benchmark needs.

    Attributes:
        name: As the list calls it.
        found: Whether it is there.
        advice: How to have it.
        optional: Whether there is something to measure without it.
    """

    name: str
    found: bool
    advice: str
    optional: bool = False


def needs(entry: Entry, data: Path) -> Iterator[Need]:
    """What a benchmark needs; data are looked for in ``data``."""
    for folder in entry.data:
        advice = f"not in {data}; name the folder that has it: --data FOLDER"
        yield Need(folder, (data / folder).is_dir(), advice)
    for tool in entry.tools:
        yield Need(tool, shutil.which(tool) is not None, "not on the PATH")
    for module in entry.modules:
        found = importlib.util.find_spec(module) is not None
        yield Need(module, found, "python -m pip install -r requirements.txt")
    for name in (*entry.peers, *entry.optional):
        peer, advice = peers.PEERS[name], f"python -m benchmarks --install-peers {name}"
        yield Need(peer.title, not peer.is_missing(), advice, name in entry.optional)
