"""The searches of this package against Optuna's samplers: hypervolume at the same budgets.

Three spaces of mixed precisions. Every search runs ten times in each, with ten seeds of its own: on
ten networks, or on three (the unsupervised ones), of which each has its turn.

    pip install '.[search]' scipy
    python benchmarks/samplers.py [--workers 2] [--folder outputs/samplers] [--seeds 10]

It goes on where it was stopped, and writes docs/results/samplers.json, .md and .png.
"""

import argparse
import json
import multiprocessing
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from measuring import RESULTS

from samplers_methods import METHODS, depends_on_budget, search
from samplers_problems import Supervised, grid_of, unsupervised
from samplers_report import draw, text_of
from search import growth, volume

from qspinn.atomic import write_text
from qspinn.records import write_json

SPACES = {
    "unsupervised, by role": (12, 21, 30, 43),
    "supervised, by role": (12, 21, 30, 43),
    "supervised, by role and layer": (48, 60),
}
"""Name to budgets."""
LEFT_OUT = {
    "unsupervised, by role": (
        "GPSampler",
        "GPSampler after a sweep",
        "GPSampler, told of the significance",
    ),
    "supervised, by role and layer": (
        "`greedy`",
        "GPSampler after a sweep",
        "TPESampler after a sweep",
        "NSGAIIISampler",
    ),
}
"""Searches that are not run in a space, since they take too long: evaluations by layer are slow,
and GPSampler goes on to propose what it knows where few mixtures matter."""
TABLES = 3
"""Unsupervised networks, of which each takes minutes to evaluate."""


def of_seed(seed, folder, tables):
    return [of_network(space, seed, folder, tables) for space in SPACES]


def of_network(space, seed, folder, tables):
    """Hypervolumes of one network: of its grid, and by method and budget after each evaluation."""
    warnings.simplefilter("ignore")
    budgets = SPACES[space]
    supervised = None
    if space.startswith("supervised"):
        supervised = Supervised(seed, folder / f"network_{seed}", space.endswith("layer"))
        problem = supervised.problem()
    else:
        problem = unsupervised(seed % TABLES, tables)
    path = folder / space.replace(", ", "_").replace(" ", "_") / f"{seed}.json"
    found = json.loads(path.read_text()) if path.exists() else {"runs": {}, "seconds": {}}
    if "grid" not in found:
        found["grid"] = None if space.endswith("layer") else volume(grid_of(problem))
        found["size"] = len(problem.levels) ** len(problem.names)
    for method in (name for name in METHODS if name not in LEFT_OUT.get(space, ())):
        for budget in budgets if depends_on_budget(method) else budgets[-1:]:
            if str(budget) in found["runs"].setdefault(method, {}):
                continue
            started = time.process_time()
            found["runs"][method][str(budget)] = [
                round(reached, 6) for reached in growth(search(problem, method, budget, seed))
            ]
            found["seconds"][method] = time.process_time() - started
            write_json(found, path)
            if supervised is not None:
                supervised.save()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("outputs/samplers"))
    parser.add_argument("--tables", type=Path, default=Path("outputs/search"), help="of search.py")
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    folder, tables = arguments.folder.resolve(), arguments.tables.resolve()
    for seed in range(min(arguments.seeds, TABLES)):
        unsupervised(seed, tables, arguments.workers)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, context) as pool:
        jobs = [pool.submit(of_seed, seed, folder, tables) for seed in range(arguments.seeds)]
        for seed, job in enumerate(jobs):
            job.result()
            print(f"{seed + 1} of {arguments.seeds}", flush=True)
    by_space = zip(*(job.result() for job in jobs), strict=True)
    report(dict(zip(SPACES, map(list, by_space), strict=True)))


def report(results):
    # One line: a number a line would be half a megabyte.
    write_text(json.dumps(results) + "\n", RESULTS / "samplers.json")
    write_text(text_of(results, SPACES, [*METHODS]), RESULTS / "samplers.md")
    draw(results, SPACES, RESULTS / "samplers.png")


if __name__ == "__main__":
    main()
