"""What fits which device: the candidates of a grid under the memories of well-known parts.

    python train.py experiment=grid_quick exploration.workers=2
    python benchmarks/budgets.py [--runs outputs/grid_quick]

Selects among the runs of each case for every part of the table, and for a few budgets in between;
sees by trying all candidates that nothing better fits; and writes docs/results/budgets.md.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence

from measuring import RESULTS

from qspinn.app.choose.sources import read_sources
from qspinn.atomic import write_text
from qspinn.selection import Group, LinearReward, Run, Selection, Target, select
from qspinn.selection.parts import parts
from qspinn.selection.quantities import shown_memory
from qspinn.selection.verdict import verdict

BUDGETS = {
    "4 KiB, 1 KiB": {"flash": "4KiB", "ram": "1KiB"},
    "16 KiB, 2 KiB": {"flash": "16KiB", "ram": "2KiB"},
    "24 KiB, 4 KiB": {"flash": "24KiB", "ram": "4KiB"},
    "64 KiB, 16 KiB": {"flash": "64KiB", "ram": "16KiB"},
    "16 KiB, 8 KiB, it learns": {"flash": "16KiB", "ram": "8KiB", "learning": True},
    "4 KiB, 96 KiB, it learns": {"flash": "4KiB", "ram": "96KiB", "learning": True},
}
MAX_DROP = "1%"


def targets() -> Iterator[tuple[str, Target]]:
    """Name and target of each row."""
    for name, part in parts().items():
        memories = f"{shown_memory(part.flash)}, {shown_memory(part.ram)}"
        yield f"`{name}` ({memories})", Target.of({"part": name, "max_drop": MAX_DROP})
    for name, values in BUDGETS.items():
        yield name, Target.of({**values, "max_drop": MAX_DROP})


def best_by_trying_all(groups: Sequence[Group], target: Target) -> str | None:
    """The path of the candidate that fits and is worth most, without a front or an order."""
    reward, best = LinearReward(), None
    for group in groups:
        memory = group.memory(target.learning)
        fits = memory["flash"] <= target.flash and memory["ram"] <= target.ram
        drop = group.baseline_accuracy - group.accuracy
        if fits and drop <= target.max_drop + 1.5e-7:
            worth = sum(reward(run.record) for run in group.runs) / len(group.runs)
            key = (-worth, group.footprint_bits, group.path)
            best = key if best is None or key < best else best
    return None if best is None else best[2]


def row(name: str, selection: Selection) -> str:
    """A line of the table."""
    said, winner = verdict(selection), selection.winner
    if winner is None:
        nearest = selection.dropped[0]
        title = selection.names.titles[nearest.group.path]
        return f"| {name} | none | | | | nearest: {title}: {'; '.join(nearest.reasons)} | | |"
    group, names = winner.group, selection.names
    memory = group.memory(selection.target.learning)
    cells = [
        name,
        names.titles[group.path],
        shown_memory(memory["flash"]),
        shown_memory(memory["ram"]),
        f"{100 * group.accuracy:.2f}%",
        "" if said.runner_up is None else names.titles[said.runner_up.group.path],
        "" if said.larger is None else step(selection, said.larger),
        "" if said.smaller is None else step(selection, said.smaller),
    ]
    return f"| {' | '.join(cells)} |"


def step(selection, one) -> str:
    """What a step buys, in a cell."""
    title = selection.names.titles[one.row.group.path]
    sign = "-" if one.bits < 0 else "+"
    return f"{title}: {100 * one.accuracy:+.2f} points, {sign}{shown_memory(abs(one.bits))}"


def section(name: str, runs: Sequence[Run]) -> list[str]:
    """The table of a case."""
    lines = [
        f"## {name}",
        "",
        "| flash, RAM | candidate | its flash | its RAM | validation | runner-up | one step larger "
        "| one step smaller |",
        "|---" * 8 + "|",
    ]
    for title, target in targets():
        selection = select(runs, target, LinearReward())
        groups = [item.group for item in selection.compared]
        found = None if selection.winner is None else selection.winner.group.path
        expected = best_by_trying_all(groups, target)
        if found != expected:
            raise SystemExit(f"{name}, {title}: selected {found}, but {expected} is worth more")
        lines.append(row(title, selection))
    return [*lines, ""]


def main() -> None:
    """Select, check, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="outputs/grid_quick")
    arguments = parser.parse_args()
    cases: dict[str, list[Run]] = defaultdict(list)
    for run in read_sources([arguments.runs]).runs:
        cases[f"{run.record.network} on {run.record.data}"].append(run)
    lines = [
        "# What fits which device",
        "",
        "`python train.py experiment=grid_quick exploration.workers=2`, then",
        "`python benchmarks/budgets.py`; one row is",
        "`python select.py runs=outputs/grid_quick/case=... target.part=NAME "
        f"target.max_drop={MAX_DROP}`, or with",
        "`target.flash=... target.ram=...` and `target.learning=true`. Selected by the accuracy on",
        "500 validation images; one image is 0.2 points. An exhaustive check of all candidates",
        "confirmed that nothing better fits. The steps are those of the verdict, whether or not",
        "they fit.",
        "",
    ]
    for name, runs in sorted(cases.items()):
        lines += section(name, runs)
    path = RESULTS / "budgets.md"
    write_text("\n".join(lines), path)
    print(path)


if __name__ == "__main__":
    main()
