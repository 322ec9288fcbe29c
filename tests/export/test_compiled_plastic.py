"""Plastic networks in the compiled engine: the numbers of the clear one, bit for bit."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qspinn.export import DeviceModel, IntegerEngine, device_model, encode
from qspinn.export.compiled import CompiledEngine
from qspinn.export.kernels import listing
from qspinn.export.lowering import program_of
from qspinn.export.model import (
    AdaptiveNeuron,
    DeviceOperation,
    Input,
    Output,
    Total,
)
from qspinn.export.packed_tensor import PackedTensor
from qspinn.fixed_point import OVERFLOWS, ROUNDINGS, FixedPointFormat
from qspinn.plan import QuantizationPlan
from qspinn.plan.graph import Operand
from tests.export.random_models import random_codes, random_model
from tests.export.random_plastic import PLASTIC_KINDS, partly_final
from tests.export.test_compiled import Watched, compare
from tests.export.test_decolle_model import images, quantized, small
from tests.export.test_plastic_model import SHAPE, learned, pixels


def same(model: DeviceModel, codes: Any, accumulators: int | None = None, **how: Any) -> Any:
    """Compares the answers; returns those of the clear engine."""
    expected = IntegerEngine(model, accumulators).run(codes, **how)
    found = CompiledEngine(model, accumulators).run(codes, **how)
    assert np.array_equal(found.sums, expected.sums)
    assert found.overflows == expected.overflows
    assert found.fraction_bits == expected.fraction_bits
    assert found.divisors == expected.divisors
    assert np.array_equal(found.classes, expected.classes)
    return expected


def same_everywhere(model: DeviceModel, codes: Any) -> None:
    """Compares all results of all steps."""
    watched: Watched = {}
    IntegerEngine(model).run(
        codes, watch=lambda _, number, out: watched.setdefault(number, []).append(out)
    )
    never_final = tuple(replace(one, is_final=False) for one in model.operations)
    if never_final == model.operations:
        compare(model, codes, {}, watched)
        return
    for number, outs in watched.items():
        table = np.arange(model.operations[number].size).reshape(-1, 1)
        read = replace(
            model,
            output=Output(number, "everything", "last"),
            tables={**model.tables, "everything": PackedTensor(table, 32, signed=False)},
        )
        sums = CompiledEngine(read).run(codes).sums
        assert np.array_equal(sums, outs[-1].reshape(sums.shape)), (number, never_final[number])


@pytest.mark.few(0.2, "campaign")
@pytest.mark.parametrize("seed", range(40))
def test_random_models(seed: int) -> None:
    model = random_model(seed, kinds=PLASTIC_KINDS)
    codes = random_codes(model, seed, 3)
    same_everywhere(model, codes)
    same(model, codes, 6, seed=seed)
    final = partly_final(model, seed)
    same_everywhere(final, codes)
    same(final, codes, 6, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 3000, 100))
@pytest.mark.campaign
def test_many_random_models(first: int) -> None:
    for seed in range(first, first + 100):
        test_random_models(seed)


@pytest.mark.parametrize("seed", range(10))
def test_memory_of_64_bits(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(listing, "is_narrow", lambda program: False)
    model = random_model(seed, kinds=PLASTIC_KINDS)
    same(model, random_codes(model, seed, 3), 6, seed=seed)


@pytest.mark.few(0.25, "campaign")
@pytest.mark.parametrize("seed", range(30))
def test_images_that_are_shown_for_longer(seed: int) -> None:
    model = random_model(seed, kinds=PLASTIC_KINDS)
    for steps in (1, model.steps + 2, 70):
        try:
            program_of(replace(model, steps=steps))
        except ValueError:
            continue  # totals that are too long
        if not model.frame_stride:
            same(model, random_codes(model, seed, 3), 6, seed=seed, steps=steps)


def test_totals_of_more_steps_than_the_model_has() -> None:
    """They no longer fit in the 32 bits that those of the model fit in."""
    fmt = FixedPointFormat(29, 0, signed=True)
    operations = (
        DeviceOperation(Input(fmt), (), (2,), is_static=True),
        DeviceOperation(Total(32), (Operand(0),), (2,)),
    )
    tables = {"all": PackedTensor.shortest(np.arange(2)[:, None])}
    model = DeviceModel(operations, Output(1, "all", "last"), {}, tables, None, 0, 2, "totals")
    codes = np.array([[fmt.code_max, fmt.code_min]])
    assert listing.listing_of(CompiledEngine(model).program).dtype is np.int32
    assert same(model, codes, steps=9).sums.tolist() == (9 * codes).tolist()


@pytest.mark.campaign
@pytest.mark.slow
def test_random_models_hold_every_operation_with_every_setting() -> None:
    kinds, adaptive = Counter[str](), Counter[Any]()
    for seed in range(200):
        for one in random_model(seed, kinds=PLASTIC_KINDS).operations:
            what = one.what
            kinds[type(what).__name__] += 1
            if isinstance(what, AdaptiveNeuron):
                adaptive[what.rounding, what.overflow] += 1
                adaptive[f"winner: {what.one_winner}"] += 1
                adaptive[f"delay: {what.delay}"] += 1
                adaptive[f"refractory: {what.refractory > 0}"] += 1
    wanted = {"Trace", "Compare", "AdaptiveNeuron", "RandomSpikes", "Total", "LabelSums"}
    assert wanted <= set(kinds)
    assert len(adaptive) == len(ROUNDINGS) * len(OVERFLOWS) + 2 + 3 + 2


@pytest.mark.few(0.05)
@pytest.mark.parametrize(
    ("readout", "one_winner", "delay", "refractory"),
    [
        ("maximum", True, 1, 2),
        ("ridge", True, 2, 0),
        ("proportion", False, 1, 0),
        ("proportion", False, 2, 3),
    ],
)
@pytest.mark.parametrize(
    ("rounding", "granularity"),
    [("nearest", "tensor"), ("stochastic", "tensor"), ("truncate", "channel")],
)
def test_the_unsupervised_network(
    readout: str, rounding: str, granularity: str, one_winner: bool, delay: int, refractory: int
) -> None:
    changes = {"one_winner": one_winner, "inhibition_delay": delay, "refractory": refractory}
    module = learned(readout, rounding, granularity, **changes)
    shown = pixels(150, SHAPE, 5)
    model = device_model(module, shown[:1])
    codes = encode(model, shown)
    answers = same(model, codes)
    assert len(set(answers.classes)) > 1
    assert same(model, codes, 5).overflows
    same_everywhere(model, codes[:5])


@pytest.mark.few(0.25)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("coding", ["direct", "binary", "counts", "bernoulli"])
def test_decolle(coding: str, rounding: str) -> None:
    shown = images(coding, 20)
    rules: list[Any] = [{"word_length": 8, "rounding": rounding}]
    if coding == "direct":
        rules.append({"role": "input", "rounding": "nearest"})
    network = quantized(small(coding), shown, QuantizationPlan.from_rules(rules))
    model = device_model(network, shown[:1])
    if coding == "bernoulli":
        codes = np.stack([one.flatten(1).long().numpy() for one in network.encoded(shown)])
    else:
        codes = encode(model, shown)
    assert same(model, codes, seed=3).sums.any()
    assert same(model, codes, 8).overflows
    same_everywhere(model, codes[..., :2, :])


def test_decolle_of_sequences() -> None:
    shown = images(count=20).reshape(4, 5, 1, 9, 8)
    model = device_model(quantized(small(), shown, QuantizationPlan.uniform(8)), shown[:1])
    codes = encode(model, shown)
    same(model, codes)
    same_everywhere(model, codes)
