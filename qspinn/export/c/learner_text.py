"""All functions of a learner in C, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qspinn.export.c.learner import Learner
from qspinn.export.c.learner_dynamics import fire, follow, raise_thetas, rest
from qspinn.export.c.learner_labels import classify, label, label_begin, label_end, show
from qspinn.export.c.learner_plasticity import depress, end, scale, step, update
from qspinn.export.c.text import Lines, array

__all__ = ["learner_texts"]

Body = Callable[[Learner, Lines], None]


def learner_texts(learner: Learner) -> list[str]:
    """All definitions, in order."""
    p, kind = learner.prefix, learner.input_kind
    s, x = f"{p}_learner *l", f"const {kind} *input"
    found = [*learner.steps.texts]
    turns = learner.learning.turns
    if any(turns):
        found.append(array("uint32_t", f"{p}_learner_turns", turns))
    bodies: dict[str, Body] = {
        f"void {p}_learn_begin({s})": _begin,
        f"static void {p}_learner_rest({s})": rest,
        f"static const uint8_t *{p}_learner_fire({s}, {x})": fire,
        f"static void {p}_learner_follow({s}, const uint8_t *spikes)": follow,
        f"static void {p}_learner_raise({s})": raise_thetas,
    }
    if learner.steps.depresses:
        bodies[f"static void {p}_learner_depress({s})"] = depress
    if learner.learning.normalise != "none":
        bodies[f"static void {p}_learner_scale({s}, uint32_t j)"] = scale
    bodies |= {
        f"static void {p}_learner_update({s}, uint32_t j)": update,
        f"static void {p}_learner_end({s})": end,
        f"void {p}_learn_step({s}, {x})": step,
        f"void {p}_learn({s}, {x})": _learn,
        f"void {p}_show({s}, {x})": show,
    }
    if learner.classes:
        bodies |= {
            f"void {p}_label_begin({s})": label_begin,
            f"void {p}_label({s}, {x}, uint32_t label)": label,
            f"void {p}_label_end({s})": label_end,
            f"uint32_t {p}_classify({s}, {x}, uint32_t *answers)": classify,
        }
    return found + [_function(learner, head, body) for head, body in bodies.items()]


def _function(learner: Learner, head: str, body: Body) -> str:
    code = Lines()
    code(head, "{")
    body(learner, code)
    code("}")
    return str(code)


def _begin(learner: Learner, code: Lines) -> None:
    """What the model has learned, from its constants."""
    names, arrays, steps = learner.source.names, learner.source.arrays, learner.steps
    code("uint32_t i, j;")
    code.loop("i", learner.inputs)
    code.loop("j", learner.neurons)
    weight, place = f"weight_{names[learner.layers.synapse]}", f"i * {learner.neurons}u + j"
    stored = arrays.read(weight, steps.weight_format.word_length, False, place)
    code(learner.stored(learner.steps.call("bounded", w=stored)))
    code.close(2)
    code.loop("j", learner.neurons)
    theta, fmt = f"theta_{names[learner.layers.neurons]}", steps.theta_format
    theta = arrays.read(theta, fmt.word_length, fmt.signed, "j")
    code(f"l->theta[j] = ({learner.kind('theta')}){theta};")
    turns = f"{learner.prefix}_learner_turns[j]" if any(learner.learning.turns) else "0"
    code(f"l->turns[j] = {turns};")
    if learner.layers.labels is not None:
        what: Any = learner.source.model.operations[learner.layers.labels].what
        fmt_of_labels = learner.source.model.tensors[what.labels].format
        label = f"labels_{names[learner.layers.labels]}"
        label = arrays.read(label, fmt_of_labels.word_length, fmt_of_labels.signed, "j")
        code(f"l->labels[j] = ({learner.kind('labels')}){label};")
    code.close()
    code(f"l->presentations = {learner.learning.presentations}u;", "l->step = 0;")
    if learner.classes:
        code(f"{learner.prefix}_label_begin(l);")


def _learn(learner: Learner, code: Lines) -> None:
    code("uint32_t step;")
    code.loop("step", learner.source.model.steps)
    code(f"{learner.prefix}_learn_step(l, input);")
    code.close()
