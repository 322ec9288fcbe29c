"""A guided search against the exhaustive grid: hypervolume against evaluations.

The unsupervised network of conf/case/unsupervised_quick.yaml, trained once in 32-bit and quantised
afterwards. Weights, membrane potentials and thetas each have a word length of their own, the other
roles 16 bits. The grid evaluates every combination of six word lengths; the search may use any word
length between the smallest and the largest of them, and at most a tenth as many evaluations, its
significance sweep among them.

    python benchmarks/search.py [--workers 2] [--folder outputs/search]

It goes on where it was stopped, and writes docs/results/search.json, .md and .png.
"""

import argparse
import itertools
import json
import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hydra import compose, initialize_config_dir  # noqa: E402

import qspinn.app.train  # noqa: E402  (registers what conf/train.yaml uses)
from qspinn.app.exploring import explore, report  # noqa: E402
from qspinn.app.groups import find_groups, jointly  # noqa: E402
from qspinn.app.strategies import explore_by_strategy  # noqa: E402
from qspinn.records import find_records, read_record, write_json  # noqa: E402

RESULTS = ROOT / "docs" / "results"
ROLES = ("weight", "membrane", "theta")
LEVELS = (3, 4, 5, 6, 8, 12)
SWEPT = (3, 6, 12)
CHANCE = 0.1
SHUFFLES = 500


def hypervolume(points):
    """Share of the box from (no bits, accuracy 1) to (32-bit footprint, chance) that is dominated.

    Args:
        points: ``(footprint / 32-bit footprint, accuracy)`` of each.
    """
    area, right = 0.0, 1.0
    # From the largest footprint down, what is left of each point at its height or below.
    best = {}
    for size, accuracy in points:
        best[size] = max(accuracy, best.get(size, 0.0))
    for size in sorted(best, reverse=True):
        if size >= right:
            continue
        height = max(accuracy for other, accuracy in best.items() if other <= size)
        # Between this size and the next larger one the best of all that are not larger counts.
        area += (right - size) * max(0.0, height - CHANCE)
        right = size
    return area / (1 - CHANCE)


def growth(points):
    """The hypervolume after each evaluation."""
    return [hypervolume(points[: index + 1]) for index in range(len(points))]


def point_of(record):
    return record.footprint_bits / record.baseline_footprint_bits, record.accuracy


def composed(folder, budget, workers):
    assert qspinn.app.train
    roles, swept = (json.dumps(list(values)).replace(" ", "") for values in (ROLES, SWEPT))
    overrides = [
        "experiment=search",
        "case=unsupervised_quick",
        f"baselines.dir={folder / 'baselines'}",
        f"exploration.roles={roles}",
        f"exploration.word_lengths={swept}",
        f"exploration.evaluations={budget}",
        f"exploration.workers={workers}",
    ]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", overrides)


def exhaustive(config, folder, workers):
    groups = find_groups(config, "role", ROLES)
    names = [group.name for group in groups]
    mixtures = [
        dict(zip(names, lengths, strict=True))
        for lengths in itertools.product(LEVELS, repeat=len(names))
    ]
    candidates = [jointly(config, folder / "grid", groups, mixture) for mixture in mixtures]
    done = report(explore(candidates, workers), len(candidates))
    return [point_of(evaluation.record) for evaluation in done]


def guided(config, folder):
    explore_by_strategy(config, folder / "guided")
    found = json.loads((folder / "guided" / "search.json").read_text())
    alone = [
        point_of(read_record(path)) for path in sorted(find_records(folder / "guided" / "alone"))
    ]
    some = read_record(next(iter(find_records(folder / "guided" / "alone"))))
    mixed = [
        (row["footprint_bits"] / some.baseline_footprint_bits, row["accuracy"])
        for row in found["evaluated"]
    ]
    return [*alone, *mixed], len(alone)


