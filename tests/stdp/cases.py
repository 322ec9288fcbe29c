"""Small plastic networks, formats for them, and their twin in exact rationals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qspinn.fixed_point import (
    FixedPointFormat,
    Format,
    PerChannelFormat,
    TensorQuantizer,
    parse_format,
)
from qspinn.networks import STDP, DiehlCook, DiehlCookSettings
from qspinn.stdp import encoding, numbers
from qspinn.stdp.constants import bounds, constants, wide
from tests.reference import splitmix
from tests.reference.plastic_network import FloatNetwork, PlasticNetwork, Word

ROUNDINGS = ("truncate", "nearest", "toward_zero", "nearest_even", "nearest_away", "stochastic")
INPUTS, NEURONS, STEPS = 6, 4, 30

# Six inputs make few and large currents: a threshold that they reach, and inhibition to match.
LIVELY: dict[str, Any] = {
    "threshold": -63.0,
    "reset": -64.5,
    "inhibition": 3.0,
    "theta_plus": 0.3,
    "theta_tau": 500.0,
    "theta_max": 20.0,
    "refractory": 2,
    "max_rate": 300.0,
}
PLASTIC: dict[str, Any] = {
    "rate_pre": 0.02,
    "rate_post": 0.1,
    "trace_target": 0.2,
    "weight_sum": 2.5,
}

PURPOSES = {
    "membrane": numbers.MEMBRANE,
    "trace_pre": numbers.TRACE_PRE,
    "trace_post": numbers.TRACE_POST,
    "pre": numbers.PRE,
    "post": numbers.POST,
    "theta": numbers.THETA,
    "norm": numbers.NORM,
    "theta_decay": numbers.THETA_DECAY,
}


def lively(backend: str = "reference", seed: int = 0, **changes: Any) -> DiehlCook:
    """A network of 6 inputs and 4 neurons that spikes and learns; its weights differ by seed."""
    settings = DiehlCookSettings(**{**LIVELY, **_of(DiehlCookSettings, changes)})
    stdp = STDP(**{**PLASTIC, **_of(STDP, changes)})
    others = {name: changes.pop(name) for name in ("neurons", "time_steps") if name in changes}
    assert not set(changes) - set(settings.__dict__) - set(stdp.__dict__)
    sizes = {"neurons": NEURONS, "time_steps": STEPS, **others}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DiehlCook((INPUTS,), **sizes, settings=settings, stdp=stdp, backend=backend)


def _of(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: x for name, x in values.items() if name in kind.__dataclass_fields__}


def images(count: int = 4, seed: int = 0, inputs: int = INPUTS) -> Tensor:
    """[count, inputs] in [0, 1]; a fifth of them 0."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(count, inputs, generator=generator)
    return drawn * (torch.rand(count, inputs, generator=generator) > 0.2)


def quantizers(
    network: DiehlCook,
    word_length: int = 8,
    rounding: str = "nearest",
    overflow: str = "saturate",
    **changes: Any,
) -> dict[str, TensorQuantizer]:
    """Every tensor with so many bits that cover what it holds.

    ``changes`` replace them by name: a format, a word length, or a dict of what differs.
    """
    settings, stdp = network.settings, network.stdp
    held = {}
    for name in (*constants(settings, stdp), *bounds(settings, stdp)):
        as_wide = wide(name, settings, stdp)
        change = changes.pop(name, {})
        if not isinstance(change, dict):
            change = {"format": change}
        fmt = change.pop("format", word_length)
        if isinstance(fmt, int):
            fmt = shortened(as_wide.format, fmt)
        elif isinstance(fmt, str):
            fmt = parse_format(fmt)
        kept = {"rounding": rounding, "overflow": overflow, **change}
        held[name] = replace(as_wide, path=f"net.{name}", format=fmt, **kept)
    assert not changes
    return held


def shortened(fmt: Format, word_length: int) -> FixedPointFormat:
    """The same range in so many bits."""
    assert isinstance(fmt, FixedPointFormat)
    fraction = word_length - int(fmt.signed) - fmt.integer_bits
    return FixedPointFormat(fmt.integer_bits, fraction, fmt.signed)


