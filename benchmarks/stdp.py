"""How fast the network of Diehl and Cook learns and answers, against BindsNET 0.3.4.

    python benchmarks/stdp.py                                  # on the 5,000 embedded images
    python benchmarks/stdp.py --data-root FOLDER --epoch --scaling     # all that is in docs/results

Both take turns in one run, on one thread, with the same constants and the same images. BindsNET is
in a folder of its own (about 170 MB), into which --install-peers installs it. Written are
docs/results/stdp_speed.md and .json, and with --scaling stdp_cost.png.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import measuring
from measuring import RESULTS, ROOT

import peers
import stdp_cost
import stdp_ours as ours
import stdp_peer
import stdp_report
import torch
from torch import Tensor

from qspinn.atomic import write_text
from qspinn.records import write_json

# Processes that are started look there as well.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.getenv("PYTHONPATH"))))

CELLS = (("training", 1), ("training", 16), ("inference", 1), ("inference", 16))
PEER = "BindsNET"
PER_BATCH = "32-bit, a call per batch"


def main() -> None:
    """Measures, prints and writes the results."""
    arguments = _arguments()
    torch.set_num_threads(1)
    train, test = ours.load_images(arguments.data_root)
    about = measuring.machine("torch", "numba", "numpy", "spikingjelly")
    about["bindsnet"] = peers.PEERS["bindsnet"].version
    results: dict[str, Any] = {"machine": about, "data": _data(arguments, train)}
    try:
        if arguments.install_peers:
            peers.install("bindsnet", arguments.peer)
        peers.require("bindsnet", arguments.peer)
        print("compiling", flush=True)
        results["compile_seconds"] = ours.compile_seconds(train)
        results["speed"] = _compare(arguments, train, test)
    except peers.PeerError as error:
        sys.exit(f"error: {error}")
    if arguments.epoch:
        results["epochs"] = [
            {"variant": variant, "parallel": parallel, **ours.epoch(variant, parallel, train)}
            for variant in ours.VARIANTS
            for parallel in (1, 16)
        ]
    if arguments.scaling:
        results["costs"] = stdp_cost.measure(train, arguments.scaling_rounds)
    _write(results, arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data-root", type=Path, help="FOLDER/MNIST/raw holds MNIST; else the embedded images")
    add("--peer", type=Path, default=peers.PEERS["bindsnet"].folder, help="its folder")
    add("--install-peers", action="store_true", help="install BindsNET there if it is missing")
    add("--rounds", type=int, default=10)
    add("--images", type=int, default=48, help="per round, of BindsNET; ours: the same, all rounds")
    add("--epoch", action="store_true", help="epochs of 60,000 images as well (some minutes)")
    add("--scaling", action="store_true", help="cost against N, T and images as well (minutes)")
    add("--scaling-rounds", type=int, default=9)
    add("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.images < 16 or arguments.images % 16 or arguments.rounds < 1:
        parser.error("--images must be a multiple of 16, and --rounds 1 or more")
    if arguments.images * arguments.rounds > 1000:
        parser.error("--images times --rounds must be 1000 at most")
    return arguments


def _compare(arguments: argparse.Namespace, train: Tensor, test: Tensor) -> list[dict[str, Any]]:
    """Every batch size with and without learning; all that is compared takes turns."""
    count = arguments.images * arguments.rounds
    measured = {"training": train[:count], "inference": test[:count]}
    workers: dict[tuple[str, int], stdp_peer.Peer] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, images in zip(stdp_peer.FILES, (train, test), strict=True):
            stdp_peer.write_idx(images[: max(count, ours.WARMUP)], Path(folder) / name)
        try:
            for mode, batch in CELLS:
                print(f"{PEER} learns {ours.WARMUP} images: {mode}, batch {batch}", flush=True)
                workers[mode, batch] = stdp_peer.Peer(
                    arguments.peer, n=ours.NEURONS, time=ours.STEPS, batch=batch, mnist=folder,
                    images=count, training=mode == "training", warmup=ours.WARMUP,
                )  # fmt: skip
            rounds = _take_turns(workers, measured, train, arguments)
        finally:
            for peer in workers.values():
                peer.close()
    return [
        {"mode": mode, "batch": batch, "who": who, **_summary(laps, rounds[mode, batch, PEER])}
        for (mode, batch, who), laps in rounds.items()
    ]


Laps = dict[tuple[str, int, str], list[dict[str, float]]]


def _take_turns(
    workers: dict[tuple[str, int], stdp_peer.Peer],
    measured: dict[str, Tensor],
    train: Tensor,
    arguments: argparse.Namespace,
) -> Laps:
    """What each measured in each round.

    In a round BindsNET goes on by some images, and ours goes through the images of all rounds, from
    where it was after the warm-up: so over all rounds both see the same images, with as much
    learned.
    """
    warmup = ours.scaled(train[: ours.WARMUP])
    trained = {
        (variant, batch): ours.Trained(ours.network(variant, batch), warmup)
        for variant in ours.VARIANTS
        for batch in (1, 16)
    }
    laps: Laps = {}
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", flush=True)
        for (mode, batch), peer in workers.items():
            images, learning = ours.scaled(measured[mode]), mode == "training"
            lap = peer.run(arguments.images)
            for name in ("seconds", "cpu_seconds"):
                lap[name] = lap[name] / lap["images"]
            found = {PEER: lap}
            for variant in ours.VARIANTS:
                found[variant] = trained[variant, batch].seconds(images, learning)
            few = images[: arguments.images]
            found[PER_BATCH] = trained[ours.FLOAT, batch].seconds(few, learning, batch)
            for who, one in found.items():
                laps.setdefault((mode, batch, who), []).append(one)
    return laps


def _summary(laps: list[dict[str, float]], peer: list[dict[str, float]]) -> dict[str, Any]:
    """Medians over rounds, and the ratio to the peer with its range over rounds."""
    seconds = [one["seconds"] for one in laps]
    of_peer = [one["seconds"] for one in peer]
    ratios = [p / s for p, s in zip(of_peer, seconds, strict=True)]
    cpu, cpu_of_peer = (statistics.median(x["cpu_seconds"] for x in many) for many in (laps, peer))
    return {
        "seconds_per_image": statistics.median(seconds),
        "cpu_seconds_per_image": cpu,
        "cpu_ratio": cpu_of_peer / cpu,
        "seconds_of_rounds": seconds,
        "ratio": statistics.median(of_peer) / statistics.median(seconds),
        "ratio_lowest": min(ratios),
        "ratio_highest": max(ratios),
        "input_spikes": statistics.mean(one["input_spikes"] for one in laps),
        "output_spikes": statistics.mean(one["output_spikes"] for one in laps),
    }


def _data(arguments: argparse.Namespace, train: Tensor) -> str:
    if arguments.data_root is not None:
        return f"the full MNIST, {len(train):,} training images"
    return f"the embedded MNIST images, {len(train):,} of them for training"


def _write(results: dict[str, Any], arguments: argparse.Namespace) -> None:
    flags = [name for name in ("epoch", "scaling") if getattr(arguments, name)]
    command = ["--data-root FOLDER"] * (arguments.data_root is not None)
    command += [f"--{name}" for name in flags]
    if arguments.scaling:
        arguments.results.mkdir(parents=True, exist_ok=True)
        stdp_cost.draw(
            results["costs"], results.get("epochs", []), arguments.results / "stdp_cost.png"
        )
    text = stdp_report.report(results, " ".join(["python benchmarks/stdp.py", *command]), arguments)
    write_json(results, arguments.results / "stdp_speed.json")
    write_text(text, arguments.results / "stdp_speed.md")
    print(text)


if __name__ == "__main__":
    main()
