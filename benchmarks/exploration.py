"""Time per PTQ candidate, and how it falls with the number of processes.

    python benchmarks/exploration.py [--candidates 21] [--workers 1 2] [--folder outputs/timing]

The baselines of both cases are trained first. Every number of processes then evaluates the same
candidates anew; what is printed is the wall-clock time from the first to the last result, over the
candidates between them, so that the start of the processes is left out, and beside it that start.
"""

import argparse
import shutil
import time
from pathlib import Path

from measuring import ROOT

from hydra import compose, initialize_config_dir

import qspinn.app.run.train  # registers what conf/train.yaml uses
from qspinn.app.explore.exploring import Candidate, evaluate, explore

ROUNDINGS = ("nearest", "truncate", "stochastic")
CASES = ("supervised_quick", "unsupervised_quick")


def candidates_of(case, count, folder):
    assert qspinn.app.run.train
    made = []
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for index in range(count):
            overrides = [
                f"case={case}",
                "callbacks.pictures=null",
                f"baselines.dir={folder / 'baselines'}",
                # Up to 8 bits: longer weights would have the kernel compiled once more.
                f"quantization.word_length={2 + index % 7}",
                f"quantization.rounding={ROUNDINGS[index // 7 % 3]}",
            ]
            made.append(Candidate(compose("train", overrides), folder / case / str(index)))
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=21)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, default=Path("outputs/timing"))
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    for case in CASES:
        candidates = candidates_of(case, arguments.candidates, folder)
        first = evaluate(candidates[0])
        print(f"{case}: trained or found in {first.seconds:.1f} s", flush=True)
        for workers in arguments.workers:
            shutil.rmtree(folder / case)
            started, cpu = time.monotonic(), time.process_time()
            ends = [time.monotonic() for _ in explore(candidates, workers)]
            each = (ends[-1] - ends[0]) / (len(ends) - 1)
            used = (time.process_time() - cpu) / len(ends) if workers == 1 else None
            print(
                f"{case}: {workers} processes, {each:.2f} s per candidate, first after "
                f"{ends[0] - started:.1f} s"
                + ("" if used is None else f", {used:.2f} s of CPU per candidate"),
                flush=True,
            )


if __name__ == "__main__":
    main()