def twin_of(network: DiehlCook, held: Mapping[str, TensorQuantizer] | None) -> PlasticNetwork:
    """The twin of a network that has not been shown anything, with its weights on their grids.

    Where these are stored with random rounding, the network is brought to its grid first.
    """
    draw, choose = _draws_of(network)
    arguments = (network.settings, network.stdp, network.time_steps)
    if held is None:
        floating = FloatNetwork(*arguments, {}, 0, 0, draw, choose)
        floating.weight = [[np.float32(w) for w in row] for row in network.weight.tolist()]
        floating.theta = [np.float32(x) for x in network.theta.tolist()]
        floating.turns = network.turns.tolist()
        return floating
    words: dict[str, Any] = {n: _word(q, q.format) for n, q in held.items() if n != "weight"}
    words["weight"] = [_word(held["weight"], f) for f in _formats(held["weight"].format, network)]
    weight: Any = network.numbers().weight
    twin = PlasticNetwork(*arguments, words, weight.spare, weight.fine, draw, choose)
    if held["weight"].rounding == "stochastic":  # the twin does not know that draw
        network.present(images(0), learning=True)
    rows = network.weight.tolist()
    twin.weight = [[_stored(words["weight"][j], w) for j, w in enumerate(row)] for row in rows]
    twin.theta = [_stored(words["theta"], x) for x in network.theta.tolist()]
    twin.turns = network.turns.tolist()
    return twin


def codes_of(network: DiehlCook) -> tuple[Tensor, Tensor]:
    """Weights ``[inputs, neurons]`` and thetas as a device would store them."""
    black = torch.zeros(1, *network.input_shape)
    tensors = network.device_operations(black)["tensors"]
    return tensors["weight"][0].T, tensors["theta"][0]


def _formats(fmt: Format, network: DiehlCook) -> tuple[FixedPointFormat, ...]:
    return fmt.formats if isinstance(fmt, PerChannelFormat) else (fmt,) * network.neurons


def _word(held: TensorQuantizer, fmt: Any) -> Word:
    return Word(fmt.integer_bits, fmt.fraction_bits, fmt.signed, held.rounding, held.overflow)


def _stored(word: Word, value: float) -> Fraction:
    """As a float is brought to its grid when it is first used."""
    exact = Fraction(value)
    if word.rounding == "stochastic":
        assert (exact / word.step).denominator == 1
        return word.limited(exact)
    bits = max((exact / word.step).denominator.bit_length() - 1, 0)
    return word.limited(word.rounded(exact, bits, lambda: 0))


# From the number of neurons and a place to a counter, and the turn in the evenly spread draws.
_COUNTED: dict[str, Any] = {
    "membrane": lambda neurons, t, j: (t, j),
    "trace_pre": lambda neurons, t, i: (i, t),
    "trace_post": lambda neurons, t, j: (j, t),
    "theta": lambda neurons, t, j: (t * neurons + j, 0),
    "theta_decay": lambda neurons, j: (j, 0),
    "pre": lambda neurons, t, i, j: (t * neurons + j, i),
    "post": lambda neurons, i, j: (i * neurons + j, 0),
    "norm": lambda neurons, i, j: (i * neurons + j, 0),
}


def _draws_of(network: DiehlCook) -> Any:
    """Random bits by purpose, presentation and place, from an independent SplitMix64."""
    root = splitmix.stream(int(network.seed), numbers.TRAINING)
    lasting = splitmix.stream(int(network.seed), numbers.LASTING)

    def key_of(presentation: int, purpose: int) -> int:
        return splitmix.stream(splitmix.nth(root, presentation), purpose)

    def draw(purpose: str, n: int, place: tuple[int, ...]) -> int:
        counter, turn = _COUNTED[purpose](network.neurons, *place)
        if purpose in ("post", "norm"):  # of a synapse, at its n-th update
            key, turn = splitmix.stream(lasting, PURPOSES[purpose]), n
        else:
            key = key_of(n, PURPOSES[purpose])
        return (splitmix.nth(key, counter) + turn * splitmix.GAMMA) % 2**64

    def choose(presentation: int, t: int, count: int) -> int:
        if count == 1:
            return 0
        random = splitmix.nth(key_of(presentation, numbers.WINNER), t) >> 32
        return random * count >> 32

    return draw, choose


def input_spikes(network: DiehlCook, shown: Tensor) -> list[list[list[int]]]:
    """The inputs that spike in each step of each of the next presentations, [M][T]."""
    p = encoding.spike_probabilities(shown.flatten(1), network.settings.max_rate)
    first = int(network.presentations)
    keys = encoding.training_keys(int(network.seed), first, len(shown), p.device)
    spikes = encoding.poisson_spikes(p, keys, network.time_steps)
    return [[row.nonzero()[:, 0].tolist() for row in one] for one in spikes.unbind(1)]
