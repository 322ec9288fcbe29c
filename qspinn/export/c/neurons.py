"""Layers of neurons in C: the steps of :mod:`qspinn.steps`, and the states that they keep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from qspinn.export.c.codes import PackedArrays
from qspinn.export.c.planning import Place
from qspinn.export.c.text import Lines, holding, scaled
from qspinn.export.model import DeviceModel, Neuron, StoredTensor
from qspinn.export.program import Instruction
from qspinn.steps import neurons
from qspinn.steps.models import MODELS
from qspinn.steps.targets.c import Range, c_function
from qspinn.steps.traces import filtered
from qspinn.steps.words import STOCHASTIC

__all__ = ["StateArray", "neuron_function"]


@dataclass(frozen=True)
class StateArray:
    """The states of a layer in the struct.

    Attributes:
        name: Of the member.
        kind: Type of an entry.
        entries: How many.
        get: Expression of state ``i``.
        put: Statement that stores ``v`` as state ``i``.
    """

    name: str
    kind: str
    entries: int
    get: str
    put: str

    @classmethod
    def of(cls, number: int, one: Instruction, arrays: PackedArrays, packed: bool) -> StateArray:
        """The states of a layer: packed, or in the smallest type that holds one."""
        name, size, fmt = f"v{number}", one.operation.size, one.what.state
        kind = holding(fmt.code_min, fmt.code_max)
        if not packed or fmt.word_length in (8, 16, 32):
            return cls(name, kind, size, f"s->{name}[i]", f"s->{name}[i] = ({kind})v;")
        entries = (size * fmt.word_length + 7) // 8 + 4  # a read goes so far beyond the last one
        get = f"{arrays.getter(fmt.word_length, fmt.signed)}(s->{name}, i)"
        put = f"{arrays.putter(fmt.word_length)}(s->{name}, i, (int32_t)v);"
        return cls(name, "uint8_t", entries, get, put)


def neuron_function(
    model: DeviceModel,
    prefix: str,
    name: str,
    number: int,
    one: Instruction,
    source: Instruction,
    taken: Place,
    made: Place,
    state: StateArray,
    arrays: PackedArrays,
) -> str:
    """The definitions of the steps of a layer, and of ``name(s, x, value)``.

    ``x`` lies at `taken`, ``value`` at `made`; constants of which there are several go to `arrays`.
    """
    what, size = one.what, one.operation.size
    assert isinstance(what, Neuron)
    assert one.to is not None
    kind = MODELS[what.model]
    constants = _Constants(model, name, one, arrays)
    x, v = Range(source.low, source.high), Range(what.state.code_min, what.state.code_max)
    step = filtered if kind.reads_out else kind.step(what.decay_input)
    charge = c_function(step, f"charge_{name}", {"v": v, "trace": v, "x": x, "n": one.numbers})
    texts = [charge.text]
    code = Lines()
    code(f"static void {name}({prefix}_state *s, const {taken.kind} *x, {made.kind} *value)", "{")
    channels = source.operation.shape[0] if taken.interleaved else 1
    places = size // channels
    if taken.interleaved:
        code("uint32_t c, p, i = 0;")
        code.loop("c", channels)
        code.loop("p", places)
        current = f"x[p * {channels}u + c]"
    else:
        code("uint32_t i;")
        code.loop("i", size)
        current = "x[i]"
    leak = constants.leak("leak" in charge.parameters)
    given = {"v": state.get, "trace": state.get, "x": current, "leak": leak}
    if one.to.mode == STOCHASTIC:
        given["random"] = f"draw(s->key{number}, s->drawn{number}++)"
    call, wide = charge.call(given), _kind(one, charge.kind)
    code(f"{wide} v = {call};")
    if one.threshold is None:
        code(f"value[i] = ({made.kind})v;")
    elif kind.counts:
        texts.append(_counted(code, one, name, v, constants, wide, made))
    else:
        threshold = constants.threshold(True)
        _fire(code, one, f"v >= {threshold}", threshold, wide, made)
    code(state.put)
    if taken.interleaved:
        code("i++;")
    code.close(2 if taken.interleaved else 1)
    code.unused("x")
    code("}")
    return "\n\n".join([*texts, str(code)])


def _kind(one: Instruction, kind: str) -> str:
    """The type of a potential, that of its threshold too, and of it less the threshold."""
    if one.threshold is None:
        return kind
    lowest, highest = int(np.min(one.threshold)), int(np.max(one.threshold))
    if one.reset is None:
        highest = max(highest, one.what.state.code_max - min(0, lowest))
    return kind if lowest > -(1 << 31) and highest < 1 << 31 else "int64_t"


def _counted(
    code: Lines,
    one: Instruction,
    name: str,
    v: Range,
    constants: _Constants,
    wide: str,
    made: Place,
) -> str:
    """Spikes that are whole numbers; the definition of the function that counts them."""
    thresholds = one.threshold
    if isinstance(thresholds, np.ndarray):
        thresholds = Range(int(thresholds.min()), int(thresholds.max()))
    given = {"h": v, "threshold": thresholds, "most": one.what.most}
    count = c_function(neurons.counted, f"count_{name}", given)
    threshold = constants.threshold("threshold" in count.parameters or one.reset is None)
    _fire(code, one, count.call({"h": "v", "threshold": threshold}), threshold, wide, made)
    return count.text


def _fire(
    code: Lines, one: Instruction, fires: str, threshold: str, kind: str, made: Place
) -> None:
    code(f"const {kind} spikes = {fires};")
    if one.reset is not None:
        code("if (spikes != 0) {", f"v = {one.reset};", "}")
    else:
        assert one.to is not None
        code("if (spikes != 0) {", f"v -= spikes * ({threshold});")
        code(f"v = v < {one.to.low} ? {one.to.low} : v > {one.to.high} ? {one.to.high} : v;", "}")
    code(f"value[i] = ({made.kind})spikes;")


@dataclass(eq=False)
class _Constants:
    """Expressions of the constants of neuron ``i``, shifted as the program has them."""

    model: DeviceModel
    name: str
    one: Instruction
    arrays: PackedArrays

    def threshold(self, is_read: bool) -> str:
        return self._constant("threshold", self.one.what.threshold, self.one.threshold, is_read)

    def leak(self, is_read: bool) -> str:
        numbers: Any = self.one.numbers
        if self.one.what.decay is None:
            return "0"
        return self._constant("leak", self.one.what.decay, numbers.leak, is_read)

    def _constant(self, role: str, name: str, lowered: Any, is_read: bool) -> str:
        tensor = self.model.tensors[name]
        if isinstance(lowered, np.ndarray) and lowered.size > 1 and is_read:
            return self._array(role, tensor, lowered)
        self.arrays.payload_bits += tensor.bits  # a literal, or nothing depends on it
        return str(int(np.reshape(lowered, -1)[0]))

    def _array(self, role: str, tensor: StoredTensor, lowered: Any) -> str:
        fmt, shape = tensor.format, self.one.operation.shape
        label = f"{role}_{self.name}"
        codes, index = tensor.codes, "i"
        sized = (1,) * (len(shape) - codes.ndim) + codes.shape
        lead = max(axis for axis, size in enumerate(sized) if size > 1) + 1
        if sized[:lead] == shape[:lead]:
            each = math.prod(shape[lead:])
            index = f"i / {each}u" if each > 1 else "i"
        else:
            codes = np.broadcast_to(codes, shape)
        self.arrays.add(label, codes, fmt.word_length, fmt.signed)
        read = f"{self.arrays.getter(fmt.word_length, fmt.signed)}({label}, {index})"
        flat = tensor.codes.reshape(-1)
        first = int(np.argmax(flat != 0))
        if not flat[first]:
            return read  # all are 0, on any grid
        up = int(lowered.reshape(-1)[first] // flat[first]).bit_length() - 1
        return scaled(read, up, holding(int(lowered.min()), int(lowered.max())))
