"""The layer in fixed point equals its integer twin, spike for spike and state for state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qspinn.fixed_point import to_integers
from qspinn.networks.decolle.fixed_point import FixedPoint
from tests.networks.decolle.cases import STEPS, Case, cases, codes_of, twin_of
from tests.reference.decolle_network import readouts
from tests.reference.integer_network import Codes


def integers(value: Tensor, fmt: Any) -> Codes:
    return to_integers(value.detach(), fmt).numpy().astype(np.int64)


def equal(name: str, step: int, seen: Codes, wanted: Codes) -> None:
    assert np.array_equal(seen, wanted.astype(np.int64)), f"{name} at step {step}"


def check_steps(case: Case) -> int:
    """Single steps: every state after every step. Returns how many spikes there were."""
    layer, x = case.layer(), case.inputs()
    twin = twin_of(case, layer)
    formats = {name: one.format for name, one in case.quantizers().items()}
    readout, fractions = codes_of(case.quantizers()["readout"], layer.readout)
    grid = 0 if case.binary else 6
    spikes = 0
    for t in range(STEPS):
        with torch.no_grad():
            step = layer.step(x[t])
        codes = (x[t] * (1 << grid)).long().numpy()
        wanted = twin.fire(twin.trace(codes, grid))
        for name in ("p", "q", "r"):
            equal(name, t, integers(getattr(layer, name), formats[name]), twin.states[name])
        equal("u", t, integers(step.membrane, formats["u"]), twin.states["u"])
        equal("spikes", t, step.spikes.long().numpy(), wanted)
        sums, sum_bits = readouts(wanted, readout, fractions)
        exact = step.readout.double().numpy() * 2.0**sum_bits
        assert [[float(y) for y in row] for row in sums] == exact.tolist()
        spikes += int(wanted.sum())
    return spikes


def check_sequence(case: Case) -> None:
    """All steps in one call: spikes, and the states in the end."""
    layer, x = case.layer(), case.inputs()
    twin = twin_of(case, layer)
    layer.step_mode = "m"
    with torch.no_grad():
        spikes = layer(x)
    grid = 0 if case.binary else 6
    traces = [twin.trace((one * (1 << grid)).long().numpy(), grid) for one in x]
    wanted = np.stack([twin.fire(p) for p in traces])
    assert np.array_equal(spikes.long().numpy(), wanted)
    for name in ("p", "q", "r"):
        fmt = case.quantizers()[name].format
        equal(name, STEPS, integers(getattr(layer, name), fmt), twin.states[name])


ROUNDING = pytest.mark.parametrize(
    "rounding", ["truncate", "nearest", "stochastic", "toward_zero", "nearest_even", "nearest_away"]
)
OVERFLOW = pytest.mark.parametrize("overflow", ["saturate", "wrap"])


def usable(case: Case) -> bool:
    """Whether the layer takes these formats: a leak that becomes 0 is refused."""
    try:
        case.layer()
    except ValueError:
        return False
    return True


@pytest.mark.few(0.34)
@ROUNDING
@OVERFLOW
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_single_steps(rounding: str, overflow: str, data: st.DataObject) -> None:
    check_steps(data.draw(cases(rounding, overflow).filter(usable)))


@pytest.mark.few(0.34)
@ROUNDING
@OVERFLOW
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_whole_sequences(rounding: str, overflow: str, data: st.DataObject) -> None:
    check_sequence(data.draw(cases(rounding, overflow).filter(usable)))


EIGHT_BITS = {
    "weight": "Q0.7", "bias": "Q0.7", "readout": "Q0.7", "input": "UQ2.6", "q": "UQ2.6",
    "p": "UQ2.6", "r": "UQ1.7", "u": "Q1.6", "threshold": "UQ0.8", "refractory": "UQ0.8",
    "leak_q": "UQ0.8", "leak_p": "UQ0.8", "leak_r": "UQ0.8",
}  # fmt: skip


@ROUNDING
@pytest.mark.parametrize("shape", ["dense", "conv", "strided", "pooled"])
def test_eight_bits_fire(shape: str, rounding: str) -> None:
    """The comparison is of networks that are alive."""
    case = Case(shape, EIGHT_BITS, rounding, "saturate", False, False, 5)
    assert check_steps(case) > 0
    check_sequence(case)


def test_long_words_are_computed_in_float64() -> None:
    long = {
        **EIGHT_BITS, "weight": "Q0.15", "bias": "Q0.15", "q": "UQ2.14", "p": "UQ2.14",
        "r": "UQ2.14", "u": "Q2.13", "leak_q": "UQ0.16", "leak_p": "UQ0.16", "leak_r": "UQ0.16",
    }  # fmt: skip
    case = Case("conv", long, "nearest", "wrap", True, True, 2)
    layer = case.layer()
    fixed = FixedPoint(case.quantizers(), layer.settings, layer.shape, layer.input_max)
    assert set(fixed.dtypes.values()) == {torch.float64}
    assert fixed.potential_dtype(layer.weight, layer.bias) == torch.float64
    assert check_steps(case) > 0
    check_sequence(case)
