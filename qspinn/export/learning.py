"""What a device needs beside a model to go on learning by itself: the constants of the rule.

Whole numbers, as the steps of :mod:`qspinn.steps` (plasticity, neurons, traces) take them.
Of what all neurons share there is one number, else one for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from qspinn.fixed_point import OVERFLOWS, ROUNDINGS, FixedPointFormat

__all__ = ["NORMALISATIONS", "DeviceLearning", "ThetaRule", "TraceRule", "WeightRule"]
__all__ += ["check_learning", "declared_learning"]

NORMALISATIONS = ("none", "presentation", "update")
_MOST_SHIFT = 62
MOST_NUMBERS = 100_000
"""Of all neurons together: the header of a model file has room for them and for its operations."""


@dataclass(frozen=True)
class TraceRule:
    """A trace that a spike sets to 1 and that decays otherwise.

    Attributes:
        state: Its format.
        keep: What is left of it after a step, on the grid of its leak.
        down: From the product of both to the trace, in bits.
        one: Its code at a spike.
        rounding: Of the trace.
        overflow: Of the trace.
    """

    state: FixedPointFormat
    keep: int
    down: int
    one: int
    rounding: str = "nearest"
    overflow: str = "saturate"

    def __post_init__(self) -> None:
        _check_rounding(self.rounding, self.overflow)
        if not isinstance(self.state, FixedPointFormat):
            raise ValueError(f"state={self.state}: write one format for all traces, such as Q0.7")
        _check("down", self.down, 0, _MOST_SHIFT)
        _check("keep", self.keep, 0, 1 << self.down)
        _check("one", self.one, self.state.code_min, self.state.code_max)


@dataclass(frozen=True)
class ThetaRule:
    """How thetas grow and decay; their format is that of the model's tensor.

    Attributes:
        plus: What a theta grows by where its neuron reaches its threshold.
        keep: What is left of it after a presentation.
        bits: Fraction bits that `plus` has more than theta, and that `keep` has.
        rounding: Of thetas.
        overflow: Of thetas.
    """

    plus: int
    keep: int
    bits: int
    rounding: str = "nearest"
    overflow: str = "saturate"

    def __post_init__(self) -> None:
        _check_rounding(self.rounding, self.overflow)
        _check("bits", self.bits, 0, _MOST_SHIFT)
        _check("plus", self.plus, 0, 1 << _MOST_SHIFT)
        _check("keep", self.keep, 0, 1 << self.bits)


@dataclass(frozen=True)
class WeightRule:
    """How weights change; their format is that of the model's tensor.

    Attributes:
        spare: Fraction bits that changes have more than weights.
        fine: Fraction bits that weights have more than stored ones while they are normalised.
        gain_down: From normalised weights to stored ones, in bits.
        target: Of the traces of inputs.
        maximum: The largest weight.
        total: What the weights of a neuron are normalised to, with `gain_down` more bits.
        rate_pre: Change per trace of a neuron at a spike of an input.
        rate_post: Change per trace of an input at a spike of a neuron.
        rounding: Of weights.
        overflow: Of weights.
    """

    spare: int
    fine: int
    gain_down: int
    target: int
    maximum: tuple[int, ...]
    total: tuple[int, ...]
    rate_pre: tuple[int, ...]
    rate_post: tuple[int, ...]
    rounding: str = "nearest"
    overflow: str = "saturate"

    def __post_init__(self) -> None:
        _check_rounding(self.rounding, self.overflow)
        _check("spare", self.spare, 0, _MOST_SHIFT)
        _check("fine", self.fine, 0, self.spare)
        _check("gain_down", self.gain_down, self.fine, _MOST_SHIFT)
        _check("target", self.target, 0, 1 << _MOST_SHIFT)
        for name in ("maximum", "total", "rate_pre", "rate_post"):
            for value in getattr(self, name):
                _check(name, value, int(name == "maximum"), 1 << _MOST_SHIFT)


@dataclass(frozen=True)
class DeviceLearning:
    """How a network of adaptive neurons goes on learning, one presentation after the other.

    Attributes:
        weight: Of the weights.
        theta: Of the thetas.
        trace_pre: Of the inputs.
        trace_post: Of the neurons.
        normalise: When weights are scaled to their sum: ``none``, ``presentation`` or ``update``.
        deferred: Whether all changes of a presentation are made at its end.
        key: Of all presentations, 64 bits as an int64; so are the others.
        update_key: Of the updates of weights, which do not depend on the presentation.
        scale_key: Of their normalisations.
        draws: Numbers of the streams of a presentation: input traces, neuron traces, changes at
            spikes of inputs, growth of thetas, decay of thetas.
        presentations: How many it has learned from.
        turns: How often the weights to each neuron were updated.
    """

    weight: WeightRule
    theta: ThetaRule
    trace_pre: TraceRule
    trace_post: TraceRule
    normalise: str
    deferred: bool
    key: int
    update_key: int
    scale_key: int
    draws: tuple[int, int, int, int, int]
    presentations: int
    turns: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.normalise not in NORMALISATIONS:
            choices = ", ".join(NORMALISATIONS)
            raise ValueError(f"normalise={self.normalise!r}: write one of {choices}")
        if type(self.deferred) is not bool:
            raise ValueError(f"deferred={self.deferred!r:.80}: write True or False")
        for name in ("key", "update_key", "scale_key"):
            _check(name, getattr(self, name), -(1 << 63), (1 << 63) - 1)
        for one in self.draws:
            _check("draws", one, 0, (1 << 31) - 1)
        _check("presentations", self.presentations, 0, 1 << _MOST_SHIFT)
        for one in self.turns:
            _check("turns", one, 0, (1 << 32) - 1)


def declared_learning(said: Mapping[str, Any]) -> DeviceLearning:
    """From what a module says in plain data: a mapping for each rule, and numbers.

    Raises:
        ValueError: Something is missing or not known, or numbers with which nothing can be
            computed.
    """
    _check_names("device_learning()", DeviceLearning, said)
    rules = {}
    for name, kind in _RULES.items():
        _check_names(f"device_learning(), {name}", kind, said[name])
        try:
            rules[name] = kind(**said[name])
        except ValueError as error:
            raise ValueError(f"{name}, {error}") from error
    return DeviceLearning(**{**said, **rules})


_RULES: dict[str, Any] = {
    **{"weight": WeightRule, "theta": ThetaRule},
    **{"trace_pre": TraceRule, "trace_post": TraceRule},
}


def _check_names(place: str, kind: Any, said: Mapping[str, Any]) -> None:
    """That a mapping has all attributes of a class that it must have, and no others."""
    known = {one.name: one.default is MISSING for one in fields(kind)}
    wrong = [name for name in said if name not in known]
    wrong += [name for name, is_needed in known.items() if is_needed and name not in said]
    if wrong:
        what = "is not known" if wrong[0] in said else "is missing"
        raise ValueError(f"{place}: {wrong[0]!r} {what}; write {', '.join(known)}")


def check_learning(learning: DeviceLearning, neurons: int) -> None:
    """Checks that there is one number for all neurons, or one for each, and that a file holds them.

    Raises:
        ValueError: There are others, or too many.
    """
    for name in ("maximum", "total", "rate_pre", "rate_post"):
        count = len(getattr(learning.weight, name))
        if count not in (1, neurons):
            raise ValueError(f"{name}: {count} numbers for {neurons} neurons")
    if len(learning.turns) != neurons:
        raise ValueError(f"turns: {len(learning.turns)} numbers for {neurons} neurons")
    rule = learning.weight
    held = (learning.turns, rule.maximum, rule.total, rule.rate_pre, rule.rate_post)
    if sum(map(len, held)) > MOST_NUMBERS:
        raise ValueError(
            f"{sum(map(len, held)):,} numbers for {neurons:,} neurons: the header of a model file "
            f"has room for {MOST_NUMBERS:,}; take fewer neurons, or export without learning"
        )


def _check_rounding(rounding: str, overflow: str) -> None:
    if rounding not in ROUNDINGS or overflow not in OVERFLOWS:
        raise ValueError(f"{rounding!r} and {overflow!r} are no rounding and overflow")


def _check(name: str, value: int, low: int, high: int) -> None:
    if type(value) is not int:
        raise ValueError(f"{name}={value!r:.80}: write a whole number (int)")
    if not low <= value <= high:
        raise ValueError(f"{name}={value}: lies outside {low} to {high}")
