"""The page docs/results/strangers.md, of the figures that were measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

Found = Mapping[str, Any]

INTRODUCTION = """\
# Trained networks of other people, quantised without training

Three networks that others trained and published, rebuilt from SpikingJelly's and torch's own
layers without any class of qspinn (`benchmarks/strangers_networks.py`). They are quantised after
training through the plain Python interface: a plan, some batches for calibration, `attach`.
Nothing is trained or tuned here. Everything that a device would hold has the word length of the
row, unless the row says otherwise: weights, biases, membrane potentials at every time step,
thresholds, leaks. So do layer inputs that are not spikes (they only pass through and are not
counted).

Rounding is to nearest, with one format per tensor (*per channel*: one per output channel of
weights and biases). Formats are chosen on calibration data by the least squared error, the
default of `QuantizationPlan.uniform(word_length=...)`. *By spikes*: membrane formats are chosen
by the spikes that they change, `roles={"membrane": {"calibration": "spikes"}}`. *Changed*:
predictions that differ from those of the float network. The footprint counts parameters and
states of one sample.
"""

SECTIONS = {
    "nmnist": (
        "N-MNIST: a convolutional network from a NIR file",
        ("nmnist_zero", "nmnist_subtract"),
        """\
**Source:** the CNN of the NIR paper (Pedersen and others, "Neuromorphic intermediate
representation", Nature Communications 15, 2024), file `paper/02_cnn/cnn_sinabs.nir` of
github.com/neuromorphs/NIR (BSD-3). **Published:** 95.4% (on a Speck chip) to 98.5% (in Sinabs)
on the 10,000 test recordings.

**Rebuilt:** Conv2d(2, 16, 5, stride 2) - IF - Conv2d(16, 16, 3) - IF - sum pool - Conv2d(16, 8,
3) - IF - sum pool - Linear(128, 256) - IF - Linear(256, 10) - IF; no biases, all thresholds 1. A
sum pool is `AvgPool2d(2)` with the next weight multiplied by 4. Frames of 1 ms, counts per
polarity, T = 310 from time 0; the prediction is the class with the most spikes. The file does
not specify the reset, so both kinds are tested. In float, 982 (reset to zero) and 976 (by
subtraction) of our 1,000 recordings of the training part are classified correctly as well.

**Tested on** the 100 recordings of the test part that are available: one is 1 point.
**Calibrated on** {n} recordings of the training part.

**Notes:** without a leak, potentials of inhibited neurons drift to a hundred times below the
threshold. A range that covers them, which minimises the squared error, has steps nearly as long
as the threshold. By spikes, the range is smaller: drifting potentials saturate, and potentials
near the threshold have enough resolution.""",
    ),
    "gesture": (
        "DVS128 Gesture: a convolutional network from a state dictionary",
        ("gesture",),
        """\
**Source:** `examples/dvs_gesture/model_data/dvs_gesture_snn` of github.com/NeuroBench/neurobench
(Apache-2.0; Yik and others, "NeuroBench", Nature Communications 16, 2025). **Published:** 86.4%
on the test set; footprint 304,828 bytes, which are its parameters and buffers in float32 (our
32-bit footprint also includes the states of the neurons).

**Rebuilt:** Conv2d(2, 16, 5) - max pool 2 - LIF - Conv2d(16, 32, 5) - max pool 2 - LIF -
Conv2d(32, 64, 5) - max pool 2 - LIF - Linear(1024, 11) - LIF. Its neurons subtract the threshold
one step later and after the leak, `m = beta m + x - threshold (m_before > threshold)`.
SpikingJelly's `LIFNode(decay_input=False, v_reset=None)` does the same with the threshold
`threshold / beta`, a bias that is `threshold (1 - beta)^2 / beta` larger, and
`threshold (1 - beta) / beta` as the initial potential (`set_reset_value`). Events without a
neighbour in the 10 ms before are removed as noise; 32x32 pixels, 36 bins (the author: 150 in
about 6 s; the clips last 1.45 s), shown 4 times. The prediction is the class with the most
spikes.

**Tested and calibrated on** the same ten real clips, one of each class but the eleventh: no
others are available here. Ten of ten shows only that the network is rebuilt correctly. Since
formats were chosen on the same clips, the quantised rows are slightly too good.

**Notes:** everything is quantised; the first layer's leak of 0.00001 is lost in the rounding of
its potentials, which then only integrate.""",
    ),
    "ecg": (
        "ECG: a recurrent network from a state dictionary",
        ("ecg",),
        """\
**Source:** the ECG network of github.com/byin-cwi/Efficient-spiking-networks (MIT; Yin, Corradi
and Bohte, "Accurate and efficient time-domain classification with adaptive spiking recurrent
neural networks", Nature Machine Intelligence 3, 2021). Data: QTDB of PhysioNet (ODC-By),
level-crossing coded by the authors. **Published:** 85.9% of the steps of the test set.

**Rebuilt:** Linear(4, 36) and, for the spikes of the previous step, Linear(36, 36) - 36 LIF
neurons with a leak each - Linear(36, 6) - 6 leaky readouts with a leak each; the prediction at
each step is the highest readout. Hidden: `m = a m + (1 - a) (W x + U s + b + c) - 0.1 s`, spike
where `m > 0.1`, not adaptive; both biases of the state dictionary are added. This is a
`ParametricLIFNode` with one `w` per neuron, in units of `0.1 / a` (weights and biases into a
neuron times `a / 0.1`, threshold 1). Readout: `m = a m + (1 - a) (V s + c)`, a
`NonSpikingLIFNode` with a tensor as `tau`. The authors initialise the potential at random; here
it is fixed (the change is below 0.01 points). Steps without a label (10%) count as wave 0, as in
the authors' evaluation.

**Tested on** the 141 leads of the test set, 1,301 steps each. **Calibrated on** {n} of the 618 of
the training set.

**Notes:** potentials reach hundreds of thresholds in both directions and are reset by
subtraction, so six bits cannot represent both ends. With 12 bits for membranes and leaks, which
are few, the weights can have 6. Leaks from 0.015 to 0.29 share one format: 4 bits cannot
represent the smallest, so the plan is refused. The 36 spikes that are fed back are held by the
module's own loop, and take one bit each.""",
    ),
}


