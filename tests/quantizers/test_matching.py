"""A membrane's format, chosen by the spikes that it changes."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

from qspinn.fixed_point import FixedPointFormat
from qspinn.plan import QuantizationPlan, ResolvedPlan
from qspinn.quantizers import attach, calibrate, detach, is_attached

STEPS, BATCH, NEURONS = 60, 3, 5
BITS = 6


def network(node: neuron.BaseNode, step_mode: str = "m") -> nn.Sequential:
    # Weights on a grid of 8 bits: the current of a spike is the same in float.
    weight = torch.tensor([0.5, 0.375, 0.25, 0.125, 0.75]).diag()
    linear = layer.Linear(NEURONS, NEURONS, bias=False, step_mode="m")
    linear.weight.data = weight - 0.25 * torch.ones(NEURONS, NEURONS).triu(1)
    made = nn.Sequential(linear, node)
    functional.set_step_mode(made, step_mode)
    return made


def spikes_in() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    rates = torch.tensor([0.9, 0.7, 0.5, 0.6, 0.8])
    return (torch.rand(STEPS, BATCH, NEURONS, generator=generator) < rates).float()


def calibrated(made: nn.Module, x: Tensor, run: Callable[[], object] | None = None, **more):
    settings = {"word_length": BITS, "calibration": more.pop("calibration", "spikes")}
    plan = QuantizationPlan.uniform(word_length=20, roles={"membrane": settings})
    resolved = plan.resolve(made, x if run is None else x[0])
    return calibrate(made, resolved, run or x, **more)


def membrane(plan: ResolvedPlan) -> FixedPointFormat:
    return plan.of_layer("1")["v"].format


def difference(current, leak, threshold, reset, fraction_bits) -> float:
    """By hand: how much the spikes differ, a difference fading by 1% a step."""
    step, top = 2.0**-fraction_bits, 2.0 ** (BITS - 1)
    rounded = lambda v: np.clip(np.floor(v / step + 0.5), -top, top - 1) * step  # noqa: E731
    fires = np.floor(threshold / step + 0.5) * step
    exact, held = np.zeros(current.shape[1:]), np.zeros(current.shape[1:])
    trace, total = np.zeros(current.shape[1:]), 0.0
    for x in current:
        exact = exact + x if leak is None else exact + leak * (x - exact)
        held = rounded(held + x if leak is None else held + leak * (x - held))
        spike, other = exact >= threshold, held >= fires
        exact = exact - spike * threshold if reset is None else np.where(spike, reset, exact)
        held = rounded(held - other * fires) if reset is None else np.where(other, reset, held)
        trace = 0.99 * trace + other - spike.astype(float)
        total += (trace**2).sum()
    return total


LEAKS = torch.tensor([0.5, 0.25, 0.125, 0.75, 0.0625])


def plif() -> neuron.ParametricLIFNode:
    made = neuron.ParametricLIFNode(v_threshold=0.25, v_reset=None)
    made.w = nn.Parameter(torch.logit(LEAKS))
    return made


CASES = {
    "soft": (lambda: neuron.IFNode(v_reset=None), None, 1.0, None),
    "hard": (lambda: neuron.IFNode(v_threshold=0.75), None, 0.75, 0.0),
    "leaky": (lambda: neuron.LIFNode(tau=4.0, v_threshold=0.25), 0.25, 0.25, 0.0),
    "leaks": (plif, LEAKS.double().numpy(), 0.25, None),
}


@pytest.mark.parametrize("name", CASES)
def test_the_format_that_changes_the_spikes_least(name: str) -> None:
    make, leak, threshold, reset = CASES[name]
    made, x = network(make()), spikes_in()
    chosen = membrane(calibrated(made, x))

    current = made[0](x).detach().double().numpy()
    errors = {
        bits: difference(current, leak, threshold, reset, bits)
        for bits in range(-1, BITS + 4)
        if 2.0**-bits <= threshold <= 2.0 ** (BITS - 1 - bits) - 2.0**-bits
    }
    assert len(set(errors.values())) > 1
    assert errors[chosen.fraction_bits] == min(errors.values())


def test_spikes_are_nearer_than_by_squared_error() -> None:
    x = spikes_in()
    changed = {}
    for calibration in ("mse", "spikes"):
        made = network(neuron.IFNode())
        expected = made(x)
        functional.reset_net(made)
        plan = calibrated(made, x, calibration=calibration)
        attach(made, plan)
        counts = made(x).sum(0) - expected.sum(0)
        changed[calibration] = counts.abs().sum().item()
        detach(made)
    # The squared error covers potentials far below: its step is the threshold.
    assert changed["spikes"] < changed["mse"] / 2


def test_both_step_modes_choose_the_same() -> None:
    x = spikes_in()
    many, single = network(neuron.IFNode()), network(neuron.IFNode(), "s")

    def run() -> None:
        for step in x:
            single(step)
        functional.reset_net(single)

    assert membrane(calibrated(single, x, run)) == membrane(calibrated(many, x))


def test_each_sequence_begins_anew() -> None:
    x = spikes_in()
    made = network(neuron.IFNode())

    def run() -> None:
        for _ in range(2):
            made(x)
            functional.reset_net(made)

    assert membrane(calibrated(made, x[None], run)) == membrane(calibrated(made, x))


def test_a_layer_that_never_fires_is_left_to_the_squared_error() -> None:
    x = spikes_in()
    made = network(neuron.IFNode(v_threshold=1e6))
    found = [calibrated(made, x, calibration=one) for one in ("spikes", "mse")]

    assert membrane(found[0]) == membrane(found[1])


def test_in_training_and_for_other_roles_it_is_the_squared_error() -> None:
    x = spikes_in()
    made = network(neuron.IFNode())
    everything = QuantizationPlan.uniform(word_length=BITS, calibration="spikes").resolve(made, x)
    squared = QuantizationPlan.uniform(word_length=BITS).resolve(made, x)
    found = calibrate(made, everything, x, learning=True)
    expected = calibrate(made, squared, x, learning=True)

    assert [one.format for one in found.tensors] == [one.format for one in expected.tensors]


def test_nothing_is_left_behind_where_the_data_fails() -> None:
    x = spikes_in()
    made = network(neuron.IFNode())

    def fail() -> None:
        made(x)
        raise RuntimeError("no more data")

    with pytest.raises(RuntimeError, match="no more data"):
        calibrated(made, x[None], fail)
    assert not is_attached(made)
    assert not made[1]._forward_pre_hooks
