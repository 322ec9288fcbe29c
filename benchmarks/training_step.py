"""What quantised training costs: a training step in fixed point over SpikingJelly's in float.

    python benchmarks/training_step.py                        # all networks, some minutes
    python benchmarks/training_step.py --network small --rounds 21     # one, which is printed

The networks are made of SpikingJelly's layers alone. A step is forward, backward and an update by
Adam, in float and with 8 bits for more and more of the network, all of them in turn within each
round; formats are those of the first batch and stay. Calibrating is what chose them. Writes
docs/results/training_step.md and .json.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import measuring

import peers
import torch
import training_step_peers as theirs
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model.sew_resnet import sew_resnet18
from torch import Tensor, nn

from qspinn.atomic import write_text
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, calibrate
from qspinn.records import write_json

ROLES = ("weight", "bias", "membrane", "threshold", "decay")
FLOAT, CALIBRATING = "float", "calibrating on a batch"
NEAREST, STOCHASTIC = "everything", "everything, stochastic"


@dataclass(frozen=True)
class Subject:
    """A network and a batch for it.

    Attributes:
        title: As the page calls it.
        network: Makes it, untrained.
        shape: Of the batch, ``[T, N, C, H, W]``.
    """

    title: str
    network: Callable[[], nn.Module]
    shape: tuple[int, ...]


def small_network() -> nn.Module:
    """Two blocks of convolution, batch norm, LIF neurons and pooling, and class scores."""

    def block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
        lif = neuron.LIFNode(detach_reset=True, surrogate_function=surrogate.ATan())
        convolution = layer.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return convolution, layer.BatchNorm2d(outputs), lif, layer.MaxPool2d(2, 2)

    return nn.Sequential(*block(2, 16), *block(16, 32), layer.Flatten(), layer.Linear(512, 10))


def resnet() -> nn.Module:
    """SpikingJelly's SEW-ResNet-18, of 11 million parameters."""
    lif = {"detach_reset": True, "surrogate_function": surrogate.ATan()}
    return sew_resnet18(spiking_neuron=neuron.LIFNode, cnf="ADD", num_classes=10, **lif)


SUBJECTS = {
    "small": Subject("small convolutional network", small_network, (8, 64, 2, 16, 16)),
    "sew_resnet18": Subject("sew_resnet18", resnet, (4, 8, 3, 32, 32)),
    "peers": Subject(f"against {theirs.TITLE}", small_network, (8, 16, 2, 16, 16)),
}


def plan_of(*roles: str, bits: int = 8, rounding: str = "nearest") -> QuantizationPlan:
    """Quantises some roles, and the others stay in float; without a role, all of them."""
    left = {role: {"format": "float32"} for role in ROLES if roles and role not in roles}
    return QuantizationPlan.uniform(bits, rounding, roles=left)


PLANS = {
    "weights": plan_of("weight"),
    "weights and membrane": plan_of("weight", "membrane"),
    NEAREST: plan_of(),
    STOCHASTIC: plan_of(rounding="stochastic"),
}
COMPARED = (4, 8)
"""Bits of weights and membrane potentials in the comparison with others."""


def stepping(net: nn.Module, x: Tensor) -> Callable[[], None]:
    """One step of training."""
    labels = torch.arange(x.shape[1]) % 10
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)

    def step() -> None:
        functional.reset_net(net)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x).mean(0), labels).backward()
        optimizer.step()

    return step


def batch_of(subject: Subject) -> Tensor:
    """Spikes, as many as an event camera gives."""
    torch.manual_seed(0)
    return (torch.rand(subject.shape) < 0.2).float()


def ways_and_others(subject: Subject) -> dict[str, Callable[[], object]]:
    """Weights and potentials at few bits, here and in the peers, and both in float."""
    plans = {f"{bits} bits": plan_of("weight", "membrane", bits=bits) for bits in COMPARED}
    ways = ways_of(subject, plans)
    del ways[CALIBRATING]
    x = batch_of(subject)
    ways["snnTorch, float"] = theirs.stepping(None, x)
    ways |= {f"{theirs.TITLE}, {bits} bits": theirs.stepping(bits, x) for bits in COMPARED}
    return ways


