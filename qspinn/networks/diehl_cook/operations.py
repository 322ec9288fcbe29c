"""What a device computes of the network when it classifies, by the protocol of `qspinn.plan`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from qspinn.fixed_point import (
    FixedPointFormat,
    Format,
    PerChannelFormat,
    Quantizer,
    stored_constant,
    to_integers,
)
from qspinn.fixed_point.random_bits import root
from qspinn.stdp.constants import constants
from qspinn.stdp.encoding import spike_probabilities
from qspinn.stdp.numbers import EVALUATION, INPUT, MEMBRANE, WINNER
from qspinn.stdp.settings import STDP, DiehlCookSettings
from qspinn.steps.random_spikes import PROBABILITY_BITS, SpikeNumbers, probabilities_of

PIXELS = FixedPointFormat(0, 8, signed=False)
"""Of inputs: bytes k stand for k / 256."""
LONGEST_SHIFT = 40
INFERENCE_CONSTANTS = ("threshold", "reset", "inhibition", "leak")


def device_operations(
    settings: DiehlCookSettings,
    stdp: STDP,
    quantizers: Mapping[str, Quantizer],
    weight: Tensor,
    theta: Tensor,
    steps: int,
    seed: int,
) -> dict[str, Any]:
    """The network from pixels to spike counts.

    Args:
        settings: Of the neurons.
        stdp: Of the plasticity, which only names constants here.
        quantizers: Name of a tensor -> how it is held.
        weight: Codes ``[inputs, neurons]``.
        theta: Codes ``[neurons]``.
        steps: T.
        seed: Of all random draws.
    """
    inputs, neurons = weight.shape
    multiplier, down = proportion(settings.max_rate)
    v = quantizers["v"]
    stored = {
        name: _constant(quantizers[name], value)
        for name, value in constants(settings, stdp).items()
        if name in INFERENCE_CONSTANTS
    }
    operations = [
        {"name": "input", "what": "input", "takes": [], "shape": (inputs,), "format": PIXELS},
        {
            **{"name": "spikes", "what": "randomspikes", "takes": ["input"], "shape": (inputs,)},
            **{"multiplier": multiplier, "down": down, "draws": INPUT},
            "key": int(root(seed, EVALUATION, torch.device("cpu"))),
        },
        {
            **{"name": "current", "what": "synapse", "takes": ["spikes"], "shape": (neurons,)},
            "weight": "weight",
        },
        {
            **{"name": "neurons", "what": "adaptiveneuron", "takes": ["current", "spikes"]},
            **{"shape": (neurons,), "theta": "theta"},
            **{name: name for name in INFERENCE_CONSTANTS},
            **{"state": v.format, "rounding": v.rounding, "overflow": v.overflow},
            **{"refractory": settings.refractory, "delay": settings.inhibition_delay},
            **{"one_winner": settings.one_winner, "draws": (MEMBRANE, WINNER)},
        },
        {
            **{"name": "counts", "what": "total", "takes": ["neurons"], "shape": (neurons,)},
            "state_word_length": 0,  # a result, as a footprint sees it: no state of a neuron
        },
    ]
    return {
        "steps": steps,
        "frame_stride": 0,
        "tensors": {
            "weight": (weight.T.contiguous(), _by_row(quantizers["weight"].format)),
            "theta": (theta, quantizers["theta"].format),
            **stored,
        },
        "operations": operations,
        "answers": "counts",
    }


def proportion(max_rate: float) -> tuple[int, int]:
    """What a pixel is multiplied by, and how far the product is shifted, to give a probability.

    Every pixel gets exactly the probability that `spike_probabilities` gives it.

    Raises:
        ValueError: No such numbers exist.
    """
    codes = torch.arange(PIXELS.code_max + 1)
    wanted = spike_probabilities(codes[None] / 256.0, max_rate)
    for down in range(LONGEST_SHIFT):
        exact = max_rate * 1e-3 * 2.0 ** (PROBABILITY_BITS + down - PIXELS.fraction_bits)
        for multiplier in (math.floor(exact), math.ceil(exact)):
            n = SpikeNumbers(multiplier, down, 0, 0, 0)
            if torch.equal(probabilities_of(codes[None], n), wanted):
                return multiplier, down
    raise ValueError(
        f"max_rate={max_rate}: no whole multiplier gives the probabilities of all 256 pixels; "
        "write another rate, such as 128"
    )


def check_example(example: Tensor, input_shape: tuple[int, ...]) -> None:
    """Refuses what is no image of bytes."""
    if tuple(example.shape[1:]) != input_shape:
        raise ValueError(
            f"example {list(example.shape)}: write one image, {[1, *input_shape]}, such as the "
            "network takes"
        )
    codes = example * 2.0**PIXELS.fraction_bits
    if not bool(((codes == codes.floor()) & (codes >= 0) & (codes <= PIXELS.code_max)).all()):
        raise ValueError(
            "a device takes pixels as bytes, where k stands for k / 256; give images with such "
            "values, as the data modules here have them"
        )


def _constant(quantizer: Quantizer, value: float) -> tuple[Tensor, Format]:
    kept = stored_constant(value, quantizer.format, quantizer.rounding)
    return to_integers(torch.tensor(kept, dtype=torch.float64), quantizer.format), quantizer.format


def _by_row(fmt: Format) -> Format:
    """The format of weights ``[neurons, inputs]``, of which each neuron's have one."""
    if isinstance(fmt, PerChannelFormat):
        return replace(fmt, axis=0)
    return fmt
