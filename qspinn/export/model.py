"""The device model: a quantised network as integers, and everything that it takes to run it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from qspinn.export.errors import NotExportableError
from qspinn.export.learning import DeviceLearning
from qspinn.export.packed_tensor import PackedTensor
from qspinn.export.plastic import (
    AdaptiveNeuron,
    Compare,
    LabelSums,
    RandomSpikes,
    Total,
    Trace,
)
from qspinn.fixed_point import FixedPointFormat, Format
from qspinn.plan.graph import Operand, Window

__all__ = ["Arithmetic", "DeviceModel", "DeviceOperation", "Input", "Neuron", "NotExportableError"]
__all__ += ["Gather", "Output", "Pooling", "Round", "State", "StoredTensor", "Synapse"]
__all__ += ["AdaptiveNeuron", "Compare", "LabelSums", "RandomSpikes", "Total", "Trace"]

Codes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor that a device stores.

    Attributes:
        packed: Its codes as they are stored: those of signs as the bit in front, 0 for the code 1
            and -1 (in two's complement, a bit that is set) for the code -1.
        format: One format, or one per channel of the first axis, all of one word length.
    """

    packed: PackedTensor
    format: Format

    @classmethod
    def of(cls, codes: Codes, fmt: Format) -> StoredTensor:
        """A tensor with these codes, which must be those of numbers of the format."""
        held = (codes - 1) // 2 if fmt.is_sign else codes
        return cls(PackedTensor(held, fmt.word_length, fmt.signed), fmt)

    @property
    def codes(self) -> Codes:
        """Whole numbers, in the range of the format; unpacked at each use."""
        codes = self.packed.codes
        return 2 * codes + 1 if self.format.is_sign else codes

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        return self.packed.shape

    @property
    def bits(self) -> int:
        """What it takes to store it."""
        return self.packed.payload_bits


@dataclass(frozen=True)
class Input:
    """What a frame of the input is turned into.

    Attributes:
        format: Of its numbers; ``UQ1.0`` for spikes.
        rounding: As of any tensor.
        overflow: As of any tensor.
        bounds: Numbers outside are cut off there first.
        is_positive: Whether only it counts whether numbers are above 0: then they are spikes.
    """

    format: FixedPointFormat
    rounding: str = "nearest"
    overflow: str = "saturate"
    bounds: tuple[Fraction, Fraction] | None = None
    is_positive: bool = False


@dataclass(frozen=True)
class Synapse:
    """A linear layer, or a convolution over 1 to 3 axes.

    Attributes:
        weight: Name of its weights, ``[out, in]`` or ``[out, in / groups, *kernel]``.
        bias: Name of its biases ``[out]``, where it has any.
        stride: One per axis; empty for a linear layer.
        padding: Zeros before and after, per axis.
        dilation: One per axis.
        groups: Of the channels.
    """

    weight: str
    bias: str | None = None
    stride: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1


@dataclass(frozen=True)
class Neuron:
    """A layer of neurons, or of synapse filters.

    Attributes:
        model: Its kind, one of :data:`qspinn.steps.models.MODELS`.
        state: Format of the potential, or of the trace.
        rounding: Of the state.
        overflow: Of the state.
        threshold: Name of the threshold; None for what never fires.
        decay: Name of 1 / tau; None without a leak.
        decay_input: Whether the current decays too.
        reset: Code of the potential after a spike; None where the threshold is subtracted.
        initial: Code of the state before the first step.
        most: The largest number of spikes in a step.
    """

    model: str
    state: FixedPointFormat
    rounding: str = "nearest"
    overflow: str = "saturate"
    threshold: str | None = None
    decay: str | None = None
    decay_input: bool = True
    reset: int | None = None
    initial: int = 0
    most: int = 1


@dataclass(frozen=True)
class Round:
    """Brings exact sums to a format.

    Attributes:
        format: The format.
        rounding: Its rounding.
        overflow: Its overflow.
    """

    format: FixedPointFormat
    rounding: str = "nearest"
    overflow: str = "saturate"


@dataclass(frozen=True)
class Arithmetic:
    """Sums and products of whole layers, number by number.

    Attributes:
        kind: ``add`` (with `signs`), ``multiply``, ``scale`` (by `factor`), ``offset`` (adds it).
        signs: 1 or -1 for each operand.
        factor: A whole number of steps of a power of two.
    """

    kind: str
    signs: tuple[int, ...] = ()
    factor: Fraction = Fraction(1)


