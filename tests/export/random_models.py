"""Random device models: every operation, wired at random, with whatever constants are allowed.

They are made directly, not from networks: what no network of today has is in them too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from random import Random
from typing import Any

import numpy as np

from qspinn.export.checking import check_model
from qspinn.export.lowering import program_of
from qspinn.export.model import (
    AdaptiveNeuron,
    Arithmetic,
    Codes,
    DeviceModel,
    DeviceOperation,
    Gather,
    Input,
    Neuron,
    Output,
    Pooling,
    RandomSpikes,
    Round,
    State,
    StoredTensor,
    Synapse,
    Total,
    Trace,
)
from qspinn.export.packed_tensor import PackedTensor
from qspinn.fixed_point import OVERFLOWS, ROUNDINGS, FixedPointFormat, PerChannelFormat
from qspinn.plan.graph import Operand, Window

SPIKES = FixedPointFormat(1, 0, signed=False)
SHAPES = [(12,), (2, 6), (3, 4, 4), (2, 5, 6), (2, 3, 4, 4), (4, 9), (6, 1, 1), (1, 7)]
MOST_BITS = 44
"""Of sums that others take, so that these can add up more."""
CHANGING = Neuron | State | Trace | AdaptiveNeuron | RandomSpikes | Total
"""What never is static."""
DELAYED = Neuron | Round | Input | Trace
"""What others may take a step later."""


def some_format(random: Random, signed: bool | None = None) -> FixedPointFormat:
    length = random.choice([1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 9, 12, 16, 16, 20, 27, 32])
    signed = random.random() < 0.7 if signed is None else signed
    fraction = random.randint(-1, min(length + 2, 20))
    return FixedPointFormat(length - int(signed) - fraction, fraction, signed)


def some_codes(random: Random, fmt: Any, shape: tuple[int, ...]) -> Codes:
    """Codes of a format, or of the formats of channels: of any size, small, extreme, or zeros."""
    low, high = fmt.code_min, fmt.code_max
    kind = random.random()
    if kind < 0.05:
        return np.zeros(shape, np.int64)
    if kind < 0.4:
        low, high = max(low, -7), min(high, 7)
    ends = kind > 0.95
    codes = [
        random.choice([low, high]) if ends else random.randint(low, high)
        for _ in range(math.prod(shape))
    ]
    return np.array(codes, np.int64).reshape(shape)


@dataclass(eq=False)
class Growing:
    """A model that becomes larger.

    Attributes:
        random: Decides.
        steps: Time steps.
        stride: From a frame to the next; 0 for images that stay.
    """

    random: Random
    steps: int
    stride: int
    operations: list[DeviceOperation] = field(default_factory=list)
    tensors: dict[str, StoredTensor] = field(default_factory=dict)
    tables: dict[str, PackedTensor] = field(default_factory=dict)

    def model(self, output: Output | None = None) -> DeviceModel:
        tables = dict(self.tables)
        if output is None:
            last = len(self.operations) - 1
            tables["output"] = PackedTensor.shortest(np.arange(self.operations[last].size)[:, None])
            output = Output(last, "output")
        operations, tensors = tuple(self.operations), dict(self.tensors)
        stride, steps = self.stride, self.steps
        return DeviceModel(operations, output, tensors, tables, None, stride, steps, "random")

    def fits(self) -> bool:
        """Whether it is a model, whose sums leave some bits for others."""
        model = self.model()
        check_model(model)
        try:
            last = program_of(model).instructions[-1]
        except ValueError:
            return False
        reach = max(abs(last.low), abs(last.high)).bit_length()
        return reach <= MOST_BITS and -4 <= last.fraction_bits <= 30

    def tensor(self, codes: Codes, fmt: Any) -> str:
        name = f"t{len(self.tensors)}"
        self.tensors[name] = StoredTensor.of(codes, fmt)
        return name

    def table(self, table: Codes) -> str:
        name = f"w{len(self.tables)}"
        self.tables[name] = PackedTensor.shortest(table)
        return name

    def operand(self) -> Operand:
        return Operand(self.random.randrange(len(self.operations)))

    def source(self, operand: Operand) -> DeviceOperation:
        return self.operations[operand.source]

    def add(self, what: Any, operands: tuple[Operand, ...], shape: Any, **more: Any) -> None:
        static = all(self.source(o).is_static and not o.delay for o in operands)
        static = static and not isinstance(what, CHANGING)
        number = len(self.operations)
        path = self.random.choice(["", f"layer.{number}", "a*/b", "for"])
        self.operations.append(DeviceOperation(what, operands, tuple(shape), path, static, **more))

    def constant(self, shape: tuple[int, ...], fmt: FixedPointFormat, lowest: int) -> str:
        """For a layer: one, one for each channel, for each neuron, or for anything between."""
        random = self.random
        kind = random.randrange(4)
        held: tuple[int, ...] = ()
        if kind == 1:
            held = (shape[0], *(1 for _ in shape[1:]))
        elif kind == 2:
            held = shape
        elif kind == 3:
            held = tuple(random.choice([1, size]) for size in shape[random.randrange(len(shape)) :])
        codes = np.asarray(some_codes(random, fmt, held).clip(min(lowest, fmt.code_max)))
        return self.tensor(codes, fmt)

    def undo(self, mark: tuple[int, int, int]) -> None:
        operations, tensors, tables = mark
        del self.operations[operations:]
        for held, count in ((self.tensors, tensors), (self.tables, tables)):
            for name in list(held)[count:]:  # type: ignore[call-overload]
                del held[name]  # type: ignore[attr-defined]

    @property
    def mark(self) -> tuple[int, int, int]:
        return len(self.operations), len(self.tensors), len(self.tables)


def add_linear(g: Growing) -> None:
    random, operand = g.random, g.operand()
    size = g.source(operand).size
    rows = random.choice([one for one in (1, 1, 1, 2, 3) if size % one == 0])
    inputs, outputs = size // rows, random.randint(1, 9)
    what = _weighted(g, (outputs, inputs))
    shape = (rows, outputs) if rows > 1 else (outputs,)
    taken = (rows, inputs) if rows > 1 else (inputs,)
    g.add(what, (operand,), shape, taken=taken, rows=rows)


def _weighted(g: Growing, shape: tuple[int, ...], **more: Any) -> Synapse:
    random = g.random
    fmt = _of_channels(random, shape[0])
    weight = g.tensor(some_codes(random, some_range(fmt), shape), fmt)
    bias = None
    if random.random() < 0.6:
        fmt = _of_channels(random, shape[0])
        bias = g.tensor(some_codes(random, some_range(fmt), shape[:1]), fmt)
    return Synapse(weight, bias, **more)


def _of_channels(random: Random, channels: int) -> Any:
    fmt = some_format(random)
    if random.random() < 0.7:
        return fmt
    finer = [fmt.fraction_bits + random.randint(0, 5) for _ in range(channels)]
    return PerChannelFormat(fmt.word_length, tuple(finer), fmt.signed)


def some_range(fmt: Any) -> Any:
    return fmt.formats[0] if isinstance(fmt, PerChannelFormat) else fmt


def add_convolution(g: Growing) -> None:
    random, operand = g.random, g.operand()
    taken = g.source(operand).shape
    size = g.source(operand).size
    if len(taken) == 1 or len(taken) > 4:
        taken = (random.choice([one for one in (1, 2, 3) if size % one == 0]),)
        taken = (*taken, size // taken[0])
    axes = len(taken) - 1
    kernel = tuple(random.randint(1, 3) for _ in range(axes))
    spread = tuple(random.choice([1, 1, 2]) for _ in range(axes))
    stride = tuple(random.randint(1, 3) for _ in range(axes))
    edges = tuple((random.randint(0, 2), random.randint(0, 2)) for _ in range(axes))
    groups = random.choice([one for one in (1, 1, 2, 3, taken[0]) if taken[0] % one == 0])
    outputs = groups * random.randint(1, 3)
    shape = [outputs]
    for axis in range(axes):
        left = taken[1 + axis] + sum(edges[axis]) - spread[axis] * (kernel[axis] - 1) - 1
        if left < 0:
            return
        shape.append(left // stride[axis] + 1)
    if math.prod(shape) > 200:
        return
    what = _weighted(
        g, (outputs, taken[0] // groups, *kernel),
        stride=stride, padding=edges, dilation=spread, groups=groups,
    )  # fmt: skip
    g.add(what, (operand,), shape, taken=taken)


def add_neuron(g: Growing, operand: Operand | None = None) -> None:
    random = g.random
    operand = g.operand() if operand is None else operand
    source = g.source(operand)
    shape = source.shape if random.random() < 0.8 else (source.size,)
    mark = g.mark
    kind = random.choice(["if", "lif", "plif", "ilif", "filter"])
    state = some_format(random, signed=None if random.random() < 0.3 else True)
    low, high = state.code_min, state.code_max
    threshold = decay = reset = None
    if kind != "filter" and random.random() < 0.85:
        fmt = some_format(random)
        if fmt.fraction_bits > state.fraction_bits:
            up = fmt.fraction_bits - state.fraction_bits
            fmt = FixedPointFormat(fmt.integer_bits + up, fmt.fraction_bits - up, fmt.signed)
        if kind == "ilif":
            # C refuses counts of spikes whose bounds times the thresholds need more than 64 bits.
            fmt = FixedPointFormat(8 - state.fraction_bits, state.fraction_bits, False)
        threshold = g.constant(shape, fmt, 1 if kind == "ilif" else fmt.code_min)
        if kind == "ilif" and g.tensors[threshold].codes.min() < 1:
            g.undo(mark)
            return
    if kind != "if":
        length = random.choice([1, 3, 8, 12])
        decay = g.constant(shape, FixedPointFormat(random.choice([0, 1]), length, False), 0)
    if kind == "if" or random.random() < 0.6:
        reset = random.choice([None, max(low, min(0, high)), random.randint(low, high)])
    alone = kind == "ilif" or (kind != "filter" and random.random() < 0.5)
    what = Neuron(
        kind, state, random.choice(ROUNDINGS), random.choice(OVERFLOWS), threshold, decay,
        not alone, reset, random.choice([max(low, min(0, high)), random.randint(low, high)]),
        random.choice([1, 3, 15]) if kind == "ilif" else 1,
    )  # fmt: skip
    g.add(what, (operand,), shape)


def add_round(g: Growing) -> None:
    random, operand = g.random, g.operand()
    what = Round(some_format(random), random.choice(ROUNDINGS), random.choice(OVERFLOWS))
    g.add(what, (operand,), g.source(operand).shape)


def add_arithmetic(g: Growing) -> None:
    random, operand = g.random, g.operand()
    one = g.source(operand)
    kind = random.choice(["add", "multiply", "scale", "offset"])
    factor = Fraction(random.randint(-20, 20), 1 << random.randint(0, 4))
    if kind in ("scale", "offset"):
        g.add(Arithmetic(kind, factor=factor), (operand,), one.shape)
        return
    same = [n for n, other in enumerate(g.operations) if other.size == one.size]
    second = Operand(random.choice(same))
    late = [n for n in same if isinstance(g.operations[n].what, DELAYED)]
    late = [n for n in late if not g.operations[n].is_static]
    if late and random.random() < 0.4:
        second = Operand(random.choice(late), 1)
    signs = (random.choice([1, -1]), random.choice([1, -1])) if kind == "add" else ()
    g.add(Arithmetic(kind, signs), (operand, second), one.shape)


def add_loop(g: Growing) -> None:
    """A layer that takes what it put out in the step before, as it is or through weights."""
    random, operand = g.random, g.operand()
    one, number = g.source(operand), len(g.operations)
    through = random.random() < 0.5
    late = Operand(number + (2 if through else 1), 1)
    fed: Operand = late
    if through:
        size = one.size
        what = _weighted(g, (size, size))
        g.operations.append(DeviceOperation(what, (late,), (size,), "loop", taken=(size,)))
        fed = Operand(number)
    signs = (random.choice([1, -1]), 1)
    g.operations.append(DeviceOperation(Arithmetic("add", signs), (operand, fed), one.shape, ""))
    added = len(g.operations)
    while len(g.operations) == added:
        add_neuron(g, Operand(added - 1))


def add_pooling(g: Growing) -> None:
    random, operand = g.random, g.operand()
    one = g.source(operand)
    kind = random.choice(["sum", "max"])
    if len(one.shape) == 1 or random.random() < 0.3:
        outputs, terms = random.randint(1, 12), random.randint(1, 6)
        lowest = -1 if kind == "sum" and random.random() < 0.5 else 0
        table = np.array(
            [[random.randint(lowest, one.size - 1) for _ in range(terms)] for _ in range(outputs)]
        )
        g.add(Pooling(kind, None, g.table(table)), (operand,), (outputs,))
        return
    sizes = one.shape[1:][-3:]
    kernel = tuple(random.randint(1, min(3, size)) for size in sizes)
    padding = tuple(random.randint(0, side - 1) for side in kernel)
    window = Window(sizes, kernel, tuple(random.randint(1, 3) for _ in sizes), padding)
    g.add(Pooling(kind, window), (operand,), (one.size // math.prod(sizes), *window.output))


def add_gather(g: Growing) -> None:
    random = g.random
    operands = [g.operand() for _ in range(random.randint(1, 3))]
    late = [
        n for n, one in enumerate(g.operations)
        if isinstance(one.what, DELAYED) and not one.is_static
    ]  # fmt: skip
    if late and random.random() < 0.3:
        operands.append(Operand(random.choice(late), 1))
    total = sum(g.source(one).size for one in operands)
    kind = random.random()
    if kind < 0.4 and total <= 100:
        table = np.arange(total)
    elif kind < 0.7:
        table = np.array([random.randrange(total) for _ in range(random.choice([4, 12, 30]))])
    else:
        table = np.array([random.randint(-1, total - 1) for _ in range(random.choice([6, 24]))])
    g.add(Gather(g.table(table)), tuple(operands), (len(table),))


def add_state(g: Growing) -> None:
    spiking = Neuron | AdaptiveNeuron
    known = [n for n, one in enumerate(g.operations) if isinstance(one.what, spiking)]
    if known:
        number = g.random.choice(known)
        g.add(State(), (Operand(number),), g.operations[number].shape)


KINDS = [
    add_linear, add_convolution, add_neuron, add_neuron, add_round, add_round, add_arithmetic,
    add_loop, add_pooling, add_gather, add_state,
]  # fmt: skip


Kind = Callable[[Growing], None]


def random_model(seed: int, operations: int = 30, kinds: Sequence[Kind] = KINDS) -> DeviceModel:
    """A model of about so many operations, all of whose results become answers if they can.

    Args:
        seed: The same seed makes the same model.
        operations: How many, but for what could not be made.
        kinds: What adds one.
    """
    random = Random(seed)
    static = random.random() < 0.4
    shape = random.choice(SHAPES)
    g = Growing(random, random.randint(1, 4), 0 if static else math.prod(shape))
    spikes = random.random() < 0.3
    given = Input(SPIKES) if spikes else Input(some_format(random))
    g.operations.append(DeviceOperation(given, (), shape, is_static=static))
    for _ in range(operations):
        mark = g.mark
        random.choice(kinds)(g)
        if (len(g.operations) > mark[0] and not g.fits()) or len(g.operations) == mark[0]:
            g.undo(mark)
    return _read(g)


def _read(g: Growing) -> DeviceModel:
    """All that nothing takes is gathered and answered, as far as its grids allow it."""
    random = g.random
    taken = {o.source for one in g.operations for o in one.operands}
    for _ in range(9):
        ends = [n for n in range(len(g.operations)) if n not in taken and random.random() < 0.9]
        ends = ends or [len(g.operations) - 1]
        mark = g.mark
        total = sum(g.operations[n].size for n in ends)
        g.add(Gather(g.table(np.arange(total))), tuple(map(Operand, ends)), (total,))
        if g.fits():
            break
        g.undo(mark)
    size = g.operations[-1].size
    terms = random.choice([1, 1, 2])
    order = np.arange(size)
    if random.random() < 0.5:
        random.shuffle(order)
    table = order[: size - size % terms].reshape(-1, terms) if size >= terms else order[:, None]
    output = Output(len(g.operations) - 1, g.table(table), random.choice(["sum", "last", "each"]))
    model = g.model(output)
    check_model(model)
    program_of(model)
    return model


def random_codes(model: DeviceModel, seed: int, samples: int) -> Codes:
    """Frames or images, a third of whose values are 0."""
    random = np.random.default_rng(seed)
    fmt, size = model.input.format, model.operations[0].size
    shape = (model.steps, samples, size) if model.frame_stride else (samples, size)
    codes = random.integers(fmt.code_min, fmt.code_max, shape, endpoint=True)
    codes[random.random(shape) < 0.33] = 0
    return np.asarray(codes, np.int64)
