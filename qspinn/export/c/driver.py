"""A program that runs a model in C on samples from its standard input."""

from __future__ import annotations

from qspinn.export.c.text import comment
from qspinn.export.model import AdaptiveNeuron, DeviceModel, Neuron

__all__ = ["driver_text"]


def driver_text(prefix: str, kind: str, answer_kind: str, model: DeviceModel) -> str:
    """The program: ``PREFIX_main [steps [seed]] < codes``.

    It reads samples, as codes in the byte order of the machine: one image of each sample, or a
    frame for each of its steps. For each it writes a line: the class, and the answers.

    Args:
        prefix: Of the functions of the model.
        kind: Type of a code.
        answer_kind: Type of an answer.
        model: The model.
    """
    upper = prefix.upper()
    layers = [
        n for n, one in enumerate(model.operations) if isinstance(one.what, Neuron | AdaptiveNeuron)
    ]
    sizes = ", ".join(str(model.operations[number].size) for number in layers)
    about = (
        f"Runs {prefix} on samples from standard input: {prefix}_main [steps [seed]]. A line for "
        "each sample: the class, and the answers. Compiled with "
        f"-D{upper}_TRACE it writes the states of all layers after each step before that."
    )
    once = "0" if model.frame_stride else "1"
    each = "1" if model.output.over == "each" else "0"
    return _PROGRAM.format(
        about=comment(about),
        prefix=prefix,
        upper=upper,
        kind=kind,
        answer_kind=answer_kind,
        layers=", ".join(map(str, layers)) or "0",
        sizes=sizes or "0",
        once=once,
        each=each,
    )


_PROGRAM = """{about}
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "{prefix}.h"

static {prefix}_state state;
static {kind} input[{upper}_INPUTS];

static int read_input(void)
{{
    return fread(input, sizeof input[0], {upper}_INPUTS, stdin) == {upper}_INPUTS;
}}

static void write_answers(void)
{{
    {answer_kind} answers[{upper}_ANSWERS];
    const uint32_t best = {prefix}_read(&state, answers);
    uint32_t i;
    printf("%" PRIu32, best);
    for (i = 0; i < {upper}_ANSWERS; i++) {{
        printf(" %" PRId64, (int64_t)answers[i]);
    }}
    putchar('\\n');
}}

#ifdef {upper}_TRACE
static void write_states(uint32_t step)
{{
    static const uint32_t operations[] = {{{layers}}};
    static const uint32_t sizes[] = {{{sizes}}};
    uint32_t layer, i;
    for (layer = 0; layer < sizeof sizes / sizeof sizes[0]; layer++) {{
        if (sizes[layer] == 0) {{
            continue; /* of a model without layers of neurons */
        }}
        printf("state %" PRIu32 " %" PRIu32, step, operations[layer]);
        for (i = 0; i < sizes[layer]; i++) {{
            printf(" %" PRId64, {prefix}_trace(&state, operations[layer], i));
        }}
        putchar('\\n');
    }}
}}
#endif

int main(int count, char **arguments)
{{
    const unsigned long steps = count > 1 ? strtoul(arguments[1], NULL, 10) : {upper}_STEPS;
    const unsigned long long seed = count > 2 ? strtoull(arguments[2], NULL, 10) : 0;
    const int once = {once}, each = {each};
    unsigned long step;
    while (steps > 0 && read_input()) {{
        {prefix}_init(&state, (uint64_t)seed);
        for (step = 0; step < steps; step++) {{
            if (!once && step > 0 && !read_input()) {{
                fprintf(stderr, "the input ends within a sample\\n");
                return 1;
            }}
            {prefix}_step(&state, input);
#ifdef {upper}_TRACE
            write_states((uint32_t)step);
#endif
            if (each && step + 1 < steps) {{
                write_answers();
            }}
        }}
        write_answers();
    }}
    return 0;
}}
"""