def page(found: Found, calibration: int = 32) -> str:
    """The whole page; sections whose figures are missing say so."""
    parts = [INTRODUCTION.strip(), circumstances()]
    for title, names, text in SECTIONS.values():
        parts += [f"## {title}", text.format(n=calibration)]
        for name in names:
            parts += list(section(found[name])) if name in found else [f"`{name}`: not run."]
    return "\n\n".join(parts) + "\n"


def circumstances() -> str:
    """Where it was measured."""
    versions = ", ".join(f"{one} {version(one)}" for one in ("torch", "spikingjelly"))
    return (
        f"Machine: {os.cpu_count()} CPU cores ({platform.machine()}), one thread, no GPU; "
        f"{versions}. Made by `python benchmarks/strangers.py --check data.root=FOLDER`."
    )


def section(one: Found) -> Iterator[str]:
    """Verification, table and what the table does not show, of one network."""
    if one.get("check"):
        yield check(one["check"])
    yield table(one)
    refused = [row for row in one["rows"] if "refused" in row]
    if refused:
        yield "\n".join(f"* {row['name']} is refused: `{row['refused']}`" for row in refused)
    yield in_float(one)


def check(counts: Mapping[str, int]) -> str:
    """What the comparison with the author's equation gave."""
    exact, single = counts["different_float64"], counts["different_float32"]
    return (
        f"**Verified** against the equations in NumPy and float64 "
        f"(`benchmarks/strangers_reference.py`), all spiking layers: of {counts['steps']:,} neuron "
        f"steps with {counts['spikes']:,} spikes, {exact:,} differ with the rebuilt network in "
        f"float64, {single:,} in float32."
    )


def table(one: Found) -> str:
    """A Markdown table."""
    lines = [
        f"| {one['title']}: bits | accuracy | loss | changed | footprint | reduction |",
        "|---|---|---|---|---|---|",
        f"| 32 (float) | {percent(one['accuracy'])} | | | {one['footprint_bits']:,} bits | |",
    ]
    for row in one["rows"]:
        if "refused" in row:
            lines.append(f"| {row['name']} | refused | | | | |")
            continue
        loss = 100 * (one["accuracy"] - row["accuracy"])
        smaller = row["baseline_footprint_bits"] / row["footprint_bits"]
        lines.append(
            f"| {row['name']} | {percent(row['accuracy'])} | "
            f"{loss:+.1f} points | {percent(row['changed'])} | "
            f"{row['footprint_bits']:,} bits | {smaller:.1f}x |"
        )
    return "\n".join(lines)


def percent(value: float) -> str:
    """In hundredths."""
    return f"{100 * value:.1f}%"


def in_float(one: Found) -> str:
    """What ``plan.summary()`` says, of all rows."""
    lines = dict.fromkeys(line for row in one["rows"] for line in row.get("summary", ()))
    return "`plan.summary()` of each row:\n\n```text\n" + "\n".join(lines) + "\n```"
