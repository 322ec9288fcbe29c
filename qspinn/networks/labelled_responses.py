"""Statistics of labelled responses, in float64."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

ROWS = 2048
"""Responses that are converted to float64 at a time."""


def class_means(responses: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Mean response of each neuron to each class, float64 ``[num_classes, neurons]``.

    0 for a class without images.

    Args:
        responses: ``[M, neurons]``.
        labels: ``int64`` ``[M]``, 0 to ``num_classes - 1``.
        num_classes: Classes.
    """
    is_of = nn.functional.one_hot(labels, num_classes).to(torch.float64)
    sums = torch.zeros(
        num_classes, responses.shape[1], dtype=torch.float64, device=responses.device
    )
    for rows, part in _in_parts(responses):
        sums += is_of[rows].T @ part
    return sums / is_of.sum(0).clamp_min(1)[:, None]


def ridge_regression(
    responses: Tensor, labels: Tensor, num_classes: int, penalty: float
) -> tuple[Tensor, Tensor]:
    """Regression of the one-hot labels on the responses, with a penalty on the squared weights.

    Minimises ``|Y - b - X W'|^2 + penalty |W|^2`` over weights W and an unpenalised bias b, for
    responses X and one-hot labels Y. Solves the system of the smaller size, in neurons or in
    responses: ``M neurons min(M, neurons)`` multiplications.

    Args:
        responses: ``[M, neurons]``.
        labels: ``int64`` ``[M]``, 0 to ``num_classes - 1``.
        num_classes: Classes.
        penalty: In squared spikes, more than 0.

    Returns:
        Weights ``[num_classes, neurons]`` and biases ``[num_classes]``, float64.
    """
    target = nn.functional.one_hot(labels, num_classes).to(torch.float64)
    target_mean = target.mean(0)
    target = target - target_mean
    mean = responses.sum(0, dtype=torch.float64) / len(responses)
    centred = ((rows, part - mean) for rows, part in _in_parts(responses))
    if responses.shape[1] <= len(responses):
        gram = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=mean.device)
        moment = torch.zeros(len(mean), num_classes, dtype=torch.float64, device=mean.device)
        for rows, part in centred:
            gram += part.T @ part
            moment += part.T @ target[rows]
        weight = _solve_penalised(gram, moment, penalty).T
    else:
        whole = torch.cat([part for _, part in centred])
        weight = (whole.T @ _solve_penalised(whole @ whole.T, target, penalty)).T
    return weight, target_mean - weight @ mean


def _solve_penalised(matrix: Tensor, right: Tensor, penalty: float) -> Tensor:
    matrix.diagonal().add_(penalty)
    return torch.cholesky_solve(right, torch.linalg.cholesky(matrix))


def _in_parts(responses: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of the responses in float64, a few at a time: all of them may not fit."""
    for start in range(0, len(responses), ROWS):
        yield slice(start, start + ROWS), responses[start : start + ROWS].to(torch.float64)
