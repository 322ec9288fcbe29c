"""Units of their own, in which layers of neurons count: steps that are no powers of two.

Inputs are added up, and the leak is linear. So if the weights of a neuron are ``s * code``, its
potential is `s` times a number that a device computes without `s`: it counts in units of `s`, and
only what the potential is compared with, the threshold, is divided by `s`, once, before it is
stored. A unit costs no operation, and no memory but a threshold for each neuron, or channel, that
has a unit of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from qspinn.plan.inventory import Inventory, LayerInfo
from qspinn.plan.settings import TensorSettings


@dataclass(frozen=True)
class Unit:
    """What a layer of neurons counts in.

    Attributes:
        scale: The potential that one unit stands for: of the layer, or of each channel; above 0.
        rest: The potential that a hard reset sets, and the leak pulls towards, in units.
    """

    scale: tuple[float, ...]
    rest: float = 0.0

    def __post_init__(self) -> None:
        """Refuses scales that are no sizes."""
        if not self.scale or not all(0.0 < one < float("inf") for one in self.scale):
            raise ValueError(f"Unit: scale={self.scale}; write positive numbers, one per channel")

    @property
    def tensor(self) -> Tensor:
        """The scale as a tensor, ``[1]`` or ``[C]``, float64."""
        return torch.tensor(self.scale, dtype=torch.float64)

    def __str__(self) -> str:
        """E.g. ``0.125|0.1 rest -4.0``; the numbers are exact."""
        return f"{'|'.join(repr(one) for one in self.scale)} rest {self.rest!r}"

    @classmethod
    def parse(cls, text: str) -> Unit:
        """The inverse of ``str``.

        Raises:
            ValueError: Something else.
        """
        scale, separator, rest = text.partition(" rest ")
        try:
            if separator:
                return cls(tuple(float(one) for one in scale.split("|")), float(rest))
        except ValueError:
            pass
        raise ValueError(f"unit {text!r:.80}; write such as '0.125|0.1 rest -4.0'")


@dataclass(frozen=True)
class Scaled:
    """A layer of neurons that has a unit of its own.

    Attributes:
        neuron: Path of the neurons.
        synapse: Path of the synapse layer that they get their current from.
        channels: How many units there are: one, or one per output channel.
        axis: The axis of the channels in the potentials, from the end.
        below: Whether the lower end of the potentials is free, too.
    """

    neuron: str
    synapse: str
    channels: int
    axis: int
    below: bool


def scaled_layers(
    inventory: Inventory, settings: Mapping[str, TensorSettings]
) -> tuple[dict[str, Scaled], dict[str, str]]:
    """The neurons that have a unit of their own, as the settings of their tensors ask for.

    Args:
        inventory: What the network is made of.
        settings: Path of each tensor that is quantised -> what the plan says of it.

    Returns:
        Path of the neurons -> what is known of them; and path of a layer whose settings ask for a
        unit that it cannot have -> why.
    """
    found: dict[str, Scaled] = {}
    refused: dict[str, str] = {}
    takers = {one.current_from: one for one in inventory.layers if one.current_from is not None}
    shared = {info.tied_to for info in inventory.tensors()} - {None}
    for info in inventory.tensors():
        asked = settings.get(info.path)
        if info.powers_of_two is not None and asked is not None and asked.has_free_scale:
            refused[info.path] = info.powers_of_two
    for layer in inventory.layers:
        known = (settings.get(info.path) for info in layer.tensors)
        if layer.kind != "synapse" or not any(one and one.has_free_scale for one in known):
            continue
        neuron = takers.get(layer.path)
        weight = next(info for info in layer.tensors if info.name == "weight")
        why = _why_not(neuron)
        if weight.tied_to is not None or weight.path in shared:
            why = "it shares its weights with another layer"
        elif weight.path not in settings or settings[weight.path].format is not None:
            why = "the plan writes down no word length for its weights"
        if why is not None or neuron is None or neuron.channel_axis is None:
            refused[layer.path] = why or "no layer of neurons takes its sums"
            continue
        channels = 1
        if settings[weight.path].granularity == "channel" and weight.channel_axis is not None:
            channels = (weight.shape or (1,))[weight.channel_axis]
        potential = next((info.path for info in neuron.tensors if info.name == "v"), "")
        membrane = settings.get(potential)
        below = membrane is not None and membrane.has_free_scale and membrane.format is None
        found[neuron.path] = Scaled(
            neuron.path, layer.path, channels, neuron.channel_axis, below and neuron.hard_reset
        )
    return found, refused


def _why_not(neuron: LayerInfo | None) -> str | None:
    if neuron is None:
        return "its sums do not go to one layer of neurons alone, unchanged"
    if not neuron.model.is_exact or not (neuron.model.fires or neuron.model.counts):
        return "its neurons do not fire by a formula that is known"
    if neuron.channel_axis is None:
        return (
            "its sums do not go to one layer of neurons alone, unchanged, that begins at the "
            "potential that a spike resets to"
        )
    names = {info.name for info in neuron.tensors}
    return None if "v_threshold" in names else "its neurons never fire"


def units_lines(refused: Mapping[str, str]) -> Iterator[str]:
    """A line for each reason why layers count in powers of two, though they were to be free."""
    by_reason: dict[str, list[str]] = {}
    for path, why in refused.items():
        by_reason.setdefault(why, []).append(path)
    for why, paths in by_reason.items():
        yield f"scale=free, but steps are powers of two: {', '.join(paths)}: {why}"
