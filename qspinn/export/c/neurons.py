"""Layers of neurons in C: the steps of :mod:`qspinn.steps`, and the states that they keep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from qspinn.export.c.site import Site
from qspinn.export.c.text import Lines, holding, scaled
from qspinn.export.model import Neuron, StoredTensor
from qspinn.export.program import Instruction
from qspinn.steps import neurons
from qspinn.steps.models import MODELS
from qspinn.steps.targets.c import Range, c_function
from qspinn.steps.traces import filtered

__all__ = ["neuron_function"]


def neuron_function(site: Site) -> str:
    """The definitions of the steps of a layer, and of ``name(s, x, value)``."""
    one, name, state = site.one, site.name, site.state
    (source,), (taken,), made = site.sources, site.taken, site.made
    what, values = one.what, site.values
    assert isinstance(what, Neuron)
    kind = MODELS[what.model]
    constants = _Constants(site)
    x, v = Range(source.low, source.high), Range(what.state.code_min, what.state.code_max)
    step = filtered if kind.reads_out else kind.step(what.decay_input)
    charge = c_function(step, f"charge_{name}", {"v": v, "trace": v, "x": x, "n": one.numbers})
    texts = [charge.text]
    code = Lines()
    listed = f"{site.prefix}_state *s, const {taken.kind} *x, {made.kind} *value"
    code(f"static void {name}({listed})", "{")
    code(f"uint32_t {', '.join(values.variables)};")
    current = values.open(code)
    leak = constants.leak("leak" in charge.parameters)
    given = {"v": state.get, "trace": state.get, "x": current, "leak": leak}
    if site.draws:
        given["random"] = site.random
    call, wide = charge.call(given), _kind(one, charge.kind)
    code(f"{wide} v = {call};")
    if one.threshold is None:
        code(f"value[i] = ({made.kind})v;")
    elif kind.counts:
        texts.append(_counted(site, code, v, constants, wide))
    else:
        threshold = constants.threshold(True)
        _fire(site, code, f"v >= {threshold}", threshold, wide)
    code(state.put)
    values.close(code)
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


def _counted(site: Site, code: Lines, v: Range, constants: _Constants, wide: str) -> str:
    """Spikes that are whole numbers; the definition of the function that counts them."""
    one = site.one
    thresholds = one.threshold
    if isinstance(thresholds, np.ndarray):
        thresholds = Range(int(thresholds.min()), int(thresholds.max()))
    given = {"h": v, "threshold": thresholds, "most": one.what.most}
    count = c_function(neurons.counted, f"count_{site.name}", given)
    threshold = constants.threshold("threshold" in count.parameters or one.reset is None)
    _fire(site, code, count.call({"h": "v", "threshold": threshold}), threshold, wide)
    return count.text


def _fire(site: Site, code: Lines, fires: str, threshold: str, kind: str) -> None:
    one = site.one
    code(f"const {kind} spikes = {fires};")
    if one.reset is not None:
        code("if (spikes != 0) {", f"v = {one.reset};", "}")
    else:
        assert one.to is not None
        code("if (spikes != 0) {", f"v -= spikes * ({threshold});")
        code(f"v = v < {one.to.low} ? {one.to.low} : v > {one.to.high} ? {one.to.high} : v;", "}")
    code(f"value[i] = ({site.made.kind})spikes;")


@dataclass(eq=False)
class _Constants:
    """Expressions of the constants of neuron ``i``, shifted as the program has them."""

    site: Site

    def threshold(self, is_read: bool) -> str:
        return self._constant(
            "threshold", self.site.one.what.threshold, self.site.one.threshold, is_read
        )

    def leak(self, is_read: bool) -> str:
        numbers: Any = self.site.one.numbers
        if self.site.one.what.decay is None:
            return "0"
        return self._constant("leak", self.site.one.what.decay, numbers.leak, is_read)

    def _constant(self, role: str, name: str, lowered: Any, is_read: bool) -> str:
        tensor = self.site.model.tensors[name]
        if isinstance(lowered, np.ndarray) and lowered.size > 1 and is_read:
            return self._array(role, tensor, lowered)
        self.site.arrays.payload_bits += tensor.bits  # a literal, or nothing depends on it
        return str(int(np.reshape(lowered, -1)[0]))

    def _array(self, role: str, tensor: StoredTensor, lowered: Any) -> str:
        fmt, shape = tensor.format, self.site.one.operation.shape
        label = f"{role}_{self.site.name}"
        codes, index = tensor.codes, "i"
        sized = (1,) * (len(shape) - codes.ndim) + codes.shape
        lead = max(axis for axis, size in enumerate(sized) if size > 1) + 1
        if sized[:lead] == shape[:lead]:
            each = math.prod(shape[lead:])
            index = f"i / {each}u" if each > 1 else "i"
        else:
            codes = np.broadcast_to(codes, shape)
        read = self.site.arrays.add(label, codes, fmt.word_length, fmt.signed, index)
        flat = tensor.codes.reshape(-1)
        first = int(np.argmax(flat != 0))
        if not flat[first]:
            return read  # all are 0, on any grid
        up = int(lowered.reshape(-1)[first] // flat[first]).bit_length() - 1
        return scaled(read, up, holding(int(lowered.min()), int(lowered.max())))
