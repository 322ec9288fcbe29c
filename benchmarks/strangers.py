"""The tables of docs/results/strangers.md: trained networks of other people, without training.

Each network is rebuilt of SpikingJelly's layers, its float accuracy is measured, and it is
quantised through qspinn's plain Python interface: a plan, some batches to choose formats on,
attach. What is measured is kept in strangers.json: what is not asked for again stays.

    python benchmarks/strangers.py data.root=FOLDER                     # all of it, some minutes
    python benchmarks/strangers.py --only ecg data.root=FOLDER
    python benchmarks/strangers.py --check data.root=FOLDER             # also against the equations
    python benchmarks/strangers.py --report                             # only writes the page

FOLDER holds strangers/ (the trained networks and the ECG data), N-MNIST-small/ and
dvs128_gesture_clips/.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measuring import RESULTS

import torch
from strangers_cases import CASES, Case, accuracy, answers, quantised
from strangers_check import different_spikes
from strangers_report import page
from torch import Tensor

from qspinn.atomic import write_text
from qspinn.plan import QuantizationPlan, footprint
from qspinn.records import write_json


@dataclass(frozen=True)
class Setting:
    """One row: what a table calls it, and the arguments of ``QuantizationPlan.uniform``."""

    name: str
    word_length: int
    roles: Mapping[str, Mapping[str, int | str]] = field(default_factory=dict)
    granularity: str = "tensor"

    def plan(self) -> QuantizationPlan:
        """As a user would write it."""
        return QuantizationPlan.uniform(
            word_length=self.word_length, granularity=self.granularity, roles=self.roles
        )


def _by_spikes(**lengths: int) -> dict[str, dict[str, int | str]]:
    """Membranes' formats by the spikes that they change; word lengths of some roles."""
    roles: dict[str, dict[str, int | str]] = {"membrane": {"calibration": "spikes"}}
    for role, bits in lengths.items():
        roles.setdefault(role, {})["word_length"] = bits
    return roles


LENGTHS = (8, 6, 4)
UNIFORM = tuple(Setting(f"{bits}", bits) for bits in LENGTHS)
SPIKES = tuple(Setting(f"{bits}, by spikes", bits, _by_spikes()) for bits in LENGTHS)
CHANNEL = tuple(
    Setting(f"{bits}, by spikes, per channel", bits, _by_spikes(), "channel") for bits in LENGTHS
)
CONVOLUTIONAL = (
    *UNIFORM,
    *SPIKES,
    *CHANNEL,
    Setting("8 (weights 4), by spikes", 8, _by_spikes(weight=4)),
    Setting("8 (weights 4), by spikes, per channel", 8, _by_spikes(weight=4), "channel"),
)
LONG = {"membrane": 12, "decay": 12}
RECURRENT = (
    *UNIFORM,
    *SPIKES,
    *CHANNEL,
    *(
        Setting(
            f"{bits} (membranes, leaks 12), by spikes, per channel",
            bits,
            _by_spikes(**LONG),
            "channel",
        )
        for bits in LENGTHS
    ),
)


def main() -> None:
    """Measures what is asked for and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("root", nargs="?", metavar="data.root=FOLDER")
    parser.add_argument("--only", choices=CASES, help="only this network")
    parser.add_argument("--check", action="store_true", help="compare with the authors' equations")
    parser.add_argument("--report", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    kept = RESULTS / "strangers.json"
    found: dict[str, Any] = json.loads(kept.read_text("utf-8")) if kept.is_file() else {}
    if not arguments.report:
        name, _, folder = (arguments.root or "").partition("=")
        if name != "data.root" or not folder:
            parser.error(f"{arguments.root!r}: write data.root=FOLDER, the folder of the data")
        for one in [arguments.only] if arguments.only else CASES:
            earlier = found.get(one, {})
            found[one] = measure(one, Path(folder), arguments.check)
            found[one].setdefault("check", earlier.get("check"))
            write_json(found, kept)
    text = page(found)
    write_text(text, RESULTS / "strangers.md")
    print(text)


def measure(name: str, root: Path, check: bool) -> dict[str, Any]:
    """All rows of one network, as plain types."""
    torch.set_num_threads(1)
    case = CASES[name](root)
    given = answers(case)
    exact = footprint(case.network, None, case.calibration[:, :2])
    print(f"{case.title}: {100 * accuracy(case, given):.2f}% in float", flush=True)
    result: dict[str, Any] = {
        "title": case.title,
        "samples": case.test.frames.shape[1],
        "accuracy": accuracy(case, given),
        "footprint_bits": exact.inference_bits,
        "footprint_bits_by_role": exact.by_role,
    }
    if check:
        result["check"] = different_spikes(name, root)
    settings = RECURRENT if name == "ecg" else CONVOLUTIONAL
    result["rows"] = [row(case, setting, given) for setting in settings]
    return result


def row(case: Case, setting: Setting, given: Tensor) -> dict[str, Any]:
    """One quantisation: figures, or why it was refused."""
    begin = time.perf_counter()
    measured: dict[str, Any] = {"name": setting.name}
    try:
        found, plan = quantised(case, setting.plan())
    except ValueError as error:
        measured["refused"] = str(error)
    else:
        bits = footprint(case.network, plan)
        measured |= {
            "accuracy": accuracy(case, found),
            "changed": (found != given).double().mean().item(),
            "footprint_bits": bits.inference_bits,
            "baseline_footprint_bits": bits.baseline_inference_bits,
            "summary": plan.summary().lines(),
            "formats": plan.formats(),
            "seconds": round(time.perf_counter() - begin, 1),
        }
    print({key: value for key, value in measured.items() if key != "formats"}, flush=True)
    return measured


if __name__ == "__main__":
    main()
