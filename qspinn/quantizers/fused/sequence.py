"""A whole sequence of a layer of neurons as one operation of autograd."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qspinn.fixed_point.noise import Draws
from qspinn.quantizers.fused.backward import backward
from qspinn.quantizers.fused.constants import Charging, Grid
from qspinn.quantizers.fused.forward import forward

__all__ = ["Run", "stepped"]

ENOUGH = 1 << 18
"""How many values a thread is worth."""
_NOTHING = np.empty((0, 0), np.uint16)


@dataclass
class Run:
    """What the kernels are given besides the sequence.

    Attributes:
        charging: How potentials charge, fire and are reset.
        grid: Their grid.
        leak: ``[1]`` or ``[R]``, of the type that the charge is computed in.
        thresholds: float32 ``[1]`` or ``[R]``.
        rows: int32 ``[M]``, which of R constants a neuron has; or ``[0]``.
        tables: float32 ``[5, K]``.
        draws: Those of a stochastic rounding.
        numbers: Whether all that was computed were numbers; if not, the results are of no use.
    """

    charging: Charging
    grid: Grid
    leak: np.ndarray[Any, Any]
    thresholds: np.ndarray[Any, Any]
    rows: np.ndarray[Any, Any]
    tables: Tensor
    draws: Draws | None
    numbers: bool = True


def stepped(
    run: Run, x: Tensor, v: Tensor, leak: Tensor | None, threshold: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Steps through a sequence.

    Args:
        run: Constants.
        x: Currents ``[T, N, *]``, float32 or float64.
        v: Potentials before the first step, float32 ``[N, *]``.
        leak: Where its gradient is wanted; broadcasts to `v`.
        threshold: Likewise.

    Returns:
        Spikes, float32 ``[T, N, *]``, and the potentials after the last step, float32 ``[N, *]``.
    """
    given = [one for one in (x, v, leak, threshold) if one is not None]
    if torch.is_grad_enabled() and any(one.requires_grad for one in given):
        made: tuple[Tensor, Tensor] = _Stepped.apply(run, x, v, leak, threshold)
        return made
    spikes, last, _ = _forward(run, x, v, keeps=False)
    return spikes, last


def _forward(run: Run, x: Tensor, v: Tensor, keeps: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Spikes, the last potentials, and the codes of the charged potentials, if they are to be kept.

    Codes of 16 bits are those of an unsigned number, which torch has few operations for.
    """
    x, v = x.detach().contiguous(), v.detach().contiguous()
    spikes = torch.empty(x.shape, dtype=torch.float32)
    last = torch.empty(v.shape, dtype=torch.float32)
    codes, noted = None, _NOTHING
    if keeps:
        codes = torch.empty(x.shape, dtype=_code_type(run.charging.codes))
        noted = _flat(codes)
    found = _spread(
        forward,
        *(x[0].numel(), x.numel()),
        *(run.charging, run.grid, _flat(x), v.numpy().reshape(-1), run.leak, run.thresholds),
        *(run.rows, _flat(spikes), last.numpy().reshape(-1), noted),
    )
    run.numbers = all(found)
    return spikes, last, codes


def _spread(kernel: Any, neurons: int, values: int, *arguments: Any) -> list[Any]:
    """Calls a kernel on all neurons, on as many threads as torch uses."""
    threads = min(torch.get_num_threads(), max(1, values // ENOUGH))
    if threads == 1:
        return [kernel(0, neurons, *arguments)]
    share = -(-neurons // threads)
    with ThreadPoolExecutor(threads) as pool:
        parts = [
            pool.submit(kernel, begin, min(begin + share, neurons), *arguments)
            for begin in range(0, neurons, share)
        ]
        return [part.result() for part in parts]


def _code_type(codes: int) -> torch.dtype:
    # Two types, as each is a kernel of its own to compile.
    return torch.int16 if codes <= 1 << 16 else torch.int32


def _flat(values: Tensor) -> np.ndarray[Any, Any]:
    """``[T, N, *]`` as an array ``[T, M]``."""
    flat: np.ndarray[Any, Any] = values.numpy().reshape(values.shape[0], -1)
    return flat.view(np.uint16) if flat.dtype == np.int16 else flat


class _Stepped(torch.autograd.Function):
    """Steps through a sequence, and back."""

    @staticmethod
    def forward(
        ctx: Any, run: Run, x: Tensor, v: Tensor, leak: Tensor | None, threshold: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        spikes, last, codes = _forward(run, x, v, keeps=True)
        # What a leak learns from depends on the currents.
        kept = (x, v) if leak is not None else ()
        ctx.save_for_backward(codes, run.tables, leak, threshold, *kept)
        ctx.constants = run.charging, run.leak.astype(np.float32, copy=False), run.rows
        ctx.types = x.dtype, v.dtype
        ctx.set_materialize_grads(False)
        return spikes, last

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            found = _backward(ctx, *gradients)
        if torch.is_grad_enabled():
            found = [None if one is None else _Once.apply(one.requires_grad_()) for one in found]
        return None, *found


class _Once(torch.autograd.Function):
    """A gradient that has none itself."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise RuntimeError(
            "quantised neurons that step through a whole sequence at once have no second "
            "derivative; let the network loop over time: "
            "spikingjelly.activation_based.functional.set_step_mode(network, 's')"
        )


def _backward(ctx: Any, spiking: Tensor | None, after: Tensor | None) -> list[Tensor | None]:
    """The gradients of currents, potentials, leak and threshold."""
    codes, tables, leak, threshold, *kept = ctx.saved_tensors
    charging, leaks, rows = ctx.constants
    spiking = torch.zeros(codes.shape) if spiking is None else spiking
    after = torch.zeros(codes.shape[1:]) if after is None else after
    currents, before = torch.empty(codes.shape), torch.empty(codes.shape[1:])
    of_leak, of_threshold = _learned(leak, before), _learned(threshold, before)
    sequence, first = np.empty((0, 0), np.float32), np.empty(0, np.float32)
    if kept:
        x, v = (one.detach().float().contiguous() for one in kept)
        sequence, first = _flat(x), v.numpy().reshape(-1)
    _spread(
        backward,
        *(after.numel(), codes.numel()),
        *(charging, _flat(spiking.contiguous()), after.contiguous().numpy().reshape(-1)),
        *(_flat(codes), tables.numpy(), leaks, rows, sequence, first, _flat(currents)),
        *(before.numpy().reshape(-1), of_leak.numpy(), of_threshold.numpy()),
    )
    return [
        currents.to(ctx.types[0]),
        before.to(ctx.types[1]),
        _summed(of_leak, leak, before),
        _summed(of_threshold, threshold, before),
    ]


def _learned(constant: Tensor | None, potentials: Tensor) -> Tensor:
    return torch.empty(0 if constant is None else potentials.numel())


def _summed(gradient: Tensor, constant: Tensor | None, potentials: Tensor) -> Tensor | None:
    """The gradient of a constant from those of all neurons that it holds for."""
    if constant is None:
        return None
    return gradient.view(potentials.shape).sum_to_size(constant.shape).to(constant.dtype)
