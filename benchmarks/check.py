"""Whether anything has become slower: a few ratios of times, compared with stored ones.

    python -m benchmarks check            # under a minute; the exit code is 1 if one is too large
    python -m benchmarks check --store    # stores what this machine measures

Seconds do not carry over to another machine; ratios of two works on one machine mostly do. They are
ratios of processor time, medians over rounds in which both works take turns. A ratio beyond its
limit is measured once more, and the lower one counts, since a busy machine is no regression. The
limit is the ratio in docs/results/check.json times a margin, which is wide, since ratios still
depend on the processor: on an AMD EPYC learning by STDP takes as long in 8 bits as in float, on an
Intel Xeon 1.3 times as long.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import measuring

import stdp_ours
import torch
import training_step

from qspinn.fixed_point import FixedPointFormat, quantize
from qspinn.records import write_json

STORED = measuring.RESULTS / "check.json"
MARGIN = 1.6
IMAGES, STEPS = 256, 100

Ways = dict[str, Callable[[], object]]
Ratios = dict[str, float]


def training() -> tuple[Ways, dict[str, tuple[str, str]]]:
    """A small convolutional network of LIF neurons, quantised while it is trained."""
    small = training_step.SUBJECTS["small"]
    steps, _, *frame = small.shape
    subject = training_step.Subject(small.title, small.network, (steps, 16, *frame))
    names = (training_step.NEAREST, training_step.STOCHASTIC)
    ways = training_step.ways_of(subject, {name: training_step.PLANS[name] for name in names})
    ratios = {
        "training step, 8 bits / float": names[0],
        "training step, 8 bits, stochastic / float": names[1],
        "calibration / training step in float": training_step.CALIBRATING,
    }
    return ways, {name: (way, training_step.FLOAT) for name, way in ratios.items()}


def plasticity() -> tuple[Ways, dict[str, tuple[str, str]]]:
    """STDP in 8 bits, by the kernel in numba."""
    size = (IMAGES, 1, 28, 28)
    images = torch.rand(size) * (torch.rand(size) < 0.2)  # about as dark as MNIST
    names = (stdp_ours.FLOAT, stdp_ours.NEAREST)
    ways: Ways = {}
    for name in names:
        trained = stdp_ours.Trained(stdp_ours.network(name, steps=STEPS), images)
        ways[name] = partial(trained.seconds, images, learning=True)
    return ways, {"STDP, 8 bits / float": (names[1], names[0])}


def rounding() -> tuple[Ways, dict[str, tuple[str, str]]]:
    """Fake quantisation of a tensor that fits in no cache."""
    x, fmt = torch.randn(10_000_000), FixedPointFormat(1, 6)
    ways: Ways = {"clone": x.clone, "quantize": lambda: quantize(x, fmt)}
    return ways, {"quantize / clone": ("quantize", "clone")}


GROUPS = {"training": training, "plasticity": plasticity, "rounding": rounding}


def measured(group: str) -> Ratios:
    """The ratios of one group of works."""
    torch.manual_seed(0)
    ways, ratios = GROUPS[group]()
    laps = measuring.interleaved(ways)
    return {
        name: measuring.ratio(laps[way].processor, laps[other].processor).median
        for name, (way, other) in ratios.items()
    }


def compared(
    stored: Mapping[str, float], measure: Callable[[str], Ratios], margin: float = MARGIN
) -> tuple[Ratios, list[str]]:
    """The ratios of all groups, and the names of those that are beyond their limits.

    Args:
        stored: Name -> ratio.
        measure: Group -> name -> ratio.
        margin: By which a ratio may exceed the stored one.

    Raises:
        KeyError: A ratio that nothing is stored of.
    """
    found: Ratios = {}
    for group in GROUPS:
        ratios = measure(group)
        if any(ratios[name] > margin * stored[name] for name in ratios):
            again = measure(group)
            ratios = {name: min(value, again[name]) for name, value in ratios.items()}
        found |= ratios
    return found, [name for name, value in found.items() if value > margin * stored[name]]


def table(found: Ratios, stored: Mapping[str, float], margin: float) -> Iterator[str]:
    """Lines for the terminal."""
    width = max(map(len, found))
    yield f"{'ratio':{width}} {'measured':>9} {'stored':>9} {'limit':>9}"
    for name, value in found.items():
        limit = margin * stored[name]
        verdict = "" if value <= limit else "  too slow"
        yield f"{name:{width}} {value:9.2f} {stored[name]:9.2f} {limit:9.2f}{verdict}"


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--margin", type=float, default=MARGIN, help="default: %(default)s")
    parser.add_argument("--store", action="store_true", help="write the file, compare nothing")
    parser.add_argument("--stored", type=Path, default=STORED, help="another file of ratios")
    given = parser.parse_args(arguments)
    if given.margin < 1:
        parser.error(f"--margin {given.margin}: write 1 or more")
    torch.set_num_threads(1)
    begun, about = time.perf_counter(), measuring.machine("torch", "numba", "spikingjelly")
    if given.store:
        found = {name: value for group in GROUPS for name, value in measured(group).items()}
        rounded = {name: round(value, 3) for name, value in found.items()}
        write_json({"machine": about, "ratios": rounded}, given.stored)
        print(json.dumps(rounded, indent=1))
        return 0
    kept: dict[str, Any] = json.loads(given.stored.read_text(encoding="utf-8"))
    try:
        found, beyond = compared(kept["ratios"], measured, given.margin)
    except KeyError as error:
        sys.exit(f"error: {given.stored} has no ratio {error}; write it with --store")
    print(f"measured on: {about['processor']}, torch {about['torch']}; ", end="")
    print(f"stored of: {kept['machine']['processor']}, torch {kept['machine']['torch']}")
    print("\n".join(table(found, kept["ratios"], given.margin)))
    print(f"{time.perf_counter() - begun:.0f} s")
    return 1 if beyond else 0


if __name__ == "__main__":
    sys.exit(main())
