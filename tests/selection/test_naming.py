"""Candidates are named by what differs among them."""

import pytest

from qspinn.selection import Group, Run
from qspinn.selection.naming import CandidateNames, in_words, title_of


def named(*records):
    return CandidateNames.of([Group((Run(f"run{i}", r),)) for i, r in enumerate(records)])


def roles(**lengths):
    return {
        role: [length] if isinstance(length, int) else length for role, length in lengths.items()
    }


@pytest.fixture
def quantised(make_record):
    def make(scheme="ptq", rounding="nearest", config=None, **lengths):
        more = {} if config is None else {"config": config}
        return make_record(
            scheme=scheme,
            rounding=rounding,
            word_lengths=roles(**lengths),
            footprint_bits_by_role=dict.fromkeys(lengths, 0) | {"weight": 800},
            **more,
        )

    return make


def test_what_all_have_in_common_is_left_out(quantised):
    names = named(
        quantised(weight=[3, 8], membrane=16),
        quantised(weight=[2, 8], membrane=16, rounding="stochastic"),
        quantised(weight=8, membrane=16),
    )
    assert list(names.names.values()) == [
        "3-bit weights, nearest",
        "2-bit weights, stochastic",
        "8-bit weights, nearest",
    ]
    assert names.common == "PTQ, 16-bit membranes"
    assert names.titles["run0"] == "PTQ, 3-bit weights, nearest"
    assert names.numbered("run1") == "#2 2-bit weights, stochastic"


def test_one_word_length_for_all_roles(quantised):
    names = named(quantised("itq", weight=4, membrane=4), quantised(weight=1, membrane=1))
    assert list(names.names.values()) == ["ITQ, 4 bits", "PTQ, 1 bit"]
    assert names.titles["run0"] == "ITQ, 4 bits, nearest"


def test_roles_that_stay_in_32_bit_are_no_part_of_all(make_record, quantised):
    weights = make_record(
        word_lengths={"weight": [4]}, footprint_bits_by_role={"weight": 400, "membrane": 400}
    )
    names = named(weights, quantised(weight=4, membrane=8))
    assert list(names.names.values()) == ["", "8-bit membranes"]
    names = named(weights, quantised(weight=5, membrane=5))
    assert list(names.names.values()) == ["4-bit weights", "5 bits"]


def test_roles_of_the_same_length_share_it(quantised):
    names = named(quantised(weight=4, bias=4, membrane=8), quantised(weight=6, bias=4, membrane=10))
    assert names.names["run0"] == "4-bit weights, 8-bit membranes"
    names = named(quantised(weight=4, bias=4, membrane=8), quantised(weight=6, bias=6, membrane=10))
    assert names.names["run0"] == "4-bit weights and biases, 8-bit membranes"


def test_the_32_bit_network(make_record, quantised):
    names = named(make_record(scheme="none"), quantised(weight=4))
    assert names.names == {"run0": "32-bit", "run1": "PTQ"}
    assert names.titles == {"run0": "32-bit", "run1": "PTQ, 4 bits, nearest"}


def test_one_candidate_has_a_title(quantised):
    names = named(quantised(weight=4, membrane=8))
    assert names.names["run0"] == ""
    assert names.titles["run0"] == "PTQ, 4-bit weights, 8-bit membranes, nearest"


def test_other_settings_tell_apart_what_would_have_one_name(quantised):
    def config(rate, epochs, seed):
        return {
            "seed": seed,
            "learning": {"rate": rate},
            "trainer": {"epochs": epochs, "rate": 1},
            "quantization": {"scheme": "ptq"},
        }

    names = named(
        quantised(weight=4, config=config(0.1, 3, 0)),
        quantised(weight=4, config=config(0.2, 3, 1)),
        quantised(weight=8, config=config(0.3, 5, 1)),
    )
    assert list(names.names.values()) == ["4 bits, rate 0.1", "4 bits, rate 0.2", "8 bits"]
    assert names.titles["run0"] == "PTQ, 4 bits, nearest, rate 0.1"


def test_a_run_and_a_mixture_by_themselves(make_record):
    assert title_of(make_record(word_lengths={"weight": [4]})) == "PTQ, 4 bits, nearest"
    assert title_of(make_record(scheme="none")) == "32-bit"
    assert in_words({"weight": 4, "bias": 4, "membrane": 8}) == (
        "4-bit weights and biases, 8-bit membranes"
    )


def test_settings_that_differ_stand_behind_what_all_have_in_common(quantised):
    names = named(*(quantised(weight=4, config={"seed": 0, "rate": r}) for r in (0.1, 0.2)))
    assert list(names.names.values()) == ["rate 0.1", "rate 0.2"]
    assert names.titles["run0"] == "PTQ, 4 bits, nearest, rate 0.1"


def test_settings_of_a_role_that_word_lengths_do_not_tell(quantised):
    """Ternary weights have 2 bits, as others do."""

    def config(levels):
        role = {"word_length": 2, "levels": levels}
        return {"seed": 0, "quantization": {"roles": {"weight": role}}}

    names = named(*(quantised(weight=2, config=config(one)) for one in ("all", "symmetric")))
    assert list(names.names.values()) == ["levels all", "levels symmetric"]


def test_data_and_network_where_they_differ(make_record):
    names = named(
        make_record(word_lengths={"weight": 4}), make_record(word_lengths={"weight": 4}, data="b")
    )
    assert names.names["run1"] == "b, conv_snn"
    assert names.titles["run1"] == "b, conv_snn, PTQ, 4 bits, nearest"