@dataclass(frozen=True)
class Pooling:
    """A sum or a maximum over windows, or over the rows of a table.

    Attributes:
        kind: ``sum`` or ``max``.
        window: Of the last axes.
        table: Name of ``[outputs, terms]``: places in the operand, -1 for none.
    """

    kind: str
    window: Window | None = None
    table: str | None = None


@dataclass(frozen=True)
class Gather:
    """Numbers of the operands, one operand after the other, in another order.

    Attributes:
        table: Name of ``[outputs]``: places, -1 for a zero.
    """

    table: str


@dataclass(frozen=True)
class State:
    """The state of a layer of neurons, after its step."""


Plastic = Trace | Compare | AdaptiveNeuron | RandomSpikes | Total | LabelSums
What = Input | Synapse | Neuron | Round | Arithmetic | Pooling | Gather | State | Plastic

KINDS: dict[str, type] = {kind.__name__.lower(): kind for kind in get_args(What)}
"""Name in a file -> kind of operation."""


@dataclass(frozen=True)
class DeviceOperation:
    """One operation.

    Attributes:
        what: What it does.
        operands: What it takes, by number.
        shape: Of its output, of one sample.
        path: Of the layer in the network that it comes from.
        is_static: Whether it is computed once, before the first time step.
        taken: Of a layer: shape of what it takes, of one sample.
        rows: Vectors that a linear layer is applied to.
        is_final: Whether it is computed once, after the last time step.
    """

    what: What
    operands: tuple[Operand, ...]
    shape: tuple[int, ...]
    path: str = ""
    is_static: bool = False
    taken: tuple[int, ...] = ()
    rows: int = 1
    is_final: bool = False

    @property
    def size(self) -> int:
        """Values of its output."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Output:
    """What a device answers.

    Attributes:
        operation: What is read.
        table: Name of ``[answers, terms]``: places in it whose sum is an answer.
        over: ``sum`` over the time steps, the ``last`` one, or ``each``.
        scale: What the network multiplies the sums by, in the number of steps that it was seen in.
        divisors: Of the answers, where each has its own; empty: none.
    """

    operation: int
    table: str
    over: str = "sum"
    scale: Fraction = Fraction(1)
    divisors: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class DeviceModel:
    """A network as a device computes it, in whole numbers.

    Attributes:
        operations: In order; the first is the input. An operation takes what comes before it, or
            with a delay what any operation computed in the step before.
        output: What is answered.
        tensors: What a device stores of the network: weights, biases, thresholds, decays.
        tables: Wiring: places of numbers, which no footprint counts.
        frame: Name of ``[values]``: places of the values of a frame in a sample, in the first step;
            None: in order.
        frame_stride: From there to the next step; 0 for an image that stays.
        steps: Time steps for which it was built; sequences may be longer or shorter.
        name: Of the network.
        classes: Names of the classes, where they are known.
        origin: What made it: versions and settings, as text.
        learning: How it goes on learning on a device; None: it does not.
        learning_refused: Why a network that learns by itself cannot go on; None: it can, or it does
            not learn by itself, or nobody asked.
    """

    operations: tuple[DeviceOperation, ...]
    output: Output
    tensors: Mapping[str, StoredTensor] = field(repr=False)
    tables: Mapping[str, PackedTensor] = field(repr=False)
    frame: str | None
    frame_stride: int
    steps: int
    name: str = ""
    classes: tuple[str, ...] = ()
    origin: Mapping[str, str] = field(default_factory=dict)
    learning: DeviceLearning | None = None
    learning_refused: str | None = None

    @property
    def input(self) -> Input:
        """What the input is turned into."""
        what = self.operations[0].what
        assert isinstance(what, Input)
        return what

    def table(self, name: str) -> Codes:
        """A table, unpacked."""
        return self.tables[name].codes

    @property
    def frame_places(self) -> Codes:
        """Places of the values of a frame in a sample, in the first step: ``[values]``."""
        return np.arange(self.operations[0].size) if self.frame is None else self.table(self.frame)

    @property
    def stored_bits(self) -> int:
        """Weights, biases, thresholds and decays: what lies in flash."""
        return sum(tensor.bits for tensor in self.tensors.values())

    @property
    def state_bits(self) -> int:
        """States of neurons, at their word lengths: what lies in RAM between two steps."""
        return sum(one.size * _state_word_length(one.what) for one in self.operations)

    @property
    def answers(self) -> int:
        """How many answers there are."""
        return self.tables[self.output.table].shape[0]


def _state_word_length(what: What) -> int:
    """Bits of state of each output of an operation."""
    if isinstance(what, Neuron):
        return what.state.word_length
    return what.state_word_length if isinstance(what, Plastic) else 0
