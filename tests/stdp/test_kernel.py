"""The event-driven kernel equals the step-by-step reference, bit for bit, in float and on grids."""

from __future__ import annotations

import copy
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from qspinn.fixed_point import PerChannelFormat
from qspinn.networks import STDP, DiehlCook, DiehlCookSettings, Presentation
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, calibrate
from qspinn.quantizers.class_swap import attached_quantizer
from tests.stdp.cases import ROUNDINGS, images, quantizers

INPUTS, NEURONS, STEPS, IMAGES = 50, 12, 70, 4


def network(**changes: Any) -> DiehlCook:
    of_settings = {"max_rate": 200.0, "inhibition": 20.0, "theta_plus": 0.3}
    of_stdp: dict[str, Any] = {"rate_post": 0.05, "weight_sum": 20.0}
    for name, value in changes.items():
        (of_stdp if name in STDP.__dataclass_fields__ else of_settings)[name] = value
    settings, stdp = DiehlCookSettings(**of_settings), STDP(**of_stdp)
    return DiehlCook((INPUTS,), NEURONS, STEPS, settings, stdp)


def shown(count: int = IMAGES) -> Tensor:
    return images(count, inputs=INPUTS)


def taught(one: DiehlCook, backend: str, chunks: tuple[int, ...]) -> tuple[DiehlCook, Any]:
    """A copy that has learned, and what came of it."""
    one = copy.deepcopy(one)
    one.backend = backend
    results = [
        one.present(chunk, learning=True, record=True) for chunk in shown(sum(chunks)).split(chunks)
    ]
    return one, joined(results)


def joined(results: list[Presentation]) -> dict[str, Any]:
    return {
        "spikes": torch.cat([one.spikes for one in results if one.spikes is not None], 1),
        "spike_counts": torch.cat([one.spike_counts for one in results]),
        "input_spikes": sum(one.input_spikes for one in results),
        "updates": sum(one.updates for one in results),
        "underflows": sum(one.underflows for one in results),
    }


def check_same(a: tuple[DiehlCook, Any], b: tuple[DiehlCook, Any]) -> None:
    """Two networks that learned, and what came of it, are the same."""
    for name, value in a[1].items():
        same = torch.equal(value, b[1][name]) if isinstance(value, Tensor) else value == b[1][name]
        assert same, name
    for name, value in a[0].state_dict().items():
        assert torch.equal(value, b[0].state_dict()[name]), name
    assert int(a[1]["spike_counts"].sum()) > IMAGES
    assert a[1]["updates"] > 0


def check(one: DiehlCook) -> None:
    before = one.weight.clone()
    result = taught(one, "reference", (IMAGES,))
    check_same(result, taught(one, "numba", (IMAGES,)))
    assert not torch.equal(result[0].weight, before)


@pytest.mark.few(0.2, "campaign")
@pytest.mark.parametrize("rounding", [None, *ROUNDINGS])
@pytest.mark.parametrize("one_winner", [True, False])
@pytest.mark.parametrize("rates", [(0.0, 0.0), (1e-2, 0.1)], ids=["post", "pre_and_target"])
@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("update", ["online", "deferred"])
def test_every_way_to_run(
    update: str, parallel: int, rates: tuple[float, float], one_winner: bool, rounding: str | None
) -> None:
    pre, target = rates
    changes = {"rate_pre": pre, "trace_target": target, "one_winner": one_winner}
    delay = 1 if parallel == 1 else 2
    normalise = "update" if one_winner else "presentation"
    one = network(
        update=update,
        normalise=normalise,
        parallel=parallel,
        inhibition_delay=delay,
        **changes,
    )
    if rounding is not None:
        one.use_fixed_point(quantizers(one, 10, rounding, weight=6))
    check(one)


@pytest.mark.few(0.2, "campaign")
@pytest.mark.parametrize("rate_pre", [1e-4, 0.05, 0.4], ids=["far below a step", "below", "above"])
@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_depression_by_less_and_by_more_than_a_step(
    rounding: str, overflow: str, rate_pre: float
) -> None:
    one = network(rate_pre=rate_pre)
    one.use_fixed_point(quantizers(one, 12, rounding, overflow, weight=4))
    check(one)


