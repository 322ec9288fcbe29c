"""Readouts: from the spike counts of neurons that learned without labels to class scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qspinn.fixed_point import Quantizer, stored
from qspinn.networks.checks import check, check_at_least, check_choice
from qspinn.networks.labelled_responses import class_means, ridge_regression

RIDGE_PENALTY = 30.0
BIAS_BOUND = 16.0
"""Largest bias of :class:`Ridge`, where the largest weight is 1."""


class Readout(nn.Module):
    """Class scores from the responses of neurons, fitted on labelled responses.

    What it learned lies in buffers of fixed shapes. It follows the protocol by which a module says
    what a device would hold of it (``device_tensors``) and in which formats (``use_fixed_point``).

    Args:
        neurons: Neurons whose responses it reads.
        num_classes: Classes.

    Raises:
        ValueError: No neuron, or fewer than 2 classes.
    """

    def __init__(self, neurons: int, num_classes: int) -> None:
        super().__init__()
        check_at_least(1, neurons=neurons)
        check_at_least(2, num_classes=num_classes)
        self.neurons = neurons
        self.num_classes = num_classes
        self._quantizers: dict[str, Quantizer] = {}
        self._report: Any = None

    def fit(self, responses: Tensor, labels: Tensor) -> None:
        """Learns from labelled responses, whatever it had learned before.

        Args:
            responses: Spikes of each neuron to each image, ``[M, neurons]``, 0 or more.
            labels: ``int64`` ``[M]``, 0 to ``num_classes - 1``.

        Raises:
            ValueError: No response, other shapes, or labels out of range.
        """
        shape = [len(labels), self.neurons]
        if labels.ndim != 1 or len(labels) == 0 or list(responses.shape) != shape:
            raise ValueError(
                f"responses {list(responses.shape)} and labels {list(labels.shape)}: expected "
                f"[M, {self.neurons}] and [M], M at least 1"
            )
        lowest, highest = int(labels.min()), int(labels.max())
        if lowest < 0 or highest >= self.num_classes:
            raise ValueError(
                f"labels from {lowest} to {highest}: expected 0 to {self.num_classes - 1}; "
                "num_classes must fit the data"
            )
        self._fit(responses, labels)

    def forward(self, responses: Tensor) -> Tensor:
        """Class scores, float64 ``[M, num_classes]``, of responses ``[M, neurons]``."""
        raise NotImplementedError(f"{type(self).__name__} must implement forward")

    def device_tensors(self) -> Sequence[Mapping[str, Any]]:
        """What a device holds of it, one mapping per tensor."""
        raise NotImplementedError(f"{type(self).__name__} must implement device_tensors")

    def use_fixed_point(self, quantizers: Mapping[str, Quantizer] | None) -> None:
        """Scores with tensors rounded as their quantizers say; ``None``: with the float ones.

        Args:
            quantizers: Name of a tensor -> an object with the attributes ``path``, ``format``,
                ``rounding`` and ``overflow``.
        """
        self._quantizers = dict(quantizers or {})

    def report_work(self, report: Any) -> None:
        """Reports from now on what it computes, by the protocol of `qspinn.plan`; None: nothing."""
        self._report = report

    def _tell(self, weight: str, responses: Tensor, sums_per_neuron: int) -> None:
        """Each neuron that answered is part of so many sums, once for all time steps."""
        if self._report is None or responses.numel() == 0:
            return
        counts = max(1, int(responses.max()).bit_length())
        self._report.synapses(
            weight,
            int((responses != 0).sum()) * sums_per_neuron,
            sizes=(self.neurons * sums_per_neuron, self.neurons, self.num_classes),
            samples=len(responses),
            # A count is multiplied by a weight, but only added up under a label.
            factor=None if weight == "labels" else counts,
        )

    def _fit(self, responses: Tensor, labels: Tensor) -> None:
        raise NotImplementedError(f"{type(self).__name__} must implement _fit")

    def held(self, name: str) -> Tensor:
        """The tensor as a device holds it, in float64.

        Stochastic rounding is seeded by the tensor's path: a device has stored one draw.
        """
        value = getattr(self, name).to(torch.float64)
        to = self._quantizers.get(name)
        return value if to is None else stored(to, value)


class MaximumResponse(Readout):
    """Each neuron stands for one class; a class scores the mean response of its neurons.

    A neuron stands for the class to whose images it answers most in the mean (Diehl & Cook 2015,
    section 2.5); of equal ones the first. A neuron that answers to nothing stands for no class, and
    a class without neurons scores 0.

    Args: see :class:`Readout`.

    Attributes:
        labels: ``int64`` ``[neurons]``, -1: no class.
    """

    labels: Tensor

    def __init__(self, neurons: int, num_classes: int) -> None:
        super().__init__(neurons, num_classes)
        self.register_buffer("labels", torch.full((neurons,), -1))

    def forward(self, responses: Tensor) -> Tensor:
        """See :meth:`Readout.forward`."""
        self._tell("labels", responses, 1)
        classes = torch.arange(self.num_classes, device=self.labels.device)
        is_of = (self.labels == classes[:, None]).to(torch.float64)
        # One division of whole numbers, so that equal means are equal numbers.
        return responses.to(torch.float64) @ is_of.T / is_of.sum(1).clamp_min(1)

    def device_tensors(self) -> Sequence[Mapping[str, Any]]:
        """The labels: one of ``num_classes + 1`` codes per neuron."""
        word_length = math.ceil(math.log2(self.num_classes + 1))
        shape = (self.neurons,)
        return ({"name": "labels", "role": None, "shape": shape, "word_length": word_length},)

    def _fit(self, responses: Tensor, labels: Tensor) -> None:
        means = class_means(responses, labels, self.num_classes)
        self.labels.copy_(torch.where(means.amax(0) > 0, means.argmax(0), -1))


class Proportion(Readout):
    """Every spike votes for every class, by the class's share in what its neuron answers to.

    ``share[c, n] = m[c, n] / sum over c' of m[c', n]``, where ``m[c, n]`` is the mean response of
    neuron n to images of class c; 0 for a neuron that answers to nothing. The score of a class is
    the sum over neurons of response times share (the weighting by proportion of BindsNET; Hazan et
    al. 2018, arXiv 1807.09374).

    Args: see :class:`Readout`.

    Attributes:
        shares: ``float32`` ``[num_classes, neurons]`` in [0, 1].
    """

    shares: Tensor

    def __init__(self, neurons: int, num_classes: int) -> None:
        super().__init__(neurons, num_classes)
        self.register_buffer("shares", torch.zeros(num_classes, neurons))

    def forward(self, responses: Tensor) -> Tensor:
        """See :meth:`Readout.forward`."""
        self._tell("shares", responses, self.num_classes)
        return responses.to(torch.float64) @ self.held("shares").T

    def device_tensors(self) -> Sequence[Mapping[str, Any]]:
        """The shares."""
        return ({**_weight_of("shares", self.shares), "low": 0.0, "high": 1.0},)

    def _fit(self, responses: Tensor, labels: Tensor) -> None:
        means = class_means(responses, labels, self.num_classes)
        totals = means.sum(0)
        self.shares.copy_(means / torch.where(totals > 0, totals, 1.0))


class Ridge(Readout):
    """Linear regression of the one-hot labels on the responses, with a penalty on the weights.

    The solution (see :func:`~qspinn.networks.labelled_responses.ridge_regression`) is divided by
    one number, so that weights lie in [-1, 1] and biases in [-16, 16]: the best class stays the
    same, and formats can be chosen before anything is fitted.

    Args:
        neurons: See :class:`Readout`.
        num_classes: See :class:`Readout`.
        penalty: In squared spikes, more than 0.

    Attributes:
        weight: ``float32`` ``[num_classes, neurons]``.
        bias: ``float32`` ``[num_classes]``.

    Raises:
        ValueError: A penalty that is not positive.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, neurons: int, num_classes: int, penalty: float = RIDGE_PENALTY) -> None:
        super().__init__(neurons, num_classes)
        check(penalty > 0, "penalty", penalty, "a number above 0")
        self.penalty = penalty
        self.register_buffer("weight", torch.zeros(num_classes, neurons))
        self.register_buffer("bias", torch.zeros(num_classes))

    def forward(self, responses: Tensor) -> Tensor:
        """See :meth:`Readout.forward`."""
        self._tell("weight", responses, self.num_classes)
        return responses.to(torch.float64) @ self.held("weight").T + self.held("bias")

    def device_tensors(self) -> Sequence[Mapping[str, Any]]:
        """Weights and biases."""
        bias = {"name": "bias", "role": "bias", "shape": (self.num_classes,), "channel_axis": 0}
        return (
            {**_weight_of("weight", self.weight), "low": -1.0, "high": 1.0},
            {**bias, "value": self.bias, "low": -BIAS_BOUND, "high": BIAS_BOUND},
        )

    def _fit(self, responses: Tensor, labels: Tensor) -> None:
        weight, bias = ridge_regression(responses, labels, self.num_classes, self.penalty)
        scale = max(float(weight.abs().max()), float(bias.abs().max()) / BIAS_BOUND)
        self.weight.copy_(weight / scale)
        self.bias.copy_(bias / scale)


