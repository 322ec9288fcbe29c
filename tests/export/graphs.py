"""Small NIR graphs of all kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nir
import numpy as np

DT = 0.5


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def f32(values: Any) -> Any:
    return np.asarray(values, np.float32)


def weights(*shape: int, seed: int = 0) -> Any:
    return f32(random(seed).normal(0.25, 0.6, shape))


def full(shape: Any, value: float) -> Any:
    return np.full(shape, value, np.float32)


def by_channel(shape: tuple[int, ...], low: float, high: float) -> Any:
    """One value per channel, for each neuron of it."""
    values = np.linspace(low, high, shape[0]).reshape(-1, *(1,) * (len(shape) - 1))
    return f32(np.broadcast_to(values, shape))


def lif(shape: Any, **given: Any) -> nir.LIF:
    values = {"tau": 2.0, "r": 1.0, "v_leak": 0.0, "v_threshold": 0.4, "v_reset": 0.0} | given
    return nir.LIF(
        **{key: one if np.ndim(one) else full(shape, one) for key, one in values.items()}
    )


def cuba(shape: Any, kind: Any = nir.CubaLIF, **given: Any) -> Any:
    values = {"tau_syn": 1.5, "tau_mem": 2.5, "r": 1.5, "v_leak": 0.0, "w_in": 2.0}
    if kind is nir.CubaLIF:
        values |= {"v_threshold": 0.4, "v_reset": 0.0}
    values |= given
    return kind(**{key: one if np.ndim(one) else full(shape, one) for key, one in values.items()})


def i_and_f(shape: Any, **given: Any) -> nir.IF:
    values = {"r": 1 / DT, "v_threshold": 0.7, "v_reset": 0.0} | given
    return nir.IF(**{key: one if np.ndim(one) else full(shape, one) for key, one in values.items()})


def conv2d(out: int, taken: int, size: int = 3, **given: Any) -> nir.Conv2d:
    bias = given.pop("bias", f32(random(1).normal(0, 0.1, out)))
    settings = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1} | given
    return nir.Conv2d(None, weights(out, taken, size, size), bias=bias, **settings)


def chain(shape: tuple[int, ...], *nodes: Any) -> nir.NIRGraph:
    """Nodes one after another, named by their numbers."""
    held = {str(number): node for number, node in enumerate(nodes)}
    return graph(shape, held, *([*zip(list(held), list(held)[1:], strict=False)]))


def graph(shape: tuple[int, ...], nodes: dict[str, Any], *edges: tuple[str, str]) -> nir.NIRGraph:
    """Nodes between ``in``, which leads to the first, and ``out``, which the last leads to."""
    ends = {"in": nir.Input(np.array(shape)), "out": nir.Output({"output": None})}
    first, *_, last = [*nodes, *nodes]
    edges = (*edges, ("in", first), (last, "out"))
    return nir.NIRGraph(nodes | ends, list(edges), type_check=False)


def image() -> nir.NIRGraph:
    return chain(
        (2, 9, 9),
        conv2d(4, 2, stride=(2, 1), padding=(2, 1), dilation=(1, 2)),
        lif(
            (4, 6, 7),
            tau=by_channel((4, 6, 7), 1.0, 4.0),
            v_threshold=by_channel((4, 6, 7), 0.2, 0.9),
        ),
        nir.SumPool2d(np.array([2, 2]), np.array([2, 1]), np.array([1, 0])),
        conv2d(4, 2, padding="same", groups=2, bias=np.zeros(4, np.float32)),
        i_and_f((4, 4, 6)),
        nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        nir.Flatten({"input": None}, 0, -1),
        nir.Affine(weights(3, 24, seed=4) - f32(0.2), f32([0.1, 0.0, -0.1])),
        i_and_f((3,), r=f32([1.0, 2.0, 4.0]), v_threshold=f32([0.5, 0.4, 1.5])),
    )


def sequence() -> nir.NIRGraph:
    convolution = nir.Conv1d(None, weights(4, 1, 4), 1, "same", 2, 2, f32([0.1, 0, 0, 0]))
    second = nir.Conv1d(8, weights(2, 4, 3, seed=2), 2, "valid", 1, 1, np.zeros(2, np.float32))
    return chain((2, 8), convolution, lif((4, 8)), second, lif((2, 3), r=0.5, v_threshold=0.1))


def branches() -> nir.NIRGraph:
    nodes = {
        "a": nir.Linear(weights(5, 6)),
        "spikes": lif((5,)),
        "left": nir.Linear(weights(3, 5, seed=1)),
        "right": nir.Affine(weights(3, 5, seed=2), f32([0.1, 0.2, 0.3])),
        "sum": lif((3,), v_leak=0.2),
        "last": i_and_f((3,)),
    }
    joined = [("left", "sum"), ("right", "sum"), ("sum", "last")]
    return graph((6,), nodes, ("a", "spikes"), ("spikes", "left"), ("spikes", "right"), *joined)


def nested() -> nir.NIRGraph:
    inner = chain((6,), nir.Linear(weights(4, 6)), lif((4,)))
    middle = chain((6,), inner, nir.Linear(weights(4, 4, seed=3)))
    return chain((6,), middle, lif((4,)))


def recurrent(**given: Any) -> nir.NIRGraph:
    nodes = {
        "w in": nir.Linear(weights(4, 6)),
        "back": nir.Affine(weights(4, 4, seed=5) - f32(0.3), f32([0.1, 0.0, -0.1, 0.2])),
        "lif": lif((4,), **given),
        "w.out": nir.Linear(weights(2, 4, seed=6)),
        "li": nir.LI(tau=full(2, 3.0), r=f32([1.0, 2.0]), v_leak=f32([0.0, 0.5])),
    }
    back = (("lif", "back"), ("back", "lif"))
    return graph((6,), nodes, ("w in", "lif"), *back, ("lif", "w.out"), ("w.out", "li"))


def constants() -> nir.NIRGraph:
    """Potentials that rest, reset and start at other values than 0."""
    first = lif((4,), v_leak=f32([0.1, 0.2, -0.3, 0.0]), v_reset=f32([-0.1, 0.0, 0.1, 0.2]), r=2.0)
    second = i_and_f((3,), v_reset=f32([-0.5, 0.0, 0.2]))
    return chain((6,), nir.Linear(weights(4, 6)), first, nir.Linear(weights(3, 4, seed=1)), second)


def synapses() -> nir.NIRGraph:
    tau = f32([1.0, 2.0, 3.0, 4.0])
    return chain(
        (6,),
        nir.Linear(weights(4, 6)),
        cuba((4,), tau_syn=tau, v_reset=f32([0.1, 0, 0, 0]), v_leak=f32([0.1, 0, 0, 0])),
        nir.Linear(weights(4, 4, seed=1)),
        cuba((4,), nir.CubaLI, r=f32([1.0, 2.0, 0.5, 1.0])),
    )


def integrated() -> nir.NIRGraph:
    return chain((6,), nir.Linear(weights(4, 6)), nir.I(r=f32([1.0, 2.0, 0.5, 1.0])))


def thresholds() -> nir.NIRGraph:
    nodes = [nir.Linear(weights(4, 6)), nir.Threshold(f32([0.2, 0.7, 1.1, 1.1]))]
    return chain((6,), *nodes, nir.Linear(weights(2, 4, seed=1)), nir.Threshold(full(2, 0.5)))


def scales() -> nir.NIRGraph:
    """One that disappears into the layer before it, and one that cannot."""
    shape = (2, 5, 5)
    return chain(
        shape,
        nir.Scale(by_channel(shape, 0.5, 2.0)),
        conv2d(4, 2),
        nir.Scale(by_channel((4, 3, 3), 0.5, 1.5)),
        lif((4, 3, 3), v_leak=by_channel((4, 3, 3), 0.0, 0.2)),
    )


GRAPHS: dict[str, tuple[Callable[[], nir.NIRGraph], bool]] = {
    "image": (image, True),
    "sequence": (sequence, True),
    "branches": (branches, True),
    "nested": (nested, True),
    "recurrent": (recurrent, True),
    "constants": (constants, False),
    "synapses": (synapses, False),
    "integrated": (integrated, True),
    "thresholds": (thresholds, True),
    "scales": (scales, True),
}
"""Name -> the graph, and whether its potentials reset to 0, as a reset by subtraction wants."""
