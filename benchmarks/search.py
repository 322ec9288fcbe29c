"""Guided searches against the exhaustive grid: hypervolume against evaluations.

Networks that are trained once in 32-bit and quantised afterwards. Three roles each have a word
length of their own, the other roles 16 bits. The grid evaluates every combination of six word
lengths; a search may use any word length between the smallest and the largest of them, and at most
a tenth as many evaluations, its significance sweep among them.

    python benchmarks/search.py [--workers 2] [--folder outputs/search] [--cases 3]

It goes on where it was stopped, and writes docs/results/search.json, .md and .png.
"""

import argparse
import itertools
import json
import random
from pathlib import Path

from measuring import RESULTS, ROOT

from hydra import compose, initialize_config_dir

import qspinn.app.run.train  # (registers what conf/train.yaml uses)
from qspinn.app.explore.exploring import explore, report
from qspinn.app.explore.groups import find_groups, jointly
from qspinn.app.explore.strategies import explore_by_strategy
from qspinn.atomic import write_text
from qspinn.records import find_records, read_record, write_json
from qspinn.selection import hypervolume, pareto_front

CASES = {
    "unsupervised": ("case=unsupervised_quick", ("weight", "membrane", "theta")),
    "unsupervised, seed 1": ("case=unsupervised_quick seed=1", ("weight", "membrane", "theta")),
    "supervised": ("case=supervised_quick", ("weight", "bias", "membrane")),
}
STRATEGIES = ("bayesian", "nsga2")
LEVELS = (3, 4, 5, 6, 8, 12)
SWEPT = (3, 6, 12)
BUDGET = len(LEVELS) ** 3 // 10
CHANCE = 0.1
SHUFFLES = 500


def volume(points):
    """Share of the box from (no bits, accuracy 1) to (32-bit footprint, chance) that is dominated.

    Args:
        points: ``(footprint / 32-bit footprint, accuracy)`` of each.
    """
    return hypervolume(points, (1.0, CHANCE)) / (1 - CHANCE)


def growth(points):
    """The hypervolume after each evaluation."""
    return [volume(points[: index + 1]) for index in range(len(points))]


def point_of(record):
    accuracy = record.measured_on("validation").accuracy  # as the searches go by
    return record.footprint_bits / record.baseline_footprint_bits, accuracy


def composed(case, folder, strategy, workers):
    return composed_of(CASES[case], folder, strategy, workers)


def composed_of(case, folder, strategy, workers):
    """The configuration of a case that need not be one of those that are listed."""
    assert qspinn.app.run.train
    chosen, roles = case
    names, swept = (json.dumps(list(values)).replace(" ", "") for values in (roles, SWEPT))
    overrides = [
        "experiment=search",
        *chosen.split(),
        f"baselines.dir={folder / 'baselines'}",
        f"exploration.strategy={strategy}",
        f"exploration.roles={names}",
        f"exploration.word_lengths={swept}",
        f"exploration.evaluations={BUDGET}",
        f"exploration.workers={workers}",
    ]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", overrides)


def exhaustive(config, folder, roles, workers):
    groups = find_groups(config, "role", roles)
    names = [group.name for group in groups]
    mixtures = [
        dict(zip(names, lengths, strict=True))
        for lengths in itertools.product(LEVELS, repeat=len(names))
    ]
    candidates = [jointly(config, folder / "grid", groups, mixture) for mixture in mixtures]
    done = report(explore(candidates, workers), len(candidates))
    return [point_of(evaluation.record) for evaluation in done]


def guided(config, folder):
    """The points in the order of evaluation; strategies share the records in the folder."""
    explore_by_strategy(config, folder)
    found = json.loads((folder / "search.json").read_text())
    largest = read_record(next(iter(find_records(folder)))).baseline_footprint_bits
    rows = [*found["alone"], *found["evaluated"]]
    assert len(found["alone"]) == found["evaluations_before"]
    assert len(rows) <= BUDGET
    return [(row["footprint_bits"] / largest, row["accuracy"]) for row in rows]


def measure(case, folder, workers):
    searched = {}
    for strategy in STRATEGIES:
        config = composed(case, folder, strategy, workers)
        searched[strategy] = guided(config, folder / "guided")
    grid = exhaustive(config, folder, CASES[case][1], workers)
    return {
        "grid": len(grid),
        "grid_hypervolume": volume(grid),
        "grid_front": front_of(grid),
        "significance": len(SWEPT) * len(CASES[case][1]),
        "growth": {strategy: growth(points) for strategy, points in searched.items()},
        "fronts": {strategy: front_of(points) for strategy, points in searched.items()},
        "random_growth": mean_of_shuffles(grid),
    }


