"""Showing without learning in C: labels of neurons, and classes of images."""

from __future__ import annotations

from qspinn.export.c.learner import Learner
from qspinn.export.c.text import Lines

__all__ = ["classify", "label", "label_begin", "label_end", "show"]


def show(learner: Learner, code: Lines) -> None:
    """A presentation without learning."""
    p = learner.prefix
    code(f"l->key = key_of_{learner.source.names[learner.layers.spikes]}(input);")
    code(f"{p}_learner_rest(l);")
    code(f"for (l->step = 0; l->step < {learner.source.model.steps}u; l->step++) {{")
    code(f"(void){p}_learner_fire(l, input);")
    code.close()
    code("l->step = 0;")


def label_begin(learner: Learner, code: Lines) -> None:
    """No image was shown yet."""
    code("uint32_t i;")
    for name in ("shown", "answered"):
        code.loop("i", learner.classes * (1 if name == "shown" else learner.neurons))
        code(f"l->{name}[i] = 0;")
        code.close()


def label(learner: Learner, code: Lines) -> None:
    """An image of a class."""
    code("uint32_t j;", f"if (label >= {learner.classes}u) {{", "return;", "}")
    code(f"{learner.prefix}_show(l, input);", "l->shown[label]++;")
    code.loop("j", learner.neurons)
    code(f"l->answered[label * {learner.neurons}u + j] += l->counts[j];")
    code.close()


def label_end(learner: Learner, code: Lines) -> None:
    """The class that each neuron answers to most in the mean; of equal ones the first."""

    def mean(of: str) -> str:
        return f"l->answered[{of} * {learner.neurons}u + j]"

    code("uint32_t c, j;")
    code.loop("j", learner.neurons)
    code("uint32_t best = 0;")
    code(f"for (c = 1; c < {learner.classes}u; c++) {{")
    # Means as fractions; a class without images has 0 / 0, and never a larger one.
    larger = f"(uint64_t){mean('c')} * (l->shown[best] != 0 ? l->shown[best] : 1u)"
    code(f"if ({larger} > (uint64_t){mean('best')} * l->shown[c]) {{", "best = c;", "}")
    code.close()
    label = f"{mean('best')} != 0 ? best : {learner.classes}u"
    code(f"l->labels[j] = ({learner.kind('labels')})({label});")
    code.close()


def classify(learner: Learner, code: Lines) -> None:
    """Spikes of the neurons of each class, and the class with the largest mean."""
    size = learner.classes
    code(f"uint32_t members[{size}];", "uint32_t c, j, best = 0;")
    code.loop("c", size)
    code("answers[c] = 0;", "members[c] = 0;")
    code.close()
    code(f"{learner.prefix}_show(l, input);")
    code.loop("j", learner.neurons)
    code(f"if (l->labels[j] < {size}u) {{", "answers[l->labels[j]] += l->counts[j];")
    code("members[l->labels[j]]++;", "}")
    code.close()
    code(f"for (c = 1; c < {size}u; c++) {{")
    left = "(uint64_t)answers[c] * (members[best] != 0 ? members[best] : 1u)"
    code(f"if ({left} > (uint64_t)answers[best] * members[c]) {{", "best = c;", "}")
    code.close()
    code("return best;")
