"""Formats: which are refused and why, what constants become, and what stays on its grid."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qspinn.fixed_point import (
    FixedPointFormat,
    PerChannelFormat,
    TensorQuantizer,
    parse_format,
    quantize,
)
from qspinn.networks import STDP, DiehlCook
from qspinn.stdp.numbers import Numbers
from tests.stdp.cases import ROUNDINGS, images, lively, quantizers


def numbers(network: DiehlCook) -> Numbers:
    found = network.numbers()
    assert not found.is_float
    return found


REFUSED = [
    ({"weight": "Q0.7"}, {}, r"net\.weight: .*never negative.*UQ0\.8"),
    ({"weight": "UQ0.25"}, {}, r"net\.weight: a float32.*24 bits.*UQ0\.25.*fewer"),
    ({"theta": "UQ5.24"}, {}, r"net\.theta: a float32.*24 bits.*UQ5\.24.*fewer"),
    ({"theta": "UQ-30.54"}, {}, r"net\.theta: UQ-30\.54 beside .*64 bits.*fewer"),
    ({"v": "Q0.7"}, {}, r"net\.v: format Q0\.7 ends at 0\.99.*threshold 2\.0.*integer bits"),
    (
        {"v": "Q9.0", "threshold": "UQ3.0"},
        {"reset": -63.25},
        r"net\.v: in Q9\.0 a spike resets to the thr.*",
    ),
    ({"leak": "UQ0.4"}, {}, r"net\.leak: the leak becomes 0 in UQ0\.4"),
    ({"leak": "UQ9.-1"}, {}, r"net\.leak: UQ9\.-1 holds no leak; write fraction bits"),
    ({"weight": "UQ-32.48"}, {}, r"net\.weight: UQ-32\.48 has too many.*weight_sum=2\.5.*fewer"),
    ({"v": "Q8.23", "leak": "UQ0.32"}, {}, r"net\.v: Q8\.23, .*UQ0\.32.*64 bits.*fewer"),
    (
        {"weight": PerChannelFormat(8, (0, 40, 8, 8), False, 1), "trace_pre": 24},
        {"weight_sum": None},
        r"net\.weight: .*rate 0\.02 .*64 bits.*fewer",
    ),
]


@pytest.mark.parametrize(("changes", "constants", "message"), REFUSED)
def test_formats_that_cannot_work(changes: Any, constants: Any, message: str) -> None:
    network = lively(**constants)
    revision = network.revision
    with pytest.raises(ValueError, match=f"^{message}"):
        network.use_fixed_point(quantizers(network, 8, **changes))
    # Nothing has happened to it.
    assert network.revision == revision
    assert network.accumulator_word_lengths() == {}
    network.present(images(1))


@pytest.mark.parametrize(
    ("name", "fmt", "message"),
    [
        ("weight", PerChannelFormat(8, (8,) * 3, False, 1), "3 formats along axis 1.* 4 neurons"),
        ("weight", PerChannelFormat(8, (8,) * 6, False, 0), "6 formats along axis 0.* 4 neurons"),
        ("weight", PerChannelFormat(8, (8,) * 4, False, 0), "4 formats along axis 0.* axis 1"),
        ("theta", PerChannelFormat(8, (8,) * 4, False, 0), "write one format, such as Q8.7"),
        ("v", PerChannelFormat(8, (1,) * 4, True, 0), "write one format, such as Q8.7"),
    ],
)
def test_formats_per_channel_that_do_not_fit(name: str, fmt: Any, message: str) -> None:
    network = lively()
    with pytest.raises(ValueError, match=rf"^net\.{name}: .*{message}"):
        network.use_fixed_point(quantizers(network, 8, **{name: fmt}))


def test_a_tensor_that_there_is_not() -> None:
    held = TensorQuantizer("net.weights", FixedPointFormat(0, 8, False))
    with pytest.raises(
        ValueError, match=r"^a quantizer of 'weights': write one of .*weight, theta"
    ):
        lively().use_fixed_point({"weights": held})


def test_the_last_axis_is_the_second() -> None:
    network = lively()
    found = []
    for axis in (1, -1):
        fmt = PerChannelFormat(8, (8, 7, 6, 9), False, axis)
        network.use_fixed_point(quantizers(network, 12, weight=fmt))
        found.append(network.present(images(), record=True).spikes)
    assert found[0] is not None
    assert torch.equal(found[0], found[1])


@pytest.mark.parametrize("update", ["online", "deferred"])
@pytest.mark.parametrize("others", [8, 16, 24])
@pytest.mark.parametrize("word_length", [1, 2, 4, 8, 16, 24])
def test_rates_survive_coarse_weights_and_fine_traces(
    word_length: int, others: int, update: str
) -> None:
    """As small as Diehl & Cook's rates are; products of rates and traces are all but exact."""
    network = DiehlCook((784,), 4, stdp=STDP(rate_pre=5e-5, rate_post=1e-2, update=update))
    weight = FixedPointFormat(0, word_length, False)
    held = quantizers(network, max(others, 11), weight=weight, trace_pre=others, trace_post=others)
    network.use_fixed_point(held)
    found = numbers(network)
    for rate, name, trace in (
        (5e-5, "rate_pre", "trace_post"),
        (1e-2, "rate_post", "trace_pre"),
    ):
        bits = word_length - held[trace].format.fraction_bits + found.weight.spare  # type: ignore[union-attr]
        assert (
            getattr(found.weight, name).tolist() == [pytest.approx(rate * 2.0**bits, rel=1e-3)] * 4
        )


