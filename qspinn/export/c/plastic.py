"""Random spikes, adaptive neurons, traces and totals in C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qspinn.export.c.adaptive import adaptive_functions
from qspinn.export.c.codes import PackedArrays
from qspinn.export.c.neurons import StateArray
from qspinn.export.c.planning import Place
from qspinn.export.c.spikes import random_spikes
from qspinn.export.c.text import Lines, holding, scaled
from qspinn.export.model import (
    AdaptiveNeuron,
    Compare,
    DeviceModel,
    LabelSums,
    RandomSpikes,
    Total,
    Trace,
)
from qspinn.export.program import Instruction
from qspinn.fixed_point import FixedPointFormat
from qspinn.steps.lowering import AdaptiveNumbers
from qspinn.steps.targets.c import CFunction, Range, c_function
from qspinn.steps.traces import following
from qspinn.steps.words import STOCHASTIC

__all__ = ["PLASTIC", "plastic_function", "plastic_members"]

PLASTIC = (Trace, Compare, AdaptiveNeuron, RandomSpikes, Total, LabelSums)
Member = tuple[str, str, int]


def plastic_members(number: int, one: Instruction) -> list[Member]:
    """What an operation keeps beside its states: name, type and entries, zero in the beginning."""
    what, size = one.what, one.operation.size
    if isinstance(what, RandomSpikes):
        return [(f"words{number}", "uint64_t", size), (f"shown{number}", "uint64_t", 1)]
    if not isinstance(what, AdaptiveNeuron):
        return []
    found = [(f"pending{number}", "uint8_t", size * what.delay)]
    if what.refractory:
        found.append((f"refractory{number}", holding(0, what.refractory), size))
    return found


def plastic_function(
    model: DeviceModel,
    prefix: str,
    name: str,
    number: int,
    one: Instruction,
    sources: Sequence[Instruction],
    taken: Sequence[Place],
    made: Place,
    state: StateArray | None,
    arrays: PackedArrays,
) -> str:
    """The definition of ``name(s, x, value)``, and of the functions that it calls."""
    code = Lines()
    listed = f"{prefix}_state *s, const {taken[0].kind} *x, {made.kind} *value"
    code(f"static void {name}({listed})", "{")
    before: list[str] = []
    what = one.what
    if isinstance(what, RandomSpikes):
        before = random_spikes(name, number, one, taken[0].kind, made.kind, code)
    elif isinstance(what, AdaptiveNeuron):
        assert state is not None
        before = _adaptive(model, name, number, one, sources[0], made, state, arrays, code)
    elif isinstance(what, Trace):
        assert state is not None
        before = _trace(model, name, number, one, sources[0], made, state, arrays, code)
    elif isinstance(what, LabelSums):
        _label_sums(model, name, one, made, arrays, code)
    else:
        _each(model, one, made, arrays, code)
    code("}")
    return "\n\n".join([*before, str(code)])


def _each(
    model: DeviceModel, one: Instruction, made: Place, arrays: PackedArrays, code: Lines
) -> None:
    """Totals and comparisons, number by number."""
    what = one.what
    code("uint32_t i;")
    if isinstance(what, Total):
        if what.first:
            code(f"if (s->step < {what.first}u) {{", "return;", "}")
        else:
            code("(void)s;")
        code.loop("i", one.operation.size)
        code(f"value[i] += ({made.kind})x[i];")
    else:
        arrays.payload_bits += model.tensors[what.threshold].bits  # a literal
        code("(void)s;")
        code.loop("i", one.operation.size)
        code(f"value[i] = ({made.kind})({scaled('x[i]', one.ups[0])} >= {one.threshold});")
    code.close()


def _label_sums(
    model: DeviceModel,
    name: str,
    one: Instruction,
    made: Place,
    arrays: PackedArrays,
    code: Lines,
) -> None:
    labels = model.tensors[one.what.labels]
    fmt, classes = labels.format, one.operation.size
    arrays.add(f"labels_{name}", labels.codes, fmt.word_length, fmt.signed)
    get = arrays.getter(fmt.word_length, fmt.signed)
    code("uint32_t i;", "(void)s;")
    code.loop("i", classes)
    code("value[i] = 0;")
    code.close()
    code.loop("i", labels.codes.size)
    code(f"const uint32_t label = (uint32_t){get}(labels_{name}, i);")
    code(f"if (label < {classes}u) {{", f"value[label] += ({made.kind})x[i];", "}")
    code.close()


def _trace(
    model: DeviceModel,
    name: str,
    number: int,
    one: Instruction,
    source: Instruction,
    made: Place,
    state: StateArray,
    arrays: PackedArrays,
    code: Lines,
) -> list[str]:
    what = one.what
    fmt = what.state
    arrays.payload_bits += sum(
        model.tensors[tensor].bits for tensor in {what.leak, what.gain} - {None}
    )
    step = c_function(
        following,
        f"follow_{name}",
        {
            "x": Range(fmt.code_min, fmt.code_max),
            "target": Range(source.low, source.high),
            "n": one.numbers,
        },
    )
    given = {"x": state.get, "target": "x[i]"}
    assert one.to is not None
    if one.to.mode == STOCHASTIC:
        given["random"] = f"draw(s->key{number}, s->drawn{number}++)"
    code("uint32_t i;")
    code.loop("i", one.operation.size)
    code(f"const {step.kind} v = {step.call(given)};", state.put, f"value[i] = ({made.kind})v;")
    code.close()
    return [step.text]


def _adaptive(
    model: DeviceModel,
    name: str,
    number: int,
    one: Instruction,
    source: Instruction,
    made: Place,
    state: StateArray,
    arrays: PackedArrays,
    code: Lines,
) -> list[str]:
    what = one.what
    theta = model.tensors[what.theta]
    fmt = theta.format
    assert isinstance(fmt, FixedPointFormat)
    arrays.add(f"theta_{name}", theta.codes, fmt.word_length, fmt.signed)
    get = arrays.getter(fmt.word_length, fmt.signed)
    constants = {what.threshold, what.reset, what.leak, what.inhibition}
    arrays.payload_bits += sum(model.tensors[tensor].bits for tensor in constants)
    current = Range(source.low, source.high)
    steps = adaptive_functions(one, current, fmt, lambda role: f"{role}_{name}")
    _adaptive_body(number, one, made, state, code, f"{get}(theta_{name}, i)", steps)
    return [step.text for step in steps.values()]


def _adaptive_body(
    number: int,
    one: Instruction,
    made: Place,
    state: StateArray,
    code: Lines,
    theta: str,
    steps: Mapping[str, CFunction],
) -> None:
    what, n, size = one.what, one.numbers, one.operation.size
    assert isinstance(n, AdaptiveNumbers)
    assert one.to is not None
    shown = one.operation.operands[1].source if len(one.operation.operands) > 1 else None
    ring = f"s->pending{number}"
    at = f"{ring} + s->step % {what.delay}u * {size}u" if what.delay > 1 else ring
    code(f"uint8_t *const arriving = {at};", "uint32_t i, arrived = 0, crossed = 0;")
    if one.to.mode == STOCHASTIC:
        code(f"const uint64_t key = stream(s->shown{shown}[0], {what.draws[0]}u);")
    code.loop("i", size)
    code("arrived += arriving[i];")
    code.close()
    code.loop("i", size)
    charge, refractory = steps["charge"], f"s->refractory{number}[i]"
    given = {
        "v": state.get,
        "current": "x[i]",
        "lowered": "lowered",
        "ready": f"{refractory} == 0",
        "random": "spread(key, s->step, i)",
    }
    if "lowered" in charge.parameters:
        lowered = f"({charge.kind})(arrived - arriving[i]) * {int(n.inhibition)}"
        code(f"const {charge.kind} lowered = {lowered};")
    else:  # a single neuron is not inhibited
        code("(void)arrived;")
    code(f"{charge.kind} v = {charge.call(given)};")
    total = steps["threshold"].call({"theta": theta})
    code(f"const uint32_t spikes = {steps['reaches'].call({'v': 'v', 'total': total})};")
    code("crossed += spikes;", f"value[i] = ({made.kind})spikes;")
    code("if (spikes != 0) {", f"v = {one.reset};", "}")
    if what.refractory:
        kind = holding(0, what.refractory)
        left = steps["counted_down"].call({"refractory": refractory, "fired": "spikes"})
        code(f"{refractory} = ({kind}){left};")
    code(state.put)
    code.close()
    if what.one_winner:
        random = f"draw(stream(s->shown{shown}[0], {what.draws[1]}u), s->step)"
        rank = steps["drawn_rank"].call({"random": random, "count": "crossed"})
        code("if (crossed > 1) {", f"uint32_t rank = (uint32_t){rank};")
        code.loop("i", size)
        code("if (value[i] != 0 && rank-- != 0) {", "value[i] = 0;", "}")
        code.close()
        code("}")
    else:
        code("(void)crossed;")
    code.loop("i", size)
    code("arriving[i] = value[i];")
    code.close()
