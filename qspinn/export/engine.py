"""Runs a device model in whole numbers, with NumPy: the clear engine, by which others are judged.

No floating-point number takes part from the codes of the input to the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qspinn.export.answers import Answers
from qspinn.export.batches import checked_codes, keys_of
from qspinn.export.lowering import program_of
from qspinn.export.model import (
    Arithmetic,
    Codes,
    DeviceModel,
    Gather,
    Input,
    Neuron,
    Pooling,
    Round,
    State,
    Synapse,
)
from qspinn.export.plastic_engine import PLASTIC_COMPUTE
from qspinn.export.program import Instruction, Program, places_of
from qspinn.fixed_point.random_bits import draw
from qspinn.steps import neurons
from qspinn.steps.models import MODELS
from qspinn.steps.roundings import kept
from qspinn.steps.traces import filtered
from qspinn.steps.words import STOCHASTIC

__all__ = ["Answers", "IntegerEngine"]

Watch = Callable[[int, int, Codes], None]
"""Is told of each step, operation and output ``[N, *]``."""
NOTHING = np.iinfo(np.int64).min


class IntegerEngine:
    """Runs a device model on batches.

    Args:
        model: The model.
        accumulators: Word length of accumulators; results that need more are counted. None: as
            long as the model can need, so that nothing overflows.
    """

    def __init__(self, model: DeviceModel, accumulators: int | None = None) -> None:
        self.model = model
        self.program: Program = program_of(model)
        self.accumulators = accumulators
        self._places = {
            number: places_of(model, one)
            for number, one in enumerate(model.operations)
            if isinstance(one.what, Pooling | Gather)
        }
        self._answer_places = model.table(model.output.table)

    def run(
        self,
        codes: NDArray[Any],
        *,
        steps: int | None = None,
        keys: Mapping[str, int] | None = None,
        seed: int = 0,
        watch: Watch | None = None,
    ) -> Answers:
        """Answers for a batch.

        Args:
            codes: Of frames ``[T, N, values]``, or of images that stay ``[N, values]``, as
                :func:`qspinn.export.coding.encode` gives them.
            steps: Time steps for which images are shown; None: those of the model.
            keys: Layer -> key of the random bits of its roundings; None: from `seed`.
            seed: Of the random bits.
            watch: Is told of each result.

        Raises:
            ValueError: Codes of another shape.
        """
        codes = checked_codes(self.model, codes)
        if steps is None:
            steps = len(codes) if self.model.frame_stride else self.model.steps
        held = keys_of(self.model, keys, seed)
        looked_up = (self._places, self._answer_places)
        run = _Run(self.program, codes, held, self.accumulators, watch, steps, *looked_up)
        for step in range(steps):
            run.step(step)
        divisors = self.model.output.divisors
        return Answers(run.answers(), run.fraction_bits, run.overflows, divisors)


@dataclass(eq=False)
class _Run:
    """One batch on its way."""

    program: Program
    codes: Codes
    keys: Mapping[int, int]
    accumulators: int | None
    watch: Watch | None
    steps: int
    places: Mapping[int, Codes]
    answer_places: Codes
    overflows: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.batch = self.codes.shape[-2]
        self.values: dict[int, Codes] = {}
        self.states: dict[int, Codes] = {}
        self.held: dict[int, Any] = {}
        self.drawn: dict[int, int] = {}
        self.collected: list[Codes] = []
        for number, one in enumerate(self.program.instructions):
            if isinstance(one.what, Neuron):
                shape = (self.batch, *one.operation.shape)
                self.states[number] = np.full(shape, one.what.initial, np.int64)

    @property
    def fraction_bits(self) -> int:
        return self.program.instructions[self.program.model.output.operation].fraction_bits

    def step(self, step: int) -> None:
        before = self.values
        self.values = {} if step == 0 else dict(before)
        for number, one in enumerate(self.program.instructions):
            if one.operation.is_static and step > 0:
                continue
            if one.operation.is_final and step < self.steps - 1:
                continue
            given = [self._operand(o.source, o.delay, before) for o in one.operation.operands]
            result = _COMPUTE[type(one.what)](self, number, one, given, step)
            self.values[number] = result.reshape(self.batch, *one.operation.shape)
            self._count(number, one, self.values[number])
            if self.watch is not None:
                self.watch(step, number, self.values[number])
        self._collect()

    def _operand(self, source: int, delay: int, before: Mapping[int, Codes]) -> Codes:
        if not delay:
            return self.values[source]
        if source in before:
            return before[source]
        shape = self.program.model.operations[source].shape
        return np.zeros((self.batch, *shape), np.int64)

    def _count(self, number: int, one: Instruction, result: Codes) -> None:
        if self.accumulators is None or not isinstance(one.what, Synapse | Pooling | Arithmetic):
            return
        largest = (1 << (self.accumulators - 1)) - 1
        count = int(((result > largest) | (result < -largest - 1)).sum())
        if count:
            self.overflows[number] = self.overflows.get(number, 0) + count

    def _collect(self) -> None:
        output = self.program.model.output
        if output.operation not in self.values:
            return
        read = self.values[output.operation].reshape(self.batch, -1)
        sums = read[:, self.answer_places].sum(-1)
        if output.over == "sum" and self.collected:
            self.collected[0] = self.collected[0] + sums
        elif output.over == "each" or not self.collected:
            self.collected.append(sums)
        else:
            self.collected[0] = sums

    def answers(self) -> Codes:
        if self.program.model.output.over == "each":
            return np.stack(self.collected)
        return self.collected[0]

    def random(self, number: int, mode: int, size: int) -> Codes | None:
        """The next draws of an operation, in the order of its numbers."""
        if mode != STOCHASTIC:
            return None
        first = self.drawn.get(number, 0)
        self.drawn[number] = first + size
        key = torch.tensor(self.keys[number], dtype=torch.int64)
        drawn: Codes = draw(key, torch.arange(first, first + size)).numpy()
        return drawn

    def input(self, number: int, one: Instruction, given: list[Codes], step: int) -> Codes:
        return self.codes[step] if self.program.model.frame_stride else self.codes

    def synapse(self, number: int, one: Instruction, given: list[Codes], step: int) -> Codes:
        weight, what = one.weight, one.what
        assert weight is not None
        assert one.weight_up is not None
        if weight.ndim == 2:
            x = given[0].reshape(self.batch, one.operation.rows, -1)
            total = x @ weight.T << one.weight_up
            return total if one.bias is None else total + one.bias
        x = given[0].reshape(self.batch, *one.operation.taken)
        total = _convolved(x, weight, what)
        ones = (1,) * (weight.ndim - 2)
        total = total << one.weight_up.reshape(-1, *ones)
        return total if one.bias is None else total + one.bias.reshape(-1, *ones)

    def neuron(self, number: int, one: Instruction, given: list[Codes], step: int) -> Codes:
        what, n = one.what, one.numbers
        model, v = MODELS[what.model], self.states[number]
        x = given[0].reshape(v.shape)
        assert one.to is not None
        random = self.random(number, one.to.mode, v.size)
        random = None if random is None else random.reshape(v.shape)
        if model.reads_out:
            self.states[number] = filtered(v, x, random, n)
            return self.states[number]
        h = model.step(what.decay_input)(v, x, random, n)
        if one.threshold is None:
            self.states[number] = h
            return h
        if model.counts:
            spikes = neurons.counted(h, one.threshold, what.most)
        else:
            spikes = h >= one.threshold
        if one.reset is None:
            after = neurons.reset_by(h, spikes.astype(np.int64), one.threshold)
            after = np.clip(after, one.to.low, one.to.high)
        else:
            after = neurons.reset_to(h, spikes != 0, one.reset)
        self.states[number] = after
        return spikes.astype(np.int64)

    def round(self, number: int, one: Instruction, given: list[Codes], step: int) -> Codes:
        assert one.to is not None
        x = given[0] << max(-one.down, 0)
        random = self.random(number, one.to.mode, x.size)
        random = None if random is None else random.reshape(x.shape)
        result: Codes = kept(x, max(one.down, 0), one.to, random)
        return result

    def arithmetic(self, number: int, one: Instruction, given: list[Codes], step: int) -> Codes:
        kind = one.what.kind
        flat = [x.reshape(self.batch, -1) for x in given]
        if kind == "multiply":
            return flat[0] * flat[1]
        if kind == "scale":
            return flat[0] * one.factor
        if kind == "offset":
            return (flat[0] << one.ups[0]) + one.factor
        total = np.zeros_like(flat[0])
        for x, up, sign in zip(flat, one.ups, one.what.signs, strict=True):
            total = total + sign * (x << up)
        return total

    def pooling(self, number: int, one: Instruction, given: list[Codes], step: int) -> Codes:
        x, what = given[0].reshape(self.batch, -1), one.what
        fill = 0 if what.kind == "sum" else NOTHING
        padded = np.concatenate([x, np.full((self.batch, 1), fill, np.int64)], axis=1)
        rows = padded[:, self.places[number]]
        return rows.sum(-1) if what.kind == "sum" else rows.max(-1)

    def gather(self, number: int, one: Instruction, given: list[Codes], step: int) -> Codes:
        parts = [x.reshape(self.batch, -1) << up for x, up in zip(given, one.ups, strict=True)]
        together = np.concatenate([*parts, np.zeros((self.batch, 1), np.int64)], axis=1)
        return together[:, self.places[number]]

    def state(self, number: int, one: Instruction, given: list[Codes], step: int) -> Codes:
        return self.states[one.operation.operands[0].source]


_COMPUTE: dict[type, Callable[..., Codes]] = {
    Input: _Run.input,
    Synapse: _Run.synapse,
    Neuron: _Run.neuron,
    Round: _Run.round,
    Arithmetic: _Run.arithmetic,
    Pooling: _Run.pooling,
    Gather: _Run.gather,
    State: _Run.state,
    **PLASTIC_COMPUTE,
}


def _convolved(x: Codes, weight: Codes, what: Synapse) -> Codes:
    """A convolution over the last axes: ``[N, out, *]`` from ``[N, in, *]``."""
    kernel = weight.shape[2:]
    axes = tuple(range(2, 2 + len(kernel)))
    padded = np.pad(x, [(0, 0), (0, 0), *what.padding])
    reach = [d * (k - 1) + 1 for d, k in zip(what.dilation, kernel, strict=True)]
    windows: Any = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=axes)
    steps = [slice(None, None, one) for one in what.stride]
    inner = [slice(None, None, one) for one in what.dilation]
    windows = windows[(slice(None), slice(None), *steps, *inner)]
    width, outputs = weight.shape[1], len(weight) // what.groups
    over = (1, *range(2 + len(kernel), 2 + 2 * len(kernel)))
    parts = []
    for group in range(what.groups):
        part = windows[:, group * width : (group + 1) * width]
        taps = weight[group * outputs : (group + 1) * outputs]
        summed = np.tensordot(part, taps, axes=(over, tuple(range(1, taps.ndim))))
        parts.append(np.moveaxis(summed, -1, 1))
    return np.concatenate(parts, axis=1)
