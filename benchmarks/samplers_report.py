"""The page of samplers.py: tables and a plot."""

import statistics

DRAWN = {
    "`bayesian`": "C0",
    "`nsga2`": "C1",
    "GPSampler after a sweep": "C2",
    "GPSampler": "C3",
    "TPESampler": "C4",
    "RandomSampler": "gray",
}
OURS = "`bayesian`"


def reached(network, method, budget):
    """The hypervolume at a budget, in percent: of the whole grid's, where there is one."""
    runs = network["runs"][method]
    volumes = runs.get(str(budget)) or runs[max(runs, key=int)]
    return 100 * volumes[min(budget, len(volumes)) - 1] / (network["grid"] or 1.0)


def text_of(results, spaces):
    return "\n".join(
        [*INTRODUCTION, *(line for one in results for line in part(one, results, spaces))]
    )


def part(space, results, spaces):
    networks, budgets = results[space], spaces[space]
    of_grid = networks[0]["grid"] is not None
    unit = "of the whole grid's hypervolume" if of_grid else "hypervolume"
    size = f"{networks[0]['size']:.3g}" if networks[0]["size"] > 1e6 else networks[0]["size"]
    seconds = {m: statistics.fmean(n["seconds"][m] for n in networks) for m in networks[0]["runs"]}
    lines = [
        f"## {space[0].upper()}{space[1:]}",
        "",
        f"{size} mixtures, {len(networks)} networks. In percent {unit}: mean ± standard deviation",
        "over the networks, after so many evaluations.",
        "",
        "| search | " + " | ".join(map(str, budgets)) + " |",
        "|---" * (len(budgets) + 1) + "|",
    ]
    for method in seconds:
        cells = [spread([reached(n, method, budget) for n in networks]) for budget in budgets]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Less what {OURS} reaches on the same network: mean ± standard error, and on how many of",
        "the networks it is more, and less.",
        "",
        "| search | " + " | ".join(map(str, budgets)) + " |",
        "|---" * (len(budgets) + 1) + "|",
    ]
    for method in seconds:
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
    for axes, (space, networks) in zip(
        figure.subplots(1, len(results)), results.items(), strict=True
    ):
        budgets = spaces[space]
        first = budgets[0] - 2
        counts = range(first, budgets[-1] + 1)
        for method, color in DRAWN.items():
            each = [curve(network, method, counts) for network in networks]
            means = [statistics.fmean(values) for values in zip(*each, strict=True)]
            errors = [
                statistics.stdev(values) / len(values) ** 0.5 for values in zip(*each, strict=True)
            ]
            label = method.replace("`", "")
            axes.plot(counts, means, color=color, label=label)
            low = [mean - error for mean, error in zip(means, errors, strict=True)]
            high = [mean + error for mean, error in zip(means, errors, strict=True)]
            axes.fill_between(counts, low, high, color=color, alpha=0.15, linewidth=0)
        axes.set_title(space, loc="left")
        axes.set_xlabel("evaluations")
        of_grid = networks[0]["grid"] is not None
        axes.set_ylabel("hypervolume" + (" (% of the whole grid's)" if of_grid else " (%)"))
        axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=90)


def curve(network, method, counts):
    """After each number of evaluations, of the search with the largest budget."""
    runs = network["runs"][method]
    volumes = runs[max(runs, key=int)]
    grid = network["grid"] or 1.0
    return [100 * volumes[min(count, len(volumes)) - 1] / grid for count in counts]


INTRODUCTION = [
    "# The searches against Optuna's samplers",
    "",
]
