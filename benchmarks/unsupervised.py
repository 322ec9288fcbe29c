"""The tables of docs/results/unsupervised.md: STDP on the full MNIST, 32-bit against quantised.

Trains the network of Diehl and Cook on the 60,000 images without labels, labels its neurons by
their responses to the first 20,000 training images, and tests on the 10,000. Finished units are
kept in the folder --runs, so the script can be stopped, started again, and run several times side
by side (each unit is one file).

    python benchmarks/unsupervised.py --data-root FOLDER --part sizes       # 32-bit, N = 100..6400
    python benchmarks/unsupervised.py --data-root FOLDER --part quantised   # PTQ and ITQ, N = 400
    python benchmarks/unsupervised.py --data-root FOLDER --part free        # PTQ, free scales
    python benchmarks/unsupervised.py --part report                         # writes the page
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from measuring import RESULTS, ROOT

import torch
from torch import Tensor, nn

from qspinn.atomic import write_text
from qspinn.data import MNIST
from qspinn.data.tensor_dataset import to_unit_range
from qspinn.networks import STDP, DiehlCook, DiehlCookSettings, Readouts
from qspinn.plan import QuantizationPlan, footprint
from qspinn.quantizers import attach, calibrate, detach
from qspinn.records import write_json

SHORT = {"rest": 8, "shares": 4, "membrane": 10}
"""Word lengths that suffice for classifying, found on held-out training images."""
BITS = (8, 7, 6, 5, 4, 3, 2, 1)
ROUNDINGS = ("truncate", "nearest", "stochastic")
LABELLING = 20_000
CHUNK = 1000
PUBLISHED = {100: 82.9, 400: 87.0, 1600: 91.9, 6400: 95.0}


@dataclass(frozen=True)
class Unit:
    """One training, or one quantisation of a finished training.

    Attributes:
        neurons: N.
        seed: Of weights, spikes and the order of images.
        scheme: ``none``, ``ptq`` or ``itq``.
        bits: Of the weights; 32 for ``none``.
        rounding: Of everything.
        normalise: When weights are scaled to their sum, see `qspinn.networks.STDP`; ``never``:
            not at all, by the rule `UNNORMALISED`.
        rest: Bits of everything but weights and readout.
        shares: Bits of the readout's shares.
        membrane: Bits of potentials, reset and inhibition; None: as the rest.
        scale: Of the weights, ``power_of_two`` or ``free`` (a unit for each neuron).
        learned: Bits of the weights while they were learned in fixed point, where a finished
            training of such weights is quantised; None: they were learned in float.
    """

    neurons: int
    seed: int
    scheme: str = "none"
    bits: int = 32
    rounding: str = "none"
    normalise: str = "presentation"
    rest: int = 16
    shares: int = 8
    membrane: int | None = None
    scale: str = "power_of_two"
    learned: int | None = None

    @property
    def name(self) -> str:
        """Of its file."""
        quantised = f"{self.bits}_{self.rounding}_{self.normalise}"
        if (self.rest, self.shares) != (Unit.rest, Unit.shares):
            quantised += f"_{self.rest}_{self.shares}"
        if self.membrane is not None:
            quantised += f"_m{self.membrane}"
        if self.scale != Unit.scale:
            quantised += f"_{self.scale}"
        if self.learned is not None:
            quantised += f"_learned{self.learned}"
        return f"{self.neurons}_{self.seed}_{self.scheme}_{quantised}"

    @property
    def learner(self) -> Unit:
        """The training whose outcome is quantised."""
        if self.learned is None:
            return Unit(self.neurons, self.seed)
        how = "presentation" if self.learned > 4 else "update"
        return Unit(self.neurons, self.seed, "itq", self.learned, "stochastic", how)


@dataclass(frozen=True)
class Recipe:
    """How a network of some size is trained."""

    theta_plus: float
    rate_post: float
    epochs: int
    rate_pre: float = 0.0


RECIPES = {
    100: Recipe(0.005, 5e-3, 1),
    400: Recipe(0.05, 5e-3, 1),
    1600: Recipe(0.1, 1e-2, 3),
    6400: Recipe(0.5, 2e-2, 4),
}


@dataclass(frozen=True)
class Unnormalised:
    """How 400 neurons learn weights of few bits whose sums are left alone."""

    theta_plus: float
    epochs: int
    trace_target: float
    tau_pre: float
    rate_post: float = 5e-3

    @property
    def stdp(self) -> STDP:
        """Its rule."""
        return STDP(
            rate_post=self.rate_post,
            trace_target=self.trace_target,
            tau_pre=self.tau_pre,
            weight_sum=None,
        )

    @property
    def said(self) -> str:
        """Its values, as they are written in a configuration."""
        return ", ".join(f"{name}={value:g}" for name, value in asdict(self).items())


UNNORMALISED = {
    2: Unnormalised(0.03, epochs=1, trace_target=0.4, tau_pre=40.0),
    1: Unnormalised(0.05, epochs=2, trace_target=0.2, tau_pre=20.0),
}
"""Weights from silent inputs fall, and theta alone keeps neurons from firing too often: it grows in
the unit that a neuron's weights happen to have. By bits; found on held-out training images."""


