"""Random bits and Poisson coding: the published generator, the right rates, and independence."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from qspinn.fixed_point import random_bits
from qspinn.stdp import encoding, kernel_words, numbers
from qspinn.stdp.encoding import (
    content_keys,
    poisson_spikes,
    poisson_words,
    spike_probabilities,
    training_keys,
)
from tests.reference import splitmix
from tests.stdp.cases import images, lively

CPU = torch.device("cpu")
WORDS = st.integers(-(2**63), 2**63 - 1)
# Of SplitMix64 with the seed 1234567, as published with other implementations of it.
PUBLISHED = (
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
)


def unsigned(word: Tensor) -> int:
    return int(word) % 2**64


def test_the_published_outputs() -> None:
    generator = splitmix.SplitMix64(1234567)
    assert tuple(next(generator) for _ in PUBLISHED) == PUBLISHED
    drawn = random_bits.draw(torch.tensor(1234567), torch.arange(5))
    assert tuple(unsigned(word) for word in drawn) == PUBLISHED
    compiled = [int(kernel_words.draw(np.uint64(1234567), n)) for n in range(5)]
    assert tuple(compiled) == PUBLISHED


@given(WORDS, st.integers(0, 2**40), st.integers(0, 30))
def test_draws_and_streams_are_those_of_python_integers(key: int, n: int, purpose: int) -> None:
    word, place = torch.tensor(key), torch.tensor(n)
    expected = splitmix.nth(key, n)
    assert unsigned(random_bits.draw(word, place)) == expected
    assert int(kernel_words.draw(np.uint64(key % 2**64), n)) == expected
    expected = splitmix.stream(key, purpose)
    assert unsigned(random_bits.stream(word, purpose)) == expected
    assert int(kernel_words.stream(np.uint64(key % 2**64), purpose)) == expected


@given(WORDS, st.integers(0, 2**20), st.integers(0, 2**40))
def test_draws_of_one_counter_are_a_weyl_sequence(key: int, n: int, turn: int) -> None:
    drawn = random_bits.spread(torch.tensor(key), torch.tensor(n), torch.tensor(turn))
    assert unsigned(drawn) == (splitmix.nth(key, n) + turn * splitmix.GAMMA) % 2**64


def test_draws_of_one_counter_are_spread_evenly() -> None:
    """Of n draws in a row a share within 3/n of any interval lies in it (the golden ratio)."""
    turns = torch.arange(1000)
    drawn = random_bits.spread(torch.tensor(7), torch.tensor(3), turns)
    u = ((drawn >> 11) & (2**53 - 1)).double() / 2**53
    for end in (0.1, 0.25, 0.5, 0.9):
        assert abs(float((u < end).double().mean()) - end) <= 3e-3


def test_every_purpose_has_a_stream_of_its_own() -> None:
    purposes = [*range(numbers.PURPOSES), numbers.TRAINING, numbers.EVALUATION]
    purposes.append(numbers.LASTING)
    keys = {unsigned(random_bits.stream(torch.tensor(5), purpose)) for purpose in purposes}
    assert len(keys) == len(purposes) == 13


class TestProbabilities:
    def test_by_hand(self) -> None:
        p = spike_probabilities(torch.tensor([[0.0, 1.0, 0.5, 1e-6]]), 128.0)
        # 0.128 * 65536 = 8388.6; half of it 4194.3; 0.008 of a step.
        assert p.tolist() == [[0, 8389, 4194, 0]]
        assert p.dtype == torch.int64

    def test_a_spike_in_every_step_cannot_be_had(self) -> None:
        assert spike_probabilities(torch.ones(1, 1), 1000.0).item() == 2**16 - 1

    @pytest.mark.parametrize("bad", [-0.01, 1.01, 255.0, math.inf, math.nan])
    def test_inputs_outside_0_to_1(self, bad: float) -> None:
        values = torch.tensor([[0.5, bad]])
        with pytest.raises(
            ValueError, match=r"inputs of DiehlCook lie in .*scale them to \[0, 1\]"
        ):
            spike_probabilities(values, 128.0)


def test_words_and_spikes_are_the_same_bits() -> None:
    p = torch.randint(0, 2**16, (3, 5), generator=torch.Generator().manual_seed(0))
    keys = training_keys(3, 0, 3, CPU)
    words = poisson_words(p, keys, 130)
    spikes = poisson_spikes(p, keys, 130)
    assert words.shape == (3, 5, 3)
    assert spikes.shape == (130, 3, 5)
    for t in range(130):
        assert torch.equal((words[:, :, t // 64] >> (t % 64)) & 1, spikes[t].long())
    assert int((words[:, :, 2] >> 2).abs().sum()) == 0


def test_the_spikes_of_python_integers() -> None:
    """Bit by bit from the definition: the digits of p, lowest first, or and and."""
    p, key = 0b1010_0000_1100_0101, 99
    expected = []
    for word in range(2):
        bits = 0
        for digit in range(16):
            random = splitmix.nth(splitmix.stream(key, numbers.INPUT), word * 16 + digit)
            bits = bits | random if p >> digit & 1 else bits & random
        expected += [bits >> t & 1 for t in range(64)]
    spikes = poisson_spikes(torch.tensor([[p]]), torch.tensor([key]), 128)
    assert spikes.flatten().tolist() == expected


@pytest.mark.parametrize("learning", [True, False])
@pytest.mark.parametrize("steps", [30, 64, 100])
def test_the_kernel_draws_the_same_input_spikes(steps: int, learning: bool) -> None:
    """Counted per input: only one input is not black in each image."""
    network = lively("numba", time_steps=steps)
    shown = torch.diag(torch.linspace(0.1, 1.0, 6))
    p = spike_probabilities(shown, network.settings.max_rate)
    for row in range(6):
        first = int(network.presentations)
        one = p[row : row + 1]
        keys = content_keys(int(network.seed), one)
        if learning:
            keys = training_keys(int(network.seed), first, 1, CPU)
        expected = int(poisson_spikes(one, keys, steps).sum())
        assert network.present(shown[row : row + 1], learning).input_spikes == expected


PROBABILITIES = (1, 655, 8389, 16384, 32768, 40000, 65535)
DRAWS = 640_000


@pytest.fixture(scope="module")
def drawn() -> Tensor:
    """Spikes [64, M, I] of presentations, each input with one of the probabilities."""
    p = torch.tensor(PROBABILITIES).repeat(DRAWS // 64 // 100, 100)
    return poisson_spikes(p, training_keys(11, 0, len(p), CPU), 64).view(64, len(p), 100, -1)


@pytest.mark.parametrize("place", range(len(PROBABILITIES)))
def test_the_frequency_of_spikes(drawn: Tensor, place: int) -> None:
    """Within 4.5 standard errors of the binomial distribution: 7 false alarms in a million."""
    probability = PROBABILITIES[place] / 2**16
    share = float(drawn[..., place].double().mean())
    error = math.sqrt(probability * (1 - probability) / DRAWS)
    assert abs(share - probability) <= 4.5 * error


@pytest.mark.parametrize("along", [0, 1, 2], ids=["steps", "presentations", "inputs"])
@pytest.mark.parametrize("lag", [1, 2, 7, 32])
def test_spikes_do_not_depend_on_each_other(drawn: Tensor, along: int, lag: int) -> None:
    """The correlation of spikes `lag` apart is that of chance; z is standard normal then."""
    spikes = drawn[..., 3].double() - 0.25
    size = spikes.shape[along]
    products = spikes.narrow(along, 0, size - lag) * spikes.narrow(along, lag, size - lag)
    z = float(products.sum()) / (0.25 * 0.75 * math.sqrt(products.numel()))
    assert abs(z) < 4.5


def test_counts_of_spikes_are_binomial(drawn: Tensor) -> None:
    """Chi-square of spikes per 64 steps at p = 1/4; 27 classes, expected 26 +- 7.2."""
    counts = drawn[..., 3].sum(0).flatten().long()
    low, high = 4, 30
    chances = [math.comb(64, k) * 0.25**k * 0.75 ** (64 - k) for k in range(65)]
    merged = [sum(chances[: low + 1]), *chances[low + 1 : high], sum(chances[high:])]
    found = torch.bincount(counts.clamp(low, high) - low, minlength=high - low + 1).tolist()
    expected = [len(counts) * chance for chance in merged]
    chi = sum((f - e) ** 2 / e for f, e in zip(found, expected, strict=True))
    assert chi < 26 + 4.5 * math.sqrt(2 * 26)


class TestKeys:
    def test_content_keys_do_not_depend_on_the_batch(self) -> None:
        p = spike_probabilities(images(7), 128.0)
        keys = content_keys(5, p)
        assert torch.equal(keys[3:4], content_keys(5, p[3:4]))
        order = torch.tensor([6, 0, 3, 3])
        assert torch.equal(keys[order], content_keys(5, p[order]))

    def test_content_keys_differ_by_content_and_seed(self) -> None:
        p = spike_probabilities(images(200), 128.0)
        swapped = p.flip(1)
        assert len(set(content_keys(5, torch.cat([p, swapped])).tolist())) == 400
        assert not (content_keys(5, p) == content_keys(6, p)).any()

    def test_training_keys_count_on(self) -> None:
        keys = training_keys(3, 0, 100, CPU)
        assert torch.equal(keys[40:], training_keys(3, 40, 60, CPU))
        assert len(set(keys.tolist())) == 100
        root = splitmix.stream(3, numbers.TRAINING)
        assert [unsigned(key) for key in keys[:3]] == [splitmix.nth(root, n) for n in range(3)]

    def test_no_presentation_gets_the_spikes_of_another(self) -> None:
        p = torch.full((3, 50), 20000)
        spikes = poisson_spikes(p, training_keys(3, 0, 3, CPU), 100)
        assert not torch.equal(spikes[:, 0], spikes[:, 1])
        assert not torch.equal(spikes[:, 1], spikes[:, 2])


def test_probability_bits_fit_the_kernel() -> None:
    """The kernel takes probabilities as uint16."""
    assert np.iinfo(np.uint16).max == 2**encoding.PROBABILITY_BITS - 1
