"""Builds models in C for microcontrollers, and runs them in QEMU."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qspinn.export import DeviceModel
from qspinn.export.c import CSizes, write_c
from qspinn.export.model import Codes
from tests.export.c.c_programs import TYPES

HARNESS = Path(__file__).with_name("firmware.c")
LINKER = """\
MEMORY {{ FLASH : ORIGIN = {flash}, LENGTH = 1M
         RAM : ORIGIN = {ram}, LENGTH = {kilobytes}K }}
SECTIONS {{
    .text : {{ KEEP(*(.vectors)) *(.text*) *(.rodata*) *(.srodata*) }} > FLASH
    .data : {{ *(.data*) *(.sdata*) }} > RAM
    .bss (NOLOAD) : {{ . = ALIGN(8); bss_begin = .; *(.bss*) *(.sbss*) *(COMMON) . = ALIGN(8);
                       bss_end = .; }} > RAM
    stack_top = ORIGIN(RAM) + LENGTH(RAM);
}}
"""


@dataclass(frozen=True)
class Target:
    """A processor.

    Attributes:
        name: Of the processor.
        tools: What the names of its tools begin with.
        flags: Of its compiler.
        qemu: Command that runs a program on it.
        shift: An instruction takes 2^shift ns of virtual time.
        flash, ram: Where these lie.
    """

    name: str
    tools: str
    flags: tuple[str, ...]
    qemu: tuple[str, ...]
    shift: int
    flash: str
    ram: str

    @property
    def missing(self) -> list[str]:
        """The tools that are not installed."""
        wanted = (f"{self.tools}gcc", f"{self.tools}size", self.qemu[0])
        return [one for one in wanted if shutil.which(one) is None]


TARGETS = {
    "cortex-m4": Target(
        "Arm Cortex-M4", "arm-none-eabi-", ("-mcpu=cortex-m4", "-mthumb"),
        ("qemu-system-arm", "-M", "mps2-an386"), 5, "0x00000000", "0x20000000",
    ),
    "rv32": Target(
        "RISC-V RV32IMAC", "riscv64-unknown-elf-", ("-march=rv32imac", "-mabi=ilp32"),
        ("qemu-system-riscv32", "-M", "virt", "-bios", "none"), 0, "0x80000000", "0x80100000",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Firmware:
    """A model that was built.

    Attributes:
        target: For which processor.
        model: The model.
        folder: Where it is.
        input_kind: Type of a code of its input.
        sizes: As the writer says.
        text, rodata, data, bss: Bytes of the code of the model alone, without its struct.
        state: Bytes of its struct.
        stack: Bytes that the deepest chain of its functions can take.
    """

    target: Target
    model: DeviceModel
    folder: Path
    input_kind: str
    sizes: CSizes
    text: int
    rodata: int
    data: int
    bss: int
    state: int
    stack: int


@dataclass(frozen=True)
class Answered:
    """What a processor answered: ``[N]`` and ``[N, answers]``, and its instructions ``[N]``."""

    classes: Codes
    answers: Codes
    instructions: Codes
    longest_step: Codes


def built(
    model: DeviceModel, folder: Path, target: Target, layout: str, level: str = "-O2"
) -> Firmware:
    """Compiles a model, with everything that it needs on a bare processor."""
    sizes = write_c(model, folder, "net", layout)
    header = (folder / "net.h").read_text(encoding="utf-8")
    kind, answer = re.findall(r"const (\w+) \*input\).*?s, (\w+) \*answers", header, re.S)[0]
    script = LINKER.format(flash=target.flash, ram=target.ram, kilobytes=256)
    (folder / "link.ld").write_text(script, encoding="utf-8")
    names = {name.upper(): f"net_{name}" for name in ("state", "init", "step", "read")}
    names |= {name: f"NET_{name}" for name in ("INPUTS", "ANSWERS", "STEPS")}
    names |= {"INPUT": kind, "ANSWER": answer, "FRAMES": "1" if model.frame_stride else "0"}
    defined = [f"-D{name}={value}" for name, value in names.items()] + ['-DHEADER="net.h"']
    common = [f"{target.tools}gcc", *target.flags, level, "-std=c99", "-ffreestanding"]
    common += ["-Wall", "-Wextra", "-Werror", "-ffunction-sections", "-I", "."]
    _run([*common, "-pedantic", "-fstack-usage", "-c", "net.c"], folder)
    _run([*common, "-std=gnu99", *defined, "-c", str(HARNESS), "-o", "firmware.o"], folder)
    _run(
        [*common, "-nostdlib", "-T", "link.ld", "-o", "net.elf", "firmware.o", "net.o", "-lgcc"],
        folder,
    )
    sections = _sections(target, folder / "net.o")
    probe = "typedef char size[sizeof(net_state)];\nextern size probe;\nsize probe = {1};\n"
    (folder / "probe.c").write_text(f'#include "net.h"\n{probe}', encoding="utf-8")
    _run([*common, "-c", "probe.c"], folder)
    state = _sections(target, folder / "probe.o")[".data"]
    return Firmware(
        target, model, folder, kind, sizes,
        sum(size for name, size in sections.items() if name.startswith(".text")),
        sum(size for name, size in sections.items() if "rodata" in name),
        sections.get(".data", 0), sections.get(".bss", 0), state,
        _stack(folder / "net.su"),
    )  # fmt: skip


def learned(model: DeviceModel, folder: Path, target: Target, codes: Codes) -> tuple[Codes, ...]:
    """Learns from images on a processor with 160 KiB of RAM.

    Returns:
        Weights ``[inputs, neurons]``, thetas and updates ``[neurons]``, and the instructions of the
        last presentation.
    """
    sizes = write_c(model, folder, "net", "packed", learning=True)
    header = (folder / "net.h").read_text(encoding="utf-8")
    kind = re.findall(r"const (\w+) \*input\)", header)[0]
    script = LINKER.format(flash=target.flash, ram=target.ram, kilobytes=160)
    (folder / "link.ld").write_text(script, encoding="utf-8")
    names = {"LEARN_BEGIN": "net_learn_begin", "LEARN_STEP": "net_learn_step", "INPUT": kind}
    names |= {"LEARNER": "net_learner", "INPUTS": "NET_INPUTS", "STEPS": "NET_STEPS"}
    defined = [f"-D{name}={value}" for name, value in names.items()] + ['-DHEADER="net.h"']
    common = [f"{target.tools}gcc", *target.flags, "-O2", "-ffreestanding", "-I", "."]
    common += ["-Wall", "-Wextra", "-Werror", "-ffunction-sections", "-fdata-sections"]
    _run([*common, "-std=c99", "-pedantic", "-c", "net.c"], folder)
    _run([*common, "-std=gnu99", *defined, "-c", str(HARNESS), "-o", "firmware.o"], folder)
    rest = ["-nostdlib", "-T", "link.ld", "-o", "net.elf", "firmware.o", "net.o", "-lgcc"]
    _run([*common, *rest], folder)
    _simulate(folder, target, np.ascontiguousarray(codes.astype(TYPES[kind])).tobytes(), 600)
    theta = np.dtype(TYPES[re.findall(r"(\w+) theta\[", header)[0]])
    data = np.fromfile(folder / "output.bin", np.uint8)
    inputs, neurons = model.operations[0].size, len(model.learning.turns)  # type: ignore[union-attr]
    total, turns, thetas, packed = np.split(
        data, np.cumsum([4, 4 * neurons, theta.itemsize * neurons])
    )
    bits = model.tensors["weight"].format.word_length
    each = np.unpackbits(packed, bitorder="little")[: inputs * neurons * bits].reshape(-1, bits)
    weight = (each.astype(np.int64) << np.arange(bits)).sum(1).reshape(inputs, neurons)
    assert sizes.learner_bytes < 160 * 1024
    words = (thetas.view(theta), turns.view(np.uint32), total.view(np.uint32))
    return weight, *(one.astype(np.int64) for one in words)


def _run(command: list[str], folder: Path, **more: object) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, **more)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"[:4000]
    return str(done.stdout)


def _sections(target: Target, path: Path) -> dict[str, int]:
    listed = _run([f"{target.tools}size", "-A", path.name], path.parent)
    return {name: int(size) for name, size in re.findall(r"^(\.\S+)\s+(\d+)", listed, re.M)}


def _stack(path: Path) -> int:
    """A bound: a step calls a function for each layer, which calls others at most two deep."""
    taken = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        place, size, kind = line.split("\t")
        assert kind == "static", line
        taken[place.split(":")[-1]] = int(size)
    own = taken.pop("net_step")
    others = sorted((size for name, size in taken.items() if not name.startswith("net_")))
    return own + sum(others[-3:])


def _simulate(folder: Path, target: Target, data: bytes, timeout: float) -> None:
    (folder / "input.bin").write_bytes(data)
    command = [*target.qemu, "-display", "none", "-serial", "none", "-monitor", "none"]
    command += ["-icount", f"shift={target.shift}", "-kernel", "net.elf"]
    command += ["-semihosting-config", "enable=on,target=native"]
    _run(command, folder, timeout=timeout)


def answered(firmware: Firmware, codes: Codes, timeout: float = 600) -> Answered:
    """Runs samples in QEMU, which counts instructions."""
    target, model = firmware.target, firmware.model
    frames = codes.transpose(1, 0, 2) if model.frame_stride else codes
    kind = TYPES[firmware.input_kind]
    data = np.ascontiguousarray(frames.astype(kind)).tobytes()
    _simulate(firmware.folder, target, data, timeout)
    words = np.fromfile(firmware.folder / "output.bin", np.int32).astype(np.int64)
    rows = words.reshape(-1, model.answers + 3)
    return Answered(rows[:, 0], rows[:, 1:-2], rows[:, -2], rows[:, -1])
