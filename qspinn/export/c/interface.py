"""What is seen of a model in C: its struct, and the functions that begin, step and read."""

from __future__ import annotations

from qspinn.export.c.planning import member
from qspinn.export.c.source import Source
from qspinn.export.c.text import Lines, comment
from qspinn.export.model import Neuron

__all__ = ["header_text", "init_text", "read_text", "step_text", "trace_text"]


def header_text(source: Source, more: str = "") -> str:
    """The header file, with more declarations at its end."""
    model, prefix = source.model, source.prefix
    guard = f"{prefix.upper()}_H"
    code = Lines()
    code("typedef struct {")
    for name, kind, entries in source.members():
        code(f"{kind} {name}[{entries}];")
    for slot, kinds in enumerate(source.plan.slots):
        code("union {")
        for kind, entries in kinds.items():
            code(f"{kind} {member(kind)}[{entries}];")
        code(f"}} slot{slot};")
    for number in source.draws:
        code(f"uint64_t key{number}, drawn{number};")
    each = model.output.over == "each"
    code(f"{source.answer_kind} answers[{model.answers}];")
    if each:
        code(f"{source.answer_kind} totals[{model.answers}];")
    code("uint32_t step;", f"}} {prefix}_state;")
    what, values = model.input, model.operations[0].size
    frame = "frame" if model.frame_stride else "image, the same in each step"
    about = (
        f"{prefix}: a spiking network in whole numbers. Place a {prefix}_state anywhere; call "
        f"{prefix}_init before each sample, {prefix}_step once for each time step and "
        f"{prefix}_read for the answers."
    )
    rounds = (
        "Random numbers of roundings follow from the seed."
        if source.draws
        else ("The seed is not used.")
    )
    return f"""{comment(about)}
#ifndef {guard}
#define {guard}

#include <stdint.h>

#define {prefix.upper()}_INPUTS {values}
#define {prefix.upper()}_ANSWERS {model.answers}
#define {prefix.upper()}_STEPS {model.steps}

{code}

{comment(f"Begins a sample. {rounds}")}
void {prefix}_init({prefix}_state *s, uint64_t seed);

{comment(f"One time step on a {frame}: {values} codes of {what.format}, {what.rounding}.")}
void {prefix}_step({prefix}_state *s, const {source.input_kind} *input);

{comment(f"Copies the {model.answers} answers, and returns the number of the largest one.")}
{read_declaration(source)};

#ifdef {prefix.upper()}_TRACE
{comment("State number i of a layer, for comparisons; layers without states have 0.")}
int64_t {prefix}_trace(const {prefix}_state *s, uint32_t operation, uint32_t i);
#endif
{more}
#endif
"""


def init_text(source: Source) -> str:
    """The function that begins a sample."""
    code, prefix = Lines(), source.prefix
    code(f"void {prefix}_init({prefix}_state *s, uint64_t seed)", "{")
    code("uint32_t i;")
    for number, state in source.states.items():
        operation = source.model.operations[number]
        initial = operation.what.initial if isinstance(operation.what, Neuron) else 0
        code.loop("i", operation.size)
        kind = "int32_t" if initial < 1 << 31 else "int64_t"
        code(f"const {kind} v = {initial};", state.put)
        code.close()
    states = {state.name for state in source.states.values()}
    for name, _, entries in source.members():
        if name not in states:
            code.loop("i", entries)
            code(f"s->{name}[i] = 0;")
            code.close()
    for number in source.draws:
        code(f"s->key{number} = stream(seed, {number}u);", f"s->drawn{number} = 0;")
    if not source.draws:
        code("(void)seed;")
    code.loop("i", source.model.answers)
    code("s->answers[i] = 0;")
    if source.model.output.over == "each":
        code("s->totals[i] = 0;")
    code.close()
    code("s->step = 0;")
    code("}")
    return str(code)


def step_text(source: Source) -> str:
    """The function of one time step."""
    code, prefix, model = Lines(), source.prefix, source.model
    code(f"void {prefix}_step({prefix}_state *s, const {source.input_kind} *input)", "{")
    output = model.output
    is_final = model.operations[output.operation].is_final
    if not is_final or source.plan.before:
        code("uint32_t i;" if is_final else "uint32_t i, k;")
    static = [number for number, one in enumerate(model.operations) if one.is_static]
    if any(number in source.calls for number in static):
        code("if (s->step == 0) {")
        code(*(source.calls[number] for number in static if number in source.calls))
        code.close()
    for number, call in source.calls.items():
        if number not in static and not model.operations[number].is_final:
            code(call)
    if not is_final:
        _add_up(source, code, "+=" if output.over == "sum" else "=")
    for number, place in source.plan.before.items():
        code.loop("i", model.operations[number].size)
        code(f"{place.expression}[i] = {source.plan.places[number].expression}[i];")
        code.close()
    code("s->step++;")
    code("}")
    return str(code)


def _add_up(source: Source, code: Lines, sign: str) -> None:
    """The answers, from the output of an operation."""
    model, output = source.model, source.model.output
    terms = model.tables[output.table].shape[1]
    read = f"i * {terms}u + k"
    if not source.reads_in_order:
        read = f"places_of_answers[{read}]"
    code.loop("i", model.answers)
    code(f"{source.answer_kind} total = 0;")
    code.loop("k", terms)
    code(f"total += {source.plan.places[output.operation].expression}[{read}];")
    code.close()
    code(f"s->answers[i] {sign} total;")
    if output.over == "each":
        code("s->totals[i] += total;")
    code.close()


def read_declaration(source: Source) -> str:
    """The declaration of the function that gives the answers, and may compute what is last."""
    const = "" if source.finals else "const "
    prefix = source.prefix
    return f"uint32_t {prefix}_read({const}{prefix}_state *s, {source.answer_kind} *answers)"


def read_text(source: Source) -> str:
    """The function that gives the answers."""
    code, model = Lines(), source.model
    kept = "totals" if model.output.over == "each" else "answers"
    divisors = model.output.divisors
    code(read_declaration(source), "{")
    if divisors:
        code(f"static const int64_t by[{len(divisors)}] = {{{', '.join(map(str, divisors))}}};")
    is_final = model.operations[model.output.operation].is_final
    code("uint32_t i, k, best = 0;" if is_final else "uint32_t i, best = 0;")
    code(*source.finals)
    if is_final:
        _add_up(source, code, "=")
    code.loop("i", model.answers)
    code("answers[i] = s->answers[i];")
    one, best = f"s->{kept}[i]", f"s->{kept}[best]"
    larger = (
        f"(int64_t){one} * by[best] > (int64_t){best} * by[i]" if divisors else f"{one} > {best}"
    )
    code(f"if ({larger}) {{", "best = i;", "}")
    code.close()
    code("return best;")
    code("}")
    return str(code)


def trace_text(source: Source) -> str:
    """A function that gives states, for comparisons."""
    prefix = source.prefix
    cases = "\n".join(
        f"    case {number}:\n        return {state.get};"
        for number, state in source.states.items()
    )
    return f"""#ifdef {prefix.upper()}_TRACE
int64_t {prefix}_trace(const {prefix}_state *s, uint32_t operation, uint32_t i)
{{
    switch (operation) {{
{cases}
    default:
        (void)i;
        return 0;
    }}
}}
#endif"""