class Model(nn.Module):
    """A network and the readout that a device holds with it."""

    def __init__(self, network: DiehlCook) -> None:
        super().__init__()
        self.network = network
        self.readout = Readouts("proportion", network.neurons, 10)


@dataclass(frozen=True)
class Images:
    """The two sets, bytes and labels."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def load(root: str) -> Images:
    """The full MNIST."""
    data = MNIST(root=root, val_size=0)
    data.setup()
    train, test = data.train_dataset, data.test_dataset
    return Images((train.images, train.labels), (test.images, test.labels))


def build(unit: Unit, recipe: Recipe) -> Model:
    """A fresh network."""
    torch.manual_seed(unit.seed)
    theta_plus = recipe.theta_plus
    if unit.normalise == "never":
        theta_plus, stdp = UNNORMALISED[unit.bits].theta_plus, UNNORMALISED[unit.bits].stdp
    else:
        rates = {"rate_pre": recipe.rate_pre, "rate_post": recipe.rate_post}
        stdp = STDP(normalise=unit.normalise, **rates)
    settings = DiehlCookSettings(theta_plus=theta_plus)
    return Model(DiehlCook(neurons=unit.neurons, settings=settings, stdp=stdp))


def learn(model: Model, images: Tensor, epochs: int, seed: int) -> dict[str, float]:
    """Shows all images, in a new order in each epoch; what came of it."""
    order = torch.Generator().manual_seed(seed)
    updates = underflows = spikes = 0
    started = time.perf_counter()
    for _ in range(epochs):
        updates = underflows = spikes = 0
        for chosen in torch.randperm(len(images), generator=order).split(CHUNK):
            shown = model.network.present(to_unit_range(images[chosen]), learning=True)
            updates += shown.updates
            underflows += shown.underflows
            spikes += int(shown.spike_counts.sum())
    return {
        "seconds_per_epoch": (time.perf_counter() - started) / epochs,
        "update_underflow": underflows / max(updates, 1),
        "output_spikes": spikes / len(images),
    }


def responses(model: Model, images: Tensor) -> Tensor:
    """Spikes of each neuron to each image."""
    parts = images.split(CHUNK)
    return torch.cat([model.network.present(to_unit_range(part)).spike_counts for part in parts])


def evaluate(model: Model, images: Images) -> dict[str, float]:
    """Labels the neurons by training responses; accuracies on the test set, in percent."""
    train, labels = images.train[0][:LABELLING], images.train[1][:LABELLING]
    model.readout.fit(responses(model, train), labels)
    counts = responses(model, images.test[0])
    right = {}
    for name, readout in model.readout.each.items():
        predicted = readout(counts).argmax(1)
        right[name] = 100.0 * float((predicted == images.test[1]).double().mean())
    return right


def plan_of(unit: Unit) -> QuantizationPlan:
    """The word lengths of a unit, and its rounding for everything."""
    lengths = dict.fromkeys(("membrane", "threshold", "theta", "trace", "decay"), unit.rest)
    lengths["membrane"] = unit.membrane or unit.rest
    roles: dict[str, Any] = {role: {"word_length": bits} for role, bits in lengths.items()}
    readout = {"layers": "*readout*", "role": "weight", "word_length": unit.shares}
    return QuantizationPlan.uniform(
        word_length=unit.bits,
        rounding=unit.rounding,
        scale=unit.scale,
        roles=roles,
        rules=[{**readout, "scale": "power_of_two"}],
    )


def quantise(model: Model, unit: Unit, learning: bool) -> dict[str, Any]:
    """Attaches the plan; the footprint."""
    resolved = plan_of(unit).resolve(model)
    resolved = calibrate(model, resolved, lambda: None, learning=learning)
    attach(model, resolved)
    bits = footprint(model, resolved)
    weights = next(tensor for tensor in resolved.tensors if tensor.path == "network.weight")
    return {
        "inference_bits": bits.inference_bits,
        "training_bits": bits.training_bits,
        "baseline_inference_bits": bits.baseline_inference_bits,
        "baseline_training_bits": bits.baseline_training_bits,
        "weight_format": str(weights.format),
    }


def run(unit: Unit, images: Images, runs: Path) -> dict[str, Any]:
    """The result of a unit, from its file where it is finished."""
    path, weights = runs / f"{unit.name}.json", runs / f"{unit.name}.pt"
    if path.exists() and (unit.scheme == "ptq" or weights.exists()):
        return json.loads(path.read_text())
    recipe = RECIPES[unit.neurons]
    model = build(unit, recipe)
    result: dict[str, Any] = {**asdict(unit), "recipe": asdict(recipe)}
    if unit.scheme == "ptq":
        run(unit.learner, images, runs)
        taught = torch.load(runs / f"{unit.learner.name}.pt", weights_only=True)
        model.load_state_dict(taught)
        # Formats are chosen on the network that learned; the readouts are then fitted anew.
        result |= quantise(model, unit, learning=False)
    else:
        if unit.scheme == "itq":
            result |= quantise(model, unit, learning=True)
        epochs = UNNORMALISED[unit.bits].epochs if unit.normalise == "never" else recipe.epochs
        result |= learn(model, images.train[0], epochs, unit.seed)
    result["accuracy"] = evaluate(model, images)
    if unit.scheme != "ptq":
        partial = weights.with_suffix(".partial")
        torch.save(copy.deepcopy(detach(model)).state_dict(), partial)
        partial.replace(weights)
    write_json(result, path)
    print(unit.name, {name: round(value, 2) for name, value in result["accuracy"].items()},
          f"underflow {result.get('update_underflow', 0):.3f}", flush=True)  # fmt: skip
    return result


def size_units(seeds: int) -> Iterator[Unit]:
    """32-bit networks; one seed for the largest."""
    for neurons in RECIPES:
        for seed in range(1 if neurons == 6400 else seeds):
            yield Unit(neurons, seed)


def quantised_units(seeds: int) -> Iterator[Unit]:
    """Stochastic rounding first, since that is the one that learns."""
    for scheme in ("ptq", "itq"):
        for rounding in reversed(ROUNDINGS):
            for seed in range(seeds):
                for bits in BITS:
                    yield Unit(400, seed, scheme, bits, rounding)
    for seed in range(seeds):
        for bits in (3, 4, 2, 1, 5, 6):
            yield Unit(400, seed, "itq", bits, "stochastic", "update")
        yield Unit(400, seed, "itq", 8, "stochastic", rest=14, shares=6)
        for bits in UNNORMALISED:
            yield Unit(400, seed, "itq", bits, "stochastic", "never")


def free_units(seeds: int) -> Iterator[Unit]:
    """After learning, with weights whose scale is free; the rest long, and as short as it goes."""
    for seed in range(seeds):
        for bits in (3, 2, 1):
            yield Unit(400, seed, "ptq", bits, "nearest", scale="free")
        for neurons in (400, 1600):
            for bits in (2, 1):
                yield Unit(neurons, seed, "ptq", bits, "nearest", scale="free", **SHORT)
        for learned in (8, 4):
            for bits in (2, 1):
                yield Unit(
                    400, seed, "ptq", bits, "nearest", scale="free", learned=learned, **SHORT
                )


def finished(runs: Path) -> list[dict[str, Any]]:
    """The results there are."""
    return [json.loads(path.read_text()) for path in sorted(runs.glob("*.json"))]


def spread(values: list[float]) -> str:
    """Mean and standard deviation (of the sample)."""
    if len(values) == 1:
        return f"{values[0]:.2f} (one seed)"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def size_table(results: list[dict[str, Any]]) -> list[str]:
    """32-bit accuracies by the number of neurons."""
    readouts = ("maximum", "proportion", "ridge")
    lines = [
        "| N | epochs | theta_plus, rate_post | maximum | proportion | ridge | Diehl & Cook 2015 |",
        "|--:|--:|---|--:|--:|--:|--:|",
    ]
    for neurons, recipe in RECIPES.items():
        found = [r for r in results if r["neurons"] == neurons and r["scheme"] == "none"]
        if not found:
            continue
        cells = " | ".join(spread([r["accuracy"][name] for r in found]) for name in readouts)
        lines.append(
            f"| {neurons} | {recipe.epochs} | {recipe.theta_plus:g}, {recipe.rate_post:g} "
            f"| {cells} | {PUBLISHED[neurons]} |"
        )
    return lines


def quantised_table(results: list[dict[str, Any]], scheme: str, scale: str) -> list[str]:
    """Accuracy, loss and reduction by bits, rounding and kind of normalisation, N = 400."""
    results = [r for r in results if r["neurons"] == 400]
    floats = {r["seed"]: r["accuracy"]["proportion"] for r in results if r["scheme"] == "none"}
    lines = [
        "| weights | rest, readout | rounding | normalised | seeds | accuracy | loss "
        "| inference bits | smaller | learning device | lost updates |",
        "|--:|--:|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for result in results:
        if result["scheme"] == scheme and result.get("scale", Unit.scale) == scale:
            others = result.get("rest", Unit.rest), result.get("shares", Unit.shares)
            key = (-result["bits"], result["rounding"], result["normalise"], others)
            groups.setdefault(key, []).append(result)
    for (bits, rounding, normalise, (rest, shares)), found in sorted(groups.items()):
        accuracy = [r["accuracy"]["proportion"] for r in found]
        loss = statistics.mean(floats[r["seed"]] - r["accuracy"]["proportion"] for r in found)
        one = found[0]
        smaller = one["baseline_inference_bits"] / one["inference_bits"]
        learning = one["baseline_training_bits"] / one["training_bits"]
        swallowed = statistics.mean(r.get("update_underflow", 0.0) for r in found)
        when = normalise if normalise == "never" else f"per {normalise}"
        lines.append(
            f"| {-bits} ({one['weight_format']}) | {rest}, {shares} | {rounding} "
            f"| {when} | {len(found)} | {spread(accuracy)} | {loss:+.2f} "
            f"| {one['inference_bits']:,} | {smaller:.1f}x | {learning:.1f}x "
            f"| {f'{swallowed:.1%}' if scheme == 'itq' else ''} |"
        )
    return lines


def free_table(results: list[dict[str, Any]]) -> list[str]:
    """Accuracy, loss and reduction of weights whose scale is free, by N, bits and word lengths."""
    floats = {(r["neurons"], r["seed"]): r["accuracy"]["proportion"] for r in results
              if r["scheme"] == "none"}  # fmt: skip
    groups: dict[tuple[int, int, int, int], list[dict[str, Any]]] = {}
    for result in results:
        if result.get("scale") == "free":
            learned = result.get("learned") or 32
            key = result["neurons"], -learned, -result["bits"], -result["rest"]
            groups.setdefault(key, []).append(result)
    lines = [
        "| N | learned with | weights | membrane, rest, readout | seeds | 32-bit | accuracy | loss "
        "| inference bits | smaller |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for (neurons, learned, _, _), found in sorted(groups.items()):
        one, seeds = found[0], [(neurons, r["seed"]) for r in found]
        accuracy = [r["accuracy"]["proportion"] for r in found]
        lost = [floats[seed] - value for seed, value in zip(seeds, accuracy, strict=True)]
        before = spread([floats[seed] for seed in seeds])
        lines.append(
            f"| {neurons} | {-learned} bits | {one['bits']} | {one['membrane'] or one['rest']}, "
            f"{one['rest']}, {one['shares']} | {len(found)} | {before} | {spread(accuracy)} "
            f"| {statistics.mean(lost):+.2f} | {one['inference_bits']:,} "
            f"| {one['baseline_inference_bits'] / one['inference_bits']:.1f}x |"
        )
    return lines


def report(runs: Path, folder: Path) -> None:
    """Writes docs/results/unsupervised.md and .json."""
    results = finished(runs)
    floats = [r["accuracy"]["proportion"] for r in results
              if r["neurons"] == 400 and r["scheme"] == "none"]  # fmt: skip
    text = [
        "# Learning without labels: the full MNIST",
        "",
        f"Written by `benchmarks/unsupervised.py` (torch {torch.__version__}, "
        f"{platform.machine()}, one thread, numba backend). The network of Diehl & Cook learns by "
        "STDP on the 60,000 training images; its neurons are labelled by their responses to the "
        f"first {LABELLING:,} training images. Accuracies are in percent on the 10,000 test "
        "images, mean ± standard deviation over seeds.",
        "",
        "## 32-bit",
        "",
        *size_table(results),
        "",
        "## Quantised, N = 400",
        "",
        "Every number is in fixed point: weights as listed, everything else in the network (rest), "
        "and the readout's shares (readout: proportion, its shares are counted). "
        "The rounding applies to every tensor. Loss: relative to the 32-bit network of the same "
        f"seed ({spread(floats)}). Lost updates: updates that rounding made ineffective.",
        "",
        "### After learning (PTQ)",
        "",
        *quantised_table(results, "ptq", "power_of_two"),
        "",
        "### After learning, with a unit for each neuron (PTQ, `scale=free`)",
        "",
        "The step of a neuron's weights is any number: the neuron counts in a unit of its own, "
        "which its theta absorbs, so that this costs no memory. Rounding to nearest. Membrane: "
        "potentials, reset and inhibition. Learned with: bits of the weights while they were "
        "learned (32: in float; fewer: on their grid, as in the next section).",
        "",
        *free_table(results),
        "",
        "### While learning (ITQ)",
        "",
        "Weights and theta are on their grids from the first presentation on; there is no float "
        "copy. *Per update*: an update and the normalisation are rounded together. *Never*: "
        f"weight_sum=null; at 2 bits {UNNORMALISED[2].said}; at 1 bit {UNNORMALISED[1].said}.",
        "",
        *quantised_table(results, "itq", "power_of_two"),
        "",
    ]
    write_text("\n".join(text), folder / "unsupervised.md")
    write_json({"results": results}, folder / "unsupervised.json")


def main() -> None:
    """Runs what is missing, or writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--part", choices=("sizes", "quantised", "free", "report"), default="report"
    )
    parser.add_argument("--data-root", default="data", help="holds MNIST/raw")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", help="run the units whose name holds this text")
    parser.add_argument("--runs", type=Path, default=ROOT / "outputs" / "benchmark_unsupervised")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    arguments.runs.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    units = {"sizes": size_units, "quantised": quantised_units, "free": free_units}
    if arguments.part in units:
        images = load(arguments.data_root)
        for unit in units[arguments.part](arguments.seeds):
            if arguments.only is None or arguments.only in unit.name:
                run(unit, images, arguments.runs)
    else:
        report(arguments.runs, arguments.results)


if __name__ == "__main__":
    main()
