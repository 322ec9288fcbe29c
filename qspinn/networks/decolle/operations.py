"""What a device computes of DECOLLE when it classifies, by the protocol of `qspinn.plan`."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from qspinn.fixed_point import FixedPointFormat, Format, to_integers
from qspinn.networks.decolle.declaration import SCORE_BITS
from qspinn.networks.decolle.fixed_point import FixedPoint
from qspinn.networks.decolle.layer import DecolleLayer

Operations = list[dict[str, Any]]
Stored = dict[str, tuple[Tensor, Format]]
SPIKES = FixedPointFormat(1, 0, signed=False)


def input_operation(
    layer: DecolleLayer, coding: str, input_max: float, is_sequence: bool
) -> dict[str, Any]:
    """What the first layer takes of a value.

    Raises:
        ValueError: An input that is drawn anew at each step of an image that stays.
    """
    shape = layer.shape.inputs
    operation: dict[str, Any] = {"name": "input", "what": "input", "takes": [], "shape": shape}
    if coding == "bernoulli":  # the spikes are drawn before, from torch's generator
        return {**operation, "format": SPIKES}
    if coding == "binary":
        return {**operation, "format": SPIKES, "is_positive": True}
    bounds = (Fraction(0), Fraction(input_max))
    if coding == "counts":
        fmt = FixedPointFormat(int(input_max).bit_length(), 0, signed=False)
        return {**operation, "format": fmt, "rounding": "truncate", "bounds": bounds}
    held = _fixed(layer).quantizers["input"]
    if held.rounding == "stochastic" and not is_sequence:
        raise ValueError(
            f"{held.path}: stochastic rounding draws anew at each step of an image that stays, of "
            "which a device is given one code; write 'nearest' for inputs"
        )
    return {**operation, **_state(held, "format"), "bounds": bounds}


def layer_operations(layer: DecolleLayer, path: str, source: str) -> tuple[Operations, str]:
    """The operations of a layer, and which of them its spikes are.

    Args:
        layer: In fixed point.
        path: Of the layer.
        source: What it takes.
    """
    shape, held = layer.shape, _fixed(layer).quantizers
    names = {
        name: f"{path}.{name}"
        for name in ("p", "q", "r", "u", "weight", "bias", "threshold", "refractory")
    }
    size: dict[str, Any] = {"shape": shape.neurons}
    kernel: dict[str, Any] = {}
    if shape.kernel_size is not None:
        padding = (shape.kernel_size // 2,) * 2
        kernel = {"stride": (shape.stride,) * 2, "padding": (padding,) * 2, "dilation": (1, 1)}
        kernel["taken"] = shape.inputs
    fired = f"{path}.fired"
    operations: Operations = [
        _trace(held, path, "p", [(names["q"], 1)], shape.traces),
        _trace(held, path, "q", [source], shape.traces),
        {
            **{"name": f"{path}.current", "what": "synapse", "takes": [names["p"]], **size},
            **{"weight": names["weight"], "bias": names["bias"], **kernel},
        },
        {
            **{"name": f"{path}.above", "what": "arithmetic", **size},
            **{"kind": "add", "takes": [f"{path}.current", (names["r"], 1)], "signs": (1, -1)},
        },
        {
            **{"name": names["u"], "what": "round", "takes": [f"{path}.above"], **size},
            **_state(held["u"], "format"),
        },
        {
            **{"name": fired, "what": "compare", "takes": [names["u"]], **size},
            "threshold": names["threshold"],
        },
        {**_trace(held, path, "r", [fired], shape.neurons), "gain": names["refractory"]},
    ]
    if shape.pool == 1:
        return operations, fired
    sides = (shape.pool,) * 2
    window = {"size": shape.neurons[1:], "kernel": sides, "stride": sides, "padding": (0, 0)}
    pooled = {"name": f"{path}.pooled", "what": "pooling", "kind": "max", "window": window}
    operations.append({**pooled, "takes": [fired], "shape": shape.spikes})
    return operations, f"{path}.pooled"


def layer_tensors(layer: DecolleLayer, path: str) -> Stored:
    """What a device stores of a layer."""
    fixed = _fixed(layer)
    names = ["weight", "bias", *(["readout"] if layer.is_last else [])]
    values = {
        name: fixed.stored(name, getattr(layer, name).detach(), training=False) for name in names
    }
    values |= {
        name: torch.tensor(value, dtype=torch.float64) for name, value in fixed.constants.items()
    }
    found = {}
    for name, value in values.items():
        fmt = fixed.quantizers[name].format
        found[f"{path}.{name}"] = to_integers(value.detach(), fmt), fmt
    return found


def readout_operations(path: str, spikes: str, classes: int, burn_in: int) -> Operations:
    """The readout of the last layer, and the sums of what it says after the burn-in."""
    shape = {"shape": (classes,)}
    readout, scores = f"{path}.readout", f"{path}.scores"
    return [
        {"name": readout, "what": "synapse", "takes": [spikes], "weight": readout, **shape},
        {
            **{"name": scores, "what": "total", "takes": [readout], "first": burn_in, **shape},
            "state_word_length": SCORE_BITS,
        },
    ]


def _fixed(layer: DecolleLayer) -> FixedPoint:
    layer.follow_weights()
    if layer._fixed is None:
        raise ValueError("a layer computes in 32-bit floating point; attach quantizers first")
    return layer._fixed


def _state(quantizer: Any, name: str) -> dict[str, Any]:
    return {
        name: quantizer.format,
        "rounding": quantizer.rounding,
        "overflow": quantizer.overflow,
    }


def _trace(
    held: Mapping[str, Any], path: str, name: str, takes: list[Any], shape: tuple[int, ...]
) -> dict[str, Any]:
    return {
        **{"name": f"{path}.{name}", "what": "trace", "takes": takes, "shape": shape},
        **{"leak": f"{path}.leak_{name}", **_state(held[name], "state")},
    }
