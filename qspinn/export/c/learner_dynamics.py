"""One step of neurons and traces of a network that learns, in C."""

from __future__ import annotations

from qspinn.export.c.learner import Learner
from qspinn.export.c.text import Lines
from qspinn.steps.random_spikes import WORD

__all__ = ["fire", "follow", "raise_thetas", "rest"]


def rest(learner: Learner, code: Lines) -> None:
    """Neurons at rest, and traces at 0."""
    code("uint32_t i;")
    begins = ("v", "refractory", "pending", "trace_pre", "trace_post", "sums", "counts")
    for name, _, entries in learner.members():
        if name in begins:
            code.loop("i", entries)
            code(f"l->{name}[i] = 0;")
            code.close()


def fire(learner: Learner, code: Lines) -> None:
    """One step of the neurons: those that spike."""
    steps, what, size = learner.steps, learner.what, learner.neurons
    ring = f"l->pending + l->step % {what.delay}u * {size}u" if what.delay > 1 else "l->pending"
    code(f"uint8_t *const spikes = {ring};", "uint32_t i, j, arrived = 0, crossed = 0;")
    if what.one_winner:
        code("uint32_t rank;")
    if steps.draws("charge"):
        code(f"const uint64_t key = stream(l->key, {what.draws[0]}u);")
    words = f"words_of_{learner.source.names[learner.layers.spikes]}"
    code(f"if (l->step % {WORD}u == 0) {{")
    code(f"{words}(l->words, input, l->key, l->step);", "}")
    code.loop("j", size)
    code("l->current[j] = 0;", "arrived += spikes[j];")
    code.close()
    learner.spiking(code)
    code(f"{learner.add}(l->current, l->weight, i * {size}u, {size}u);")
    code.close()
    code.loop("j", size)
    charge = steps.functions["charge"]
    if "lowered" in charge.parameters:
        code(f"const {charge.kind} lowered = ({charge.kind})(arrived - spikes[j]);")
    else:  # a single neuron is not inhibited
        code("(void)arrived;")
    given = {
        "v": "l->v[j]",
        "current": _current(learner, charge.kind),
        "lowered": "lowered",
        "ready": "l->refractory[j] == 0",
        "random": "spread(key, l->step, j)",
    }
    code(f"const {charge.kind} v = {steps.call('charge', **given)};")
    total = steps.call("threshold", theta="l->theta[j]")
    code(f"const uint8_t fires = (uint8_t){steps.call('reaches', v='v', total=total)};")
    code("crossed += fires;", "l->fired[j] = fires;")
    code(f"l->v[j] = ({learner.kind('v')})(fires != 0 ? {steps.neuron.reset} : v);")
    if what.refractory:
        left = steps.call("counted_down", refractory="l->refractory[j]", fired="fires")
        code(f"l->refractory[j] = ({learner.kind('refractory')}){left};")
    code.close()
    fires = "l->fired[j]"
    if what.one_winner:
        random = f"draw(stream(l->key, {what.draws[1]}u), l->step)"
        rank = steps.call("drawn_rank", random=random, count="crossed")
        code(f"rank = crossed > 1 ? (uint32_t){rank} : 0;")
        fires = "(uint8_t)(l->fired[j] != 0 && rank-- == 0)"
    else:
        code("(void)crossed;")
    code.loop("j", size)
    code(f"spikes[j] = {fires};", "l->counts[j] += spikes[j];")
    code.close()
    code("return spikes;")


def _current(learner: Learner, kind: str) -> str:
    ups = learner.steps.current_up
    if len(ups) > 1:
        return f"l->current[j] * (({kind})1 << {learner.steps.prefix}_up[j])"
    return "l->current[j]" if ups[0] == 0 else f"({kind})l->current[j] * {1 << ups[0]}"


def follow(learner: Learner, code: Lines) -> None:
    """Traces after a step."""
    names = [("trace_pre", "i", learner.inputs, learner.learning.draws[0])]
    if learner.steps.depresses:
        names.append(("trace_post", "j", learner.neurons, learner.learning.draws[1]))
    for role, _, _, purpose in names:
        if learner.steps.draws(role):
            code(f"const uint64_t key_{role} = stream(l->key, {purpose}u);")
    code("uint32_t i, j;" if learner.steps.depresses else "uint32_t i;")
    for role, at, size, _ in names:
        code.loop(at, size)
        spike = f"(l->words[i] >> (l->step & {WORD - 1}u) & 1u) != 0"
        code(f"const uint8_t spike = {spike if at == 'i' else 'spikes[j]'};")
        code(f"if (l->{role}[{at}] != 0 || spike != 0) {{")
        given = {"x": f"l->{role}[{at}]", "spike": "spike"}
        random = f"spread(key_{role}, {at}, l->step)"
        after = learner.steps.call(role, random=random, **given)
        code(f"l->{role}[{at}] = ({learner.kind(role)}){after};", "}")
        code.close()
    if not learner.steps.depresses:
        code("(void)spikes;")


def raise_thetas(learner: Learner, code: Lines) -> None:
    """Thetas of the neurons that reached their threshold."""
    if learner.steps.draws("raised"):
        code(f"const uint64_t key = stream(l->key, {learner.learning.draws[3]}u);")
    code("uint32_t j;")
    code.loop("j", learner.neurons)
    code("if (l->fired[j] != 0) {")
    random = f"draw(key, (uint64_t)l->step * {learner.neurons}u + j)"
    raised = learner.steps.call("raised", theta="l->theta[j]", random=random)
    code(f"l->theta[j] = ({learner.kind('theta')}){raised};", "}")
    code.close()
