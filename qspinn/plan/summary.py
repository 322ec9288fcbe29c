"""What of a network is quantised, and what is not and why."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from qspinn.plan.inventory import Inventory, LayerInfo, TensorInfo
from qspinn.plan.roles import UNSTORED_ROLES

BY_PLAN = "left in 32-bit by the plan"
_LAYERS_SHOWN = 4


@dataclass(frozen=True)
class Share:
    """How many values are quantised, of how many.

    Attributes:
        quantized: Number of values in fixed point.
        total: Number of values.
    """

    quantized: int
    total: int

    @property
    def share(self) -> float:
        """From 0 to 1; 1 where there is nothing to quantise."""
        return self.quantized / self.total if self.total else 1.0

    def __str__(self) -> str:
        """E.g. ``98.5%``; never rounded up to 100%."""
        if self.quantized == self.total:
            return "100%"
        return f"{math.floor(1000 * self.share) / 10:.1f}%"


@dataclass(frozen=True)
class Left:
    """Values that stay in 32-bit for one reason.

    Attributes:
        reason: In words.
        layers: Where.
        values: How many numbers.
        is_choice: Whether the plan says so, and nothing else is in the way.
    """

    reason: str
    layers: tuple[str, ...]
    values: int
    is_choice: bool = False


@dataclass(frozen=True)
class OffGrid:
    """Values between layers that lie on no fixed-point grid, though they are computed from one.

    Attributes:
        what: What leads off the grid, such as ``"average over 9 values"``.
        layers: Where.
    """

    what: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """What a plan quantises of a network.

    Attributes:
        parameters: Weights, biases, thresholds, decays and other parameters and buffers.
        states: Potentials, traces and whatever else is held from step to step, for one sample.
        left: What stays in 32-bit, most values first.
        off_grid: Values between layers that lie on no grid.
        notes: Further notes for the user.
        units: Where steps are powers of two though the plan says ``scale=free``, and why.
    """

    parameters: Share
    states: Share
    left: tuple[Left, ...] = ()
    off_grid: tuple[OffGrid, ...] = ()
    notes: tuple[str, ...] = ()
    units: tuple[str, ...] = ()

    @property
    def is_as_planned(self) -> bool:
        """Whether nothing stays in float but what the plan leaves there."""
        return all(one.is_choice for one in self.left) and not self.off_grid and not self.notes

    def lines(self, most: int = 10) -> list[str]:
        """At most ``most`` lines of text: shares, then what stays in float, most values first."""
        lines = [f"quantised: {self.parameters} of the parameters, {self.states} of the states"]
        for one in self.left:
            lines.append(f"32-bit: {one.values:,} values, {one.reason}: {listed(one.layers)}")
        for passing in self.off_grid:
            lines.append(f"on no grid: {passing.what}: {listed(passing.layers)}")
        lines += [*self.notes, *self.units]
        if len(lines) > most:
            lines[most - 1 :] = [f"and {len(lines) - most + 1} more"]
        return lines

    def __str__(self) -> str:
        """The lines."""
        return "\n".join(self.lines())

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "parameters": {"quantized": self.parameters.quantized, "total": self.parameters.total},
            "states": {"quantized": self.states.quantized, "total": self.states.total},
            "left": [
                {"reason": one.reason, "layers": list(one.layers), "values": one.values}
                for one in self.left
            ],
            "off_grid": [{"what": one.what, "layers": list(one.layers)} for one in self.off_grid],
            "notes": list(self.notes),
            "lines": self.lines(),
        }


def summary_of(
    inventory: Inventory,
    quantized: Collection[str] = frozenset(),
    excluded: Collection[str] = frozenset(),
) -> Summary:
    """What of a network is quantised.

    Args:
        inventory: What the network is made of.
        quantized: Paths of the tensors in fixed point.
        excluded: Paths of tensors that the device does not hold.
    """
    shares = {True: [0, 0], False: [0, 0]}
    left: dict[tuple[str, bool], tuple[dict[str, None], int]] = {}
    for layer, info in _held(inventory, excluded):
        count = 1 if info.shape is None else info.count
        shares[info.for_state][1] += count
        if info.path in quantized:
            shares[info.for_state][0] += count
            continue
        reason = _reason(layer, info)
        layers, values = left.setdefault(reason, ({}, 0))
        layers[layer.path] = None
        left[reason] = (layers, values + count)
    return Summary(
        parameters=Share(*shares[False]),
        states=Share(*shares[True]),
        left=_sorted(left),
        off_grid=tuple(OffGrid(what, where) for what, where in inventory.off_grid.items()),
        notes=_other_notes(inventory),
    )


def listed(layers: Iterable[str], most: int = _LAYERS_SHOWN) -> str:
    """Paths, as many as fit."""
    paths = [path or "the module itself" for path in layers]
    rest = f" and {len(paths) - most} more" if len(paths) > most else ""
    return ", ".join(paths[:most]) + rest


def _held(
    inventory: Inventory, excluded: Collection[str]
) -> Iterable[tuple[LayerInfo, TensorInfo]]:
    """What is held and is a fixed-point number or could be one."""
    for layer in inventory.layers:
        for info in layer.tensors:
            # Counters are whole numbers already, and constants of a learning rule are not counted.
            is_number = info.role is not None or not (info.word_length or info.for_training)
            is_held = info.role not in UNSTORED_ROLES and info.path not in excluded
            if is_number and is_held and info.tied_to is None:
                yield layer, info


def _reason(layer: LayerInfo, info: TensorInfo) -> tuple[str, bool]:
    if info.role is not None:
        return BY_PLAN, True
    if layer.reason is None:
        return f"{info.name} of {layer.type_name} has no role", False
    return f"{layer.type_name} {layer.reason}", False


def _sorted(
    left: Mapping[tuple[str, bool], tuple[dict[str, None], int]],
) -> tuple[Left, ...]:
    found = [
        Left(reason, tuple(layers), values, is_choice)
        for (reason, is_choice), (layers, values) in left.items()
    ]
    return tuple(sorted(found, key=lambda one: -one.values))


def _other_notes(inventory: Inventory) -> tuple[str, ...]:
    """Notes about neither a tensor nor an operation between layers."""
    return tuple(note for note in inventory.notes if "outside of its layer" in note)