def test_sums_of_deferred_changes_fit() -> None:
    """The largest rate, at every step of many presentations: the sum stays below 2^62."""
    stdp = STDP(rate_post=1.0, update="deferred", parallel=500)
    network = DiehlCook((784,), 2, 500, stdp=stdp)
    network.use_fixed_point({"weight": quantizers(network, 8)["weight"]})
    found = numbers(network)
    largest = int(found.weight.rate_post[0]) * int(found.pre.one) * 500 * 500
    assert largest + (int(found.weight.to.high) << found.weight.spare) < 2**62
    assert int(found.weight.rate_post[0]) > 1000


def test_constants_by_hand() -> None:
    """Diehl & Cook's constants in 8 bits, as their formats round them."""
    network = DiehlCook((784,), 2)
    network.use_fixed_point(quantizers(network, 8, v="Q7.4"))
    found = numbers(network)
    # leak = 1 - exp(-1/100) = 0.00995; UQ-6.14: 163.02 steps of 2^-14.
    assert found.neuron.keep == 2**14 - 163
    # 120 mV below on the grid of the charge, 2^-18; 13 mV and 5 mV on 2^-4.
    assert found.neuron.inhibition == 120 * 2**18
    assert found.neuron.threshold == 13 * 2**4
    assert found.neuron.reset == 5 * 2**4
    assert (found.neuron.down, found.neuron.v_up) == (14, 0)
    assert found.neuron.current_up.tolist() == [10, 10]
    # 1 is one step more than UQ0.8 holds.
    assert (found.pre.one, found.post.one) == (255, 255)
    # The traces' leak, 1 - exp(-1/20) = 0.04877; UQ-4.12: 199.76 steps of 2^-12.
    assert found.pre.keep == 2**12 - 200


@pytest.mark.parametrize("rounding", ["truncate", "nearest", "stochastic"])
def test_a_constant_is_rounded_once(rounding: str) -> None:
    """5.75 in steps of 1/2; a random rounding would differ from device to device."""
    network = lively(threshold=-59.25, reset=-64.5)
    network.use_fixed_point(quantizers(network, 12, threshold={"format": "UQ4.1"}, v="Q5.6",
                                       rounding=rounding))  # fmt: skip
    expected = {"truncate": 11, "nearest": 12, "stochastic": 12}[rounding]
    held = quantizers(network, 12)["theta"].format
    assert isinstance(held, FixedPointFormat)
    shift = max(6, held.fraction_bits) - 1
    assert numbers(network).neuron.threshold == expected << shift


