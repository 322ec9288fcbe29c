"""Rules: what they mean, and what they say when they cannot be."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from spikingjelly.activation_based import layer, neuron
from torch import nn

from qspinn.fixed_point import OVERFLOWS, ROUNDINGS, FixedPointFormat, PerChannelFormat
from qspinn.plan import (
    CALIBRATIONS,
    GRANULARITIES,
    LEVELS,
    ROLE_MEANINGS,
    ROLES,
    QuantizationPlan,
    ResolvedPlan,
    Rule,
    TensorSettings,
)
from tests.plan.networks import Named, spikes


def lengths(rules: list[dict[str, Any]], example: bool = True) -> dict[str, int]:
    """Tensor path -> word length under these rules."""
    x = spikes(2, 1, 4, 4) if example else None
    resolved = QuantizationPlan.from_rules(rules).resolve(Named(), x)
    return {tensor.path: tensor.word_length for tensor in resolved.tensors}


class TestMeaning:
    def test_every_role_has_a_meaning(self) -> None:
        assert set(ROLE_MEANINGS) == set(ROLES)

    def test_all_tensors(self) -> None:
        assert lengths([{"word_length": 7}]) == dict.fromkeys(
            [
                *("conv1.weight", "conv1.bias", "sn1.v", "sn1.v_threshold", "sn1.decay"),
                *("block.0.weight", "block.0.bias"),
                *("block.1.v", "block.1.v_threshold", "block.1.decay"),
                *("fc.weight", "fc.bias", "sn2.v", "sn2.v_threshold"),
            ],
            7,
        )

    def test_later_rules_win(self) -> None:
        rules = [{"word_length": 8}, {"role": "weight", "word_length": 4}, {"word_length": 6}]
        assert set(lengths(rules).values()) == {6}
        found = lengths([rules[2], rules[1]])
        assert found["fc.weight"] == 4
        assert found["fc.bias"] == 6

    def test_a_rule_overrides_only_what_it_states(self) -> None:
        rules = [
            {"word_length": 8, "rounding": "truncate", "overflow": "wrap", "calibration": "max"},
            {"layers": "fc", "rounding": "stochastic"},
            {"layers": "fc", "role": "weight", "granularity": "channel"},
        ]
        resolved = QuantizationPlan.from_rules(rules).resolve(Named(), spikes(2, 1, 4, 4))
        assert resolved.of_layer("fc")["weight"].settings == TensorSettings(
            8, None, "stochastic", "wrap", "max", "channel", "power_of_two", "all"
        )
        assert resolved.of_layer("fc")["bias"].settings.granularity == "tensor"
        assert resolved.of_layer("conv1")["weight"].rounding == "truncate"

    def test_defaults(self) -> None:
        resolved = QuantizationPlan.from_rules([{"word_length": 8}]).resolve(Named())
        assert resolved.tensors[0].settings == TensorSettings(
            8, None, "nearest", "saturate", "mse", "tensor", "power_of_two", "all"
        )

    def test_globs_cross_dots(self) -> None:
        assert set(lengths([{"layers": "b*", "word_length": 8}])) == {
            *("block.0.weight", "block.0.bias"),
            *("block.1.v", "block.1.v_threshold", "block.1.decay"),
        }
        assert set(lengths([{"layers": "sn[12]", "role": "membrane", "word_length": 8}])) == {
            "sn1.v",
            "sn2.v",
        }

    def test_globs_mind_the_case(self) -> None:
        with pytest.raises(ValueError, match=r"layers='FC'.*matches no layer"):
            lengths([{"layers": "FC", "word_length": 8}])

    def test_a_format_takes_back_a_word_length(self) -> None:
        rules = [{"word_length": 8}, {"layers": "fc", "role": "weight", "format": "Q0.3"}]
        assert lengths(rules)["fc.weight"] == 4

    def test_a_word_length_takes_back_a_format(self) -> None:
        rules = [{"role": "weight", "format": "Q0.3"}, {"role": "weight", "word_length": 6}]
        resolved = QuantizationPlan.from_rules(rules).resolve(Named())
        assert all(tensor.format is None for tensor in resolved.tensors)
        assert {tensor.word_length for tensor in resolved.tensors} == {6}

    def test_float32_exempts_and_a_word_length_takes_that_back(self) -> None:
        rules: list[dict[str, Any]] = [{"word_length": 8}, {"role": "weight", "format": "float32"}]
        assert not any(path.endswith("weight") for path in lengths(rules))
        rules.append({"role": "weight", "rounding": "truncate"})
        assert not any(path.endswith("weight") for path in lengths(rules))
        rules.append({"layers": "fc", "role": "weight", "word_length": 5})
        assert {k: v for k, v in lengths(rules).items() if k.endswith("weight")} == {"fc.weight": 5}

    def test_what_no_rule_gives_a_length_stays_float(self) -> None:
        rules = [{"rounding": "truncate"}, {"role": "bias", "word_length": 5}]
        assert set(lengths(rules)) == {"conv1.bias", "block.0.bias", "fc.bias"}

    def test_uniform_with_roles_and_rules(self) -> None:
        plan = QuantizationPlan.uniform(
            8,
            "truncate",
            roles={"membrane": {"word_length": 10}, "weight": None, "bias": {"rounding": None}},
            rules=[{"layers": "sn2", "role": "membrane", "word_length": 12}],
        )
        assert len(plan.rules) == 3
        resolved = plan.resolve(Named(), spikes(2, 1, 4, 4))
        assert resolved.word_lengths_by_role() == {
            "bias": [8],
            "decay": [8],
            "membrane": [10, 12],
            "threshold": [8],
            "weight": [8],
        }
        assert {tensor.rounding for tensor in resolved.tensors} == {"truncate"}

    def test_the_module_itself_may_be_the_layer(self) -> None:
        resolved = QuantizationPlan.uniform(8).resolve(nn.Linear(3, 2), spikes(2, 3))
        assert [tensor.path for tensor in resolved.tensors] == ["weight", "bias"]

    def test_formats_for_a_record(self) -> None:
        rules = [{"layers": "fc", "role": "weight", "format": "Q0.7", "rounding": "truncate"}]
        assert QuantizationPlan.from_rules(rules).resolve(Named()).formats() == {
            "fc.weight": {
                "role": "weight",
                "format": "Q0.7",
                "rounding": "truncate",
                "overflow": "saturate",
            }
        }


class TestImpossibleSettings:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"word_length": 0}, r"word_length=0; write 1 to 24 bits, or format=float32"),
            ({"word_length": 25}, r"word_length=25; write 1 to 24"),
            ({"word_length": 8.0}, r"word_length=8\.0; write a whole number"),
            ({"word_length": True}, r"word_length=True; write a whole number"),
            ({"word_length": "8"}, r"word_length='8'; write a whole number"),
            ({"format": "Q1,6"}, r"format: .*'Q1,6'.*or write 'float32'"),
            ({"format": 6}, r"format: .*6.*or write 'float32'"),
            ({"format": "Q20.10"}, r"format='Q20\.10' has 31 bits; write .* at most 24"),
            ({"format": "Q0.-3"}, r"format: .*Q0\.-3 has a word length"),
            ({"format": "Q1.6", "word_length": 9}, r"word_length=9 and format='Q1\.6' \(8 bits\)"),
            ({"format": "float32", "word_length": 9}, r"word_length=9 and format='float32'"),
            ({"rounding": "up", "word_length": 8}, r"rounding='up'; write one of truncate, near"),
            ({"overflow": "clip", "word_length": 8}, r"overflow='clip'; write one of saturate"),
            ({"calibration": "kl", "word_length": 8}, r"calibration='kl'; write one of max, per"),
            ({"granularity": "row", "word_length": 8}, r"granularity='row'; write one of tensor"),
            ({"levels": "odd", "word_length": 2}, r"levels='odd'; write one of all, symmetric"),
            ({"levels": "symmetric", "format": "Q0.1"}, r"levels='symmetric' and format='Q0\.1' d"),
            ({}, r"states nothing; write at least one of word_length, format"),
        ],
    )
    def test_rules(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=r"rule\(layers='a\*', role='bias'\): ?" + message):
            Rule.from_dict({"layers": "a*", "role": "bias", **settings})

    def test_agreeing_word_length_and_format(self) -> None:
        rule = Rule.from_dict({"format": "Q1.6", "word_length": 8})
        assert rule.settings.parsed_format("here") == FixedPointFormat(1, 6)

    @pytest.mark.parametrize(
        ("rule", "message"),
        [
            (
                {"role": "wieght", "word_length": 8},
                r"unknown role 'wieght'; write one of weight, b",
            ),
            ({"layers": "", "word_length": 8}, r"layers=''; write a glob"),
            ({"layers": 3, "word_length": 8}, r"layers=3; write a glob"),
            ({"bits": 8}, r"unknown key 'bits'; write one of layers, role, word_length"),
        ],
    )
    def test_addresses(self, rule: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Rule.from_dict(rule)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"word_length": 33}, r"uniform: word_length=33"),
            ({"rounding": "up"}, r"uniform: rounding='up'; write one of"),
            ({"roles": {"leak": {}}}, r"uniform: roles: unknown role 'leak'; write one of weight"),
            ({"roles": {"bias": 10}}, r"roles: bias=10; write settings such as .*word_length"),
            ({"roles": {"bias": {"bits": 3}}}, r"unknown key 'bits'"),
            ({"roles": {"bias": {"word_length": 99}}}, r"role='bias'\): word_length=99"),
            ({"rules": [7]}, r"rule 7; write a mapping"),
        ],
    )
    def test_uniform(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            QuantizationPlan.uniform(**arguments)

    def test_empty_plans(self) -> None:
        with pytest.raises(ValueError, match=r"no rules; write QuantizationPlan\.uniform"):
            QuantizationPlan.from_rules([])
        with pytest.raises(ValueError, match=r"keys \['rule'\]; write \{'rules'"):
            QuantizationPlan.from_dict({"rule": []})


class TestRulesThatMatchNothing:
    def test_no_such_layer(self) -> None:
        message = r"layers='conv9'.*matches no layer\. The layers are: conv1, sn1, block\.0"
        with pytest.raises(ValueError, match=message):
            lengths([{"word_length": 8}, {"layers": "conv9", "word_length": 4}])

    @pytest.mark.parametrize("example", [False, True])
    def test_no_such_role_there(self, example: bool) -> None:
        message = r"no layer that matches has the role 'decay'\. The roles of conv1, fc are: bias"
        rules = [{"layers": "[cf]*", "role": "decay", "word_length": 4}]
        with pytest.raises(ValueError, match=message):
            lengths(rules, example)

    @pytest.mark.parametrize("role", ["theta", "trace"])
    def test_no_such_role_anywhere(self, role: str) -> None:
        with pytest.raises(ValueError, match=f"has the role '{role}'"):
            lengths([{"role": role, "word_length": 4}])

    def test_inputs_that_turn_out_binary(self) -> None:
        rules = [{"role": "input", "word_length": 4}]
        assert len(lengths(rules, example=False)) == 3
        with pytest.raises(ValueError, match="has the role 'input'"):
            lengths(rules)

    def test_a_bias_that_a_batch_norm_may_bring(self) -> None:
        rules = [{"role": "bias", "word_length": 4}]
        plan = QuantizationPlan.from_rules(rules)
        bare = nn.Sequential(nn.Linear(4, 3, bias=False), neuron.IFNode())
        with pytest.raises(ValueError, match="has the role 'bias'"):
            plan.resolve(bare)
        normed = nn.Sequential(nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3), neuron.IFNode())
        for x in (None, spikes(2, 4)):
            assert [t.path for t in plan.resolve(normed, x).tensors] == ["0.bias"]

    def test_nothing_to_quantise(self) -> None:
        with pytest.raises(ValueError, match="the module has nothing to quantise"):
            QuantizationPlan.uniform(8).resolve(nn.ReLU())

    def test_long_lists_are_cut(self) -> None:
        network = nn.Sequential(*[nn.Linear(2, 2) for _ in range(20)])
        with pytest.raises(ValueError, match=r"9, 10, 11 and 8 more"):
            QuantizationPlan.from_rules([{"layers": "x", "word_length": 4}]).resolve(network)


class TestPerChannelFormats:
    def resolve(self, text: str, role: str = "weight", example: bool = True) -> ResolvedPlan:
        network = nn.Sequential(layer.Linear(4, 3), neuron.IFNode())
        plan = QuantizationPlan.from_rules([{"role": role, "format": text}])
        return plan.resolve(network, spikes(2, 4) if example else None)

    def test_one_for_each_output_channel(self) -> None:
        expected = PerChannelFormat(8, (6, 7, 6))
        assert self.resolve("Q1.6|Q0.7|Q1.6 @0").tensors[0].format == expected

    @pytest.mark.parametrize("text", ["Q1.6|Q0.7 @0", "Q1.6|Q0.7|Q1.6 @1"])
    def test_another_number_or_axis(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"0\.weight: format .* 3 output channels on axis 0"):
            self.resolve(text)

    @pytest.mark.parametrize("role", ["membrane", "threshold", "input"])
    def test_roles_without_channels(self, role: str) -> None:
        with pytest.raises(ValueError, match=rf"role {role} has one format; write .* 'Q1\.6'"):
            self.resolve("Q1.6|Q0.7 @0", role, example=False)


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "rounding": st.sampled_from(ROUNDINGS),
        "overflow": st.sampled_from(OVERFLOWS),
        "calibration": st.sampled_from(CALIBRATIONS),
        "granularity": st.sampled_from(GRANULARITIES),
        "levels": st.sampled_from(LEVELS),
        "word_length": st.integers(1, 24),
    },
) | st.fixed_dictionaries(
    {"format": st.sampled_from(("Q1.6", "UQ-2.9", "SQ0.0", "float32", "Q0.1|Q1.0 @0"))}
)
RULES = st.builds(
    lambda layers, role, settings: {"layers": layers, "role": role, **settings},
    st.text(min_size=1, max_size=9),
    st.sampled_from(("*", *ROLES)),
    SETTINGS.filter(bool),
)


@given(rules=st.lists(RULES, min_size=1, max_size=6))
def test_plans_survive_plain_types(rules: list[dict[str, Any]]) -> None:
    plan = QuantizationPlan.from_rules(rules)
    assert plan.to_dict() == {"rules": rules}
    assert QuantizationPlan.from_dict(plan.to_dict()) == plan


@given(
    length=st.integers(1, 24),
    rounding=st.sampled_from(ROUNDINGS),
    seen=st.booleans(),
    formats=st.booleans(),
)
def test_resolved_plans_survive_plain_types(
    length: int, rounding: str, seen: bool, formats: bool
) -> None:
    torch.manual_seed(0)
    plan = QuantizationPlan.uniform(length, rounding, granularity="channel")
    resolved = plan.resolve(Named(), spikes(2, 1, 4, 4) if seen else None)
    if formats:
        resolved = resolved.with_formats(
            {t.path: FixedPointFormat(0, length, signed=False) for t in resolved.tensors}
        )
        assert resolved.is_calibrated
    plain = json.loads(json.dumps(resolved.to_dict()))
    assert ResolvedPlan.from_dict(plain) == resolved
