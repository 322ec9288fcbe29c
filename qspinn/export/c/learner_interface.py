"""What is seen of a learner in C: its struct and functions, and a program to try it with."""

from __future__ import annotations

from qspinn.export.c.codes import WHOLE
from qspinn.export.c.learner import SCALARS, Learner
from qspinn.export.c.text import Lines, comment

__all__ = ["learner_driver", "learner_header"]


def learner_header(learner: Learner) -> str:
    """Declarations for the header file."""
    p, kind = learner.prefix, learner.input_kind
    code = Lines()
    code("typedef struct {")
    for name, type_, entries in learner.members():
        code(f"{type_} {name};" if name in SCALARS else f"{type_} {name}[{entries}];")
    code(f"}} {p}_learner;")
    about = (
        f"A network that goes on learning. Place a {p}_learner anywhere; what it has learned lies "
        "in weight, theta, turns, presentations and labels."
    )
    steps = learner.source.model.steps
    declared = [
        (
            "Begins with what the model has learned.",
            f"void {p}_learn_begin({p}_learner *l)",
        ),
        (
            f"One time step of a presentation; {steps} of them, with the same image, are one. In "
            "between, call no other function.",
            f"void {p}_learn_step({p}_learner *l, const {kind} *input)",
        ),
        (
            "A whole presentation; in counts is how often each neuron spiked.",
            f"void {p}_learn({p}_learner *l, const {kind} *input)",
        ),
        (
            "Shows an image without learning; in counts is how often each neuron spiked.",
            f"void {p}_show({p}_learner *l, const {kind} *input)",
        ),
    ]
    if learner.classes:
        declared += [
            (
                "Begins to label neurons.",
                f"void {p}_label_begin({p}_learner *l)",
            ),
            (
                f"Shows an image of a class below {learner.classes} without learning, and counts "
                "what answers to it.",
                f"void {p}_label({p}_learner *l, const {kind} *input, uint32_t label)",
            ),
            (
                "Gives each neuron the class that it answers to most in the mean, "
                f"{learner.classes} for none.",
                f"void {p}_label_end({p}_learner *l)",
            ),
            (
                f"Shows an image without learning: spikes of the neurons of all "
                f"{learner.classes} classes, and the class with the largest mean.",
                f"uint32_t {p}_classify({p}_learner *l, const {kind} *input, uint32_t *answers)",
            ),
        ]
    functions = "\n\n".join(f"{comment(text)}\n{head};" for text, head in declared)
    return f"\n{comment(about)}\n{code}\n\n{functions}\n"


def learner_driver(learner: Learner) -> str:
    """The program: ``PREFIX_learn_main LEARNED LABELLED < codes``.

    It learns from so many images, labels the neurons with so many more, each followed by its class
    (a code more), and writes what was learned; then, for each image that is left, its class and the
    answers.
    """
    p, upper = learner.prefix, learner.prefix.upper()
    about = (
        f"Learns from images on standard input: {p}_learn_main LEARNED LABELLED. It learns from so "
        "many images, labels the neurons with so many more, each followed by its class (a code "
        "more), and writes weights, thetas, updates and labels; then it classifies the rest."
    )
    return _PROGRAM.format(
        about=comment(about),
        p=p,
        upper=upper,
        kind=learner.input_kind,
        inputs=learner.inputs,
        neurons=learner.neurons,
        weight=_WHOLE if learner.bits in WHOLE else _PACKED.format(bits=learner.bits),
        label_begin=f"{p}_label_begin(&learner);" if learner.classes else "",
        label=f"{p}_label(&learner, input, (uint32_t)class);" if learner.classes else "",
        label_end=f"{p}_label_end(&learner);" if learner.classes else "",
        labels=_LABELS.format(neurons=learner.neurons) if learner.classes else "",
        rest=(_CLASSIFY if learner.classes else _SHOW).format(
            p=p, classes=learner.classes, neurons=learner.neurons
        ),
    )


_WHOLE = "    return (uint32_t)learner.weight[number];"
_PACKED = """    uint32_t bit, code = 0;
    for (bit = 0; bit < {bits}u; bit++) {{
        const uint32_t place = number * {bits}u + bit;
        code |= (learner.weight[place >> 3] >> (place & 7u) & 1u) << bit;
    }}
    return code;"""
_LABELS = """    printf("labels");
    for (j = 0; j < {neurons}u; j++) {{
        printf(" %" PRIu32, (uint32_t)learner.labels[j]);
    }}
    putchar('\\n');
"""
_CLASSIFY = """uint32_t answers[{classes}], i;
        printf("%" PRIu32, {p}_classify(&learner, input, answers));
        for (i = 0; i < {classes}u; i++) {{
            printf(" %" PRIu32, answers[i]);
        }}
        putchar('\\n');"""
_SHOW = """uint32_t j;
        {p}_show(&learner, input);
        for (j = 0; j < {neurons}u; j++) {{
            printf("%s%" PRIu32, j > 0 ? " " : "", learner.counts[j]);
        }}
        putchar('\\n');"""
_PROGRAM = """{about}
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "{p}.h"

static {p}_learner learner;
static {kind} input[{inputs}];

static int read_input(void)
{{
    return fread(input, sizeof input[0], {inputs}, stdin) == {inputs};
}}

static uint32_t weight_of(uint32_t number)
{{
{weight}
}}

static void write_learned(void)
{{
    uint32_t i, j;
    for (i = 0; i < {inputs}u; i++) {{
        printf("weight");
        for (j = 0; j < {neurons}u; j++) {{
            printf(" %" PRIu32, weight_of(i * {neurons}u + j));
        }}
        putchar('\\n');
    }}
    printf("theta");
    for (j = 0; j < {neurons}u; j++) {{
        printf(" %" PRId64, (int64_t)learner.theta[j]);
    }}
    printf("\\nturns");
    for (j = 0; j < {neurons}u; j++) {{
        printf(" %" PRIu32, learner.turns[j]);
    }}
    printf("\\npresentations %" PRIu64 "\\n", learner.presentations);
{labels}    printf("bytes %lu\\n", (unsigned long)sizeof learner);
}}

int main(int count, char **arguments)
{{
    const unsigned long learned = count > 1 ? strtoul(arguments[1], NULL, 10) : 0;
    const unsigned long labelled = count > 2 ? strtoul(arguments[2], NULL, 10) : 0;
    unsigned long number;
    {p}_learn_begin(&learner);
    for (number = 0; number < learned && read_input(); number++) {{
        {p}_learn(&learner, input);
    }}
    {label_begin}
    for (number = 0; number < labelled && read_input(); number++) {{
        {kind} class;
        if (fread(&class, sizeof class, 1, stdin) != 1) {{
            fprintf(stderr, "the input ends before a class\\n");
            return 1;
        }}
        {label}
    }}
    if (labelled > 0) {{
        {label_end}
    }}
    write_learned();
    while (read_input()) {{
        {rest}
    }}
    return 0;
}}
"""
