"""What a device needs to go on learning, in plain data, by the protocol of `qspinn.plan`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qspinn.fixed_point import Quantizer
from qspinn.fixed_point.random_bits import root
from qspinn.stdp.job import lasting_keys
from qspinn.stdp.numbers import (
    PRE,
    THETA,
    THETA_DECAY,
    TRACE_POST,
    TRACE_PRE,
    TRAINING,
    Numbers,
    TraceNumbers,
)
from qspinn.stdp.settings import STDP


def device_learning(
    stdp: STDP,
    quantizers: Mapping[str, Quantizer],
    numbers: Numbers,
    turns: Tensor,
    presentations: int,
    seed: int,
) -> dict[str, Any]:
    """The learning rule of the network.

    Args:
        stdp: Of the plasticity.
        quantizers: Name of a tensor -> how it is held.
        numbers: What is computed with, in fixed point.
        turns: How often the weights to each neuron were updated, ``[neurons]``.
        presentations: How many images it has learned from.
        seed: Of all random draws.

    Raises:
        ValueError: Presentations that share their weights, which a device shows one by one.
    """
    if stdp.parallel != 1:
        raise ValueError(
            f"stdp.parallel={stdp.parallel}: a device is shown one image after the other, and "
            "would learn something else; train with stdp.parallel=1, or export without learning"
        )
    held, weight, theta = quantizers, numbers.weight, numbers.theta
    update, scale = lasting_keys(seed, torch.device("cpu")).tolist()
    joint, scales = stdp.joint, stdp.weight_sum is not None
    return {
        "weight": {
            **{"spare": weight.spare, "fine": weight.fine, "gain_down": weight.gain_down},
            "target": int(weight.trace_target),
            "maximum": _each(weight.maximum),
            "total": _each(weight.sum),
            "rate_pre": _each(weight.rate_pre),
            "rate_post": _each(weight.rate_post),
            **_rounding(held["weight"]),
        },
        "theta": {
            **{"plus": int(theta.plus), "keep": int(theta.keep), "bits": theta.bits},
            **_rounding(held["theta"]),
        },
        "trace_pre": _trace(numbers.pre, held["trace_pre"]),
        "trace_post": _trace(numbers.post, held["trace_post"]),
        "normalise": "update" if joint else "presentation" if scales else "none",
        "deferred": stdp.update == "deferred",
        "key": int(root(seed, TRAINING, torch.device("cpu"))),
        "update_key": update,
        "scale_key": scale,
        "draws": (TRACE_PRE, TRACE_POST, PRE, THETA, THETA_DECAY),
        "presentations": presentations,
        "turns": tuple(turns.tolist()),
    }


def _each(values: np.ndarray) -> tuple[int, ...]:
    """One number for each neuron, or one for all where they are equal."""
    found = tuple(values.tolist())
    return found[:1] if len(set(found)) == 1 else found


def _rounding(quantizer: Quantizer) -> dict[str, str]:
    return {"rounding": quantizer.rounding, "overflow": quantizer.overflow}


def _trace(n: TraceNumbers, quantizer: Quantizer) -> dict[str, Any]:
    numbers = {"keep": int(n.keep), "down": n.down, "one": int(n.one)}
    return {"state": quantizer.format, **numbers, **_rounding(quantizer)}