@pytest.mark.parametrize("backend", ["reference", "numba", "torch"])
@pytest.mark.parametrize("word_length", [None, 8])
def test_learning_brings_all_weights_within_their_bounds(
    word_length: int | None, backend: str
) -> None:
    one = network(weight_max=0.4, weight_sum=None)
    one.backend = backend
    if word_length is not None:
        one.use_fixed_point(quantizers(one, word_length))
    one.weight[::2] = 0.9
    one.weight[1::2] = 0.1
    one.present(torch.zeros(1, INPUTS))
    assert float(one.weight.max()) == pytest.approx(0.9)
    one.present(torch.zeros(1, INPUTS), learning=True)
    highest = 0.4 if word_length is None else float(Fraction(int(0.4 * 2**9), 2**9))
    assert one.weight[::2].flatten().tolist() == pytest.approx([highest] * (INPUTS // 2 * NEURONS))
    rest = one.weight[1::2].flatten().tolist()
    assert rest == pytest.approx([0.1] * (INPUTS // 2 * NEURONS), abs=2**-9)


@pytest.mark.slow
@pytest.mark.parametrize("word_length", [1, 8, 9, 12, 16, 17, 24])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_codes_of_every_width(word_length: int, rounding: str) -> None:
    """Kernels hold codes in 8, 16 or 32 bits."""
    one = network(rate_pre=1e-2)
    one.use_fixed_point(quantizers(one, 12, rounding, weight=word_length))
    check(one)


@pytest.mark.slow
@pytest.mark.parametrize("word_length", [3, 8, 24])
@pytest.mark.parametrize("alone", ["weight", "v", "theta", "trace_pre", "trace_post", "leak"])
def test_one_tensor_quantised_and_the_rest_at_32_bits(alone: str, word_length: int) -> None:
    one = network(rate_pre=1e-2)
    if alone == "v":
        word_length = max(word_length, 6)
    one.use_fixed_point({alone: quantizers(one, word_length, "stochastic")[alone]})
    check(one)


@pytest.mark.parametrize("learning", [True, False], ids=["itq", "ptq"])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("rounding", ["truncate", "stochastic"])
def test_a_plan_that_is_calibrated_and_attached(
    rounding: str, granularity: str, learning: bool
) -> None:
    one = network()
    one.weight.mul_(torch.linspace(0.1, 1.0, NEURONS))
    plan = QuantizationPlan.uniform(8, rounding, granularity=granularity).resolve(one)
    attach(one, calibrate(one, plan, learning=learning))
    assert not one.numbers().is_float
    assert {held.rounding for held in attached_quantizer(one).tensors.values()} == {rounding}
    _, weights = one.device_operations(torch.zeros(1, INPUTS))["tensors"]["weight"]
    per_neuron = isinstance(weights, PerChannelFormat)
    assert per_neuron == (granularity == "channel" and not learning)
    check(one)


@pytest.mark.few(0.25)
@pytest.mark.parametrize("backend", ["reference", "numba"])
@pytest.mark.parametrize("rounding", [None, "nearest", "stochastic"])
@pytest.mark.parametrize("update", ["online", "deferred"])
@pytest.mark.parametrize("parallel", [1, 2])
def test_chunks_change_nothing(
    parallel: int, update: str, rounding: str | None, backend: str
) -> None:
    normalise = "update" if parallel == 1 else "presentation"
    one = network(parallel=parallel, update=update, normalise=normalise, rate_pre=1e-2)
    if rounding is not None:
        one.use_fixed_point(quantizers(one, 9, rounding))
    check_same(taught(one, backend, (6,)), taught(one, backend, (2, 4)))


@pytest.mark.parametrize("rounding", [None, "nearest", "stochastic"])
def test_evaluation(rounding: str | None) -> None:
    one, _ = taught(network(), "numba", (IMAGES,))
    if rounding is not None:
        one.use_fixed_point(quantizers(one, 9, rounding))
    results = []
    for backend in ("reference", "numba"):
        one.backend = backend
        results.append(one.present(shown(), record=True))
    assert torch.equal(results[0].spikes, results[1].spikes)
    assert torch.equal(results[0].spike_counts, results[1].spike_counts)
    assert results[0].input_spikes == results[1].input_spikes
    assert int(results[0].spike_counts.sum()) > IMAGES


@pytest.mark.parametrize("backend", ["reference", "numba"])
@pytest.mark.parametrize("learning", [True, False])
def test_no_image_and_no_spike(backend: str, learning: bool) -> None:
    one = network()
    one.backend = backend
    before = one.weight.clone()
    found = one.present(torch.zeros(0, INPUTS), learning, record=True)
    assert found.spikes is not None
    assert found.spikes.shape == (STEPS, 0, NEURONS)
    assert found.spike_counts.shape == (0, NEURONS)
    found = one.present(torch.zeros(2, INPUTS), learning, record=True)
    assert (found.input_spikes, found.updates, int(found.spike_counts.sum())) == (0, 0, 0)
    assert torch.equal(one.weight, before)


@pytest.mark.parametrize("steps", [1, 63, 64, 65, 128, 130])
@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_presentations_of_any_length(steps: int, backend: str) -> None:
    """Spikes are drawn in words of 64 steps."""
    stdp = STDP(weight_sum=20.0)
    settings = DiehlCookSettings(max_rate=1000.0, threshold=-64.0, reset=-65.0)
    one = DiehlCook((INPUTS,), NEURONS, steps, settings, stdp, backend)
    found = one.present(torch.ones(2, INPUTS), learning=True, record=True)
    assert found.spikes is not None
    assert found.spikes.shape == (steps, 2, NEURONS)
    # An input of 1 at 1000 Hz leaves out one step in 65,536.
    assert INPUTS * 2 * steps - 3 <= found.input_spikes <= INPUTS * 2 * steps
    assert found.spikes[0].any(-1).all()
