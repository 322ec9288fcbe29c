"""What a network is made of, from the point of view of a plan."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from qspinn.plan.roles import CONSTANT_ROLES, STATE_ROLES, TRAINING_ONLY_ROLES, Role
from qspinn.steps.models import MODELS, NeuronModel

# The formula by which a neuron charges.
Charge = Literal["if", "lif", "plif", "ilif", "filter", "fallback"]
# Name of a state -> its shape.
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class TensorInfo:
    """One tensor that a device would hold, or one value stream into a layer.

    Attributes:
        layer: Path of its layer, as in ``named_modules()``.
        name: Its name in the layer (``weight``, ``v``, ``v_threshold``, ``input``).
        role: Its role; ``None`` where no role covers it, so that it stays 32-bit.
        shape: Its shape on the device: states have no batch dimension. ``None``
            while no dry run has shown it.
        channel_axis: The axis of output channels, for one format per channel.
        training_only: Whether only a device that learns holds it; ``None`` where
            its role says so.
        word_length: Bits per value of what is no fixed-point number (counters,
            labels), quantised and in the baseline; ``None`` for 32.
        is_state: Whether it changes from time step to time step; ``None`` where its
            role says so.
        tied_to: Path of the tensor that holds the same numbers, listed before it.
        is_constant: Whether not even learning changes it; ``None`` where its role says so.
        powers_of_two: Why its steps are powers of two where the plan says ``scale=free``, of
            weights whose module declares that.
    """

    layer: str
    name: str
    role: Role | None
    shape: tuple[int, ...] | None
    channel_axis: int | None = None
    training_only: bool | None = None
    word_length: int | None = None
    is_state: bool | None = None
    tied_to: str | None = None
    is_constant: bool | None = None
    powers_of_two: str | None = None

    @property
    def for_state(self) -> bool:
        """Whether it changes from time step to time step."""
        return self.role in STATE_ROLES if self.is_state is None else self.is_state

    @property
    def for_training(self) -> bool:
        """Whether only a device that learns holds it."""
        return (
            self.role in TRAINING_ONLY_ROLES if self.training_only is None else self.training_only
        )

    @property
    def never_changes(self) -> bool:
        """Whether not even learning changes it."""
        if self.is_constant is not None:
            return self.is_constant
        of_a_rule = self.role is None and self.for_training and not self.for_state
        return of_a_rule or self.role in CONSTANT_ROLES

    @property
    def path(self) -> str:
        """Layer path and name, joined by a dot."""
        return f"{self.layer}.{self.name}" if self.layer else self.name

    @property
    def count(self) -> int:
        """Number of values.

        Raises:
            ValueError: Where the shape is not known yet.
        """
        if self.shape is None:
            raise ValueError(
                f"{self.path}: its size is known only from a forward pass; give an example input, "
                "e.g. plan.resolve(module, example_input)"
            )
        return math.prod(self.shape)


@dataclass(frozen=True)
class LayerInfo:
    """One layer: a synapse layer, a neuron layer, or anything else that holds numbers.

    Attributes:
        path: As in ``named_modules()``; ``""`` is the module itself.
        kind: ``"synapse"`` (linear, convolution), ``"neuron"``, ``"declared"`` (says
            by itself what it holds) or ``"other"``.
        type_name: Its class.
        tensors: What it holds.
        charge: How a neuron charges.
        norm: A synapse layer's batch norm that a device folds into its weights.
        current_from: The synapse layer whose output is this neuron's input,
            unchanged; ``None`` where something else may lie between.
        channel_axis: The axis of its state, counted from the end, along which the output
            channels of ``current_from`` lie; ``None`` where it cannot be told, or where
            something else gets that current, too.
        sources: The synapse layers whose sums reach this layer's input, through
            whatever lies between; known for neurons and other layers.
        fan_in: Synapses per output of a synapse layer.
        reset_word: Whether a neuron layer resets to a value that must be stored.
        hard_reset: Whether a spike sets the potential of a neuron layer to a value.
        reason: Why tensors of it have no role, in words; ``None`` where all have one.
        in_float32: By which operation sums of a synapse layer go on that takes only the
            network's own floating-point type; ``None`` where they may leave in float64.
    """

    path: str
    kind: Literal["synapse", "neuron", "declared", "other"]
    type_name: str
    tensors: tuple[TensorInfo, ...]
    charge: Charge | None = None
    norm: str | None = None
    current_from: str | None = None
    channel_axis: int | None = None
    sources: tuple[str, ...] = ()
    fan_in: int | None = None
    reset_word: bool = False
    hard_reset: bool = False
    reason: str | None = None
    in_float32: str | None = None

    @property
    def model(self) -> NeuronModel:
        """What is known of the kind of a neuron."""
        assert self.charge is not None
        return MODELS[self.charge]

    def roles(self) -> tuple[Role, ...]:
        """The roles of its tensors, each once."""
        return tuple(dict.fromkeys(t.role for t in self.tensors if t.role is not None))


@dataclass(frozen=True)
class Inventory:
    """All layers of a module, in the order of ``named_modules()``.

    Attributes:
        layers: What holds numbers.
        notes: Further notes for the user.
        off_grid: What is done to values between layers that leads off any grid -> the
            layers where.
        narrowed: Modules that get exact sums in their own floating-point type.
        has_neurons: Whether anything in it spikes or keeps a state from step to step.
    """

    layers: tuple[LayerInfo, ...]
    notes: tuple[str, ...] = field(default=())
    off_grid: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    narrowed: tuple[str, ...] = ()
    has_neurons: bool = True

    def tensors(self) -> Iterator[TensorInfo]:
        """All tensors, layer by layer."""
        for layer in self.layers:
            yield from layer.tensors

    def layer(self, path: str) -> LayerInfo:
        """The layer at ``path``; ``KeyError`` where there is none."""
        for layer in self.layers:
            if layer.path == path:
                return layer
        raise KeyError(path)

    @property
    def from_forward_pass(self) -> bool:
        """Whether a dry run has shown the sizes of all neuron layers."""
        states = (info for info in self.tensors() if info.role == "membrane")
        return all(info.shape is not None for info in states)

    def roles(self) -> tuple[Role, ...]:
        """The roles that occur, each once."""
        return tuple(dict.fromkeys(role for layer in self.layers for role in layer.roles()))

    def to_dict(self) -> dict[str, Any]:
        """Plain types; the inverse of :meth:`from_dict`."""
        layers = []
        for layer in self.layers:
            data = asdict(layer)
            data["sources"] = list(layer.sources)
            data["tensors"] = [asdict(tensor) for tensor in layer.tensors]
            for tensor in data["tensors"]:
                tensor["shape"] = None if tensor["shape"] is None else list(tensor["shape"])
            layers.append(data)
        return {
            "layers": layers,
            "notes": list(self.notes),
            "off_grid": {what: list(where) for what, where in self.off_grid.items()},
            "narrowed": list(self.narrowed),
            "has_neurons": self.has_neurons,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Inventory:
        """The inverse of :meth:`to_dict`."""
        layers = []
        for layer in data["layers"]:
            tensors = tuple(
                TensorInfo(**{**t, "shape": None if t["shape"] is None else tuple(t["shape"])})
                for t in layer["tensors"]
            )
            changed = {"tensors": tensors, "sources": tuple(layer["sources"])}
            layers.append(LayerInfo(**{**layer, **changed}))
        off_grid = {what: tuple(where) for what, where in data.get("off_grid", {}).items()}
        narrowed, has_neurons = tuple(data.get("narrowed", ())), data.get("has_neurons", True)
        return cls(tuple(layers), tuple(data["notes"]), off_grid, narrowed, has_neurons)
