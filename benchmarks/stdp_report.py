"""The Markdown report of the speed comparison."""

from __future__ import annotations

import argparse
from typing import Any

import measuring

import stdp_cost
from stdp_ours import CHUNK, FLOAT, NEURONS, RATES, STEPS, WARMUP


def report(results: dict[str, Any], command: str, arguments: argparse.Namespace) -> str:
    """All that was measured."""
    parts = [
        "# Speed of the unsupervised network",
        _circumstances(results, command),
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
            f"N={NEURONS} and T={STEPS} unless varied, time per image unless the number of images "
            f"is varied. Medians over {arguments.scaling_rounds} rounds, in which all sizes run in "
            "turn; the lines are fits with the least squared relative error.",
            stdp_cost.table(results["costs"]),
        ]
    return "\n\n".join(parts) + "\n"


def _circumstances(results: dict[str, Any], command: str) -> str:
    about = {name: value for name, value in results["machine"].items() if name != "spikingjelly"}
    return measuring.circumstances(about, command, results["data"])


def _settings(arguments: argparse.Namespace) -> str:
    images = arguments.images
    return (
        f"N={NEURONS}, T={STEPS}, the settings of BindsNET's own example for both (rates "
        f"{RATES['rate_pre']:g} and {RATES['rate_post']:g}, theta +0.05 mV, inhibition 120 mV), "
        f"weights updated at every spike. Both were first trained on {WARMUP} images, and then "
        f"measured on the same {images * arguments.rounds} images in {arguments.rounds} rounds, in "
        "which all variants run in turn. The tables show medians over rounds, and the ratio of the "
        "medians with the lowest and highest ratio of a round. Processor time excludes the time of "
        "other programs. Encoding is included for both. Batch: presentations that share the "
        f"weights. Ours takes up to {CHUNK} images per call, as in training with "
        "`experiment=unsupervised_mnist`; *a call per batch* takes one batch at a time, as "
        f"BindsNET's loop does (and uses the first {images} images only). 8-bit: the "
        "weights, which are on their grid during learning; everything else has 16 bits, and with "
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
        f"{one['cached']:.2f} s from the cache on disk"
        for variant, one in table.items()
    )
    return (
        "Compilation is not included in these times: the kernel is compiled at the first "
        "presentation on a machine, and read from a cache in later processes. This adds to the "
        f"first presentation: {said}."
    )


def _epochs(epochs: list[dict[str, Any]]) -> str:
    lines = [
        "60,000 images in a separate process, already compiled. The peak of its resident memory "
        f"since the start of the epoch is recorded after every {CHUNK} images.",
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
