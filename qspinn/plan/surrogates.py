"""What the surrogate function of a spiking neuron answers: 0 and 1, or other numbers as well."""

from __future__ import annotations

import math
from typing import Any

import torch
from spikingjelly.activation_based import surrogate
from torch import Tensor, nn

_NEARLY = 1e-4
# Answers of SpikingJelly's own functions, which are asked hundreds of times in a training.
_KNOWN: dict[object, bool] = {}
_MOST = 1000
_METHODS = ("__call__", "forward", "spiking_function", "primitive_function")


def fires_binary(module: nn.Module) -> bool:
    """Whether a neuron's surrogate function answers 0 or 1, up to a float's rounding.

    ``hard + (soft - soft.detach())`` and its like miss 0 and 1 by some last bits.
    """
    function: Any = getattr(module, "surrogate_function", None)
    if function is None:
        return True
    key = constants_of(function)
    if key is None:
        return nearly_binary(_answer(module, function))
    if key not in _KNOWN:
        if len(_KNOWN) >= _MOST:
            _KNOWN.clear()
        _KNOWN[key] = nearly_binary(_answer(module, function))
    return _KNOWN[key]


def nearly_binary(values: Tensor) -> bool:
    """Whether all values are 0 or 1, up to a float's rounding."""
    whole = values.round()
    near = (values - whole).abs() <= _NEARLY
    return bool((near & ((whole == 0) | (whole == 1))).all())


def constants_of(function: object) -> object | None:
    """All that a function's answer depends on; ``None`` where that is not known.

    It is for a function of SpikingJelly that holds nothing but plain constants: no tensor, no hook,
    and nothing that was put in place of a method.
    """
    kind = type(function)
    if kind.__module__ != surrogate.__name__:
        return None
    constants = []
    for name, value in vars(function).items():
        if isinstance(value, bool | int | float | str | None) or _is_names(value):
            constants.append((name, type(value), value))
        elif not (isinstance(value, dict | set) and not value):
            return None
    return kind, *(getattr(kind, name, None) for name in _METHODS), *constants


def _is_names(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(one, str) for one in value)


def _answer(module: nn.Module, function: Any) -> Tensor:
    """What the function answers to numbers below, at and above the threshold."""
    values = torch.tensor([-9.0, -1.3, -0.25, -1e-6, 0.0, 1e-6, 0.25, 0.3, 1.1, 2.7, 9.0])
    for shape in ((-1, 1), (-1, 1, 1, 1)):
        probe = values.reshape(shape).to(_device_of(module))
        try:
            # A surrogate may draw random numbers; a look at it must not move the generator.
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                answer: Tensor = function(probe)
            return answer.float()
        except Exception:
            continue
    return torch.tensor([math.nan])


def _device_of(module: nn.Module) -> torch.device:
    held = (*module.parameters(), *module.buffers())
    return held[0].device if held else torch.device("cpu")
