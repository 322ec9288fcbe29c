"""Stochastic roundings of two versions of qspinn: whether their accuracies agree.

    python train.py -m case=supervised_quick quantization.rounding=stochastic \\
        quantization.scheme=ptq,itq quantization.word_length=2,3,4,5,6,8 seed=0,1,2 \\
        hydra.sweep.dir=AFTER          # and the same in a checkout of the version before
    python benchmarks/chance.py BEFORE AFTER

Where another source of random numbers is used, no record stays the same; accuracies over seeds
have to. The last column is the difference of the means over its standard error (Welch).
"""

import argparse
import math
import statistics

import measuring  # noqa: F401  (the path, one thread)

from qspinn.records import find_records, read_record


def accuracies(folder):
    found = {}
    for path in find_records([folder]):
        record = read_record(path)
        if record.rounding == "stochastic" and record.scheme != "none":
            length = record.config["quantization"]["word_length"]
            found.setdefault((record.scheme, length), []).append(record.accuracy)
    return found


def shown(values):
    return f"{100 * statistics.mean(values):.2f} ± {100 * statistics.stdev(values):.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before")
    parser.add_argument("after")
    arguments = parser.parse_args()
    before, after = accuracies(arguments.before), accuracies(arguments.after)
    print("| scheme | bits | seeds | before, % | after, % | difference / error |")
    print("|---|---|---|---|---|---|")
    for key in sorted(before.keys() & after.keys(), reverse=True):
        old, new = before[key], after[key]
        error = math.sqrt(statistics.variance(old) / len(old) + statistics.variance(new) / len(new))
        ratio = (statistics.mean(new) - statistics.mean(old)) / error if error else 0.0
        print(f"| {key[0]} | {key[1]} | {len(old)} | {shown(old)} | {shown(new)} | {ratio:+.1f} |")


if __name__ == "__main__":
    main()
