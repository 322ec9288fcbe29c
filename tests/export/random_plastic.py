"""Random operations of networks that learn without gradients through time."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np

from qspinn.export.checking import check_model
from qspinn.export.model import (
    AdaptiveNeuron,
    Compare,
    DeviceModel,
    LabelSums,
    RandomSpikes,
    Total,
    Trace,
)
from qspinn.fixed_point import OVERFLOWS, ROUNDINGS, FixedPointFormat
from qspinn.plan.graph import Operand
from tests.export.random_models import DELAYED, KINDS, Growing, some_codes, some_format


def _operand(g: Growing) -> Operand:
    """Of this step, or of the one before."""
    late = [n for n, one in enumerate(g.operations) if isinstance(one.what, DELAYED)]
    late = [n for n in late if not g.operations[n].is_static]
    if late and g.random.random() < 0.2:
        return Operand(g.random.choice(late), 1)
    return g.operand()


def _one(g: Growing, fmt: FixedPointFormat | None = None) -> str:
    """A single number."""
    fmt = some_format(g.random) if fmt is None else fmt
    return g.tensor(some_codes(g.random, fmt, ()), fmt)


def _leak(g: Growing) -> str:
    return _one(g, FixedPointFormat(0, g.random.choice([1, 3, 8, 12]), False))


def add_trace(g: Growing) -> None:
    random, operand = g.random, _operand(g)
    gain = _one(g) if random.random() < 0.5 else None
    what = Trace(
        some_format(random), _leak(g), gain, random.choice(ROUNDINGS), random.choice(OVERFLOWS)
    )
    g.add(what, (operand,), g.source(operand).shape)


def add_compare(g: Growing) -> None:
    operand = _operand(g)
    g.add(Compare(_one(g)), (operand,), g.source(operand).shape)


def add_adaptive(g: Growing) -> None:
    random, operand = g.random, _operand(g)
    drawn = [n for n, one in enumerate(g.operations) if isinstance(one.what, RandomSpikes)]
    chances = (Operand(random.choice(drawn)),) if drawn and random.random() < 0.9 else ()
    exact = [one for one in ROUNDINGS if one != "stochastic"]
    drawn_or_exact = random.choice([random.choice(exact), "stochastic"])
    size, theta = g.source(operand).size, some_format(random)
    what = AdaptiveNeuron(
        some_format(random),
        g.tensor(some_codes(random, theta, (size,)), theta),
        *(_one(g), _one(g), _leak(g), _one(g)),
        drawn_or_exact if chances else random.choice(exact),
        random.choice(OVERFLOWS),
        random.choice([0, 1, 2, 3]),
        random.choice([1, 1, 2, 3]),
        bool(chances) and random.random() < 0.5,
        (random.randrange(9), random.randrange(9)),
    )
    g.add(what, (operand, *chances), (size,))


def add_random_spikes(g: Growing) -> None:
    random = g.random
    static = [n for n, one in enumerate(g.operations) if one.is_static]
    if not static:
        return
    operand = Operand(random.choice(static))
    key = random.randrange(-(1 << 63), 1 << 63)
    multiplier = random.randrange(1 << random.choice([4, 12, 20]))
    what = RandomSpikes(multiplier, random.randrange(13), key, random.randrange(9))
    g.add(what, (operand,), g.source(operand).shape)


def add_total(g: Growing) -> None:
    operand = _operand(g)
    g.add(Total(32, g.random.randrange(3)), (operand,), g.source(operand).shape)


def add_label_sums(g: Growing) -> None:
    random, operand = g.random, _operand(g)
    classes, size = random.randint(1, 5), g.source(operand).size
    labels = np.array([random.randint(0, classes) for _ in range(size)])
    name = g.tensor(labels, FixedPointFormat(3, 0, False))
    g.add(LabelSums(name), (operand,), (classes,))


PLASTIC_KINDS = [
    *KINDS, add_trace, add_trace, add_compare, add_compare, add_adaptive, add_adaptive,
    add_random_spikes, add_random_spikes, add_total, add_total, add_label_sums, add_label_sums,
]  # fmt: skip


def partly_final(model: DeviceModel, seed: int) -> DeviceModel:
    """The model, of which an operation and all that takes it are computed after the last step."""
    operations = model.operations
    choices = [
        n
        for n, one in enumerate(operations)
        if n and not one.is_static and not isinstance(one.what, RandomSpikes)
    ]
    final = {Random(seed).choice(choices)} if choices else set()
    while True:
        takers = {
            n for n, one in enumerate(operations) if any(o.source in final for o in one.operands)
        }
        if takers <= final:
            break
        final |= takers
    changed = tuple(replace(one, is_final=n in final) for n, one in enumerate(operations))
    found = replace(model, operations=changed, output=replace(model.output, over="last"))
    check_model(found)
    return found
