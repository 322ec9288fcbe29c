"""Metrics against NumPy."""

import numpy as np
import pytest
import torch

from qspinn.metrics import (
    Accuracy,
    FiringFidelity,
    SpikeStatistics,
    count_correct,
)


def random_spikes(seed: int, rate: float, *shape: int) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape) < rate).astype(np.float32)


def test_accuracy_over_uneven_batches() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (101, 5)).astype(np.float32)  # many ties
    labels = rng.integers(0, 5, 101)
    metric = Accuracy()

    for part in np.split(np.arange(101), [40, 41, 90]):
        metric.update(torch.from_numpy(scores[part]), torch.from_numpy(labels[part]))

    right = [int(np.argmax(row)) == label for row, label in zip(scores, labels, strict=True)]
    expected = np.mean(right)
    assert metric.compute().item() == pytest.approx(expected, abs=1e-7)


def test_of_tied_classes_the_first_is_taken() -> None:
    scores = torch.tensor([[0.0, 1.0, 1.0], [2.0, 2.0, 2.0]])

    assert count_correct(scores, torch.tensor([1, 0])) == 2
    assert count_correct(scores, torch.tensor([2, 1])) == 0


def test_accuracy_resets_and_is_nan_without_data() -> None:
    metric = Accuracy()
    metric.update(torch.eye(3), torch.arange(3))
    assert metric.compute() == 1
    metric.reset()

    with pytest.warns(UserWarning, match="before the ``update`` method"):
        assert metric.compute().isnan()


def test_metrics_reset_under_inference_mode_go_on_outside() -> None:
    accuracy, statistics, fidelity = Accuracy(), SpikeStatistics(), FiringFidelity()
    with torch.inference_mode():
        for metric in (accuracy, statistics, fidelity):
            metric.reset()

    accuracy.update(torch.eye(3), torch.arange(3))
    statistics.update(torch.ones(2, 1, 3))
    fidelity.update(torch.ones(2, 3), torch.ones(2, 3))

    assert accuracy.compute() == 1
    assert statistics.compute()["firing_rate"] == 1
    assert fidelity.compute()["agreement"] == 1


@pytest.mark.parametrize(("scores", "labels"), [((4,), (4,)), ((4, 3), (5,)), ((4, 3), (4, 3))])
def test_accuracy_refuses_shapes(scores: tuple[int, ...], labels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \[N, classes\] and \[N\]"):
        count_correct(torch.zeros(scores), torch.zeros(labels, dtype=torch.int64))


def test_spike_statistics() -> None:
    first, second = random_spikes(0, 0.02, 4, 3, 6, 5), random_spikes(1, 0.02, 4, 7, 6, 5)
    metric = SpikeStatistics()
    metric.update(torch.from_numpy(first))
    metric.update(torch.from_numpy(second))

    both = np.concatenate([first, second], axis=1)
    values = metric.compute()

    assert values["firing_rate"].item() == pytest.approx(both.mean(), rel=1e-6)
    silent = float((both.sum((0, 1)) == 0).mean())
    assert 0 < silent < 1
    assert values["silent_fraction"].item() == pytest.approx(silent)


def test_spike_statistics_forget_at_reset() -> None:
    metric = SpikeStatistics()
    metric.update(torch.ones(2, 1, 3))
    metric.reset()
    metric.update(torch.zeros(2, 1, 4))

    assert metric.compute()["firing_rate"] == 0
    assert metric.compute()["silent_fraction"] == 1


def test_spike_statistics_without_data() -> None:
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        values = SpikeStatistics().compute()

    assert all(value.isnan() for value in values.values())


def test_spike_statistics_refuse_other_shapes() -> None:
    metric = SpikeStatistics()
    with pytest.raises(ValueError, match=r"expected \[T, N, \*\]"):
        metric.update(torch.zeros(3, 4))
    metric.update(torch.zeros(2, 1, 3))
    with pytest.raises(ValueError, match=r"neurons \[4\], before of \[3\]"):
        metric.update(torch.zeros(2, 1, 4))


def test_firing_fidelity() -> None:
    reference = random_spikes(0, 0.2, 4, 30, 9)
    spikes = np.where(random_spikes(1, 0.1, 4, 30, 9) == 1, 1 - reference, reference)
    metric = FiringFidelity()
    for part in (slice(0, 7), slice(7, 30)):
        metric.update(torch.from_numpy(spikes[:, part]), torch.from_numpy(reference[:, part]))

    values = {name: value.item() for name, value in metric.compute().items()}

    one, other = spikes == 1, reference == 1
    assert values["agreement"] == pytest.approx((one == other).mean(), rel=1e-6)
    assert values["overlap"] == pytest.approx((one & other).sum() / (one | other).sum(), rel=1e-6)
    assert values["rate_ratio"] == pytest.approx(one.sum() / other.sum(), rel=1e-6)


def test_firing_fidelity_of_silence() -> None:
    metric = FiringFidelity()
    metric.update(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4))
    values = metric.compute()

    assert values["agreement"] == 1
    assert values["overlap"] == 1
    assert values["rate_ratio"].isnan()


def test_firing_fidelity_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        FiringFidelity().update(torch.zeros(2, 3), torch.zeros(3, 2))