def mean_of_shuffles(points):
    """The mean growth, if the grid is evaluated in a random order."""
    generator = random.Random(0)
    total = [0.0] * len(points)
    for _ in range(SHUFFLES):
        order = generator.sample(points, len(points))
        best, volume = [], 0.0
        for index, point in enumerate(order):
            if not any(size <= point[0] and accuracy >= point[1] for size, accuracy in best):
                best = [p for p in best if not (p[0] >= point[0] and p[1] <= point[1])] + [point]
                volume = hypervolume(best)
            total[index] += volume
    return [value / SHUFFLES for value in total]


def front_of(points):
    front, best = [], 0.0
    for size, accuracy in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if accuracy > best:
            front.append((size, accuracy))
            best = accuracy
    return front


def draw(result, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    search, grid = result["search_growth"], result["random_growth"]
    left.plot(range(1, len(search) + 1), search, marker="o", markersize=3, label="guided search")
    left.plot(range(1, len(grid) + 1), grid, label="grid in random order, mean")
    left.axhline(result["grid_hypervolume"], color="black", linestyle=":", label="whole grid")
    left.axvline(result["significance"] + 0.5, color="gray", linewidth=0.8)
    left.set_xscale("log")
    left.set_xlabel("evaluations (the gray line ends the significance sweep)")
    left.set_ylabel("hypervolume")
    left.legend(fontsize=8)
    for name, marker in (("grid", "."), ("search", "o")):
        points = result[f"{name}_front"]
        right.step(
            [32 * size for size, _ in points],
            [100 * accuracy for _, accuracy in points],
            where="post",
            marker=marker,
            label=f"{'whole grid' if name == 'grid' else 'guided search'}",
        )
    right.set_xlabel("footprint (bits per value of the 32-bit network's)")
    right.set_ylabel("test accuracy (%)")
    right.legend(fontsize=8)
    figure.savefig(path, dpi=100)


def text_of(result):
    search, grid = result["search_growth"][-1], result["grid_hypervolume"]
    lines = [
        "# A guided search against the exhaustive grid",
        "",
        "`python benchmarks/search.py` makes this page. The network of",
        "`conf/case/unsupervised_quick.yaml` (100 neurons, the embedded images shown once),",
        "quantised after training; a word length each for weights, membrane potentials and thetas.",
        "",
        "| | evaluations | hypervolume |",
        "|---|---|---|",
        f"| whole grid ({len(LEVELS)} word lengths each) | {result['grid']} | {grid:.5f} |",
        f"| guided search (any of {min(LEVELS)} to {max(LEVELS)} bits) | "
        f"{len(result['search_growth'])}, of which {result['significance']} significance | "
        f"{search:.5f} |",
        f"| grid in random order, mean, as many evaluations | {len(result['search_growth'])} | "
        f"{result['random_growth'][len(result['search_growth']) - 1]:.5f} |",
        "",
        "Hypervolume: the share of the box between (no bits, accuracy 1) and (the 32-bit",
        "footprint, accuracy 0.1, which is chance) that the candidates dominate. One test image is",
        "0.1 points; one seed.",
        "",
        f"The search reaches {100 * search / grid:.1f}% of the grid's hypervolume with "
        f"{100 * len(result['search_growth']) / result['grid']:.0f}% of its evaluations.",
        "",
        "![Hypervolume against evaluations, and the two fronts](search.png)",
        "",
    ]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("outputs/search"))
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    budget = len(LEVELS) ** len(ROLES) // 10
    config = composed(folder, budget, arguments.workers)
    searched, significance = guided(config, folder)
    grid = exhaustive(config, folder, arguments.workers)
    result = {
        "grid": len(grid),
        "grid_hypervolume": hypervolume(grid),
        "grid_front": front_of(grid),
        "significance": significance,
        "search_growth": growth(searched),
        "search_front": front_of(searched),
        "random_growth": mean_of_shuffles(grid),
    }
    write_json(result, RESULTS / "search.json")
    (RESULTS / "search.md").write_text(text_of(result), encoding="utf-8")
    draw(result, RESULTS / "search.png")
    print(f"grid {result['grid_hypervolume']:.5f}, search {result['search_growth'][-1]:.5f}")


if __name__ == "__main__":
    main()
