"""Readouts against plain loops in NumPy, and against scikit-learn's ridge regression."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as ReferenceRidge
from torch import Tensor

from qspinn.fixed_point import Format, parse_format
from qspinn.networks import READOUTS, MaximumResponse, Proportion, Readouts, Ridge
from qspinn.networks.labelled_responses import ROWS
from tests.reference.fixed_point import quantized

CLASSES, NEURONS = 4, 7


@dataclass
class Quantizer:
    """What a module is told about one of its tensors."""

    path: str
    format: Format
    rounding: str = "nearest"
    overflow: str = "saturate"


def responses(images: int = 90, neurons: int = NEURONS, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Spike counts that tell classes apart; neuron 2 answers to nothing, class 3 has few images."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(CLASSES, images, p=[0.4, 0.3, 0.25, 0.05])
    preferred = np.arange(neurons) % CLASSES
    rate = 0.4 + 5.0 * (labels[:, None] == preferred)
    counts = rng.poisson(rate)
    counts[:, 2] = 0
    return torch.from_numpy(counts.astype(np.int32)), torch.from_numpy(labels)


def means_by_hand(counts: np.ndarray, labels: np.ndarray) -> list[list[float]]:
    """Mean response of each class (outer) and neuron, by counting."""
    means = []
    for klass in range(CLASSES):
        rows = [row for row, label in zip(counts.tolist(), labels, strict=True) if label == klass]
        means.append([sum(column) / len(rows) for column in zip(*rows, strict=True)])
    return means


def maximum_by_hand(
    fitted: tuple[np.ndarray, np.ndarray], scored: np.ndarray
) -> tuple[list[int], list[list[float]]]:
    means = means_by_hand(*fitted)
    chosen = []
    for neuron in range(len(means[0])):
        of_classes = [means[klass][neuron] for klass in range(CLASSES)]
        chosen.append(of_classes.index(max(of_classes)) if max(of_classes) > 0 else -1)
    scores = []
    for row in scored.tolist():
        answers = [[n for n, c in zip(row, chosen, strict=True) if c == k] for k in range(CLASSES)]
        scores.append([sum(some) / len(some) if some else 0.0 for some in answers])
    return chosen, scores


def test_maximum_response_against_plain_loops() -> None:
    counts, labels = responses()
    others, _ = responses(40, seed=1)
    chosen, scores = maximum_by_hand((counts.numpy(), labels.numpy()), others.numpy())
    readout = MaximumResponse(NEURONS, CLASSES)

    readout.fit(counts, labels)

    assert readout.labels.tolist() == chosen
    assert chosen[2] == -1  # it never answers
    assert set(chosen) == {-1, 0, 1, 2, 3}
    np.testing.assert_allclose(readout(others).numpy(), scores, rtol=1e-12)


def test_a_class_without_neurons_scores_zero_and_ties_go_to_the_first() -> None:
    readout = MaximumResponse(2, 3)

    readout.fit(torch.tensor([[2, 0], [2, 1], [0, 1]]), torch.tensor([0, 1, 2]))

    assert readout.labels.tolist() == [0, 1]
    assert readout(torch.tensor([[3, 5]])).tolist() == [[3.0, 5.0, 0.0]]


def test_means_are_of_classes_and_not_sums() -> None:
    # 3 images of class 0 with 2 spikes each, 1 of class 1 with 3.
    counts, labels = torch.tensor([[2], [2], [2], [3]]), torch.tensor([0, 0, 0, 1])
    maximum, proportion = MaximumResponse(1, 2), Proportion(1, 2)

    maximum.fit(counts, labels)
    proportion.fit(counts, labels)

    assert maximum.labels.tolist() == [1]
    assert proportion.shares[:, 0].tolist() == pytest.approx([0.4, 0.6])


def test_proportion_against_plain_loops() -> None:
    counts, labels = responses()
    others, _ = responses(40, seed=1)
    means = means_by_hand(counts.numpy(), labels.numpy())
    readout = Proportion(NEURONS, CLASSES)

    readout.fit(counts, labels)

    for neuron in range(NEURONS):
        total = sum(means[klass][neuron] for klass in range(CLASSES))
        for klass in range(CLASSES):
            share = means[klass][neuron] / total if total else 0.0
            assert float(readout.shares[klass, neuron]) == pytest.approx(share, abs=1e-7)
    assert readout.shares[:, 2].tolist() == [0.0] * CLASSES
    shares = readout.shares.double().numpy()
    expected = [
        [sum(n * shares[k][i] for i, n in enumerate(row)) for k in range(CLASSES)]
        for row in others.tolist()
    ]
    np.testing.assert_allclose(readout(others).numpy(), expected, rtol=1e-12)


# More neurons than images, fewer, and more images than are converted at a time.
@pytest.mark.parametrize(("images", "neurons"), [(90, 7), (30, 50), (2 * ROWS + 5, 6)])
@pytest.mark.parametrize("penalty", [0.5, 100.0])
def test_ridge_against_scikit_learn(images: int, neurons: int, penalty: float) -> None:
    counts, labels = responses(images, neurons)
    others, _ = responses(40, neurons, seed=1)
    readout = Ridge(neurons, CLASSES, penalty)
    one_hot = np.eye(CLASSES)[labels.numpy()]
    reference = ReferenceRidge(alpha=penalty).fit(counts.double().numpy(), one_hot)

    readout.fit(counts, labels)

    expected = reference.predict(others.double().numpy())
    scores = readout(others).numpy()
    scale = float(np.abs(reference.coef_).max() / readout.weight.abs().max())
    np.testing.assert_allclose(readout.weight.numpy() * scale, reference.coef_, atol=1e-6)
    np.testing.assert_allclose(readout.bias.numpy() * scale, reference.intercept_, atol=1e-6)
    np.testing.assert_allclose(scores * scale, expected, atol=1e-5)
    assert (scores.argmax(1) == expected.argmax(1)).all()


@pytest.mark.parametrize("counts", [responses()[0], torch.zeros(90, NEURONS), responses()[0] * 100])
def test_ridge_keeps_its_bounds(counts: Tensor) -> None:
    readout = Ridge(NEURONS, CLASSES)

    readout.fit(counts, responses()[1])

    reached = float(readout.weight.abs().max()), float(readout.bias.abs().max())
    for tensor, most in zip(readout.device_tensors(), reached, strict=True):
        assert -tensor["low"] == tensor["high"] >= most
    assert reached[0] == 1.0 or reached[1] == 16.0


@pytest.mark.parametrize("kind", list(READOUTS.values()))
def test_each_readout_tells_the_classes_apart(kind: Any) -> None:
    counts, labels = responses(400, 12)
    others, right = responses(400, 12, seed=1)
    readout = kind(12, CLASSES)
    untrained = readout(others)

    readout.fit(counts, labels)

    assert torch.equal(untrained, torch.zeros(400, CLASSES, dtype=torch.float64))
    assert (readout(others).argmax(1) == right).double().mean() > 0.9


@pytest.mark.parametrize("kind", list(READOUTS.values()))
def test_fitting_anew_forgets_the_last_fit(kind: Any) -> None:
    first, again = kind(NEURONS, CLASSES), kind(NEURONS, CLASSES)
    first.fit(*responses(seed=5))

    first.fit(*responses())
    again.fit(*responses())

    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


@pytest.mark.parametrize(("kind", "name"), [(Proportion, "shares"), (Ridge, "weight")])
@pytest.mark.parametrize("rounding", ["nearest", "truncate"])
def test_scores_are_of_what_a_device_holds(kind: Any, name: str, rounding: str) -> None:
    counts, labels = responses()
    readout = kind(NEURONS, CLASSES)
    readout.fit(counts, labels)
    in_float = readout(counts)
    fmt = parse_format("Q0.3")

    readout.use_fixed_point({name: Quantizer(f"readout.{name}", fmt, rounding)})

    held = [
        [quantized(x, 0, 3, True, rounding, "saturate") for x in row]
        for row in getattr(readout, name).tolist()
    ]
    expected = counts.numpy() @ np.array(held).T
    if kind is Ridge:  # the plan leaves its bias at 32 bits
        expected = expected + readout.bias.numpy()
    np.testing.assert_array_equal(readout(counts).numpy(), expected)
    assert not torch.equal(readout(counts), in_float)
    readout.use_fixed_point(None)
    assert torch.equal(readout(counts), in_float)


def test_a_device_has_stored_one_draw_of_a_stochastic_rounding() -> None:
    counts, labels = responses()
    readout = Proportion(NEURONS, CLASSES)
    readout.fit(counts, labels)
    scores = []
    for path in ("readout.shares", "readout.shares", "other.shares"):
        readout.use_fixed_point({"shares": Quantizer(path, parse_format("Q0.2"), "stochastic")})
        torch.rand(3)  # other draws must not matter
        scores.append(readout(counts))

    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])


def test_what_a_device_holds() -> None:
    shares, (weight, bias) = (
        Proportion(400, 10).device_tensors(),
        Ridge(400, 10).device_tensors(),
    )
    (labels,) = MaximumResponse(400, 10).device_tensors()
    assert labels == {"name": "labels", "role": None, "shape": (400,), "word_length": 4}
    # One more code than classes, for neurons that stand for none.
    for classes, bits in ((3, 2), (4, 3), (15, 4), (16, 5)):
        assert MaximumResponse(2, classes).device_tensors()[0]["word_length"] == bits
        assert bits == math.ceil(math.log2(classes + 1))
    assert (shares[0]["role"], shares[0]["shape"]) == ("weight", (10, 400))
    assert (shares[0]["low"], shares[0]["high"], shares[0]["channel_axis"]) == (0.0, 1.0, 0)
    assert (weight["role"], weight["shape"]) == ("weight", (10, 400))
    assert (bias["role"], bias["shape"]) == ("bias", (10,))


def test_readouts_side_by_side() -> None:
    counts, labels = responses()
    both = Readouts("ridge", NEURONS, CLASSES)
    assert not both.is_fitted

    both.fit(counts, labels)

    assert both.is_fitted
    scores = both(counts)
    assert list(scores) == ["maximum", "proportion", "ridge"]
    for name, kind in READOUTS.items():
        alone = kind(NEURONS, CLASSES)
        alone.fit(counts, labels)
        assert torch.equal(scores[name], alone(counts))
    names = [tensor["name"] for tensor in both.device_tensors()]
    assert names == ["weight", "bias"]
    both.use_fixed_point({"weight": Quantizer("readout.weight", parse_format("Q0.1"))})
    rounded = both(counts)
    assert not torch.equal(rounded["ridge"], scores["ridge"])
    assert torch.equal(rounded["proportion"], scores["proportion"])


def test_the_state_is_saved_and_copied() -> None:
    counts, labels = responses()
    fitted, fresh = (Readouts("proportion", NEURONS, CLASSES) for _ in range(2))
    fitted.fit(counts, labels)
    copied = copy.deepcopy(fitted)
    fresh.load_state_dict(fitted.state_dict())

    assert fresh.is_fitted
    for name in READOUTS:
        assert torch.equal(fresh(counts)[name], fitted(counts)[name])
    copied.fit(*responses(seed=3))
    assert not torch.equal(copied(counts)["ridge"], fitted(counts)["ridge"])


def test_fitting_under_inference_mode_leaves_ordinary_tensors() -> None:
    readouts = Readouts("proportion", NEURONS, CLASSES)
    with torch.inference_mode():
        readouts.fit(*responses())

    readouts.fit(*responses(seed=1))  # in place, which tensors of inference mode refuse
    assert not any(value.is_inference() for value in readouts.state_dict().values())


@pytest.mark.parametrize("kind", list(READOUTS.values()))
def test_wrong_values_are_refused(kind: Any) -> None:
    counts, labels = responses()
    readout = kind(NEURONS, CLASSES)
    with pytest.raises(ValueError, match=r"\[90, 7\] and labels \[89\]: expected \[M, 7\]"):
        readout.fit(counts, labels[1:])
    with pytest.raises(ValueError, match=r"\[90, 6\]"):
        readout.fit(counts[:, 1:], labels)
    with pytest.raises(ValueError, match="M at least 1"):
        readout.fit(counts[:0], labels[:0])
    with pytest.raises(ValueError, match="labels from 1 to 4: expected 0 to 3"):
        readout.fit(counts[:2], torch.tensor([1, 4]))
    with pytest.raises(ValueError, match="labels from -1 to 3"):
        readout.fit(counts[:2], torch.tensor([-1, 3]))
    with pytest.raises(ValueError, match="neurons=0: write 1 or more"):
        kind(0, CLASSES)
    with pytest.raises(ValueError, match="num_classes=1: write 2 or more"):
        kind(NEURONS, 1)


def test_wrong_choices_are_refused() -> None:
    with pytest.raises(ValueError, match="readout='vote': write one of maximum, proportion, ridge"):
        Readouts("vote", NEURONS, CLASSES)
    with pytest.raises(ValueError, match=r"penalty=0\.0: write a number above 0"):
        Ridge(NEURONS, CLASSES, 0.0)
