"""Weights rounded together, so that their errors cancel in what the layer computes.

A layer's error is a quadratic function of its weights. With ``H`` the second moment of the inputs
that the quantised network gives it, and ``G`` that of the float network's inputs with these, the
mean squared difference of its output from the float layer's is, but for a constant,
``w H w^T - 2 w0 G w^T`` for each output channel, with ``w0`` the float weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from qspinn.quantizers.repair.moments import Moments

ToGrid = Callable[[Tensor], Tensor]
"""Nearest numbers of a grid: one value of each output channel, ``[groups, channels]``."""

DAMPINGS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Parts of the mean of H's diagonal that may be added to it, and to G's.

Frantar et al. (arXiv 2210.17323, section 3.3) add 0.01 to be able to invert H. Larger parts hold
the weights near to the float ones, as few calibration samples need it.
"""
USUAL_DAMPING = 1.0
"""Where one batch leaves nothing to choose by, or a layer has very many inputs."""
SWEEPS = 4
BLOCK = 64
"""Inputs whose weights are rounded before what this changes reaches the others."""
MOST_CHOSEN = 1024
"""Inputs of a layer up to which the damping is chosen; beyond, that takes long."""
AT_A_TIME = 1 << 24
"""Values of moments that weights are rounded by at a time."""
NEARER = 1.0 - 1e-6


def rounded_together(
    weight: Tensor, plain: Tensor, batches: Sequence[Moments], grids: Sequence[ToGrid]
) -> Tensor:
    """Weights on their grid whose output is closest to the float layer's.

    The best real weights for these inputs are rounded input by input, the error of each made good
    by those that are still to be rounded (GPTQ: Frantar et al., arXiv 2210.17323; the inputs that
    matter most come first), and then one by one, over and over, each to the number that is best
    with all others as they are. How closely the best real weights follow the calibration data is
    chosen by cross-validation: rounded by one half of the batches, for the error on the other.

    Args:
        weight: In float ``[groups, channels, K]``, float64; the last input is the constant 1
            of the bias, where there is one.
        plain: Rounded by itself, of the same shape.
        batches: Moments of each batch, at least one, with K inputs.
        grids: Grid of each input's weights, K of them. All are the same but for the last.

    Returns:
        ``[groups, channels, K]``. No channel has a larger error than with ``plain``.
    """
    whole = Moments.mean(list(batches))
    damping = chosen_damping(weight, batches, grids)
    damped, linear = _damped(weight, whole, damping)
    spread = _with_feedback(torch.linalg.solve(damped, linear, left=False), damped, grids)
    found = descended(spread, linear, damped, grids)
    better = error_of(found, weight, whole) < error_of(plain, weight, whole)
    return torch.where(better.unsqueeze(-1), found, plain)


def error_of(rounded: Tensor, weight: Tensor, seen: Moments) -> Tensor:
    """The mean squared error of each channel but for a constant; ``[groups, channels]``."""
    return ((rounded @ seen.second - 2.0 * (weight @ seen.cross)) * rounded).sum(-1)


def chosen_damping(weight: Tensor, batches: Sequence[Moments], grids: Sequence[ToGrid]) -> float:
    """The damping with the least error on batches that weights were not rounded by."""
    if len(batches) < 2 or weight.shape[-1] > MOST_CHOSEN:
        return USUAL_DAMPING
    halves = [Moments.mean(list(batches[begin::2])) for begin in (0, 1)]
    errors = []
    tried = [(damping, half) for damping in DAMPINGS for half in (0, 1)]
    at_a_time = max(1, AT_A_TIME // halves[0].second.numel())
    for begin in range(0, len(tried), at_a_time):
        some = tried[begin : begin + at_a_time]
        pairs = [_damped(weight, halves[half], damping) for damping, half in some]
        damped, linear = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        best = torch.linalg.solve(damped, linear, left=False)
        rounded = _with_feedback(best, damped, grids).split(len(weight))
        for (_, half), one in zip(some, rounded, strict=True):
            errors.append(float(error_of(one, weight, halves[1 - half]).sum()))
    totals = [errors[2 * place] + errors[2 * place + 1] for place in range(len(DAMPINGS))]
    return DAMPINGS[min(range(len(DAMPINGS)), key=lambda place: totals[place])]


def _damped(weight: Tensor, seen: Moments, damping: float) -> tuple[Tensor, Tensor]:
    """H, and the linear term, as if there were further inputs one by one, equal in both nets."""
    ridge = damping * seen.second.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=1e-12)
    eye = torch.eye(seen.second.shape[-1], dtype=seen.second.dtype, device=seen.second.device)
    added = ridge[:, None, None] * eye
    return seen.second + added, weight @ (seen.cross + added)


def _with_feedback(best: Tensor, second: Tensor, grids: Sequence[ToGrid]) -> Tensor:
    """GPTQ: ``best`` rounded input by input, the error of each made good by those that follow."""
    importance = second.diagonal(dim1=-2, dim2=-1).clone()
    if grids[-1] is not grids[0]:
        importance[:, -1] = -1.0  # the bias comes last: it has another grid
    order = importance.argsort(dim=-1, descending=True, stable=True)
    values = best.gather(-1, order.unsqueeze(1).expand_as(best)).clone()
    ordered = second.gather(1, order.unsqueeze(-1).expand_as(second))
    ordered = ordered.gather(2, order.unsqueeze(1).expand_as(second))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(ordered))
    factor = torch.linalg.cholesky(inverse, upper=True)
    for begin in range(0, values.shape[-1], BLOCK):
        block = slice(begin, begin + BLOCK)
        inside, own = values[..., block], factor[:, block, block]  # a view: rounds values
        errors = torch.empty_like(inside)
        for place in range(inside.shape[-1]):
            held = grids[begin + place](inside[..., place])
            errors[..., place] = (inside[..., place] - held) / own[:, place, place].unsqueeze(-1)
            inside[..., place] = held
            rest = own[:, place, place + 1 :].unsqueeze(1)
            inside[..., place + 1 :] -= errors[..., place].unsqueeze(-1) * rest
        values[..., begin + BLOCK :] -= errors @ factor[:, block, begin + BLOCK :]
    return torch.empty_like(values).scatter_(-1, order.unsqueeze(1).expand_as(values), values)


def descended(rounded: Tensor, linear: Tensor, second: Tensor, grids: Sequence[ToGrid]) -> Tensor:
    """Coordinate descent on the grid: each weight in turn to the best number, until none moves.

    Minimises ``w H w^T - 2 b w^T`` for each channel, with H ``second`` and b ``linear``.
    """
    values = rounded.clone()
    gradient = values @ second - linear
    curvature = second.diagonal(dim1=-2, dim2=-1)
    for _ in range(SWEEPS):
        before = values.clone()
        for begin in range(0, values.shape[-1], BLOCK):
            block = slice(begin, begin + BLOCK)
            inside, own = values[..., block], second[:, block, block]  # a view: changes values
            slopes, start = gradient[..., block].clone(), inside.clone()
            for place in range(inside.shape[-1]):
                now = inside[..., place]
                wanted = now - slopes[..., place] / curvature[:, begin + place].unsqueeze(-1)
                held = grids[begin + place](wanted)
                # Of two numbers that are equally good, the one in use stays.
                nearer = (held - wanted).abs() < NEARER * (now - wanted).abs()
                held = torch.where(nearer, held, now)
                slopes += (held - now).unsqueeze(-1) * own[:, place].unsqueeze(1)
                inside[..., place] = held
            gradient += (inside - start) @ second[:, block]
        if torch.equal(values, before):
            break
    return values