def mean_of_shuffles(points):
    """The mean growth, if the grid is evaluated in a random order."""
    generator = random.Random(0)
    total = [0.0] * len(points)
    for _ in range(SHUFFLES):
        best, reached = [], 0.0
        for index, point in enumerate(generator.sample(points, len(points))):
            if not any(size <= point[0] and accuracy >= point[1] for size, accuracy in best):
                best = front_of([*best, point])
                reached = volume(best)
            total[index] += reached
    return [value / SHUFFLES for value in total]


def front_of(points):
    return sorted({points[index] for index in pareto_front(points)})


def draw(results, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.8 * len(results)), layout="constrained")
    rows = figure.subplots(len(results), 2, squeeze=False)
    for (case, result), (left, right) in zip(results.items(), rows, strict=True):
        draw_growth(result, left)
        draw_fronts(result, right)
        left.set_title(case, loc="left")
    figure.savefig(path, dpi=90)


def draw_growth(result, axes):
    grid, random_growth = result["grid_hypervolume"], result["random_growth"]
    for (strategy, volumes), marker in zip(result["growth"].items(), "os", strict=True):
        axes.plot(range(1, len(volumes) + 1), volumes, marker=marker, markersize=3, label=strategy)
    axes.plot(range(1, len(random_growth) + 1), random_growth, label="grid in random order, mean")
    axes.axhline(grid, color="black", linestyle=":", label="whole grid")
    axes.axvline(result["significance"] + 0.5, color="gray", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_ylim(0.85 * grid, 1.01 * grid)
    axes.set_xlabel("evaluations (the gray line ends the significance sweep)")
    axes.set_ylabel("hypervolume")
    axes.legend(fontsize=8)


def draw_fronts(result, axes):
    fronts = {**result["fronts"], "whole grid": result["grid_front"]}
    for (name, points), marker in zip(fronts.items(), "os.", strict=True):
        axes.step(
            [32 * size for size, _ in points],
            [100 * accuracy for _, accuracy in points],
            where="post",
            marker=marker,
            markersize=5,
            label=name,
            color="black" if name == "whole grid" else None,
            linestyle=":" if name == "whole grid" else "-",
        )
    top = 100 * max(accuracy for _, accuracy in result["grid_front"])
    axes.set_ylim(top - 12, top + 2)
    axes.set_xlim(2, 14)
    axes.set_xlabel("footprint (bits per value of the 32-bit network)")
    axes.set_ylabel("validation accuracy (%)")
    axes.legend(fontsize=8)


def text_of(results):
    lines = [
        "# Guided searches against the exhaustive grid",
        "",
        f"`python benchmarks/search.py --cases {len(results)}` produces this page. The networks",
        "of `conf/case/` are trained once on the embedded images and quantised afterwards, with a",
        "word length for each of three roles: weights, membrane potentials and thetas; for the",
        "supervised network weights, biases and membrane potentials. The grid evaluates",
        f"{len(LEVELS)} word lengths of each; the searches may use any from {min(LEVELS)} to",
        f"{max(LEVELS)} bits.",
        "",
        "| case | whole grid | `bayesian` | of the grid's | `nsga2` | grid in random order, mean |",
        "|---|---|---|---|---|---|",
    ]
    for case, result in results.items():
        grid = result["grid_hypervolume"]
        mine, other = (volumes[-1] for volumes in result["growth"].values())
        shuffled = result["random_growth"][BUDGET - 1]
        lines.append(
            f"| {case} | {grid:.5f} | **{mine:.5f}** | {100 * mine / grid:.2f}% | {other:.5f} | "
            f"{shuffled:.5f} |"
        )
    first = next(iter(results.values()))
    lines += [
        f"| evaluations | {first['grid']} | {BUDGET} | | {BUDGET} | {BUDGET} |",
        "",
        "Hypervolume: the share of the box between (no bits, accuracy 1) and (the 32-bit",
        f"footprint, accuracy {CHANCE}, which is chance) that the evaluated networks dominate. Of",
        f"their {BUDGET} evaluations the searches use {first['significance']} for the",
        "significance of the roles; these networks count, too. Accuracies are those on the 500",
        "validation images, by which candidates are selected; one image is 0.2 points.",
        "",
        "![Hypervolume against evaluations, and the fronts](search.png)",
        "",
    ]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("outputs/search"))
    parser.add_argument("--cases", type=int, default=len(CASES), help="how many, from the first")
    arguments = parser.parse_args()
    results = {}
    for case in list(CASES)[: arguments.cases]:
        folder = arguments.folder.resolve() / case.replace(", ", "_").replace(" ", "")
        results[case] = measure(case, folder, arguments.workers)
        print(case, results[case]["grid_hypervolume"], results[case]["growth"], flush=True)
    write_json(results, RESULTS / "search.json")
    write_text(text_of(results), RESULTS / "search.md")
    draw(results, RESULTS / "search.png")


if __name__ == "__main__":
    main()
