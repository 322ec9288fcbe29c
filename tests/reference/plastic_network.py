"""The network of Diehl and Cook with its plasticity, in exact rationals: slow, and without torch.

All numbers are in units of the model (mV relative to rest, weights, traces of 1 at a spike), not
codes. What is stored is rounded once from the exact value. Written from the description of
`qspinn.networks.diehl_cook`; `settings` and `stdp` are any objects with its fields.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from tests.reference.fixed_point import code_range, limited, power_of_two, rounded

GAIN_BITS = 24
THETA_BITS = 24

Draw = Callable[[str, int, tuple[int, ...]], int]
"""64 random bits: purpose, number of the presentation, place (step, input, neuron if any).

For the purposes `post` and `norm`: which update of the neuron it is, instead of the presentation.
"""

Choose = Callable[[int, int, int], int]
"""Which of so many neurons spikes: number of the presentation, step, how many there are."""


@dataclass(frozen=True)
class Word:
    """How a tensor is stored."""

    integer_bits: int
    fraction_bits: int
    signed: bool
    rounding: str = "nearest"
    overflow: str = "saturate"

    @property
    def step(self) -> Fraction:
        return power_of_two(-self.fraction_bits)

    def rounded(self, exact: Fraction, bits: int, random: Callable[[], int]) -> Fraction:
        """To the grid; `exact` has `bits` more fraction bits than it."""
        steps = exact / self.step
        assert (steps * 2**bits).denominator == 1
        if self.rounding == "stochastic":
            u = Fraction(random() >> (64 - bits), 2**bits)
            return math.floor(steps + u) * self.step
        return rounded(steps, self.rounding) * self.step

    def limited(self, value: Fraction) -> Fraction:
        """A number of the grid, in range."""
        low, high = code_range(self.integer_bits, self.fraction_bits, self.signed)
        code = value / self.step
        assert code.denominator == 1
        return limited(int(code), low, high, self.overflow) * self.step

    def constant(self, value: float) -> Fraction:
        """A number stored once: a random rounding would be no use; it saturates."""
        rounding = "nearest" if self.rounding == "stochastic" else self.rounding
        code = rounded(Fraction(value) / self.step, rounding)
        return replace(self, overflow="saturate").limited(code * self.step)


def nearest(value: float | Fraction, fraction_bits: int) -> Fraction:
    step = power_of_two(-fraction_bits)
    return rounded(Fraction(value) / step, "nearest") * step


class PlasticNetwork:
    """The network in fixed point.

    Args:
        settings, stdp: The constants.
        steps: Of a presentation.
        words: How each tensor is stored; the weights of neuron j under `weight` [j].
        spare: Fraction bits that the product of a rate and a trace has more than a weight.
        fine: Fraction bits that a weight has more while it is scaled.
        draw, choose: The random decisions.
    """

    def __init__(
        self,
        settings: Any,
        stdp: Any,
        steps: int,
        words: Mapping[str, Any],
        spare: int,
        fine: int,
        draw: Draw,
        choose: Choose,
    ) -> None:
        self.settings, self.stdp, self.steps, self.words = settings, stdp, steps, words
        self.spare, self.fine, self.draw, self.choose = spare, fine, draw, choose
        self.weight: list[list[Any]] = []
        self.theta: list[Any] = []
        self.turns: list[int] = []
        self.updates = self.underflows = 0
        self._set_constants()

    def _set_constants(self) -> None:
        s, words = self.settings, self.words
        decays = {"leak": s.tau, "leak_pre": self.stdp.tau_pre, "leak_post": self.stdp.tau_post}
        self.leak = {name: words[name].constant(-math.expm1(-1 / x)) for name, x in decays.items()}
        self.threshold = words["threshold"].constant(s.threshold - s.rest)
        self.inhibition = words["inhibition"].constant(s.inhibition)
        reset = words["reset"].constant(s.reset - s.rest)
        self.reset = replace(words["v"], rounding="nearest").constant(float(reset))
        self.one = {name: words[name].constant(1.0) for name in ("trace_pre", "trace_post")}
        self.zero: Any = Fraction(0)
        finest = max(word.fraction_bits for word in words["weight"])
        leaked = words["v"].fraction_bits + words["leak"].fraction_bits
        grid = max(leaked, finest, words["inhibition"].fraction_bits)
        self.charge_bits = grid - words["v"].fraction_bits

    # What is computed.

    def charged(self, v: Any, row: list[Any], others: int, ready: bool, place: Any) -> Any:
        """The potential after leak, and currents and inhibition where the neuron takes any."""
        exact = v * (1 - self.leak["leak"])
        if ready:
            exact += sum(row) - self.inhibition * others
        return self._stored("v", exact, self.charge_bits, "membrane", *place)

    def raised(self, theta: Any, *place: Any) -> Any:
        exact = theta + nearest(
            self.settings.theta_plus, self.words["theta"].fraction_bits + THETA_BITS
        )
        return self._stored("theta", exact, THETA_BITS, "theta", *place)

    def decayed(self, theta: Any, *place: Any) -> Any:
        keep = nearest(math.exp(-self.steps / self.settings.theta_tau), THETA_BITS)
        return self._stored("theta", theta * keep, THETA_BITS, "theta_decay", *place)

    def faded(self, name: str, x: Any, *place: Any) -> Any:
        """A trace one step later."""
        leak = name.replace("trace", "leak")
        bits = self.words[leak].fraction_bits
        return self._stored(name, x * (1 - self.leak[leak]), bits, name, *place)

    def depression(self, y: Any, j: int) -> Any:
        return -self._rate(self.stdp.rate_pre, "trace_post", j) * y

    def potentiation(self, x: Any, j: int) -> Any:
        word = self.words["trace_pre"]
        target = nearest(self.stdp.trace_target, word.fraction_bits)
        return self._rate(self.stdp.rate_post, "trace_pre", j) * (x - target)

    def _rate(self, rate: float, trace: str, j: int) -> Fraction:
        bits = self.words["weight"][j].fraction_bits + self.spare
        return nearest(rate, bits - self.words[trace].fraction_bits)

    def changed(self, w: Any, change: Any, purpose: str, n: int, place: tuple[int, ...]) -> Any:
        word = self.words["weight"][place[-1]]
        return word.rounded(w + change, self.spare, lambda: self.draw(purpose, n, place))

    def before_scaling(self, w: Any, change: Any, j: int) -> Any:
        """A weight with its change, on a finer grid; never negative."""
        step = self.words["weight"][j].step / 2**self.fine
        return max(w + math.floor(change / step) * step, self.zero)

    def scaled(self, p: Any, total: Any, n: int, place: tuple[int, ...]) -> Any:
        word = self.words["weight"][place[-1]]
        goal = nearest(self.stdp.weight_sum, word.fraction_bits + self.fine + GAIN_BITS)
        gain = Fraction(math.floor(goal / total * 2**GAIN_BITS), 2**GAIN_BITS)
        bits = GAIN_BITS + self.fine
        return word.rounded(p * gain, bits, lambda: self.draw("norm", n, place))

    def bounded(self, w: Any, j: int) -> Any:
        word = self.words["weight"][j]
        largest = math.floor(Fraction(self.stdp.weight_max) / word.step) * word.step
        return word.limited(min(max(w, self.zero), largest))

    def _stored(self, name: str, exact: Fraction, bits: int, purpose: str, b: int, *place: int):  # type: ignore[no-untyped-def]
        word = self.words[name]
        return word.limited(word.rounded(exact, bits, lambda: self.draw(purpose, b, place)))

    # What happens.

    def present(self, inputs: Sequence[Any], learning: bool, first: int = 0) -> list[list[Any]]:
        """Spikes of neurons, per presentation and step; `inputs` [M][T] lists input spikes."""
        if learning:
            self.weight = [[self.bounded(w, j) for j, w in enumerate(row)] for row in self.weight]
        raster: list[list[Any]] = []
        for start in range(0, len(inputs), self.stdp.parallel):
            group = inputs[start : start + self.stdp.parallel]
            raster += _Group(self, group, first + start).run(learning)
        return raster


class _Group:
    """Presentations side by side."""

    def __init__(self, network: PlasticNetwork, inputs: Sequence[Any], first: int) -> None:
        self.net, self.inputs, self.first = network, inputs, first
        size, zero = len(inputs), network.zero
        self.neurons, self.channels = range(len(network.theta)), range(len(network.weight))
        self.v = [[zero for _ in self.neurons] for _ in range(size)]
        self.refractory = [[0 for _ in self.neurons] for _ in range(size)]
        self.pre = [[zero for _ in self.channels] for _ in range(size)]
        self.post = [[zero for _ in self.neurons] for _ in range(size)]
        self.raster: list[list[list[int]]] = [[] for _ in range(size)]
        self.sums: dict[tuple[int, int], Any] = {}

    def run(self, learning: bool) -> list[list[Any]]:
        for t in range(self.net.steps):
            crossed = [self._advance(b, t) for b in range(len(self.inputs))]
            if learning:
                self._learn(t, crossed)
        if learning:
            self._end()
        return self.raster

    def _advance(self, b: int, t: int) -> list[int]:
        net, s, v, refractory = self.net, self.net.settings, self.v[b], self.refractory[b]
        before = t - s.inhibition_delay
        arriving = self.raster[b][before] if before >= 0 else []
        for j in self.neurons:
            row = [net.weight[i][j] for i in sorted(self.inputs[b][t])]
            others = len([k for k in arriving if k != j])
            place = (self.first + b, t, j)
            v[j] = net.charged(v[j], row, others, refractory[j] == 0, place)
            refractory[j] = max(refractory[j] - 1, 0)
        crossed = [j for j in self.neurons if v[j] >= net.threshold + net.theta[j]]
        for j in crossed:
            v[j], refractory[j] = net.reset, s.refractory
        spikes = crossed
        if s.one_winner and crossed:
            spikes = [crossed[net.choose(self.first + b, t, len(crossed))]]
        self.raster[b].append(spikes)
        return crossed

    def _learn(self, t: int, crossed: list[list[int]]) -> None:
        net = self.net
        for b, rows in enumerate(self.inputs):
            n = self.first + b
            for i in self.channels:
                faded = net.faded("trace_pre", self.pre[b][i], n, t, i)
                self.pre[b][i] = net.one["trace_pre"] if i in rows[t] else faded
            for j in self.neurons:
                faded = net.faded("trace_post", self.post[b][j], n, t, j)
                self.post[b][j] = net.one["trace_post"] if j in self.raster[b][t] else faded
            for j in crossed[b]:
                net.theta[j] = net.raised(net.theta[j], n, t, j)
        for b, rows in enumerate(self.inputs):
            for i in sorted(rows[t]) if net.stdp.rate_pre > 0 else ():
                for j in self.neurons:
                    self._change(i, j, net.depression(self.post[b][j], j), "pre", b, t)
            for j in self.raster[b][t]:
                changes = [net.potentiation(self.pre[b][i], j) for i in self.channels]
                if net.stdp.update == "online":
                    self._update(j, changes)
                else:
                    for i, change in enumerate(changes):
                        self._change(i, j, change, "post", b, t)

    def _change(self, i: int, j: int, change: Any, purpose: str, b: int, t: int) -> None:
        if self.net.stdp.update == "deferred":
            self.sums[i, j] = self.sums.get((i, j), self.net.zero) + change
        else:
            self._apply(i, j, change, purpose, self.first + b, (t, i, j))

    def _apply(self, i: int, j: int, change: Any, purpose: str, n: int, place: Any) -> None:
        if change == 0:
            return
        net, w = self.net, self.net.weight[i][j]
        after = net.changed(w, change, purpose, n, place)
        net.updates += 1
        net.underflows += after == w
        net.weight[i][j] = net.bounded(after, j)

    @property
    def _scales_updates(self) -> bool:
        stdp = self.net.stdp
        return stdp.weight_sum is not None and stdp.normalise == "update"

    def _update(self, j: int, changes: list[Any]) -> None:
        """All changes of the weights to neuron j at once."""
        net = self.net
        net.turns[j] += 1
        if self._scales_updates:
            self._normalise(j, changes)
            return
        for i, change in enumerate(changes):
            self._apply(i, j, change, "post", net.turns[j], (i, j))

    def _end(self) -> None:
        net, zero = self.net, self.net.zero
        spiked = sorted({j for rows in self.raster for spikes in rows for j in spikes})
        if net.stdp.update == "deferred":
            for j in spiked:
                self._update(j, [self.sums.get((i, j), zero) for i in self.channels])
        if net.stdp.weight_sum is not None and not self._scales_updates:
            for j in spiked:
                self._normalise(j, [zero for _ in self.channels])
        for j in self.neurons:
            net.theta[j] = net.decayed(net.theta[j], self.first, j)

    def _normalise(self, j: int, changes: list[Any]) -> None:
        """Scales the weights to neuron j, with their changes, to their sum."""
        net, total = self.net, self.net.zero
        before = [net.before_scaling(net.weight[i][j], changes[i], j) for i in self.channels]
        for p in before:
            total = total + p
        for i, p in enumerate(before):
            w, after = net.weight[i][j], net.zero
            if p > 0:
                after = net.bounded(net.scaled(p, total, net.turns[j], (i, j)), j)
            net.weight[i][j] = after
            net.updates += changes[i] != 0
            net.underflows += changes[i] != 0 and after == w


class FloatNetwork(PlasticNetwork):
    """The same in float32: every operation rounds, in the order in which it is described."""

    def _set_constants(self) -> None:
        f, s = np.float32, self.settings
        self.zero = f(0)
        self.keep = f(math.exp(-1 / s.tau))
        self.threshold, self.reset = f(s.threshold - s.rest), f(s.reset - s.rest)
        self.one = {"trace_pre": f(1), "trace_post": f(1)}
        self.fade = {"trace_pre": f(math.exp(-1 / self.stdp.tau_pre))}
        self.fade["trace_post"] = f(math.exp(-1 / self.stdp.tau_post))

    def charged(self, v: Any, row: list[Any], others: int, ready: bool, place: Any) -> Any:
        current = self.zero
        for w in row:
            current = current + w
        lowered = np.float32(self.settings.inhibition) * np.float32(others)
        return v * self.keep + (current - lowered if ready else self.zero)

    def raised(self, theta: Any, *place: Any) -> Any:
        return theta + np.float32(self.settings.theta_plus)

    def decayed(self, theta: Any, *place: Any) -> Any:
        return theta * np.float32(math.exp(-self.steps / self.settings.theta_tau))

    def faded(self, name: str, x: Any, *place: Any) -> Any:
        return x * self.fade[name]

    def depression(self, y: Any, j: int) -> Any:
        return -(np.float32(self.stdp.rate_pre) * y)

    def potentiation(self, x: Any, j: int) -> Any:
        return np.float32(self.stdp.rate_post) * (x - np.float32(self.stdp.trace_target))

    def changed(self, w: Any, change: Any, purpose: str, n: int, place: tuple[int, ...]) -> Any:
        return w + change

    def before_scaling(self, w: Any, change: Any, j: int) -> Any:
        return max(w + change, self.zero)

    def scaled(self, p: Any, total: Any, n: int, place: tuple[int, ...]) -> Any:
        return p * (np.float32(self.stdp.weight_sum) / total)

    def bounded(self, w: Any, j: int) -> Any:
        return min(max(w, self.zero), np.float32(self.stdp.weight_max))