def ways_of(
    subject: Subject, plans: Mapping[str, QuantizationPlan] = PLANS
) -> dict[str, Callable[[], object]]:
    """The float step, a step for each plan, and calibrating everything."""
    x = batch_of(subject)

    def fresh() -> nn.Module:
        torch.manual_seed(1)
        net = subject.network().train()
        functional.set_step_mode(net, "m")
        return net

    ways: dict[str, Callable[[], object]] = {FLOAT: stepping(fresh(), x)}
    for name, plan in plans.items():
        net = fresh()
        resolved = calibrate(net, plan.resolve(net, x), x, learning=True)
        ways[name] = stepping(attach(net, resolved).train(), x)
    net = fresh()
    unresolved = PLANS[NEAREST].resolve(net, x)
    ways[CALIBRATING] = lambda: calibrate(net, unresolved, x, learning=True)
    return ways


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Times of each way, and ratios to the float step, as plain types."""
    subject = SUBJECTS[name]
    ways = ways_and_others(subject) if name == "peers" else ways_of(subject)
    laps = measuring.interleaved(ways, rounds)
    rows = {}
    for name, one in laps.items():
        found = measuring.ratio(one.processor, laps[FLOAT].processor)
        rows[name] = {"seconds": one.median, "processor_seconds": one.median_processor}
        rows[name] |= {"ratio": found.median, "lowest": found.lowest, "highest": found.highest}
    steps, samples, *frame = subject.shape
    work = f"T={steps}, batch {samples}, {'x'.join(map(str, frame))}"
    return {"title": f"{subject.title}, {work}", "rounds": rounds, "rows": rows}


def page(results: Mapping[str, Any], command: str) -> str:
    """As Markdown."""
    parts = [
        "# What quantised training costs",
        measuring.circumstances(results["machine"], command),
        "Forward, backward and an update by Adam, of networks made of SpikingJelly's layers with "
        "LIF neurons. 8 bits where nothing else is said, to nearest unless stated; formats stay as "
        "the first batch gave them. All rows take turns within each round. Medians over rounds; "
        "the ratio is of medians of processor time, with the lowest and the highest of a round.",
    ]
    for one in results["networks"].values():
        lines = ["| | ms | of processor time | over float |", "|---|---:|---:|---:|"]
        for name, row in one["rows"].items():
            found = measuring.Ratio(row["ratio"], row["lowest"], row["highest"])
            times = (1e3 * row[key] for key in ("seconds", "processor_seconds"))
            lines.append(f"| {name} | {' | '.join(f'{t:.1f}' for t in times)} | {found.text()} |")
        parts += [f"## {one['title']}", f"{one['rounds']} rounds.", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measures, prints, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=SUBJECTS, help="only this one, which is printed")
    parser.add_argument("--rounds", type=int, default=11, help="9 or more")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # some of it stays in float, as asked for; Brevitas has others
    torch.set_num_threads(1)
    names = [given.network] if given.network else list(SUBJECTS)
    about = measuring.machine("torch", "spikingjelly")
    if "peers" in names and theirs.missing():
        names.remove("peers")
        print(f"{SUBJECTS['peers'].title}: left out, since they are missing. Install them:")
        print("\n".join(map(peers.how_to_install, theirs.missing())), flush=True)
    elif "peers" in names:
        about |= {name: peers.PEERS[name].version for name in theirs.NAMES}
    measured = {name: measure(name, given.rounds) for name in names}
    results = {"machine": about, "networks": measured}
    text = page(results, "python -m benchmarks training_step")
    if given.network is None:
        write_json(results, measuring.RESULTS / "training_step.json")
        write_text(text, measuring.RESULTS / "training_step.md")
    print(text)


if __name__ == "__main__":
    main()
