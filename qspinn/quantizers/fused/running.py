"""What the kernels are given: the constants of a layer as arrays and numbers of NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from qspinn.fixed_point import FixedPointFormat, TensorQuantizer
from qspinn.fixed_point.noise import Draws
from qspinn.fixed_point.rounding import ROUNDINGS
from qspinn.plan.surrogates import constants_of
from qspinn.quantizers.charge import Firing
from qspinn.quantizers.fused.constants import F32, Charging, Grid
from qspinn.quantizers.fused.sequence import Run
from qspinn.quantizers.fused.tables import LARGEST, Fires, tables_of
from qspinn.steps.lowering import LeakyNumbers

__all__ = ["run_of"]

_WORD = (1 << 64) - 1


def run_of(
    node: Any,
    state: TensorQuantizer,
    kind: int,
    n: LeakyNumbers,
    firing: Firing,
    shape: torch.Size,
    double: bool,
) -> Run | None:
    """What the kernels are given.

    Args:
        node: The neurons.
        state: How their potentials are held.
        kind: Of the charge.
        n: Its constants, as real numbers.
        firing: How they fire.
        shape: Of the potentials.
        double: Whether the charge is computed in float64.

    Returns:
        None where tables of gradients would be too large, or where the surrogate function does not
        spike exactly where a threshold is reached.
    """
    fmt = state.format
    assert isinstance(fmt, FixedPointFormat)
    leak, thresholds, rows = _by_row(n.leak, firing.threshold, shape)
    known = constants_of(node.surrogate_function)
    wraps = state.overflow == "wrap"
    fires = Fires(
        *(fmt.code_min, fmt.code_max, fmt.step, wraps, firing.reset, firing.detach_reset),
        *(known, node.surrogate_function),
    )
    thresholds = thresholds.float()
    if fires.codes * len(thresholds) > LARGEST:
        return None
    tables = tables_of(fires, thresholds)
    if tables is None:
        return None
    of = np.float64 if double else F32
    reset = 0.0 if firing.reset is None else firing.reset
    return Run(
        Charging(kind, of(n.rest), firing.reset is None, F32(reset), fires.codes),
        _grid(state, fmt, of, wraps),
        leak.numpy().astype(of, copy=False),
        thresholds.numpy(),
        rows,
        tables,
        state.draws,
    )


def _grid(state: TensorQuantizer, fmt: FixedPointFormat, of: Any, wraps: bool) -> Grid:
    draws = state.draws or Draws(0)
    span = fmt.step * 2.0**fmt.word_length if wraps else 0.0
    return Grid(
        *(of(fmt.scale), F32(fmt.step), F32(fmt.code_min), F32(fmt.code_max), of(span)),
        *(ROUNDINGS.index(state.rounding), np.uint64(draws.key & _WORD), draws.drawn),
    )


def _by_row(
    leak: float | Tensor, threshold: float | Tensor, shape: torch.Size
) -> tuple[Tensor, Tensor, np.ndarray[Any, Any]]:
    """Leaks and thresholds as lists, ``[1]`` or ``[R]``, and which of R each neuron has."""
    constants = [torch.as_tensor(one, dtype=_type_of(one)).detach() for one in (leak, threshold)]
    common = torch.broadcast_shapes(*(one.shape for one in constants if one.numel() > 1))
    held = [
        one.reshape(1) if one.numel() == 1 else one.expand(common).reshape(-1) for one in constants
    ]
    rows = np.empty(0, np.int32)
    if common.numel() > 1:
        each = torch.arange(common.numel(), dtype=torch.int32).view(common)
        rows = each.expand(shape).reshape(-1).numpy()
    return held[0], held[1], rows


def _type_of(constant: float | Tensor) -> torch.dtype:
    return constant.dtype if isinstance(constant, Tensor) else torch.float64
