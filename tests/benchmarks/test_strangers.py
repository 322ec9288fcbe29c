"""Trained networks of other people, rebuilt: the same spikes as by their authors' equations."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from qspinn.plan import QuantizationPlan, footprint

FOLDERS = ("strangers", "N-MNIST-small", "dvs128_gesture_clips")
# Samples and time steps of each network that are compared here.
PARTS = {"nmnist_zero": (1, 60), "nmnist_subtract": (1, 60), "gesture": (2, 40), "ecg": (3, 300)}
# Weights, biases, thresholds and leaks, of the authors' files; one potential per neuron.
CONSTANTS = {
    "nmnist_zero": 800 + 2304 + 1152 + 128 * 256 + 256 * 10 + 5,
    "gesture": 816 + 12832 + 51264 + 11275 + 4 + 4,
    "ecg": 5 * 36 + 37 * 36 + 37 * 6 + 1 + 36 + 6,
}
NEURONS = {
    "nmnist_zero": 2 * 16**3 + 8**3 + 256 + 10,
    "gesture": 16**3 + 32 * 8**2 + 64 * 4**2 + 11,
    "ecg": 36 + 6,
}
# The spikes that the recurrent network feeds back are held in its forward, in one bit each.
FED_BACK = {"ecg": 36}


@pytest.fixture
def root(shared_data: Path) -> Path:
    missing = [name for name in FOLDERS if not (shared_data / name).is_dir()]
    if missing:
        pytest.skip(f"no folder {', '.join(missing)} in {shared_data}")
    return shared_data


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, repository: Path) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    return lambda name: importlib.import_module(f"strangers_{name}")


def shortened(check: ModuleType, name: str, root: Path) -> Tensor:
    samples, steps = PARTS[name]
    return check.samples(name, root, every=100)[:steps, :samples]


@pytest.mark.parametrize("name", PARTS)
def test_the_same_spikes(script, root: Path, name: str) -> None:
    check = script("check")
    frames = shortened(check, name, root)
    expected = check.expected_spikes(name, root, frames)
    with check.computed_in(torch.float64):
        found = check.spikes_of(check.rebuilt(name, root), frames.double())

    assert all(layer.any() for layer in expected[:3])
    for layer, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(layer.numpy(), other)


@pytest.mark.slow
def test_gestures_are_named(script, root: Path) -> None:
    cases = script("cases")
    case = cases.CASES["gesture"](root)
    assert cases.answers(case).tolist() == list(range(10))

    plan = QuantizationPlan.uniform(word_length=8)
    given, _ = cases.quantised(case, plan)
    assert (given == case.test.labels).sum() >= 9
    assert cases.answers(case).tolist() == list(range(10))


@pytest.mark.few(0.2)
@pytest.mark.parametrize("name", CONSTANTS)
def test_everything_is_covered(script, root: Path, name: str) -> None:
    check = script("check")
    network, frames = check.rebuilt(name, root), shortened(check, name, root)
    plan = QuantizationPlan.uniform(word_length=8).resolve(network, frames)

    summary, fed_back = plan.summary(), FED_BACK.get(name, 0)
    assert summary.left == ()
    assert summary.off_grid == ()
    quantised = CONSTANTS[name] + NEURONS[name]
    assert footprint(network, plan).inference_bits == 8 * quantised + fed_back


def test_an_event_without_neighbours_is_noise(script) -> None:
    data = script("data")
    # The second is beside the first, the third too far, the fourth too late, the fifth above it.
    t = np.array([50_000, 51_000, 52_000, 70_000, 70_001])
    x, y = np.array([4, 5, 8, 5, 5], np.uint16), np.array([4, 4, 4, 4, 3], np.uint16)
    events = data.Events(t, x, y, np.ones(5, np.uint8), 10, 10)

    assert data.without_noise(events, 10_000).t.tolist() == [51_000, 70_001]
