"""Observations of a forward pass, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from qspinn.plan.inventory import Shapes

NO_LAYERS: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Layout:
    """Where the numbers of a tensor lie in its storage.

    Attributes:
        shape: Its sizes.
        strides: Its strides.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> Layout:
        """The layout of a tensor."""
        return cls(tuple(tensor.shape), tuple(tensor.stride()))


@dataclass(frozen=True, eq=False)
class Produced:
    """The output of one call of a synapse layer or batch norm, as it came out.

    Attributes:
        path: Of the layer.
        call: The number of the call, from 0.
        output: The tensor.
    """

    path: str
    call: int
    output: Tensor = field(repr=False)


@dataclass
class Value:
    """What is known of the numbers in one storage.

    Attributes:
        born: When they were computed, counted in operations.
        contents: The synapse layers whose sums went into them, since the last neuron.
        is_signal: Whether a synapse layer or a neuron took part in them.
        off_grid: What was done to them that leads off any grid, and the layer where.
        produced: The call whose output they are, unchanged.
    """

    born: int
    contents: frozenset[str] = NO_LAYERS
    is_signal: bool = False
    off_grid: frozenset[tuple[str, str]] = frozenset()
    produced: Produced | None = None


@dataclass
class Sightings:
    """What was seen, by layer path.

    Attributes:
        called: How many times each module was called.
        binary_inputs: Synapse layer -> whether its input was 0 or 1 throughout.
        fed_by: Layer -> the layers whose output, unchanged, was its input; ``None`` among them
            for anything else.
        consumed: Batch norm or neuron -> the calls whose outputs were its inputs, and their layout.
        used_by: Layer -> the layers that computed with its raw output; ``None`` for operations
            outside of any layer.
        sources: Layer -> the synapse layers whose sums reach it.
        state_shapes: Layer -> shapes of its states, batch dimension included.
        off_grid: What leads off the grid between layers -> the layers where.
        narrowed: Modules that must get their inputs in their own floating-point type.
        in_float32: Synapse layers whose sums must leave in the network's own type, and why.
        outside_uses: Parameter -> operations outside of its layer that use it.
        produced: Outputs of synapse layers and batch norms.
        has_batch: Whether a convolution showed that there is a batch axis.
    """

    called: dict[str, int] = field(default_factory=dict)
    binary_inputs: dict[str, bool] = field(default_factory=dict)
    fed_by: dict[str, set[str | None]] = field(default_factory=dict)
    consumed: dict[str, list[tuple[Produced, Layout]]] = field(default_factory=dict)
    used_by: dict[str, set[str | None]] = field(default_factory=dict)
    sources: dict[str, set[str]] = field(default_factory=dict)
    state_shapes: dict[str, Shapes] = field(default_factory=dict)
    off_grid: dict[str, set[str]] = field(default_factory=dict)
    narrowed: set[str] = field(default_factory=set)
    in_float32: dict[str, str] = field(default_factory=dict)
    outside_uses: dict[str, set[str]] = field(default_factory=dict)
    produced: list[Produced] = field(default_factory=list)
    has_batch: bool = False