READOUTS: dict[str, type[Readout]] = {
    "maximum": MaximumResponse,
    "proportion": Proportion,
    "ridge": Ridge,
}


class Readouts(nn.Module):
    """All readouts side by side, of which one is the device's and the others are for comparison.

    Args:
        chosen: ``maximum``, ``proportion`` or ``ridge``.
        neurons: See :class:`Readout`.
        num_classes: See :class:`Readout`.

    Attributes:
        is_fitted: ``bool`` ``[]``, part of the state.

    Raises:
        ValueError: An unknown readout, or what :class:`Readout` says.
    """

    is_fitted: Tensor

    def __init__(self, chosen: str, neurons: int, num_classes: int) -> None:
        super().__init__()
        check_choice("readout", chosen, READOUTS)
        self.chosen = chosen
        self.each = nn.ModuleDict({k: kind(neurons, num_classes) for k, kind in READOUTS.items()})
        self.register_buffer("is_fitted", torch.tensor(False))

    def __getitem__(self, name: str) -> Readout:
        """One of them."""
        readout = self.each[name]
        assert isinstance(readout, Readout)
        return readout

    def fit(self, responses: Tensor, labels: Tensor) -> None:
        """Fits all of them, see :meth:`Readout.fit`."""
        for name in self.each:
            self[name].fit(responses, labels)
        self.is_fitted.fill_(True)

    def forward(self, responses: Tensor) -> dict[str, Tensor]:
        """Name -> class scores, float64 ``[M, num_classes]``."""
        return {name: readout(responses) for name, readout in self.each.items()}

    def device_tensors(self) -> Sequence[Mapping[str, Any]]:
        """What a device holds of the chosen one."""
        return self[self.chosen].device_tensors()

    def use_fixed_point(self, quantizers: Mapping[str, Quantizer] | None) -> None:
        """Rounds the tensors of the chosen one, see :meth:`Readout.use_fixed_point`."""
        self[self.chosen].use_fixed_point(quantizers)

    def report_work(self, report: Any) -> None:
        """Reports what the chosen one computes, see :meth:`Readout.report_work`."""
        self[self.chosen].report_work(report)


def _weight_of(name: str, value: Tensor) -> dict[str, Any]:
    shape = tuple(value.shape)
    return {"name": name, "role": "weight", "shape": shape, "channel_axis": 0, "value": value}
