"""Weights and theta between presentations: numbers of their grids in float32, or codes."""

from __future__ import annotations

import torch
from torch import Tensor

from qspinn.fixed_point import Format, PerChannelFormat, Quantizer, stored


def codes_of(value: Tensor, quantizer: Quantizer) -> Tensor:
    """The codes in which a tensor is held, int64.

    What learning left lies on the grid. What does not is brought there: what a device has stored
    is one draw.

    Args:
        value: ``[inputs, neurons]`` or ``[neurons]``, float32.
        quantizer: How it is held; a format per channel lies along the last axis.
    """
    scale = _scale(quantizer.format, value.device)
    scaled = value * scale.to(value.dtype)  # by powers of two, so exact
    codes = scaled.round()
    fmt = quantizer.format
    off = (float(end) for end in scaled.sub_(codes).aminmax())  # NaN where there are any
    lowest, highest = (float(end) for end in codes.aminmax())
    if all(end == 0 for end in off) and fmt.code_min <= lowest and highest <= fmt.code_max:
        return codes.to(torch.int32).to(torch.int64)  # in two steps, which takes half the time
    return (stored(quantizer, value.double()) * scale).round_().to(torch.int64)


def numbers_of(codes: Tensor, quantizer: Quantizer) -> Tensor:
    """The numbers of codes of up to 24 bits, float32; the inverse of :func:`codes_of`."""
    return codes.float().div_(_scale(quantizer.format, codes.device).float())


def _scale(fmt: Format, device: torch.device) -> Tensor:
    """Codes per unit."""
    bits = fmt.fraction_bits
    exponents = torch.tensor(bits if isinstance(fmt, PerChannelFormat) else [bits])
    return torch.ldexp(torch.ones(len(exponents), dtype=torch.float64), exponents).to(device)
