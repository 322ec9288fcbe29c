"""The page of samplers.py: tables and a plot."""

import statistics

DRAWN = {
    "`bayesian`": "C0",
    "`gp`": "C3",
    "TPESampler": "C4",
    "NSGAIISampler": "C2",
    "RandomSampler": "gray",
}
OURS = "`bayesian`"
BOTTOM = {
    "unsupervised, by role": 94,
    "supervised, by role": 98.5,
    "supervised, by role and layer": 83,
}


def reached(network, method, budget):
    """The hypervolume at a budget, in percent: of the whole grid's, where there is one."""
    runs = network["runs"][method]
    volumes = runs.get(str(budget)) or runs[max(runs, key=int)]
    return 100 * volumes[min(budget, len(volumes)) - 1] / (network["grid"] or 1.0)


def text_of(results, spaces, methods):
    parts = (part(space, results, spaces, methods) for space in results)
    return "\n".join([*INTRODUCTION, *(line for lines in parts for line in lines)])


def part(space, results, spaces, methods):
    networks, budgets = results[space], spaces[space]
    methods = [name for name in methods if all(name in one["runs"] for one in networks)]
    of_grid = networks[0]["grid"] is not None
    unit = "of the whole grid's hypervolume" if of_grid else "of the box"
    size = networks[0]["size"]
    size = f"{size:.1e}".replace("e+", " × 10^") if size > 1e6 else size
    lines = [
        f"## {space[0].upper()}{space[1:]}",
        "",
        f"{size} mixtures. In percent {unit}: mean ± standard deviation of",
        f"{len(networks)} searches, after the given number of evaluations.",
        "",
        "| search | " + " | ".join(map(str, budgets)) + " |",
        "|---" * (len(budgets) + 1) + "|",
    ]
    for method in methods:
        cells = [spread([reached(n, method, budget) for n in networks]) for budget in budgets]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Difference from {OURS} on the same network: mean ± standard error, and how often it is",
        "more : less.",
        "",
        "| search | " + " | ".join(map(str, budgets)) + " |",
        "|---" * (len(budgets) + 1) + "|",
    ]
    for method in methods:
        if method != OURS:
            cells = [paired(networks, method, budget) for budget in budgets]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def spread(values):
    return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}"


def differences(networks, method, budget):
    return [reached(n, method, budget) - reached(n, OURS, budget) for n in networks]


def paired(networks, method, budget):
    each = differences(networks, method, budget)
    error = statistics.stdev(each) / len(each) ** 0.5
    more, less = sum(one > 1e-9 for one in each), sum(one < -1e-9 for one in each)
    return f"{statistics.fmean(each):+.2f} ± {error:.2f} ({more}:{less})"


def draw(results, spaces, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(results), 4.6), layout="constrained")
    panels = figure.subplots(1, len(results))
    for axes, (space, networks) in zip(panels, results.items(), strict=True):
        of_grid = networks[0]["grid"] is not None
        counts = range(spaces[space][0] if of_grid else 20, spaces[space][-1] + 1)
        for method, color in DRAWN.items():
            draw_growth(networks, method, counts, axes, color)
        axes.set_ylim(bottom=BOTTOM[space])
        axes.set_title(space, loc="left")
        axes.set_xlabel("evaluations")
        axes.set_ylabel("hypervolume" + (" (% of the whole grid's)" if of_grid else " (%)"))
    panels[0].legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=90)


def draw_growth(networks, method, counts, axes, color):
    """The mean of the searches, and its standard error."""
    columns = [*zip(*(curve(network, method, counts) for network in networks), strict=True)]
    means = [statistics.fmean(values) for values in columns]
    errors = [statistics.stdev(values) / len(values) ** 0.5 for values in columns]
    axes.plot(counts, means, color=color, label=method.replace("`", ""))
    low = [mean - error for mean, error in zip(means, errors, strict=True)]
    high = [mean + error for mean, error in zip(means, errors, strict=True)]
    axes.fill_between(counts, low, high, color=color, alpha=0.15, linewidth=0)


def curve(network, method, counts):
    """After each number of evaluations, of the search with the largest budget."""
    runs = network["runs"][method]
    volumes = runs[max(runs, key=int)]
    grid = network["grid"] or 1.0
    return [100 * volumes[min(count, len(volumes)) - 1] / grid for count in counts]


INTRODUCTION = """# The searches against Optuna's samplers

`python benchmarks/samplers.py` produces this page, on one thread of an AMD EPYC, with the embedded
images and Optuna 5.0. It compares the searches of `exploration.strategy` with Optuna's own
samplers. All of them search for mixtures of word lengths for trained networks that are quantised
afterwards, with the same two objectives: the footprint as a share of the 32-bit network's, and the
accuracy on the 500 validation images. They are compared at the same number of distinct evaluations.
The hypervolume is the share of the box between (no bits, accuracy 1) and (the 32-bit footprint,
accuracy 0.1, which is chance) that the evaluated candidates dominate.

The spaces:

* **Unsupervised, by role**: the network of `conf/case/unsupervised_quick.yaml`; weights, membrane
  potentials and thetas have a word length of 3, 4, 5, 6, 8 or 12 bits each. The whole grid was
  evaluated, as in `benchmarks/search.py`, and the searches look up its results. Ten searches use
  three networks in turn, seeds 0 to 2; methods without random choices therefore have three results,
  not ten. Seed 0 is the network on which `bayesian` was developed.
* **Supervised, by role**: the same for weights, biases and membrane potentials of the network of
  `conf/case/supervised_quick.yaml`. Ten networks, one search on each.
* **Supervised, by role and layer**: these ten networks, with a word length of 2 to 12 bits for each
  of these roles in each of the four layers. This grid is too large to evaluate.

The searches:

* `bayesian` starts with a significance sweep, in which each group alone is evaluated at three word
  lengths. The sweep counts: 9 evaluations by role, 36 by layer. Footprints are known beforehand. It
  makes no random choices, so its results vary with the network only. With a *plain kernel*, its
  model does not use the significance: a Matérn kernel with a length scale for each group.
* `gp` is Optuna's GPSampler without a significance sweep. It is run once, with the largest budget.
* `greedy` and `nsga2` start with the same sweep as `bayesian`. `greedy` may end before its budget.
* The samplers are Optuna's, one proposal at a time, with their default settings, except that
  NSGA-II and III have a population of 10, since 50 is more than the budget. If a sampler proposes a
  candidate again, it gets the known result, which is not counted.
* *After a sweep*: the sampler starts with a sweep inside the space: each group alone at the shorter
  word lengths, the others at 12 bits. It takes 7 evaluations by role, 25 by layer.
* *Told of the significance*: GPSampler starts with the sweep of `bayesian`; groups in 32-bit are
  reported to it as 12 bits, with the footprint of 12 bits.

A sampler is left out of a space in which it takes too long.

![Hypervolume against evaluations](samplers.png)

Lines: the mean of ten searches; shaded: its standard error.

""".splitlines()
