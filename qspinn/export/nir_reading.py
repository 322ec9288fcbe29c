"""Somebody else's network, as a NIR graph, becomes a SpikingJelly module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from spikingjelly.activation_based import layer
from torch import Tensor, nn

from qspinn.export import nir_modules as modules
from qspinn.export.nir_file import MAX_BYTES, read_nir, refusal
from qspinn.export.nir_folding import Folding, Weights
from qspinn.export.nir_graph import SPIKING, SYNAPSES, ordered_steps
from qspinn.export.nir_neurons import (
    Charge,
    Comparison,
    Floats,
    Method,
    Order,
    Reset,
    Simulation,
    charge_of_node,
    compared,
    leak_and_gain,
    parameters,
    threshold_of_node,
)
from qspinn.export.nir_shapes import (
    Shape,
    convolution_settings,
    flattened_dims,
    numbers,
    per_neuron,
    shapes_of,
)

_READOUTS = (nir.I, nir.LI, nir.CubaLI)


def network_from_nir(
    graph: nir.NIRGraph | str | Path,
    dt: float = 1.0,
    method: Method = "euler",
    order: Order = "leak_first",
    reset: Reset = "zero",
    comparison: Comparison = ">=",
    max_bytes: int = MAX_BYTES,
) -> modules.NIRNetwork:
    """The network of a NIR graph, built from SpikingJelly's layers in multi-step mode.

    Batches are ``[T, N, *]``. NIR describes neurons in continuous time and does not say how they
    are simulated; the arguments do. ``docs/nir.md`` has the formulas. What cannot be expressed is
    refused before a module is built.

    Args:
        graph: A graph, or the path of a ``.nir`` file.
        dt: Length of a time step, in the unit of the graph's time constants (usually seconds). With
            1, an ``IF`` node adds ``r`` times its input in every step.
        method: ``"euler"``: ``dt/tau`` is lost per step. ``"exact"``: ``1 - exp(-dt/tau)``, the
            solution for an input that is constant during the step. ``"exponential_leak"``: that
            leak, and the input of Euler's method.
        order: ``"leak_first"``: the input of a step does not leak in it; ``"input_first"``: it
            does.
        reset: ``"zero"``: a spike sets the potential to ``v_reset``; ``"subtract"``: it subtracts
            the threshold.
        comparison: ``">="``, or ``">"`` as NIR's equations have it. In fixed point, neurons fire
            at their threshold, as it is on the grid.
        max_bytes: The most that the arrays in a file may take in memory.

    Returns:
        The network in evaluation mode; ``nir_names`` says which layer was made from which node.

    Raises:
        NirError: The file or the graph is malformed, or a node has no equivalent; the error names
            the node, its type and the reason.
        FileNotFoundError: There is no such file.
        TypeError: ``graph`` is neither a graph nor a path.
        ValueError: One of the other arguments.
    """
    simulation = Simulation(dt, method, order, reset, comparison)
    if isinstance(graph, str | Path):
        graph = read_nir(graph, max_bytes)
    if not isinstance(graph, nir.NIRGraph):
        raise TypeError(f"graph is a {type(graph).__name__}; give a nir.NIRGraph or a path")
    steps = ordered_steps(graph)
    shapes = shapes_of(steps)
    folding = Folding(steps, shapes)
    described = {step.name: _described(step.name, folding, simulation) for step in steps}
    kept = [name for name in described if name in folding.sources]
    names = modules.safe_names(kept) | {"": ""}
    return modules.NIRNetwork(
        {names[name]: _module(described[name], name, folding) for name in kept},
        {names[name]: tuple(names[one] for one in folding.sources[name]) for name in kept},
        names[folding.output],
        {names[name]: name for name in kept},
    ).eval()


@dataclass(frozen=True)
class _Neuron:
    """The constants of a neuron, checked; one number, or a tensor for the parts of a layer."""

    leak: Tensor | float | None
    decays_input: bool = True
    threshold: Tensor | float | None = None
    v_reset: float | None = 0.0
    synapse_leak: Tensor | float | None = None


def _described(name: str, folding: Folding, simulation: Simulation) -> _Neuron | None:
    """Checks a node, folds what belongs into the weights before it, and works out constants."""
    node, shape = folding.nodes[name], folding.shapes[name]

    def constant(values: Floats) -> Tensor | float:
        return _constant(name, node, values, shape)

    if isinstance(node, nir.Scale):
        folding.fold_scale(name, parameters(name, node, "scale")[0])
    elif isinstance(node, nir.Threshold):
        (threshold,) = parameters(name, node, "threshold")
        # All of the potential leaks in every step: what is left is the input.
        return _Neuron(1.0, False, constant(compared(threshold, simulation)))
    elif isinstance(node, _READOUTS):
        charge = charge_of_node(name, node, simulation)
        folding.fold(name, charge.scale, charge.scale * charge.bias, "its r (or w_in), or v_leak")
        leak = None if charge.leak is None else constant(charge.leak)
        return _Neuron(leak, synapse_leak=_synapse_leak(name, node, charge, simulation, constant))
    elif isinstance(node, SPIKING):
        charge = charge_of_node(name, node, simulation)
        synapse_leak = _synapse_leak(name, node, charge, simulation, constant)
        threshold = threshold_of_node(name, node, charge, simulation)
        folding.fold(name, np.ones(()), charge.bias, "v_leak, which is not its v_reset,")
        return _Neuron(
            None if charge.leak is None else constant(charge.leak),
            charge.decays_input,
            constant(threshold),
            None if simulation.reset == "subtract" else 0.0,
            synapse_leak,
        )
    return None


def _synapse_leak(
    name: str,
    node: Any,
    charge: Charge,
    simulation: Simulation,
    constant: Callable[[Floats], Tensor | float],
) -> Tensor | float | None:
    if not isinstance(node, nir.CubaLIF | nir.CubaLI):
        return None
    if charge.bias.any():
        raise refusal(name, node, "its v_leak is not its v_reset, which no weight can express")
    return constant(leak_and_gain(name, node, "tau_syn", simulation)[0])


def _module(described: _Neuron | None, name: str, folding: Folding) -> nn.Module:
    node = folding.nodes[name]
    if described is None:
        return _layer((name, node), folding.weights.get(name))
    if described.threshold is None:
        made: nn.Module = modules.Integrator(described.leak)
    else:
        feedback = folding.feedback.get(name)
        made = modules.spiking_neuron(
            described.leak,
            described.decays_input,
            described.threshold,
            described.v_reset,
            "m" if feedback is None else "s",
        )
        if feedback is not None:
            synapse = _layer(feedback, folding.weights[feedback[0]], "s")
            made = modules.recurrent(made, synapse)
    if described.synapse_leak is not None:
        made = nn.Sequential(modules.Integrator(described.synapse_leak), made)
    return made


def _layer(step: tuple[str, Any], weights: Weights | None, step_mode: str = "m") -> nn.Module:
    node = step[1]
    if weights is not None:
        return _synapse(step, weights, step_mode)
    if isinstance(node, nir.Flatten):
        return layer.Flatten(*flattened_dims(step), step_mode=step_mode)
    if isinstance(node, nir.SumPool2d | nir.AvgPool2d):
        sizes = (numbers(step, key, 2) for key in ("kernel_size", "stride", "padding"))
        divisor = 1 if isinstance(node, nir.SumPool2d) else None
        return layer.AvgPool2d(*sizes, divisor_override=divisor, step_mode=step_mode)
    return nn.Identity()


def _synapse(step: tuple[str, Any], weights: Weights, step_mode: str) -> nn.Module:
    node, weight, bias = step[1], weights.weight, weights.bias
    given = {"bias": bias is not None, "step_mode": step_mode}
    if isinstance(node, nir.Conv1d | nir.Conv2d):
        given |= convolution_settings(step)
    elif not isinstance(node, SYNAPSES):  # a Scale: one weight per channel
        given |= {"groups": weight.shape[0]}
    kind = {2: layer.Linear, 3: layer.Conv1d, 4: layer.Conv2d}[weight.ndim]
    taken = weight.shape[1] * given.get("groups", 1)
    sizes = (taken, weight.shape[0], *((weight.shape[2:],) if weight.ndim > 2 else ()))
    with torch.device("meta"):  # draws no random numbers
        made: nn.Module = kind(*sizes, **given)
    made.weight = nn.Parameter(torch.from_numpy(weight.astype(np.float32)))
    if bias is not None:
        made.bias = nn.Parameter(torch.from_numpy(bias.astype(np.float32)))
    return made


def _constant(name: str, node: Any, values: Floats, shape: Shape) -> Tensor | float:
    """One number where all are the same, one per channel where channels are uniform."""
    first = values.reshape(-1)[0]
    if (values == first).all():
        return float(first)
    per_neuron(name, node, values, shape)
    channels = values[(slice(None), *(slice(1) for _ in shape[1:]))]
    return torch.from_numpy((channels if (values == channels).all() else values).copy())
