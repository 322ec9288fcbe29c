"""A network that goes on learning in C: the struct that it lives in, and its functions.

The same steps as :mod:`qspinn.stdp.reference` takes, for one presentation after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qspinn.export.c.learner_steps import LearnerSteps
from qspinn.export.c.source import Source
from qspinn.export.c.text import Lines, array, holding
from qspinn.export.learning_layers import learning_layers
from qspinn.export.model import AdaptiveNeuron, LabelSums
from qspinn.steps.random_spikes import WORD

__all__ = ["Learner"]

_MOST_BITS = 32
"""Of the number of a bit in the array of weights."""


@dataclass(eq=False)
class Learner:
    """The parts of a learner.

    Attributes:
        source: The model in C; readers of packed codes are added to it.
        packed: Whether weights lie at their word length, or in bytes.
    """

    source: Source
    packed: bool

    def __post_init__(self) -> None:
        model = self.source.model
        assert model.learning is not None
        self.learning = model.learning
        self.layers = learning_layers(model, self.learning)
        self.prefix = self.source.prefix
        program = self.source.program
        self.steps = LearnerSteps(program, self.learning, self.layers, f"{self.prefix}_learner")
        self.inputs, self.neurons = self.steps.inputs, self.steps.neurons
        what = self.steps.neuron.what
        assert isinstance(what, AdaptiveNeuron)
        self.what = what
        stored = self.steps.weight_format.word_length
        self.bits = stored if self.packed else max(8, 1 << (stored - 1).bit_length())
        if self.inputs * self.neurons * self.bits >= 1 << _MOST_BITS:
            raise ValueError(f"{self.inputs} x {self.neurons} weights are more than C code numbers")
        arrays = self.source.arrays
        self.get = arrays.getter(self.bits, False)
        self.get_stored = arrays.getter(stored, False)
        self.put = arrays.putter(self.bits)
        most = self.inputs * self.steps.weight_format.code_max
        self.current = "int32_t" if most < 1 << 31 else "int64_t"
        self.add = arrays.adder(self.bits, False, self.current, None)
        self.get_theta = arrays.getter(
            self.steps.theta_format.word_length, self.steps.theta_format.signed
        )
        self.classes = 0
        if self.layers.labels is not None:
            self.classes = model.operations[self.layers.labels].size

    @property
    def input_kind(self) -> str:
        """Type of a code of the input."""
        return self.source.input_kind

    def members(self) -> list[tuple[str, str, int]]:
        """Name, type and entries of what the struct holds; those of 64 bits first."""
        size, neurons = self.inputs * self.neurons, self.neurons
        pre, post = self.learning.trace_pre.state, self.learning.trace_post.state
        theta, v = self.steps.theta_format, self.what.state
        found = [("presentations", "uint64_t", 1), ("key", "uint64_t", 1)]
        found.append(("words", "uint64_t", self.inputs))
        if self.learning.deferred:
            found.append(("sums", "int64_t", size))
        found += [
            ("current", self.current, neurons),
            ("turns", "uint32_t", neurons),
            ("counts", "uint32_t", neurons),
            ("step", "uint32_t", 1),
        ]
        if self.classes:
            found.append(("shown", "uint32_t", self.classes))
            found.append(("answered", "uint32_t", self.classes * neurons))
        found += [
            ("theta", holding(theta.code_min, theta.code_max), neurons),
            ("v", holding(v.code_min, v.code_max), neurons),
            ("trace_pre", holding(pre.code_min, pre.code_max), self.inputs),
        ]
        if self.steps.depresses:
            found.append(("trace_post", holding(post.code_min, post.code_max), neurons))
        if self.what.refractory:
            found.append(("refractory", holding(0, self.what.refractory), neurons))
        found += [("pending", "uint8_t", self.what.delay * neurons), ("fired", "uint8_t", neurons)]
        if self.classes:
            found.append(("labels", holding(0, self.classes), neurons))
        # A read goes up to four bytes beyond the last code.
        found.append(("weight", "uint8_t", (size * self.bits + 7) // 8 + 4))
        return found

    @property
    def bytes(self) -> int:
        """Of the struct, but for what a compiler aligns."""
        return sum(
            int("".join(c for c in kind.removesuffix("_t") if c.isdigit())) // 8 * entries
            for _, kind, entries in self.members()
        )

    def kind(self, name: str) -> str:
        """Type of a member."""
        return next(kind for member, kind, _ in self.members() if member == name)

    def function(self, head: str, body: Callable[[Lines], Any]) -> str:
        """A definition."""
        code = Lines()
        code(head, "{")
        code.depth = 1
        body(code)
        code.depth = 0
        code("}")
        return str(code)

    def texts(self) -> list[str]:
        """All definitions, in order."""
        p, kind = self.prefix, self.input_kind
        s, x = f"{p}_learner *l", f"const {kind} *input"
        found = [*self.steps.texts]
        turns = self.learning.turns
        if any(turns):
            found.append(array("uint32_t", f"{p}_learner_turns", turns))
        found += [
            self.function(f"void {p}_learn_begin({s})", self._begin),
            self.function(f"static void {p}_learner_rest({s})", self._rest),
            self.function(f"static const uint8_t *{p}_learner_fire({s}, {x})", self._fire),
            self.function(
                f"static void {p}_learner_follow({s}, const uint8_t *spikes)", self._follow
            ),
            self.function(f"static void {p}_learner_raise({s})", self._raise),
        ]
        if self.steps.depresses:
            found.append(self.function(f"static void {p}_learner_depress({s})", self._depress))
        if self.learning.normalise != "none":
            found.append(
                self.function(f"static void {p}_learner_scale({s}, uint32_t j)", self._scale)
            )
        takes = f"static void {p}_learner_update({s}, uint32_t j)"
        found.append(self.function(takes, self._update))
        found += [
            self.function(f"static void {p}_learner_end({s})", self._end),
            self.function(f"void {p}_learn_step({s}, {x})", self._step),
            self.function(f"void {p}_learn({s}, {x})", self._learn),
            self.function(f"void {p}_show({s}, {x})", self._show),
        ]
        if self.classes:
            found += [
                self.function(f"void {p}_label_begin({s})", self._label_begin),
                self.function(f"void {p}_label({s}, {x}, uint32_t label)", self._label),
                self.function(f"void {p}_label_end({s})", self._label_end),
                self.function(
                    f"uint32_t {p}_classify({s}, {x}, uint32_t *answers)", self._classify
                ),
            ]
        return found

    def _spiking(self, code: Lines) -> None:
        """Opens a loop over the inputs that spike."""
        code.loop("i", self.inputs)
        code(f"if ((l->words[i] >> (l->step & {WORD - 1}u) & 1u) == 0) {{", "continue;", "}")

    def _weight(self) -> str:
        return f"{self.get}(l->weight, i * {self.neurons}u + j)"

    def _put(self, value: str) -> str:
        return f"{self.put}(l->weight, i * {self.neurons}u + j, (int32_t){value});"

    def _lasting(self, key: int, role: str) -> str:
        """The draw of a synapse at its n-th update."""
        word = f"UINT64_C(0x{key & (1 << 64) - 1:016X})"
        place = f"(uint64_t)i * {self.neurons}u + j"
        return f"spread({word}, {place}, l->turns[j])" if self.steps.draws(role) else "0"

    def _begin(self, code: Lines) -> None:
        names = self.source.names
        code("uint32_t i, j;")
        code.loop("i", self.inputs)
        code.loop("j", self.neurons)
        stored = f"{self.get_stored}(weight_{names[self.layers.synapse]}, i * {self.neurons}u + j)"
        code(self._put(self.steps.call("bounded", w=stored)))
        code.close(2)
        code.loop("j", self.neurons)
        theta = f"{self.get_theta}(theta_{names[self.layers.neurons]}, j)"
        code(f"l->theta[j] = ({self.kind('theta')}){theta};")
        turns = f"{self.prefix}_learner_turns[j]" if any(self.learning.turns) else "0"
        code(f"l->turns[j] = {turns};")
        if self.layers.labels is not None:
            what: Any = self.source.model.operations[self.layers.labels].what
            fmt = self.source.model.tensors[what.labels].format
            get = self.source.arrays.getter(fmt.word_length, fmt.signed)
            label = f"{get}(labels_{names[self.layers.labels]}, j)"
            code(f"l->labels[j] = ({self.kind('labels')}){label};")
        code.close()
        code(f"l->presentations[0] = {self.learning.presentations}u;", "l->step = 0;")
        if self.classes:
            code(f"{self.prefix}_label_begin(l);")

    def _rest(self, code: Lines) -> None:
        code("uint32_t i;")
        skipped = ("presentations", "key", "turns", "step", "shown", "answered", "theta")
        skipped += ("labels", "weight", "words", "current", "fired")
        for name, _, entries in self.members():
            if name not in skipped:
                code.loop("i", entries)
                code(f"l->{name}[i] = 0;")
                code.close()

    def _fire(self, code: Lines) -> None:
        steps, what, size = self.steps, self.what, self.neurons
        n: Any = steps.neuron.numbers
        ring = f"l->pending + l->step % {what.delay}u * {size}u" if what.delay > 1 else "l->pending"
        code(f"uint8_t *const spikes = {ring};", "uint32_t i, j, arrived = 0, crossed = 0;")
        if what.one_winner:
            code("uint32_t rank;")
        if steps.draws("charge"):
            code(f"const uint64_t key = stream(l->key[0], {what.draws[0]}u);")
        words = f"words_of_{self.source.names[self.layers.spikes]}"
        code(f"if (l->step % {WORD}u == 0) {{")
        code(f"{words}(l->words, input, l->key[0], l->step);", "}")
        code.loop("j", size)
        code("l->current[j] = 0;", "arrived += spikes[j];")
        code.close()
        self._spiking(code)
        code(f"{self.add}(l->current, l->weight, i * {size}u, {size}u);")
        code.close()
        code.loop("j", size)
        charge = steps.functions["charge"]
        code(
            f"const {charge.kind} lowered = ({charge.kind})(arrived - spikes[j]) * "
            f"{int(n.inhibition)};"
        )
        given = {
            "v": "l->v[j]",
            "current": self._current(charge.kind),
            "lowered": "lowered",
            "ready": "l->refractory[j] == 0",
            "random": "spread(key, l->step, j)",
        }
        code(f"const {charge.kind} v = {steps.call('charge', **given)};")
        total = steps.call("threshold", theta="l->theta[j]")
        code(f"const uint8_t fires = (uint8_t){steps.call('reaches', v='v', total=total)};")
        code("crossed += fires;", "l->fired[j] = fires;")
        code(f"l->v[j] = ({self.kind('v')})(fires != 0 ? {steps.neuron.reset} : v);")
        if what.refractory:
            left = steps.call("counted_down", refractory="l->refractory[j]", fired="fires")
            code(f"l->refractory[j] = ({self.kind('refractory')}){left};")
        code.close()
        fires = "l->fired[j]"
        if what.one_winner:
            random = f"draw(stream(l->key[0], {what.draws[1]}u), l->step)"
            rank = steps.call("drawn_rank", random=random, count="crossed")
            code(f"rank = crossed > 1 ? (uint32_t){rank} : 0;")
            fires = "(uint8_t)(l->fired[j] != 0 && rank-- == 0)"
        else:
            code("(void)crossed;")
        code.loop("j", size)
        code(f"spikes[j] = {fires};", "l->counts[j] += spikes[j];")
        code.close()
        code("return spikes;")

    def _current(self, kind: str) -> str:
        ups = self.steps.current_up
        if len(ups) > 1:
            return f"l->current[j] * (({kind})1 << {self.steps.prefix}_up[j])"
        return "l->current[j]" if ups[0] == 0 else f"({kind})l->current[j] * {1 << ups[0]}"

    def _follow(self, code: Lines) -> None:
        names = [("trace_pre", "i", self.inputs, self.learning.draws[0])]
        if self.steps.depresses:
            names.append(("trace_post", "j", self.neurons, self.learning.draws[1]))
        for role, _, _, purpose in names:
            if self.steps.draws(role):
                code(f"const uint64_t key_{role} = stream(l->key[0], {purpose}u);")
        code("uint32_t i, j;" if self.steps.depresses else "uint32_t i;")
        for role, at, size, _ in names:
            code.loop(at, size)
            spike = f"(l->words[i] >> (l->step & {WORD - 1}u) & 1u) != 0"
            code(f"const uint8_t spike = {spike if at == 'i' else 'spikes[j]'};")
            code(f"if (l->{role}[{at}] != 0 || spike != 0) {{")
            given = {"x": f"l->{role}[{at}]", "spike": "spike"}
            random = f"spread(key_{role}, {at}, l->step)"
            after = self.steps.call(role, random=random, **given)
            code(f"l->{role}[{at}] = ({self.kind(role)}){after};", "}")
            code.close()
        if not self.steps.depresses:
            code("(void)spikes;")

    def _raise(self, code: Lines) -> None:
        if self.steps.draws("raised"):
            code(f"const uint64_t key = stream(l->key[0], {self.learning.draws[3]}u);")
        code("uint32_t j;")
        code.loop("j", self.neurons)
        code("if (l->fired[j] != 0) {")
        random = f"draw(key, (uint64_t)l->step * {self.neurons}u + j)"
        raised = self.steps.call("raised", theta="l->theta[j]", random=random)
        code(f"l->theta[j] = ({self.kind('theta')}){raised};", "}")
        code.close()

    def _depress(self, code: Lines) -> None:
        deferred = self.learning.deferred
        if not deferred and self.steps.draws("changed"):
            code(f"const uint64_t key = stream(l->key[0], {self.learning.draws[2]}u);")
        code("uint32_t i, j;")
        self._spiking(code)
        code.loop("j", self.neurons)
        code(f"const int64_t change = {self.steps.call('depression', y='l->trace_post[j]')};")
        if deferred:
            code(f"l->sums[i * {self.neurons}u + j] += change;")
        else:
            random = f"spread(key, (uint64_t)l->step * {self.neurons}u + j, i)"
            self._change(code, random)
        code.close(2)

    def _change(self, code: Lines, random: str) -> None:
        """A weight changes; where the change is 0, it does not."""
        code("if (change != 0) {")
        after = self.steps.call("changed", w=self._weight(), change="change", random=random)
        code(self._put(self.steps.call("bounded", w=after)), "}")

    def _changed_by(self) -> str:
        """The change of weight ``i, j`` at an update."""
        if self.learning.deferred:
            return f"l->sums[i * {self.neurons}u + j]"
        return self.steps.call("potentiation", x="l->trace_pre[i]")

    def _scale(self, code: Lines) -> None:
        joint = self.learning.normalise == "update"
        change = self._changed_by() if joint else "0"
        fine = self.steps.call("fine", w=self._weight(), change=change)
        code("int64_t total = 0, gain = 0;", "uint32_t i;")
        code.loop("i", self.inputs)
        code(f"total += {fine};")
        code.close()
        code("if (total > 0) {", f"gain = {self.steps.call('gain', b='total')};", "}")
        code.loop("i", self.inputs)
        random = self._lasting(self.learning.scale_key, "scaled")
        code(f"const int64_t p = {fine};")
        after = self.steps.call("scaled", p="p * gain", random=random)
        code("if (p > 0) {", self._put(self.steps.call("bounded", w=after)))
        code("} else {", self._put("0"), "}")
        code.close()

    def _update(self, code: Lines) -> None:
        code("l->turns[j]++;")
        if self.learning.normalise == "update":
            code(f"{self.prefix}_learner_scale(l, j);")
            return
        code("{", "uint32_t i;")
        code.loop("i", self.inputs)
        code(f"const int64_t change = {self._changed_by()};")
        self._change(code, self._lasting(self.learning.update_key, "changed"))
        code.close()
        code("}")

    def _step(self, code: Lines) -> None:
        p, deferred = self.prefix, self.learning.deferred
        key = f"UINT64_C(0x{self.learning.key & (1 << 64) - 1:016X})"
        code("const uint8_t *spikes;", "uint32_t i, j;" if deferred else "uint32_t j;")
        code("if (l->step == 0) {", f"l->key[0] = draw({key}, l->presentations[0]);")
        code(f"{p}_learner_rest(l);", "}")
        code(f"spikes = {p}_learner_fire(l, input);", f"{p}_learner_follow(l, spikes);")
        code(f"{p}_learner_raise(l);")
        if self.steps.depresses:
            code(f"{p}_learner_depress(l);")
        code.loop("j", self.neurons)
        code("if (spikes[j] != 0) {")
        if deferred:
            code.loop("i", self.inputs)
            change = self.steps.call("potentiation", x="l->trace_pre[i]")
            code(f"l->sums[i * {self.neurons}u + j] += {change};")
            code.close()
        else:
            code(f"{p}_learner_update(l, j);")
        code("}")
        code.close()
        code("l->step++;", f"if (l->step == {self.source.model.steps}u) {{")
        code(f"{p}_learner_end(l);", "}")

    def _end(self, code: Lines) -> None:
        p = self.prefix
        if self.steps.draws("decayed"):
            code(f"const uint64_t key = stream(l->key[0], {self.learning.draws[4]}u);")
        code("uint32_t j;")
        code.loop("j", self.neurons)
        calls = [f"{p}_learner_update(l, j);"] if self.learning.deferred else []
        if self.learning.normalise == "presentation":
            calls.append(f"{p}_learner_scale(l, j);")
        if calls:
            code("if (l->counts[j] != 0) {", *calls, "}")
        decayed = self.steps.call("decayed", theta="l->theta[j]", random="draw(key, j)")
        code(f"l->theta[j] = ({self.kind('theta')}){decayed};")
        code.close()
        code("l->presentations[0]++;", "l->step = 0;")

    def _learn(self, code: Lines) -> None:
        code("uint32_t step;")
        code.loop("step", self.source.model.steps)
        code(f"{self.prefix}_learn_step(l, input);")
        code.close()

    def _show(self, code: Lines) -> None:
        p = self.prefix
        code(f"l->key[0] = key_of_{self.source.names[self.layers.spikes]}(input);")
        code(f"{p}_learner_rest(l);")
        code(f"for (l->step = 0; l->step < {self.source.model.steps}u; l->step++) {{")
        code(f"(void){p}_learner_fire(l, input);")
        code.close()
        code("l->step = 0;")

    def _label_begin(self, code: Lines) -> None:
        code("uint32_t i;")
        for name in ("shown", "answered"):
            code.loop("i", self.classes * (1 if name == "shown" else self.neurons))
            code(f"l->{name}[i] = 0;")
            code.close()

    def _label(self, code: Lines) -> None:
        code("uint32_t j;", f"if (label >= {self.classes}u) {{", "return;", "}")
        code(f"{self.prefix}_show(l, input);", "l->shown[label]++;")
        code.loop("j", self.neurons)
        code(f"l->answered[label * {self.neurons}u + j] += l->counts[j];")
        code.close()

    def _label_end(self, code: Lines) -> None:
        def mean(of: str) -> str:
            return f"l->answered[{of} * {self.neurons}u + j]"

        code("uint32_t c, j;")
        code.loop("j", self.neurons)
        code("uint32_t best = 0;")
        code(f"for (c = 1; c < {self.classes}u; c++) {{")
        # Means as fractions; a class without images has 0 / 0, and never a larger one.
        larger = f"(uint64_t){mean('c')} * (l->shown[best] != 0 ? l->shown[best] : 1u)"
        code(f"if ({larger} > (uint64_t){mean('best')} * l->shown[c]) {{", "best = c;", "}")
        code.close()
        label = f"{mean('best')} != 0 ? best : {self.classes}u"
        code(f"l->labels[j] = ({self.kind('labels')})({label});")
        code.close()

    def _classify(self, code: Lines) -> None:
        what: Any = self.source.model.operations[self.layers.labels or 0].what
        assert isinstance(what, LabelSums)
        size = self.classes
        code(f"uint32_t members[{size}];", "uint32_t c, j, best = 0;")
        code.loop("c", size)
        code("answers[c] = 0;", "members[c] = 0;")
        code.close()
        code(f"{self.prefix}_show(l, input);")
        code.loop("j", self.neurons)
        code(f"if (l->labels[j] < {size}u) {{", "answers[l->labels[j]] += l->counts[j];")
        code("members[l->labels[j]]++;", "}")
        code.close()
        code(f"for (c = 1; c < {size}u; c++) {{")
        left = "(uint64_t)answers[c] * (members[best] != 0 ? members[best] : 1u)"
        code(f"if ({left} > (uint64_t)answers[best] * members[c]) {{", "best = c;", "}")
        code.close()
        code("return best;")
