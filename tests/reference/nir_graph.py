"""A NIR graph simulated in NumPy and float64, node by node and step by step, from its equations.

Potentials are NIR's own, in its units, from ``v_reset`` on (readouts: from 0). An edge from a node
that has not been computed in this step carries what it sent in the last one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SYNAPSES = ("Affine", "Linear", "Conv1d", "Conv2d")


class Simulator:
    """One graph; ``step`` takes ``[N, *]``.

    Args:
        graph: The graph.
        dt: Length of a step.
        method: ``euler``, ``exact`` or ``exponential_leak``.
        order: ``leak_first`` or ``input_first``.
        reset: ``zero`` or ``subtract``.
        comparison: ``>=`` or ``>``.
    """

    def __init__(self, graph: Any, **simulation: Any) -> None:
        self.graph = graph
        self.simulation = {"dt": 1.0, "method": "euler", "order": "leak_first"} | simulation
        self.simulation = {"reset": "zero", "comparison": ">="} | self.simulation
        self.states: dict[str, dict[str, Array]] = {name: {} for name in graph.nodes}
        self.inner = {
            name: Simulator(node, **self.simulation)
            for name, node in graph.nodes.items()
            if kind(node) == "NIRGraph"
        }
        self.last: dict[str, Array] = {}

    def run(self, x: Array) -> Array:
        """``[T, N, *]`` in and out."""
        return np.stack([self.step(one) for one in x])

    def step(self, x: Array) -> Array:
        now: dict[str, Array] = {}
        waiting = list(self.graph.nodes)
        while waiting:
            ready = [n for n in waiting if all(s in now for s in self.sources(n))]
            loose = [n for n in waiting if kind(self.graph.nodes[n]) in SYNAPSES]
            name = (ready or loose)[0]
            given = [now[s] if s in now else self.last.get(s) for s in self.sources(name)]
            if not self.sources(name):
                given = [x]
            if given[0] is None:  # nothing was sent before the first step
                width = self.graph.nodes[name].weight.shape[1]
                given = [np.zeros((len(x), width))]
            now[name] = self.node(name, sum(given[1:], given[0]))
            waiting.remove(name)
        self.last = now
        return next(now[n] for n, node in self.graph.nodes.items() if kind(node) == "Output")

    def sources(self, name: str) -> list[str]:
        return [a for a, b in self.graph.edges if b == name]

    def node(self, name: str, x: Array) -> Array:
        node, state = self.graph.nodes[name], self.states[name]
        if name in self.inner:
            return self.inner[name].step(x)
        return NODES[kind(node)](node, x, state, self.simulation)


def kind(node: Any) -> str:
    return type(node).__name__


def leaky(v: Array, rest: Any, tau: Any, drive: Array, simulation: dict[str, Any]) -> Array:
    """``tau dv/dt = (rest - v) + drive`` over one step."""
    ratio = simulation["dt"] / np.asarray(tau, np.float64)
    decay = 1 - ratio if simulation["method"] == "euler" else np.exp(-ratio)
    arrives = 1 - decay if simulation["method"] == "exact" else ratio
    if simulation["order"] == "input_first":
        v, drive = v + arrives * drive, np.zeros(())
    return rest + decay * (v - rest) + arrives * drive


def fire(node: Any, v: Array, state: dict[str, Array], simulation: dict[str, Any]) -> Array:
    threshold = np.asarray(node.v_threshold, np.float64)
    spikes = v > threshold if simulation["comparison"] == ">" else v >= threshold
    after = v - threshold if simulation["reset"] == "subtract" else node.v_reset
    state["v"] = np.where(spikes, after, v)
    return spikes.astype(np.float64)


def potential(node: Any, x: Array, state: dict[str, Array]) -> Array:
    start = np.broadcast_to(getattr(node, "v_reset", 0.0), x.shape).astype(np.float64)
    return state.get("v", start)


def integrate_and_fire(node: Any, x: Array, state: Any, simulation: Any) -> Array:
    v = potential(node, x, state) + simulation["dt"] * node.r * x
    return fire(node, v, state, simulation)


def leak_and_fire(node: Any, x: Array, state: Any, simulation: Any) -> Array:
    v = leaky(potential(node, x, state), node.v_leak, node.tau, node.r * x, simulation)
    return fire(node, v, state, simulation)


def current(node: Any, x: Array, state: Any, simulation: Any) -> Array:
    before = state.get("i", np.zeros_like(x))
    state["i"] = leaky(before, 0.0, node.tau_syn, node.w_in * x, simulation)
    return state["i"]


def current_and_fire(node: Any, x: Array, state: Any, simulation: Any) -> Array:
    drive = node.r * current(node, x, state, simulation)
    v = leaky(potential(node, x, state), node.v_leak, node.tau_mem, drive, simulation)
    return fire(node, v, state, simulation)


def read(node: Any, x: Array, state: Any, simulation: Any) -> Array:
    v = potential(node, x, state)
    if kind(node) == "I":
        state["v"] = v + simulation["dt"] * node.r * x
    elif kind(node) == "LI":
        state["v"] = leaky(v, node.v_leak, node.tau, node.r * x, simulation)
    else:
        drive = node.r * current(node, x, state, simulation)
        state["v"] = leaky(v, node.v_leak, node.tau_mem, drive, simulation)
    return state["v"]


def threshold(node: Any, x: Array, state: Any, simulation: Any) -> Array:
    above = x > node.threshold if simulation["comparison"] == ">" else x >= node.threshold
    return above.astype(np.float64)


def affine(node: Any, x: Array, state: Any, simulation: Any) -> Array:
    return x @ np.asarray(node.weight, np.float64).T + getattr(node, "bias", 0.0)


def windows(x: Array, size: Any, stride: Any, dilation: Any) -> Array:
    """``[N, C, *output, *size]`` from ``[N, C, *input]``."""
    counts = [
        (length - d * (s - 1) - 1) // step + 1
        for length, s, step, d in zip(x.shape[2:], size, stride, dilation, strict=True)
    ]
    out = np.empty((*x.shape[:2], *counts, *size))
    for place in itertools.product(*map(range, counts)):
        for tap in itertools.product(*map(range, size)):
            where = tuple(
                p * s + t * d for p, s, t, d in zip(place, stride, tap, dilation, strict=True)
            )
            out[(slice(None), slice(None), *place, *tap)] = x[(slice(None), slice(None), *where)]
    return out


def padded(x: Array, before: Any, after: Any) -> Array:
    return np.pad(x, [(0, 0), (0, 0), *zip(before, after, strict=True)])


def convolution(node: Any, x: Array, state: Any, simulation: Any) -> Array:
    weight = np.asarray(node.weight, np.float64)
    size = weight.shape[2:]
    stride, dilation = (
        np.broadcast_to(one, len(size)).tolist() for one in (node.stride, node.dilation)
    )
    if isinstance(node.padding, str):
        total = [
            d * (s - 1) if node.padding == "same" else 0
            for s, d in zip(size, dilation, strict=True)
        ]
    else:
        total = [2 * p for p in np.broadcast_to(node.padding, len(size)).tolist()]
    before = [one // 2 for one in total]
    x = padded(x, before, [t - b for t, b in zip(total, before, strict=True)])
    groups = int(node.groups)
    per_in, per_out = x.shape[1] // groups, weight.shape[0] // groups
    spatial = "ab"[: len(size)]
    taps = "xy"[: len(size)]
    parts = [
        np.einsum(
            f"nc{spatial}{taps},oc{taps}->no{spatial}",
            windows(x[:, g * per_in : (g + 1) * per_in], size, stride, dilation),
            weight[g * per_out : (g + 1) * per_out],
        )
        for g in range(groups)
    ]
    return np.concatenate(parts, 1) + np.asarray(node.bias).reshape(-1, *(1,) * len(size))


def pool(node: Any, x: Array, state: Any, simulation: Any) -> Array:
    size, stride, padding = (
        np.broadcast_to(one, 2).tolist() for one in (node.kernel_size, node.stride, node.padding)
    )
    sums = windows(padded(x, padding, padding), size, stride, [1, 1]).sum((-1, -2))
    return sums if kind(node) == "SumPool2d" else sums / math.prod(size)


def flatten(node: Any, x: Array, state: Any, simulation: Any) -> Array:
    shape = x.shape[1:]
    start, end = int(node.start_dim), int(node.end_dim) % len(shape)
    return x.reshape(len(x), *shape[:start], -1, *shape[end + 1 :])


def scaled(node: Any, x: Array, state: Any, simulation: Any) -> Array:
    return x * np.asarray(node.scale, np.float64)


def unchanged(node: Any, x: Array, state: Any, simulation: Any) -> Array:
    return x


NODES: dict[str, Callable[[Any, Array, Any, Any], Array]] = {
    "Input": unchanged,
    "Output": unchanged,
    "Affine": affine,
    "Linear": affine,
    "Conv1d": convolution,
    "Conv2d": convolution,
    "SumPool2d": pool,
    "AvgPool2d": pool,
    "Flatten": flatten,
    "Scale": scaled,
    "Threshold": threshold,
    "IF": integrate_and_fire,
    "LIF": leak_and_fire,
    "CubaLIF": current_and_fire,
    "I": read,
    "LI": read,
    "CubaLI": read,
}
