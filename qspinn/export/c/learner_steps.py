"""The steps of a learner in C, and the numbers that they take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from qspinn.export.c.adaptive import adaptive_functions
from qspinn.export.c.text import array
from qspinn.export.learning import DeviceLearning, TraceRule
from qspinn.export.learning_layers import LearningLayers
from qspinn.export.model import AdaptiveNeuron, DeviceModel
from qspinn.export.program import Instruction, Program
from qspinn.fixed_point import FixedPointFormat
from qspinn.steps import neurons, plasticity, traces
from qspinn.steps.lowering import rounding_of
from qspinn.steps.targets.c import CFunction, Range, c_function
from qspinn.steps.words import Rounding, quotient

__all__ = ["LearnerSteps"]


class _Theta(NamedTuple):
    plus: int
    keep: int
    bits: int
    to: Rounding


class _Trace(NamedTuple):
    keep: int
    down: int
    one: int
    to: Rounding


class _Weight(NamedTuple):
    spare: int
    fine: int
    gain_down: int
    trace_target: int
    to: Rounding


@dataclass(eq=False)
class LearnerSteps:
    """Steps as functions in C, each translated from :mod:`qspinn.steps`.

    Attributes:
        program: The model, lowered.
        learning: Its rule.
        layers: Its operations.
        prefix: Of names.
        functions: Role -> function.
        arrays: Definitions of constant arrays.
        each: Role -> the number of neuron ``j`` in C.
    """

    program: Program
    learning: DeviceLearning
    layers: LearningLayers
    prefix: str
    functions: dict[str, CFunction] = field(default_factory=dict)
    arrays: list[str] = field(default_factory=list)
    each: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rule = self.learning.weight
        self._given: dict[str, Any] = {}
        for name in ("maximum", "total", "rate_pre", "rate_post"):
            self._constant(name, getattr(rule, name))
        if len(self.current_up) > 1:
            self.arrays.append(array("uint8_t", f"{self.prefix}_up", self.current_up))
        self._neurons()
        self._thetas()
        self._traces()
        self._weights()

    @property
    def model(self) -> DeviceModel:
        """The model."""
        return self.program.model

    @property
    def inputs(self) -> int:
        """How many."""
        return self.model.operations[self.layers.spikes].size

    @property
    def neurons(self) -> int:
        """How many."""
        return self.model.operations[self.layers.neurons].size

    @property
    def neuron(self) -> Instruction:
        """The layer of neurons."""
        return self.program.instructions[self.layers.neurons]

    @property
    def weight_format(self) -> Any:
        """Of weights: one, or one for each neuron, of the same word length."""
        what: Any = self.model.operations[self.layers.synapse].what
        return self.model.tensors[what.weight].format

    @property
    def theta_format(self) -> FixedPointFormat:
        """Of thetas."""
        what = self.neuron.what
        assert isinstance(what, AdaptiveNeuron)
        fmt = self.model.tensors[what.theta].format
        assert isinstance(fmt, FixedPointFormat)
        return fmt

    @property
    def depresses(self) -> bool:
        """Whether weights change at spikes of inputs."""
        return any(self.learning.weight.rate_pre)

    def draws(self, role: str) -> bool:
        """Whether a step draws random bits."""
        return "random" in self.functions[role].parameters

    def call(self, role: str, **given: str) -> str:
        """A call of a step, see `CFunction.call`; numbers of neuron ``j`` need not be given."""
        numbers = {"highest": "maximum", "rate": "rate_pre"}
        known = {name: self.each[value] for name, value in numbers.items()}
        if role == "potentiation":
            known["rate"] = self.each["rate_post"]
        if role == "gain":
            known["a"] = self.each["total"]
        return self.functions[role].call({**known, **given})

    def _constant(self, name: str, values: tuple[int, ...]) -> None:
        """A literal, or an array of which neuron ``j`` has an entry."""
        if len(set(values)) == 1:
            self._given[name], self.each[name] = values[0], str(values[0])
            return
        self._given[name] = np.array(values, np.int64)
        self.each[name] = f"{self.prefix}_{name}[j]"
        self.arrays.append(array("int64_t", f"{self.prefix}_{name}", values))

    def _add(self, role: str, step: Callable[..., Any], arguments: Mapping[str, Any]) -> CFunction:
        found = c_function(step, f"{self.prefix}_{role}", arguments)
        self.functions[role] = found
        return found

    def _neurons(self) -> None:
        most = self.inputs * self.weight_format.code_max << max(self.current_up)
        current = Range(0, most)
        self.functions |= adaptive_functions(
            self.neuron, current, self.theta_format, lambda role: f"{self.prefix}_{role}"
        )

    @property
    def current_up(self) -> tuple[int, ...]:
        """From the weights of a neuron to the common grid of currents, in bits; one, or each."""
        ups = self.program.instructions[self.layers.synapse].weight_up
        found = (0,) if ups is None else tuple(np.reshape(ups, -1).tolist())
        return found[:1] if len(set(found)) == 1 else found

    def _range(self, fmt: FixedPointFormat) -> Range:
        return Range(fmt.code_min, fmt.code_max)

    def _thetas(self) -> None:
        rule, fmt = self.learning.theta, self.theta_format
        to = rounding_of(fmt, rule.rounding, rule.overflow)
        given = {"theta": self._range(fmt), "n": _Theta(rule.plus, rule.keep, rule.bits, to)}
        self._add("raised", neurons.raised, given)
        self._add("decayed", neurons.decayed, given)

    def _traces(self) -> None:
        def add(role: str, rule: TraceRule) -> None:
            to = rounding_of(rule.state, rule.rounding, rule.overflow)
            n = _Trace(rule.keep, rule.down, rule.one, to)
            x = {"x": self._range(rule.state), "spike": Range(0, 1)}
            self._add(role, traces.decaying, {**x, "n": n})

        add("trace_pre", self.learning.trace_pre)
        if self.depresses:
            add("trace_post", self.learning.trace_post)

    def _weights(self) -> None:
        rule, fmt = self.learning.weight, self.weight_format
        to = rounding_of(fmt, rule.rounding, rule.overflow)
        n = _Weight(rule.spare, rule.fine, rule.gain_down, rule.target, to)
        w, highest = Range(0, fmt.code_max), {"highest": self._given["maximum"], "n": n}
        x = self._range(self.learning.trace_pre.state)
        rate = {"rate": self._given["rate_post"], "n": n}
        grown = self._add("potentiation", plasticity.potentiation, {"x": x, **rate})
        low, high = grown.low, grown.high
        if self.depresses:
            y = self._range(self.learning.trace_post.state)
            fallen = {"y": y, "rate": self._given["rate_pre"]}
            fell = self._add("depression", plasticity.depression, fallen)
            low, high = min(low, fell.low), max(high, fell.high)
            if self.learning.deferred:
                low, high = min(grown.low, 0) + min(fell.low, 0), max(grown.high, 0)
                high += max(fell.high, 0)
        if self.learning.deferred:
            steps = self.model.steps
            low, high = min(low, 0) * steps, max(high, 0) * steps
        change, first = Range(low, high), w
        if self.learning.normalise != "update" or (self.depresses and not self.learning.deferred):
            after = self._add("changed", plasticity.changed, {"w": w, "change": change, "n": n})
            first = Range(min(after.low, 0), max(after.high, fmt.code_max))
        if self.learning.normalise != "none":
            first = self._scaling(w, change, n, first)
        self._add("bounded", plasticity.bounded, {"w": first, **highest})

    def _scaling(self, w: Range, change: Range, n: _Weight, first: Range) -> Range:
        joint = self.learning.normalise == "update"
        fine = self._add(
            "fine", plasticity.fine, {"w": w, "change": change if joint else 0, "n": n}
        )
        totals = self.learning.weight.total
        given = {"a": self._given["total"], "b": Range(1, max(self.inputs * fine.high, 2))}
        self._add("gain", quotient, given)
        # p times the gain is at most the wanted sum, which their ranges by themselves do not say.
        most = {"p": Range(0, max(totals)), "gain": 1, "n": n}
        after = self._add("scaled", plasticity.scaled, most)
        return Range(min(first.low, after.low), max(first.high, after.high))

    @property
    def is_stochastic(self) -> bool:
        """Whether any step draws evenly spread random bits."""
        spreading = set(self.functions) - {"drawn_rank", "raised", "decayed"}
        return any(self.draws(role) for role in spreading)

    @property
    def texts(self) -> list[str]:
        """Definitions."""
        return [*self.arrays, *(one.text for one in self.functions.values())]
