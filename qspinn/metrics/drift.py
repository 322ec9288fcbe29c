"""How far a quantised network behaves differently from its 32-bit twin on the same samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from qspinn.metrics.firing import Firing
from qspinn.metrics.firing_drift import FiringDrift

RISE = 0.1
"""A rise of the share of silent or saturated neurons beyond this gives a warning."""

BITS_MORE = 2
"""Bits that a warning recommends to add to a word length."""

LONGEST = 200
"""Characters of an error in a note."""

DIGITS = 7
"""Decimal places of a measured number."""

_SHARES = (
    *("rate", "reference_rate", "silent", "reference_silent", "saturated", "reference_saturated"),
    *("rate_distance", "agreement", "overlap"),
)


@dataclass(frozen=True)
class LayerDrift:
    """How a layer of neurons differs from its 32-bit twin.

    Rates and shares are in [0, 1] and taken over all samples and time steps together.

    Attributes:
        layer: Path of the layer.
        neurons: How many it has.
        rate: Spikes per neuron and time step.
        reference_rate: Of the twin, as all attributes that begin with ``reference_``.
        silent: Share of neurons that never fired.
        reference_silent: Of the twin.
        saturated: Share of neurons that fired at ``SATURATED`` (95%) of all steps or more.
        reference_saturated: Of the twin.
        rate_distance: Earth mover's distance between the distributions of the neurons' rates; at
            most 1.
        agreement: Share of entries (neuron, sample, step) that are equal; silence counts.
        overlap: Spikes in both / spikes in either; 1 where neither has one.
        first_step: First time step (from 0) at which any neuron differs in any sample; None: none.
        first_neuron: Index of the first neuron that differs then, as many numbers as the layer has
            axes; None: none.
        membrane_distance: Root of the mean squared difference of the potentials after each step,
            divided by the threshold; None where the layer shows no potentials, or none that are
            finite.
        role: The role for which a warning recommends more bits.

    Raises:
        ValueError: An invalid number.
    """

    layer: str
    neurons: int
    rate: float
    reference_rate: float
    silent: float
    reference_silent: float
    saturated: float
    reference_saturated: float
    rate_distance: float
    agreement: float
    overlap: float
    first_step: int | None = None
    first_neuron: tuple[int, ...] | None = None
    membrane_distance: float | None = None
    role: str = "membrane"

    def __post_init__(self) -> None:
        for name in _SHARES:
            _check_share(f"{self.layer}.{name}", getattr(self, name))
        if self.neurons < 1:
            raise ValueError(f"{self.layer}.neurons={self.neurons}: expected 1 or more")
        if (self.first_step is None) is not (self.first_neuron is None):
            raise ValueError(
                f"{self.layer}.first_step={self.first_step} and first_neuron={self.first_neuron}: "
                "expected both or neither"
            )

    @classmethod
    def of(cls, layer: str, metric: FiringDrift, role: str = "membrane") -> LayerDrift:
        """Make it from the results of a metric."""
        # Rounded to the digits of a float32: 0.1 for 0.100000001.
        values = {name: round(value.item(), DIGITS) for name, value in metric.compute().items()}
        first, distance = values["first"], values["membrane_distance"]
        shape, step, neuron = metric.neurons, None, None
        if first >= 0:
            step, index = divmod(int(first), math.prod(shape))
            neuron = tuple(int(i) for i in torch.unravel_index(torch.tensor(index), shape))
        names = [name for name in cls.__dataclass_fields__ if name in values]
        shown = {name: values[name] for name in names if name != "membrane_distance"}
        return cls(
            layer=layer,
            neurons=math.prod(shape),
            first_step=step,
            first_neuron=neuron,
            membrane_distance=distance if math.isfinite(distance) else None,
            role=role,
            **shown,
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the layer, each with a remedy."""
        return tuple(
            f"layer {self.layer}: {now:.0%} {what}, {before:.0%} before; "
            f"give {self.role} {BITS_MORE} bits more"
            for what, now, before in (
                ("silent", self.silent, self.reference_silent),
                ("saturated", self.saturated, self.reference_saturated),
            )
            if round(now - before, DIGITS) > RISE
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for a record."""
        neuron = None if self.first_neuron is None else list(self.first_neuron)
        return {**asdict(self), "first_neuron": neuron}


@dataclass(frozen=True)
class Drift:
    """How far a quantised network behaves differently from its 32-bit twin.

    Attributes:
        samples: How many both have seen.
        agreement: Share of samples that both put into the same class; None: not known.
        layers: In the order in which they compute.
        notes: What could not be compared, and why.

    Raises:
        ValueError: No sample, or a share outside [0, 1].
    """

    samples: int
    agreement: float | None
    layers: tuple[LayerDrift, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples={self.samples}: expected 1 or more")
        if self.agreement is not None:
            _check_share("agreement", self.agreement)

    @property
    def first_layer(self) -> str | None:
        """The first layer whose spikes differ; None: no layer's do."""
        return next((one.layer for one in self.layers if one.first_step is not None), None)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about layers that fell silent or saturate, each with a remedy."""
        return tuple(sentence for layer in self.layers for sentence in layer.warnings)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for a record."""
        return {
            "samples": self.samples,
            "agreement": self.agreement,
            "first_layer": self.first_layer,
            "layers": [layer.to_dict() for layer in self.layers],
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }

    def metrics(self) -> dict[str, float]:
        """Numbers for loggers: ``agreement``, and ``LAYER/rate`` and the like."""
        found = {} if self.agreement is None else {"agreement": self.agreement}
        for layer in self.layers:
            values = {**asdict(layer), "first_step": layer.first_step}
            found |= {
                f"{layer.layer}/{name}": float(values[name])
                for name in (*_SHARES, "membrane_distance", "first_step")
                if values[name] is not None
            }
        return found


class DriftMeter:
    """Compares two networks, a few samples at a time, in constant memory.

    Args:
        roles: Layer path -> the role for which a warning recommends more bits. Where a layer is
            missing: ``membrane``.

    Example:
        >>> meter = DriftMeter()
        >>> scores, reference = torch.eye(3), torch.eye(3)
        >>> meter.update({}, {}, scores, reference)
        >>> meter.compute().agreement
        1.0
    """

    def __init__(self, roles: Mapping[str, str] | None = None) -> None:
        self.roles = dict(roles or {})
        self._layers: dict[str, FiringDrift] = {}
        self._left_out: dict[str, str] = {}
        self._samples = self._same = self._compared = 0

    def update(
        self,
        firing: Mapping[str, Firing],
        reference: Mapping[str, Firing],
        scores: Tensor | None,
        reference_scores: Tensor | None,
        samples: int | None = None,
    ) -> None:
        """Adds what both networks did with the same samples.

        Args:
            firing: Of the quantised network, see :func:`qspinn.metrics.record_firing`.
            reference: Of its twin. Its order is that of the layers.
            scores: ``[N, classes]``, or None if unknown.
            reference_scores: Of the twin.
            samples: N, where it is not the number of scores.

        Raises:
            ValueError: Scores of different shapes, or neither scores nor a number of samples.
        """
        if scores is not None and reference_scores is not None:
            self._compare_predictions(scores, reference_scores)
        elif samples is None:
            raise ValueError("without scores of both networks; give the number of samples")
        self._samples += len(scores) if samples is None else samples  # type: ignore[arg-type]
        for path, expected in reference.items():
            try:
                self._compare(path, firing[path], expected)
            except KeyError:
                self._left_out[path] = "the quantised network shows no spikes of it"
            except (RuntimeError, ValueError) as error:
                self._left_out[path] = one_line(str(error))

    def compute(self) -> Drift:
        """The drift so far.

        Raises:
            ValueError: There was no sample.
        """
        layers = {path: one for path, one in self._layers.items() if path not in self._left_out}
        notes = [f"layer {path} is not compared: {why}" for path, why in self._left_out.items()]
        if not self._layers and not notes:
            notes.append("no layer shows its spikes, so only predictions are compared")
        if not self._compared:
            notes.append("no class scores [N, classes] are known, so no predictions are compared")
        return Drift(
            samples=self._samples,
            agreement=self._same / self._compared if self._compared else None,
            layers=tuple(
                LayerDrift.of(path, one, self.roles.get(path, "membrane"))
                for path, one in layers.items()
            ),
            notes=tuple(notes),
        )

    def _compare_predictions(self, scores: Tensor, reference: Tensor) -> None:
        if scores.ndim != 2 or scores.shape != reference.shape:
            raise ValueError(
                f"scores {list(scores.shape)} and reference {list(reference.shape)}: expected "
                "[N, classes] of both"
            )
        self._same += int((scores.argmax(1) == reference.argmax(1)).sum())
        self._compared += len(scores)

    def _compare(self, path: str, firing: Firing, reference: Firing) -> None:
        expected = reference.spikes
        metric = self._layers.setdefault(path, FiringDrift().to(expected.device))
        metric.update(
            firing.spikes,
            expected,
            firing.potentials,
            reference.potentials,
            reference.threshold,
        )


def one_line(text: str) -> str:
    """A string of unknown origin, such as an error, as a short line without control characters."""
    line = " ".join(text.split())
    shown = "".join(one if one.isprintable() else "?" for one in line)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."


def _check_share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name}={value}: expected a number in [0, 1]")
