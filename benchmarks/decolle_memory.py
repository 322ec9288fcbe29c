"""How much memory DECOLLE takes to train on long sequences, beside keeping all steps for the end.

The same network (two convolutions and a fully connected layer, 32x32 pixels, batch 8) sees
sequences of growing length: once learning at every step, once with the same losses but one backward
pass at the end, for which autograd must keep every step, as backpropagation through time does. Each
measurement is a process of its own, which reports

* the bytes that autograd keeps at most at one time for its backward passes, exactly;
* by how much the resident memory of the process rises above what it was before the first step.

All frames are the same one, which takes no memory for longer sequences: what a data loader holds is
not the learning rule's. Writes ``docs/results/decolle_memory.{json,md,png}``.

    python benchmarks/decolle_memory.py
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measuring import RESULTS

from qspinn.atomic import write_text

STEPS = (50, 100, 200, 400, 800)
QUOTED = (50, 200, 800)
WHOLE_STEPS = (50, 100, 200)
BATCH = 8
SHAPE = (2, 32, 32)
COLORS = {"decolle": "#2a6f97", "whole": "#c1502e"}
LABELS = {"decolle": "DECOLLE, an update per step", "whole": "the same losses, one backward pass"}


class Kept:
    """Bytes that autograd holds for its backward passes."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    def pack(self, value: Any) -> _Holder:
        """Counts a tensor for as long as autograd holds it."""
        return _Holder(value, self)

    @staticmethod
    def unpack(holder: _Holder) -> Any:
        """The tensor again."""
        return holder.value


class _Holder:
    def __init__(self, value: Any, kept: Kept) -> None:
        self.value, self.kept = value, kept
        self.size = value.numel() * value.element_size()
        kept.now += self.size
        kept.most = max(kept.most, kept.now)

    def __del__(self) -> None:
        self.kept.now -= self.size


def measure(rule: str, steps: int) -> dict[str, Any]:
    """One training batch of a sequence, in this process."""
    import torch

    from qspinn.networks import Decolle

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = Decolle(
        SHAPE, 11, channels=[16, 32], kernel_sizes=5, strides=1, pools=2, hidden=[64], burn_in=10
    )
    # A fifth of the pixels see an event at each step.
    image = (torch.rand(BATCH, 1, *SHAPE) < 0.2).float()
    labels = torch.arange(BATCH) % 11
    _train(rule, network, image.expand(BATCH, 12, *SHAPE), labels)  # what is allocated once
    before, kept = _resident(), Kept()
    started = time.process_time()
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, kept.unpack):
        _train(rule, network, image.expand(BATCH, steps, *SHAPE), labels)
    return {
        "rule": rule,
        "steps": steps,
        "kept_bytes": kept.most,
        "risen_bytes": max(0, _resident() - before),
        "seconds": round(time.process_time() - started, 2),
    }


def _train(rule: str, network: Any, frames: Any, labels: Any) -> None:
    import torch
    from spikingjelly.activation_based import functional

    from qspinn.learning import LocalLearning, local_loss

    functional.reset_net(network)
    optimizer = torch.optim.Adamax(network.parameters(), lr=1e-3)
    if rule == "decolle":
        learner = LocalLearning(network, torch.optim.Adamax, num_classes=11)
        learner.log = lambda *_, **__: None  # type: ignore[assignment,method-assign]
        learner.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign]
        learner.optimizers = lambda: optimizer  # type: ignore[assignment,method-assign]
        learner.training_step((frames, labels), 0)
    else:
        target = torch.nn.functional.one_hot(labels, 11).float()
        losses = []
        for t, frame in enumerate(network.encoded(frames)):
            steps = network.step(frame)
            if t >= network.burn_in:
                losses += [local_loss(step, target, "smooth_l1") for step in steps]
        torch.stack(losses).sum().backward()
        optimizer.step()
    functional.reset_net(network)


def _resident() -> int:
    """The most memory that this process has ever had, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _in_a_process(rule: str, steps: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", rule, str(steps)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(result, flush=True)
    return result


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The page."""
    lines = [
        "# Memory of training on long sequences",
        "",
        "Two convolutions (16 and 32 channels, 5x5, pooled by 2) and 64 neurons on 2x32x32 frames,",
        f"one training batch of {BATCH}, CPU; `python benchmarks/decolle_memory.py` measures it.",
        "",
        "| rule | T | kept for backward passes (KiB) | peak memory above the start (MiB) |",
        "|---|---|---|---|",
    ]
    for row in rows:
        if row["rule"] == "whole" or row["steps"] in QUOTED:
            kept, risen = row["kept_bytes"] / 2**10, row["risen_bytes"] / 2**20
            lines.append(f"| {LABELS[row['rule']]} | {row['steps']} | {kept:,.0f} | {risen:.1f} |")
    return "\n".join([*lines, "", "![Memory](decolle_memory.png)", ""])


def picture(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Both measures over T."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    shown = (("kept_bytes", "kept for backward passes"), ("risen_bytes", "peak of the process"))
    for axis, (key, title) in zip(axes, shown, strict=True):
        for rule, color in COLORS.items():
            points = [(row["steps"], row[key] / 2**20) for row in rows if row["rule"] == rule]
            axis.plot(*zip(*points, strict=True), "o-", color=color, label=LABELS[rule])
        axis.set(title=title, xlabel="time steps T", ylabel="MiB", ylim=(0, None))
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", alpha=0.3)
    axes[0].legend(frameon=False, loc="center right")
    figure.savefig(path, dpi=130)


def main() -> None:
    """Measures, or is one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", nargs=2, metavar=("RULE", "STEPS"))
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure[0], int(arguments.measure[1]))))
        return
    rows = [_in_a_process("decolle", steps) for steps in STEPS]
    rows += [_in_a_process("whole", steps) for steps in WHOLE_STEPS]
    write_text(json.dumps(rows, indent=1) + "\n", RESULTS / "decolle_memory.json")
    write_text(table(rows), RESULTS / "decolle_memory.md")
    picture(rows, RESULTS / "decolle_memory.png")


if __name__ == "__main__":
    main()
