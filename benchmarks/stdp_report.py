"""The Markdown report of the speed comparison."""

from __future__ import annotations

import argparse
from typing import Any

import stdp_cost
from stdp_ours import CHUNK, FLOAT, NEURONS, RATES, STEPS, WARMUP


def report(results: dict[str, Any], command: str, arguments: argparse.Namespace) -> str:
    """All that was measured."""
    parts = [
        "# Speed of the unsupervised network",
        _circumstances(results, command, arguments),
        "## Against BindsNET's `DiehlAndCook2015`",
        _settings(arguments),
        _speed(results["speed"]),
        _compilation(results["compile_seconds"]),
    ]
    if "epochs" in results:
        parts += ["## An epoch, and its memory", _epochs(results["epochs"])]
    if "costs" in results:
        parts += [
            "## Cost against size",
            "![cost against neurons, time steps and images; memory](stdp_cost.png)",
            "Processor time, online, one presentation after the other, 32-bit; "
            f"N={NEURONS} and T={STEPS} where they are not varied, time per image where the number "
            f"of images is not. Medians over {arguments.scaling_rounds} rounds in which "
            "all sizes take turns; lines of least squared relative error.",
            stdp_cost.table(results["costs"]),
        ]
    return "\n\n".join(parts) + "\n"


def _circumstances(results: dict[str, Any], command: str, arguments: argparse.Namespace) -> str:
    machine = results["machine"]
    names = ("python", "torch", "numba", "numpy", "bindsnet")
    versions = ", ".join(f"{name} {machine[name]}" for name in names)
    return (
        f"Machine: {machine['processor']}, {machine['cores']} cores ({machine['architecture']}), "
        f"no GPU, shared; one thread. Versions: {versions}. Data: {results['data']}. "
        f"Made by `{command}`."
    )


def _settings(arguments: argparse.Namespace) -> str:
    images = arguments.images
    return (
        f"N={NEURONS}, T={STEPS}, the settings of BindsNET's own example for both (rates "
        f"{RATES['rate_pre']:g} and {RATES['rate_post']:g}, theta +0.05 mV, inhibition 120 mV), "
        f"weights changing at every spike. Both had learned {WARMUP} images before, and were then "
        f"measured on the same {images * arguments.rounds} images, in {arguments.rounds} rounds in "
        "which all take turns: medians over rounds, and the ratio of the medians with the lowest "
        "and highest ratio of a round. Processor time leaves out what other programs took "
        "meanwhile. Encoding counts in both. Batch: presentations that share the weights. "
        f"Ours is handed up to {CHUNK} images in a call, as in training with "
        "`experiment=unsupervised_mnist`; *a call per batch* hands over one batch at a time, as "
        f"BindsNET's loop does (and shows the first {images} images only). 8-bit: the "
        "weights, on their grid while learning; everything else has 16 bits, and with "
        "*stochastic weights* it is rounded to nearest."
    )


def _speed(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| | batch | | ms per image | of processor time | BindsNET's time is | by processor time "
        "| input spikes | output spikes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratios = " | "
        if row["who"] != "BindsNET":
            low, high = row["ratio_lowest"], row["ratio_highest"]
            ratios = f"**{row['ratio']:.0f}x** ({low:.0f} to {high:.0f}) | {row['cpu_ratio']:.0f}x"
        times = (1e3 * row[name] for name in ("seconds_per_image", "cpu_seconds_per_image"))
        shown = " | ".join(f"{time:.{1 if time > 10 else 3}f}" for time in times)
        lines.append(
            f"| {row['mode']} | {row['batch']} | {row['who']} | {shown} | "
            f"{ratios} | {row['input_spikes']:.0f} | {row['output_spikes']:.1f} |"
        )
    return "\n".join(lines)


def _compilation(table: dict[str, dict[str, float]]) -> str:
    said = "; ".join(
        f"{'32-bit' if variant == FLOAT else 'fixed point'} {one['compiled']:.1f} s, and "
        f"{one['cached']:.2f} s where it comes from the cache on disk"
        for variant, one in table.items()
    )
    return (
        "Not in these times: the kernel is compiled on a machine's first presentation, and read "
        f"from a cache in later processes. What that adds to a first presentation: {said}."
    )


def _epochs(epochs: list[dict[str, Any]]) -> str:
    lines = [
        "60,000 images in a process of its own, compiled before. The peak of its resident memory "
        f"since the epoch began is noted after every {CHUNK} images.",
        "",
        "| | side by side | seconds | of processor time | ms per image "
        "| peak after the first images | growth after that "
        "| of it in the second half |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in epochs:
        peaks = one["peak_mib"]
        lines.append(
            f"| {one['variant']} | {one['parallel']} | **{one['seconds']:.1f}** | "
            f"{one['cpu_seconds']:.1f} | "
            f"{1e3 * one['seconds'] / one['images']:.3f} | {peaks[0]:.0f} MiB | "
            f"{peaks[-1] - peaks[0]:+.1f} MiB | {peaks[-1] - peaks[len(peaks) // 2]:+.1f} MiB |"
        )
    return "\n".join(lines)
