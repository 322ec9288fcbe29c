"""Random spikes, adaptive neurons, traces and totals in C."""

from __future__ import annotations

from collections.abc import Mapping

from qspinn.export.c.adaptive import adaptive_functions
from qspinn.export.c.site import Site
from qspinn.export.c.spikes import random_spikes
from qspinn.export.c.text import Lines, holding, scaled
from qspinn.export.model import (
    AdaptiveNeuron,
    Compare,
    LabelSums,
    RandomSpikes,
    Total,
    Trace,
)
from qspinn.export.program import Instruction
from qspinn.fixed_point import FixedPointFormat
from qspinn.steps.targets.c import CFunction, Range, c_function
from qspinn.steps.traces import following

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


def plastic_function(site: Site) -> str:
    """The definition of ``name(s, x, value)``, and of the functions that it calls."""
    code, what = Lines(), site.one.what
    kind, made = site.taken[0].kind, site.made.kind
    listed = f"const {kind} *restrict x, {made} *restrict value"
    code(f"static void {site.name}({site.prefix}_state *s, {listed})", "{")
    before: list[str] = []
    if isinstance(what, RandomSpikes):
        before = random_spikes(site.name, site.number, site.one, kind, made, code)
    elif isinstance(what, AdaptiveNeuron):
        before = _adaptive(site, code)
    elif isinstance(what, Trace):
        before = _trace(site, code)
    elif isinstance(what, LabelSums):
        _label_sums(site, code)
    else:
        _each(site, code)
    code("}")
    return "\n\n".join([*before, str(code)])


def _each(site: Site, code: Lines) -> None:
    """Totals and comparisons, number by number."""
    what, kind = site.one.what, site.made.kind
    code("uint32_t i;")
    if isinstance(what, Total):
        if what.first:
            code(f"if (s->step < {what.first}u) {{", "return;", "}")
        else:
            code("(void)s;")
        code.loop("i", site.size)
        code(f"value[i] += ({kind})x[i];")
    else:
        site.arrays.payload_bits += site.model.tensors[what.threshold].bits  # a literal
        code("(void)s;")
        code.loop("i", site.size)
        code(f"value[i] = ({kind})({scaled('x[i]', site.one.ups[0])} >= {site.one.threshold});")
    code.close()


def _label_sums(site: Site, code: Lines) -> None:
    labels, arrays, classes = site.model.tensors[site.one.what.labels], site.arrays, site.size
    fmt = labels.format
    label = arrays.add(f"labels_{site.name}", labels.codes, fmt.word_length, fmt.signed, "i")
    code("uint32_t i;", "(void)s;")
    code.loop("i", classes)
    code("value[i] = 0;")
    code.close()
    code.loop("i", labels.codes.size)
    code(f"const uint32_t label = (uint32_t){label};")
    code(f"if (label < {classes}u) {{", f"value[label] += ({site.made.kind})x[i];", "}")
    code.close()


def _trace(site: Site, code: Lines) -> list[str]:
    one, (source,), state = site.one, site.sources, site.state
    what, fmt = one.what, one.what.state
    held = {what.leak, what.gain} - {None}
    site.arrays.payload_bits += sum(site.model.tensors[tensor].bits for tensor in held)
    x, target = Range(fmt.code_min, fmt.code_max), Range(source.low, source.high)
    arguments = {"x": x, "target": target, "n": one.numbers}
    step = c_function(following, f"follow_{site.name}", arguments)
    given = {"x": state.get, "target": "x[i]"}
    if site.draws:
        given["random"] = site.random
    code("uint32_t i;")
    code.loop("i", site.size)
    code(f"const {step.kind} v = {step.call(given)};", state.put)
    code(f"value[i] = ({site.made.kind})v;")
    code.close()
    return [step.text]


def _adaptive(site: Site, code: Lines) -> list[str]:
    what, name, arrays = site.one.what, site.name, site.arrays
    theta = site.model.tensors[what.theta]
    fmt = theta.format
    assert isinstance(fmt, FixedPointFormat)
    held = arrays.add(f"theta_{name}", theta.codes, fmt.word_length, fmt.signed, "i")
    constants = {what.threshold, what.reset, what.leak, what.inhibition}
    arrays.payload_bits += sum(site.model.tensors[tensor].bits for tensor in constants)
    current = Range(site.sources[0].low, site.sources[0].high)
    steps = adaptive_functions(site.one, current, fmt, lambda role: f"{role}_{name}")
    _adaptive_body(site, code, held, steps)
    return [step.text for step in steps.values()]


def _adaptive_body(site: Site, code: Lines, theta: str, steps: Mapping[str, CFunction]) -> None:
    one, state, size = site.one, site.state, site.size
    what = one.what
    shown = one.operation.operands[1].source if len(one.operation.operands) > 1 else None
    values = site.values
    # A pointer to what arrives could be one to any state, which keeps compilers from vectorising.
    arriving = f"s->pending{site.number}[i]"
    if what.delay > 1:
        arriving = f"s->pending{site.number}[first + i]"
        code(f"const uint32_t first = s->step % {what.delay}u * {size}u;")
    code(f"uint32_t {', '.join(values.variables)}, arrived = 0, crossed = 0;")
    if site.draws:
        code(f"const uint64_t key = stream(s->shown{shown}[0], {what.draws[0]}u);")
    code.loop("i", size)
    code(f"arrived += {arriving};")
    code.close()
    current = values.open(code)
    charge, refractory = steps["charge"], f"s->refractory{site.number}[i]"
    given = {
        "v": state.get,
        "current": current,
        "lowered": "lowered",
        "ready": f"{refractory} == 0",
        "random": "spread(key, s->step, i)",
    }
    if "lowered" in charge.parameters:
        code(f"const {charge.kind} lowered = ({charge.kind})(arrived - {arriving});")
    else:  # a single neuron is not inhibited
        code("(void)arrived;")
    code(f"{charge.kind} v = {charge.call(given)};")
    total = steps["threshold"].call({"theta": theta})
    code(f"const uint32_t spikes = {steps['reaches'].call({'v': 'v', 'total': total})};")
    code("crossed += spikes;", f"value[i] = ({site.made.kind})spikes;")
    code("if (spikes != 0) {", f"v = {one.reset};", "}")
    if what.refractory:
        kind = holding(0, what.refractory)
        left = steps["counted_down"].call({"refractory": refractory, "fired": "spikes"})
        code(f"{refractory} = ({kind}){left};")
    code(state.put)
    values.close(code)
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
    code(f"{arriving} = value[i];")
    code.close()
