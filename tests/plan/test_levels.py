"""Symmetric formats in a plan: which weights have them, what they take, and who is refused."""

from __future__ import annotations

from typing import Any

import pytest

from qspinn.fixed_point import parse_format
from qspinn.plan import QuantizationPlan, ResolvedPlan, footprint_of
from tests.plan.declaring import WEIGHT, Declaring
from tests.plan.networks import Named, spikes

X = spikes(2, 1, 4, 4)
WEIGHTS = ("conv1.weight", "block.0.weight", "fc.weight")


def resolved(*rules: dict[str, Any], bits: int = 4, **settings: Any) -> ResolvedPlan:
    return QuantizationPlan.uniform(bits, rules=rules, **settings).resolve(Named(), X)


def symmetric(plan: ResolvedPlan) -> set[str]:
    return {tensor.path for tensor in plan.tensors if tensor.is_symmetric}


def test_weights_of_one_bit_are_signs_and_nothing_else() -> None:
    assert symmetric(resolved(bits=1)) == set(WEIGHTS)
    assert symmetric(resolved({"layers": "fc", "word_length": 1})) == {"fc.weight"}
    assert not symmetric(resolved(bits=2))
    assert not symmetric(resolved({"role": "weight", "format": "Q0.0"}))


def test_levels_of_a_role_and_of_a_rule() -> None:
    ternary = {"weight": {"word_length": 2, "levels": "symmetric"}}
    assert symmetric(resolved(roles=ternary)) == set(WEIGHTS)
    kept = {"layers": "fc", "role": "weight", "levels": "all"}
    assert symmetric(resolved(kept, roles=ternary)) == {"conv1.weight", "block.0.weight"}
    written = {"layers": "fc", "role": "weight", "format": "Q0.1"}
    assert symmetric(resolved(written, roles=ternary)) == {"conv1.weight", "block.0.weight"}
    written["format"] = "SQ0.1"
    plan = resolved(written)
    assert symmetric(plan) == {"fc.weight"}
    assert plan.of_layer("fc")["weight"].format == parse_format("SQ0.1")


@pytest.mark.parametrize(("bits", "wanted"), [(1, 1), (2, 2)])
def test_words_are_counted(bits: int, wanted: int) -> None:
    plan = resolved(roles={"weight": {"word_length": bits, "levels": "symmetric"}})
    count = sum(tensor.info.count for tensor in plan.tensors if tensor.role == "weight")
    assert footprint_of(plan.inventory, plan).by_role["weight"] == wanted * count


def test_plans_survive_plain_types_and_records() -> None:
    plan = resolved(bits=1)
    texts = {path: "SQ-3.3|SQ0.0|SQ1.-1 @0" if path == "fc.weight" else "SQ0.0" for path in WEIGHTS}
    known = {path: parse_format(text) for path, text in texts.items()}
    others = {one.path: parse_format("Q0.0") for one in plan.tensors if one.path not in texts}
    calibrated = plan.with_formats(known | others)
    assert ResolvedPlan.from_dict(calibrated.to_dict()) == calibrated
    assert plan.with_recorded(calibrated.formats()) == calibrated
    assert {path: calibrated.formats()[path]["format"] for path in WEIGHTS} == texts


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"role": "bias", "format": "SQ1.0"}, r"bias: format='SQ1\.0' is for weights .* a bias"),
        ({"role": "membrane", "format": "SQ0.0"}, r"v: format='SQ0\.0' .* write a format such as"),
        ({"role": "threshold", "levels": "symmetric"}, r"'symmetric' .* a threshold; .*levels=all"),
        ({"levels": "symmetric"}, r"is for weights .* or role=weight in the rule"),
        ({"role": "weight", "levels": "symmetric", "overflow": "wrap"}, r"'wrap' and levels='symm"),
        ({"role": "weight", "word_length": 1, "overflow": "wrap"}, r"weight: .*and word_length=1"),
        ({"role": "weight", "format": "SQ1.0", "overflow": "wrap"}, r"and format='SQ1\.0'.*satur"),
    ],
)
def test_what_cannot_be_symmetric(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolved(rule)


def test_modules_that_compute_by_themselves_keep_their_formats() -> None:
    module = Declaring({**WEIGHT, "low": -1.0, "high": 1.0})
    plan = QuantizationPlan.uniform(1, allow_no_neurons=True)
    assert not symmetric(plan.resolve(module))
    asked = {"weight": {"levels": "symmetric"}}
    plan = QuantizationPlan.uniform(1, roles=asked, allow_no_neurons=True)
    with pytest.raises(ValueError, match=r"weight: levels='symmetric' .* computes by itself"):
        plan.resolve(module)
