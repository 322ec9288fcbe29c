"""The attached network equals its integer twin, spike for spike and membrane for membrane."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from qspinn.fixed_point import FixedPointFormat, to_integers
from tests.quantizers.cases import GRID, Case, cases


def traced(case: Case, step_mode: str) -> list[list[Tensor]]:
    """Spikes and membranes of both neuron layers, one list for each time step."""
    network = case.attached(step_mode)
    assert isinstance(network, nn.Sequential)
    nodes = [stage for stage in network if hasattr(stage, "v_threshold")]
    spikes: dict[nn.Module, list[Tensor]] = {node: [] for node in nodes}
    for node in nodes:
        node.register_forward_hook(lambda node, _, out: spikes[node].append(out))
    x = case.inputs()
    with torch.no_grad():
        if step_mode == "m":
            network(x)
        else:
            for one in x:
                network(one)
    sequences = []
    for node in nodes:
        out = spikes[node][0] if step_mode == "m" else torch.stack(spikes[node])
        sequences += [out, node.v_seq]
        assert torch.equal(node.v_seq[-1], node.v)
    functional.reset_net(network)
    return [[sequence[t] for sequence in sequences] for t in range(len(x))]


def check(case: Case, step_mode: str) -> int:
    """Compares every time step, and returns the number of spikes."""
    twin = case.twin()
    membrane = FixedPointFormat.parse(case.membrane)
    pixels = case.inputs() * (1 if case.pixels is None else 1 << GRID)
    spikes = 0
    for t, (given_codes, seen) in enumerate(
        zip(pixels.long().numpy(), traced(case, step_mode), strict=True)
    ):
        expected = twin.step(given_codes)
        codes = [
            value.long() if index % 2 == 0 else to_integers(value, membrane)
            for index, value in enumerate(seen)
        ]
        for name, one, wanted in zip(
            ("spikes 1", "membrane 1", "spikes 2", "membrane 2"), codes, expected, strict=True
        ):
            same = np.array_equal(one.numpy(), wanted.astype(np.int64))
            assert same, f"{name} at step {t}"
        spikes += int(seen[0].sum() + seen[2].sum())
    return spikes


@given(case=cases())
@settings(max_examples=40, deadline=None)
def test_equals_twin_in_multi_step_mode(case: Case) -> None:
    check(case, "m")


@given(case=cases())
@settings(max_examples=60, deadline=None)
def test_equals_twin_in_single_step_mode(case: Case) -> None:
    check(case, "s")


@pytest.mark.slow
@given(case=cases())
@settings(max_examples=200, deadline=None)
def test_equals_twin_at_length(case: Case) -> None:
    check(case, "m")


@pytest.mark.slow
@pytest.mark.campaign
@given(case=cases())
@settings(max_examples=3000, deadline=None)
def test_equals_twin_at_greater_length(case: Case) -> None:
    check(case, "m")


@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize(
    "rounding", ["truncate", "nearest", "toward_zero", "nearest_even", "nearest_away"]
)
@pytest.mark.parametrize("reset", [0.0, -0.25, None])
@pytest.mark.parametrize("neuron", ["if", "lif", "plif"])
def test_the_common_cases_spike_and_equal_the_twin(
    neuron: str, reset: float | None, rounding: str, step_mode: str
) -> None:
    case = Case(neuron=neuron, reset=reset, rounding=rounding, norm=True, pixels="UQ0.8", seed=3)
    assert check(case, step_mode) > 0


WIDE = Case(weight="Q0.15", bias="Q-4.18", membrane="Q2.13", decay="UQ0.12", pixels="UQ0.12")


@pytest.mark.few(0.25)
@pytest.mark.parametrize("membrane", ["Q2.13", "Q2.20"])
@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
@pytest.mark.parametrize("neuron", ["if", "lif", "plif"])
def test_sums_beyond_24_bits_are_exact(neuron: str, overflow: str, membrane: str) -> None:
    wide = replace(WIDE, neuron=neuron, overflow=overflow, membrane=membrane, tau=3.0)
    for seed in range(4):
        assert check(replace(wide, seed=seed), "m") > 0


def test_sums_beyond_24_bits_are_not_exact_in_float32() -> None:
    """Shows that the cases above would notice: in float32 the sums differ."""
    network = WIDE.attached()
    with torch.no_grad():
        exact = network[0](WIDE.inputs())
        assert exact.dtype == torch.float64
        assert not torch.equal(exact.float().double(), exact)