def test_accumulators_by_hand() -> None:
    network = DiehlCook((784,), 2)
    network.use_fixed_point(quantizers(network, 8))
    # 784 inputs of at most 255 steps: 199,920, which 18 bits hold.
    assert network.accumulator_word_lengths()["current"] == 18
    found = numbers(network)
    largest = max(-found.neuron.v.low, found.neuron.v.high) * 2**found.neuron.down
    largest += 199_920 * 2 ** int(found.neuron.current_up[0]) + found.neuron.inhibition
    assert network.accumulator_word_lengths()["charge"] == math.ceil(math.log2(largest)) + 1


def on_grid(values: torch.Tensor, held: TensorQuantizer) -> bool:
    exact = values.double()
    return torch.equal(quantize(exact, held.format, "nearest", "saturate"), exact)


@st.composite
def formats_of_what_is_learned(draw: Any) -> dict[str, Any]:
    rounding, overflow = st.sampled_from(ROUNDINGS), st.sampled_from(("saturate", "wrap"))
    changes: dict[str, Any] = {}
    for name, bits in (("weight", st.integers(-1, 12)), ("theta", st.integers(-1, 10))):
        word_length = draw(st.integers(2, 12))
        fmt = FixedPointFormat(word_length - (f := draw(bits)), f, False)
        changes[name] = {"format": fmt, "rounding": draw(rounding), "overflow": draw(overflow)}
    if draw(st.booleans()):
        bits_of = draw(st.lists(st.integers(-1, 12), min_size=4, max_size=4))
        changes["weight"]["format"] = PerChannelFormat(6, tuple(bits_of), False, 1)
    return changes


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(formats_of_what_is_learned(), st.sampled_from(("online", "deferred")), st.integers(1, 3))
def test_weights_and_theta_lie_on_their_grids(changes: Any, update: str, parallel: int) -> None:
    network = lively("numba", update=update, parallel=parallel, theta_plus=0.7)
    held = quantizers(network, 12, **changes)
    network.use_fixed_point(held)
    for call in range(3):
        network.present(images(4, seed=call), learning=True)
        assert on_grid(network.weight, held["weight"])
        assert on_grid(network.theta, held["theta"])


@pytest.mark.slow
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_what_is_stored_first_is_a_neighbour_on_the_grid(rounding: str) -> None:
    network = lively("numba")
    floating = network.weight.double().clone()
    held = quantizers(network, 12, rounding, weight=5)
    network.use_fixed_point(held)
    network.present(images(0), learning=True)
    assert on_grid(network.weight, held["weight"])
    below, above = (floating * 32).floor() / 32, ((floating * 32).ceil() / 32).clamp(max=31 / 32)
    stored = network.weight.double()
    assert ((stored == below) | (stored == above)).all()
    assert not torch.equal(stored, floating)


def test_the_grid_test_can_fail() -> None:
    network = lively("numba")
    held = quantizers(network, 12, weight=4)
    network.present(images(), learning=True)
    assert not on_grid(network.weight, held["weight"])
    assert parse_format("UQ0.4") == held["weight"].format


@pytest.mark.slow
def test_a_wide_tensor_keeps_24_bits() -> None:
    """What is missing beside quantised tensors: weights within 2^-24 of the float ones."""
    network = lively("numba")
    floating = network.weight.clone()
    network.use_fixed_point({"v": quantizers(network, 12)["v"]})
    network.present(images(1) * 0, learning=True)
    steps = network.weight.double() * 2**24
    assert torch.equal(steps, steps.round())
    assert float((network.weight.double() - floating.double()).abs().max()) <= 2.0**-25
