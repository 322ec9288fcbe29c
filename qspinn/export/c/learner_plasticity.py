"""How weights change in C, and what a presentation is made of."""

from __future__ import annotations

from qspinn.export.c.learner import Learner
from qspinn.export.c.text import Lines

__all__ = ["depress", "end", "scale", "step", "update"]


def depress(learner: Learner, code: Lines) -> None:
    """Changes at the spikes of inputs."""
    deferred = learner.learning.deferred
    if not deferred and learner.steps.draws("changed"):
        code(f"const uint64_t key = stream(l->key, {learner.learning.draws[2]}u);")
    code("uint32_t i, j;")
    learner.spiking(code)
    code.loop("j", learner.neurons)
    code(f"const int64_t change = {learner.steps.call('depression', y='l->trace_post[j]')};")
    if deferred:
        code(f"l->sums[i * {learner.neurons}u + j] += change;")
    else:
        random = f"spread(key, (uint64_t)l->step * {learner.neurons}u + j, i)"
        _change(learner, code, random)
    code.close(2)


def _change(learner: Learner, code: Lines, random: str) -> None:
    """A weight changes; where the change is 0, it does not."""
    code("if (change != 0) {")
    after = learner.steps.call("changed", w=learner.weight(), change="change", random=random)
    code(learner.stored(learner.steps.call("bounded", w=after)), "}")


def _changed_by(learner: Learner) -> str:
    """The change of weight ``i, j`` at an update."""
    if learner.learning.deferred:
        return f"l->sums[i * {learner.neurons}u + j]"
    return learner.steps.call("potentiation", x="l->trace_pre[i]")


def scale(learner: Learner, code: Lines) -> None:
    """The weights to neuron ``j``, with their changes where both are one step, to their sum."""
    joint = learner.learning.normalise == "update"
    change = _changed_by(learner) if joint else "0"
    fine = learner.steps.call("fine", w=learner.weight(), change=change)
    code("int64_t total = 0, gain = 0;", "uint32_t i;")
    code.loop("i", learner.inputs)
    code(f"total += {fine};")
    code.close()
    code("if (total > 0) {", f"gain = {learner.steps.call('gain', b='total')};", "}")
    code.loop("i", learner.inputs)
    random = learner.lasting(learner.learning.scale_key, "scaled")
    code(f"const int64_t p = {fine};")
    after = learner.steps.call("scaled", p="p * gain", random=random)
    if "gain" not in after:  # all weights become 0
        code("(void)gain;")
    code("if (p > 0) {", learner.stored(learner.steps.call("bounded", w=after)))
    code("} else {", learner.stored("0"), "}")
    code.close()


def update(learner: Learner, code: Lines) -> None:
    """The changes at an update of neuron ``j``."""
    code("l->turns[j]++;")
    if learner.learning.normalise == "update":
        code(f"{learner.prefix}_learner_scale(l, j);")
        return
    code("{", "uint32_t i;")
    code.loop("i", learner.inputs)
    code(f"const int64_t change = {_changed_by(learner)};")
    _change(learner, code, learner.lasting(learner.learning.update_key, "changed"))
    code.close()
    code("}")


def step(learner: Learner, code: Lines) -> None:
    """One time step of a presentation."""
    p, deferred = learner.prefix, learner.learning.deferred
    key = f"UINT64_C(0x{learner.learning.key & (1 << 64) - 1:016X})"
    code("const uint8_t *spikes;", "uint32_t i, j;" if deferred else "uint32_t j;")
    code("if (l->step == 0) {", f"l->key = draw({key}, l->presentations);")
    code(f"{p}_learner_rest(l);", "}")
    code(f"spikes = {p}_learner_fire(l, input);", f"{p}_learner_follow(l, spikes);")
    code(f"{p}_learner_raise(l);")
    if learner.steps.depresses:
        code(f"{p}_learner_depress(l);")
    code.loop("j", learner.neurons)
    code("if (spikes[j] != 0) {")
    if deferred:
        code.loop("i", learner.inputs)
        change = learner.steps.call("potentiation", x="l->trace_pre[i]")
        code(f"l->sums[i * {learner.neurons}u + j] += {change};")
        code.close()
    else:
        code(f"{p}_learner_update(l, j);")
    code("}")
    code.close()
    code("l->step++;", f"if (l->step == {learner.source.model.steps}u) {{")
    code(f"{p}_learner_end(l);", "}")


def end(learner: Learner, code: Lines) -> None:
    """What ends a presentation."""
    p = learner.prefix
    if learner.steps.draws("decayed"):
        code(f"const uint64_t key = stream(l->key, {learner.learning.draws[4]}u);")
    code("uint32_t j;")
    code.loop("j", learner.neurons)
    calls = [f"{p}_learner_update(l, j);"] if learner.learning.deferred else []
    if learner.learning.normalise == "presentation":
        calls.append(f"{p}_learner_scale(l, j);")
    if calls:
        code("if (l->counts[j] != 0) {", *calls, "}")
    decayed = learner.steps.call("decayed", theta="l->theta[j]", random="draw(key, j)")
    code(f"l->theta[j] = ({learner.kind('theta')}){decayed};")
    code.close()
    code("l->presentations++;", "l->step = 0;")
