"""A network that goes on learning in C: the struct that it lives in, and its functions.

The same steps as :mod:`qspinn.stdp.reference` takes, for one presentation after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from qspinn.export.c.codes import WHOLE, kind_of
from qspinn.export.c.learner_steps import LearnerSteps
from qspinn.export.c.source import Source
from qspinn.export.c.text import Lines, bytes_of, holding
from qspinn.export.learning_layers import learning_layers
from qspinn.export.model import AdaptiveNeuron
from qspinn.steps.random_spikes import WORD

__all__ = ["SCALARS", "Learner"]

SCALARS = ("presentations", "key", "step")
"""Members that are single numbers."""
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
            raise ValueError(
                f"{self.inputs} x {self.neurons} weights of {self.bits} bits: a learner in C holds "
                "up to 512 MiB of them"
            )
        arrays = self.source.arrays
        most = self.inputs * self.steps.weight_format.code_max
        self.current = "int32_t" if most < 1 << 31 else "int64_t"
        self.add = arrays.adder(self.bits, False, self.current, None)
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
        if self.bits in WHOLE:
            return [*found, ("weight", kind_of(self.bits, False), size)]
        # A read goes up to four bytes beyond the last code.
        return [*found, ("weight", "uint8_t", (size * self.bits + 7) // 8 + 4)]

    @property
    def bytes(self) -> int:
        """Of the struct, but for what a compiler aligns."""
        return sum(bytes_of(kind) * entries for _, kind, entries in self.members())

    def kind(self, name: str) -> str:
        """Type of a member."""
        return next(kind for member, kind, _ in self.members() if member == name)

    def spiking(self, code: Lines) -> None:
        """Opens a loop over the inputs that spike."""
        code.loop("i", self.inputs)
        code(f"if ((l->words[i] >> (l->step & {WORD - 1}u) & 1u) == 0) {{", "continue;", "}")

    def weight(self) -> str:
        """Weight ``i, j``."""
        return self.source.arrays.read("l->weight", self.bits, False, f"i * {self.neurons}u + j")

    def stored(self, value: str) -> str:
        """A statement that stores weight ``i, j``."""
        number = f"i * {self.neurons}u + j"
        return self.source.arrays.write("l->weight", self.bits, number, value)

    def lasting(self, key: int, role: str) -> str:
        """The draw of a synapse at its n-th update."""
        word = f"UINT64_C(0x{key & (1 << 64) - 1:016X})"
        place = f"(uint64_t)i * {self.neurons}u + j"
        return f"spread({word}, {place}, l->turns[j])" if self.steps.draws(role) else "0"
