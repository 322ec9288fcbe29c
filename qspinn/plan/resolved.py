"""A plan applied to a network: settings, and in the end a format, for each tensor."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from qspinn.fixed_point import Format, PerChannelFormat, parse_format
from qspinn.plan.inventory import Inventory, LayerInfo, TensorInfo
from qspinn.plan.levels import with_levels
from qspinn.plan.roles import Role
from qspinn.plan.rules import Rule
from qspinn.plan.settings import DEFAULT_SETTINGS, EXCLUDED, UNQUANTIZED, TensorSettings
from qspinn.plan.summary import Summary, summary_of
from qspinn.plan.units import Scaled, Unit, scaled_layers, units_lines


@dataclass(frozen=True)
class ResolvedTensor:
    """One tensor that the plan quantises.

    Attributes:
        info: The tensor.
        settings: What the rules say of it, complete but for the format.
        format: Its format; ``None`` until calibration has chosen one.
    """

    info: TensorInfo
    settings: TensorSettings
    format: Format | None = None

    @property
    def path(self) -> str:
        """Layer path and name."""
        return self.info.path

    @property
    def role(self) -> Role:
        """Its role."""
        assert self.info.role is not None  # only tensors with a role are resolved
        return self.info.role

    @property
    def word_length(self) -> int:
        """Bits per value."""
        if self.format is not None:
            return self.format.word_length
        assert (
            self.settings.word_length is not None
        )  # a format or a word length: apply_rules() has checked it
        return self.settings.word_length

    @property
    def is_symmetric(self) -> bool:
        """Whether the negative of each of its numbers is to be one of them, too."""
        return self.settings.levels == "symmetric"

    @property
    def rounding(self) -> str:
        """Its rounding."""
        return self.settings.rounding or "nearest"

    @property
    def overflow(self) -> str:
        """Its overflow."""
        return self.settings.overflow or "saturate"

    def __str__(self) -> str:
        """E.g. ``conv.weight: Q0.7 nearest saturate``."""
        shown = f"{self.word_length} bits" if self.format is None else str(self.format)
        return f"{self.path}: {shown} {self.rounding} {self.overflow}"


@dataclass(frozen=True)
class ResolvedPlan:
    """The tensors of one network that are quantised, and how.

    Attributes:
        inventory: What the network is made of.
        tensors: What is quantised of it.
        excluded: Paths of tensors that the device does not hold.
        allow_no_neurons: Whether a network without any spiking neuron is accepted.
        units: Path of a layer of neurons -> the unit of its own that it counts in; of those
            of :attr:`scaled`, from calibration on.
    """

    inventory: Inventory
    tensors: tuple[ResolvedTensor, ...]
    excluded: frozenset[str] = frozenset()
    allow_no_neurons: bool = False
    units: Mapping[str, Unit] = field(default_factory=dict)

    @property
    def is_calibrated(self) -> bool:
        """Whether every tensor has its format, and every layer that is to have one its unit."""
        has_formats = all(tensor.format is not None for tensor in self.tensors)
        return has_formats and set(self.scaled) <= set(self.units)

    @property
    def scaled(self) -> dict[str, Scaled]:
        """Path of the neurons that have a unit of their own -> what is known of them."""
        return self._scaled[0]

    @cached_property
    def _scaled(self) -> tuple[dict[str, Scaled], dict[str, str]]:
        return scaled_layers(
            self.inventory, {tensor.path: tensor.settings for tensor in self.tensors}
        )

    def unit_of(self, path: str) -> tuple[Scaled, Unit] | None:
        """The unit of the layer at ``path``, of neurons or the synapses before them, if any."""
        for one in self.scaled.values():
            if path in (one.neuron, one.synapse) and one.neuron in self.units:
                return one, self.units[one.neuron]
        return None

    def with_units(self, units: Mapping[str, Unit]) -> ResolvedPlan:
        """The plan with the units of these layers of neurons set."""
        return replace(self, units={**self.units, **units})

    def of_layer(self, path: str) -> dict[str, ResolvedTensor]:
        """Name -> quantised tensor, of the layer at ``path``."""
        return {tensor.info.name: tensor for tensor in self.tensors if tensor.info.layer == path}

    def with_formats(self, formats: Mapping[str, Format]) -> ResolvedPlan:
        """The plan with the formats of these tensor paths set."""
        return replace(
            self,
            tensors=tuple(
                replace(tensor, format=formats.get(tensor.path, tensor.format))
                for tensor in self.tensors
            ),
        )

    def without(self, paths: frozenset[str]) -> ResolvedPlan:
        """The plan without these tensor paths."""
        return replace(self, tensors=tuple(t for t in self.tensors if t.path not in paths))

    def word_lengths_by_role(self) -> dict[str, list[int]]:
        """Role -> the word lengths that occur in it, ascending."""
        found: dict[str, set[int]] = {}
        for tensor in self.tensors:
            found.setdefault(tensor.role, set()).add(tensor.word_length)
        return {role: sorted(lengths) for role, lengths in sorted(found.items())}

    def formats(self) -> dict[str, dict[str, str]]:
        """Tensor path -> role, format, rounding and overflow, as text (for a record).

        And ``unit``, for the weights of a layer whose neurons count in a unit of their own.
        """
        found = {
            tensor.path: {
                "role": tensor.role,
                "format": str(tensor.format),
                "rounding": tensor.rounding,
                "overflow": tensor.overflow,
            }
            for tensor in self.tensors
        }
        for path, unit in self.units.items():
            found[self.of_layer(self.scaled[path].synapse)["weight"].path]["unit"] = str(unit)
        return found

    def with_recorded(self, formats: Mapping[str, Mapping[str, str]]) -> ResolvedPlan:
        """The plan with what :meth:`formats` has said of another one of the same tensors.

        Raises:
            ValueError: Other tensors, or other layers with units of their own.
        """
        units = {}
        for path, scaled in self.scaled.items():
            unit = formats.get(self.of_layer(scaled.synapse)["weight"].path, {}).get("unit")
            if unit is None:
                raise ValueError(
                    f"it counts {path} in a unit of its own, and the other one did not"
                )
            units[path] = Unit.parse(unit)
        missing = {tensor.path for tensor in self.tensors} ^ formats.keys()
        if missing:
            raise ValueError(f"it quantises other tensors, such as {sorted(missing)[0]}")
        if sum("unit" in one for one in formats.values()) != len(units):
            raise ValueError("it counts other layers in units of their own")
        known = {path: parse_format(one["format"]) for path, one in formats.items()}
        return self.with_formats(known).with_units(units)

    def to_dict(self) -> dict[str, Any]:
        """Plain types; the inverse of :meth:`from_dict`."""
        tensors = [
            {
                "path": tensor.path,
                "settings": tensor.settings.to_dict(),
                "format": None if tensor.format is None else str(tensor.format),
            }
            for tensor in self.tensors
        ]
        return {
            "inventory": self.inventory.to_dict(),
            "tensors": tensors,
            "excluded": sorted(self.excluded),
            "allow_no_neurons": self.allow_no_neurons,
            "units": {path: str(unit) for path, unit in self.units.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ResolvedPlan:
        """The inverse of :meth:`to_dict`."""
        inventory = Inventory.from_dict(data["inventory"])
        infos = {info.path: info for info in inventory.tensors()}
        tensors = tuple(
            ResolvedTensor(
                infos[tensor["path"]],
                TensorSettings(**tensor["settings"]),
                None if tensor["format"] is None else parse_format(tensor["format"]),
            )
            for tensor in data["tensors"]
        )
        excluded = frozenset(data.get("excluded", ()))
        units = {path: Unit.parse(one) for path, one in data.get("units", {}).items()}
        return cls(inventory, tensors, excluded, data.get("allow_no_neurons", False), units)

    def check_neurons(self) -> None:
        """Refuses a network without neurons, unless the plan allows it.

        Raises:
            ValueError: Nothing in the network spikes or keeps a state.
        """
        if not self.inventory.has_neurons and not self.allow_no_neurons:
            raise ValueError(
                "the network has no spiking neuron, and nothing in it keeps a state from step to "
                "step, so that it is no spiking network; to quantise it nevertheless write "
                "QuantizationPlan.uniform(..., allow_no_neurons=True), on the command line "
                "quantization.allow_no_neurons=true"
            )

    def summary(self) -> Summary:
        """What is quantised, and what is not and why."""
        quantized = {tensor.path for tensor in self.tensors}
        found = summary_of(self.inventory, quantized, self.excluded)
        return replace(found, units=tuple(units_lines(self._scaled[1])))


def apply_rules(
    rules: Sequence[Rule], inventory: Inventory, allow_no_neurons: bool = False
) -> ResolvedPlan:
    """Applies the rules of a plan to the tensors of ``inventory``.

    Raises:
        ValueError: A rule that matches no tensor, saying what there is to match; a format that a
            tensor cannot have.
    """
    for rule in rules:
        _check_matches(rule, inventory)
    kinds = {layer.path: layer.kind for layer in inventory.layers}
    tensors, excluded = [], set()
    for info in inventory.tensors():
        settings = DEFAULT_SETTINGS
        for rule in rules:
            if _matches(rule, info):
                settings = settings.overridden_by(rule.settings)
        if settings.format == EXCLUDED:
            excluded.add(info.path)
        elif info.role is not None and not settings.is_float:
            stated = _stated_format(info, settings)
            settings = with_levels(settings, info, kinds[info.layer], stated)
            tensors.append(ResolvedTensor(info, settings, stated))
    return ResolvedPlan(inventory, tuple(tensors), frozenset(excluded), allow_no_neurons)


def _stated_format(info: TensorInfo, settings: TensorSettings) -> Format | None:
    fmt = settings.parsed_format(info.path)
    if isinstance(fmt, PerChannelFormat) and info.channel_axis is None:
        raise ValueError(
            f"{info.path}: format {settings.format!r} has one part per channel, but a tensor of "
            f"role {info.role} has one format; write a format such as 'Q1.6'"
        )
    if isinstance(fmt, PerChannelFormat) and info.shape is not None:
        channels = info.shape[info.channel_axis or 0]
        if fmt.axis != info.channel_axis or len(fmt.fraction_bits) != channels:
            raise ValueError(
                f"{info.path}: format {settings.format!r} has {len(fmt.fraction_bits)} parts on "
                f"axis {fmt.axis}, but the tensor has {channels} output channels on axis "
                f"{info.channel_axis}; write one part for each of them"
            )
    return fmt


def _matches(rule: Rule, info: TensorInfo) -> bool:
    return rule.role in ("*", info.role) and fnmatch.fnmatchcase(info.layer, rule.layers)


def _check_matches(rule: Rule, inventory: Inventory) -> None:
    # What stays as it is needs no role.
    leaves = rule.settings.format in UNQUANTIZED
    if any(_matches(rule, info) for info in inventory.tensors() if leaves or info.role):
        return
    layers = [layer for layer in inventory.layers if layer.roles()]
    if not layers:
        raise ValueError(
            f"{rule}: the module has nothing to quantise: no linear or convolutional layer, no "
            "SpikingJelly neuron, and nothing that declares its tensors"
            + "".join(f"; {note}" for note in inventory.notes)
        )
    matched = [layer for layer in layers if fnmatch.fnmatchcase(layer.path, rule.layers)]
    if not matched:
        raise ValueError(
            f"{rule}: matches no layer. The layers are: {_shown(layers)}; "
            "write one of these paths, or a glob over them"
        )
    roles = sorted({role for layer in matched for role in layer.roles()})
    raise ValueError(
        f"{rule}: no layer that matches has the role {rule.role!r}. "
        f"The roles of {_shown(matched)} are: {', '.join(roles)}"
    )


def _shown(layers: list[LayerInfo], most: int = 12) -> str:
    paths = [layer.path or "(the module itself)" for layer in layers]
    rest = f" and {len(paths) - most} more" if len(paths) > most else ""
    return ", ".join(paths[:most]) + rest
