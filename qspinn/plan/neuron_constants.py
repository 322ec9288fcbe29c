"""The numbers that a neuron computes with: its threshold, its leak, its reset potential."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

# With a threshold of at least this a neuron never fires: it is a readout.
_NEVER = 2.0**40


def stated_threshold(module: nn.Module) -> float | Tensor | None:
    """The neuron's ``v_threshold``, of any type; reads no value, and so does not wait for a GPU."""
    return _number_or_tensor(getattr(module, "v_threshold", None))


def threshold_of(module: nn.Module) -> float | Tensor | None:
    """What the neuron fires at: one number, or a tensor; ``None`` where it never fires."""
    value = stated_threshold(module)
    if value is None or bool(torch.as_tensor(value).min() >= _NEVER):
        return None
    return value


def has_threshold(module: nn.Module) -> bool:
    """Whether the neuron fires at a threshold: one number, or one for each of its parts."""
    return threshold_of(module) is not None


def leak_of(module: nn.Module) -> float | Tensor:
    """The factor ``1/tau`` of a LIF or PLIF neuron or of a synapse filter.

    A tensor where it is learned (``sigmoid(w)``), or one for each part of the layer.
    """
    node: Any = module
    if isinstance(node, neuron.ParametricLIFNode) or getattr(node, "learnable", False):
        learned: Tensor = node.w.sigmoid()
        return learned
    tau = _number_or_tensor(node.tau)
    assert tau is not None  # refused_constant() has checked it
    # In float64, as Python divides: the nearest grid number must not depend on float32.
    return 1.0 / tau.double() if isinstance(tau, Tensor) else 1.0 / tau


def reset_of(module: nn.Module) -> float | None:
    """The potential after a spike; ``None`` for a soft reset."""
    value: Any = getattr(module, "v_reset", None)
    return None if value is None else float(value)


def refused_constant(module: nn.Module) -> str | None:
    """Which of its constants has no exact step, in words."""
    reset: Any = getattr(module, "v_reset", None)
    if isinstance(reset, Tensor) and (reset.numel() != 1 or reset.requires_grad):
        return "has a tensor as its v_reset, where one number is supported"
    for name in ("v_threshold", "tau"):
        value = getattr(module, name, None)
        if value is not None and _number_or_tensor(value) is None:
            return f"has a {type(value).__name__} as its {name}"
    threshold = threshold_of(module)
    if threshold is not None and not bool((torch.as_tensor(threshold).abs() < _NEVER).all()):
        return "has values in its v_threshold that are not finite, or beyond any format"
    return None


def parameters_behind(module: nn.Module, values: tuple[object, ...]) -> frozenset[str]:
    """The names of the module's own parameters and buffers that only give these values.

    A device stores the threshold itself, not the parameter that training computes it from.
    """
    leaves = {id(leaf) for value in values if isinstance(value, Tensor) for leaf in _leaves(value)}
    held = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return frozenset(name for name, tensor in held if id(tensor) in leaves)


def _leaves(value: Tensor) -> list[Tensor]:
    found, seen = [value], set()
    waiting = [] if value.grad_fn is None else [value.grad_fn]
    while waiting:
        function: Any = waiting.pop()
        if function in seen:
            continue
        seen.add(function)
        if hasattr(function, "variable"):
            found.append(function.variable)
        waiting += [one for one, _ in function.next_functions if one is not None]
    return found


def _number_or_tensor(value: object) -> float | Tensor | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, Tensor):
        if value.dtype == torch.bool or value.is_complex():
            return None
        return value if value.is_floating_point() else value.float()
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return float(value)
    return float(value) if isinstance(value, Real) else None
