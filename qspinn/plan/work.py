"""Work and energy of one sample, compared with float32 and an ANN."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from qspinn.plan.energy import EnergyModel

__all__ = ["LayerWork", "Work"]


@dataclass(frozen=True)
class LayerWork:
    """What one layer does for one sample, in the mean.

    Attributes:
        synaptic_operations: Effective ones: inputs that are not 0, times the sums they are part of.
        dense_synaptic_operations: Those if no input ever were 0.
        multiplications: Of weights by inputs that are no spikes, and of states by leaks.
        additions: All of them, comparisons included.
        state_updates: Values of states that are read, changed and written.
        bits_moved: Weights, inputs, biases and states, read and written.
        energy_compute_nj: Of the arithmetic, in nJ.
        energy_memory_nj: Of the bits moved, in nJ.
    """

    synaptic_operations: float = 0.0
    dense_synaptic_operations: float = 0.0
    multiplications: float = 0.0
    additions: float = 0.0
    state_updates: float = 0.0
    bits_moved: float = 0.0
    energy_compute_nj: float = 0.0
    energy_memory_nj: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < math.inf:
                raise ValueError(f"LayerWork: {name}={value!r}; write a finite number, 0 or more")

    def __add__(self, other: LayerWork) -> LayerWork:
        others = vars(other)
        return LayerWork(**{name: value + others[name] for name, value in vars(self).items()})

    def __truediv__(self, samples: float) -> LayerWork:
        return LayerWork(**{name: value / samples for name, value in vars(self).items()})

    @property
    def energy_nj(self) -> float:
        """Arithmetic and memory."""
        return self.energy_compute_nj + self.energy_memory_nj

    def to_dict(self) -> dict[str, float]:
        """Plain types."""
        return {**vars(self), "energy_nj": self.energy_nj}


@dataclass(frozen=True)
class Work:
    """What a network computes for one sample, and what the alternatives would.

    Attributes:
        layers: Layer path -> what it does.
        samples: How many were looked at.
        time_steps: For how many steps each was shown.
        float_energy_nj: Of the same network with the same spikes in float32.
        ann_energy_nj: Of one dense pass of a network without spikes and time, with the same
            synapses: word lengths of weights as here, and activations as long as the weights.
        ann_float_energy_nj: The same in float32.
        model: What operations cost.
        notes: What was counted as something else.
    """

    layers: dict[str, LayerWork]
    samples: int
    time_steps: float
    float_energy_nj: float
    ann_energy_nj: float
    ann_float_energy_nj: float
    model: EnergyModel = field(default_factory=EnergyModel)
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> LayerWork:
        """All layers together."""
        return sum(self.layers.values(), LayerWork())

    @property
    def energy_nj(self) -> float:
        """Of one sample."""
        return self.total.energy_nj

    def lines(self) -> list[str]:
        """The main numbers in words, with the comparison."""
        total, energy, in_float = self.total, self.energy_nj, self.float_energy_nj
        is_float = energy == in_float and self.ann_energy_nj == self.ann_float_energy_nj
        share = _ratio(total.synaptic_operations, total.dense_synaptic_operations)
        lines = [
            f"work per sample: {_count(total.synaptic_operations)} synaptic operations "
            f"({100 * share:.3g}% of {_count(total.dense_synaptic_operations)}), "
            f"{_count(total.state_updates)} state updates, {_count(total.bits_moved)} bits moved",
            f"energy per sample, estimated: {_nj(energy)} (arithmetic "
            f"{_nj(total.energy_compute_nj)}, memory {_nj(total.energy_memory_nj)})"
            + ("" if is_float else f"; in float32 {_nj(in_float)}"),
        ]
        same = "" if is_float else " and word lengths"
        lines.append(_comparison(f"an ANN of the same topology{same}", self.ann_energy_nj, energy))
        if not is_float:
            other = self.ann_float_energy_nj
            lines.append(_comparison("both in float32, the ANN", other, in_float))
        return [*lines, *self.notes]

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for a record."""
        total = self.total.to_dict()
        return {
            **total,
            "float_energy_nj": self.float_energy_nj,
            "ann_energy_nj": self.ann_energy_nj,
            "ann_float_energy_nj": self.ann_float_energy_nj,
            "time_steps": self.time_steps,
            "samples": self.samples,
            "energy_model": self.model.name,
            "layers": {
                path or "the module itself": layer.to_dict() for path, layer in self.layers.items()
            },
            "lines": self.lines(),
        }


def _ratio(one: float, other: float) -> float:
    return one / other if other else 0.0


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _nj(energy: float) -> str:
    return f"{energy:,.0f} nJ" if energy >= 1000 else f"{energy:.4g} nJ"


def _comparison(what: str, other: float, energy: float) -> str:
    """Who takes less energy, and how many times."""
    takes = f"{what} takes {_nj(other)}"
    if not energy or not other or f"{energy:.3g}" == f"{other:.3g}":
        return f"{takes}, as much as the spiking network"
    if other < energy:
        return f"{takes}, {energy / other:.3g} times less than the spiking network: the ANN wins"
    times = f"{other / energy:.3g} times as much as the spiking network"
    return f"{takes}, {times}: the spiking network wins"
