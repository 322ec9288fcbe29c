"""The integers that a device stores of a quantised module."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qspinn.fixed_point import Format, to_integers
from qspinn.plan import layers_of
from qspinn.plan.neurons import evaluation_mode
from qspinn.quantizers.attach import plan_of, quantized_parameters
from qspinn.quantizers.class_swap import attached_quantizer
from qspinn.quantizers.neuron_quantizer import NeuronQuantizer


@dataclass(frozen=True)
class IntegerCodes:
    """One tensor as a device stores it.

    Attributes:
        codes: Whole numbers; :func:`qspinn.fixed_point.from_integers` gives their values,
            code times step.
        format: Of the tensor, with one step, or one per channel.
    """

    codes: Tensor
    format: Format


def integer_codes(module: nn.Module) -> dict[str, IntegerCodes]:
    """Tensor path -> codes and format of all that a quantised module stores.

    These are weights and biases (batch norm folded), thresholds, leak factors, and
    what modules declare with a value; states and inputs are computed, not stored.

    Args:
        module: With quantizers attached.

    Raises:
        TypeError: Not a module.
        ValueError: A module without quantizers.
    """
    plan = plan_of(module)
    formats = {tensor.path: tensor.format for tensor in plan.tensors}
    with evaluation_mode(module):  # while it trains, stochastic roundings are drawn anew
        values = dict(quantized_parameters(module)) | _constants(module)
    found = {}
    for path, value in values.items():
        fmt = formats.get(path)
        if fmt is not None:  # else it stays in float
            found[path] = IntegerCodes(to_integers(value.detach(), fmt), fmt)
    return found


def _constants(module: nn.Module) -> dict[str, Tensor]:
    """Thresholds and leak factors, on their grids."""
    found: dict[str, Tensor] = {}
    for path, child in layers_of(module):
        quantizer = attached_quantizer(child)
        if not isinstance(quantizer, NeuronQuantizer):
            continue
        prefix = f"{path}." if path else ""
        with torch.no_grad():
            if quantizer.threshold is not None:
                found[f"{prefix}v_threshold"] = _tensor(quantizer.threshold_of(child))
            if quantizer.decay is not None:
                found[f"{prefix}decay"] = _tensor(quantizer.decay_of(child))
    return found


def _tensor(value: float | Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
