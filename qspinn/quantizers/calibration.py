"""Chooses the formats that a plan leaves open, from parameters and from data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from qspinn.fixed_point import Format
from qspinn.plan import LayerInfo, ResolvedPlan
from qspinn.plan.calling import Inputs, Run, as_run
from qspinn.plan.expected import check_module, check_resolved
from qspinn.plan.neurons import evaluation_mode, has_threshold
from qspinn.quantizers.attach import attach_observers, check_detached, detach
from qspinn.quantizers.choose_format import choose_format
from qspinn.quantizers.class_swap import attached_quantizer
from qspinn.quantizers.declared import declared_formats
from qspinn.quantizers.folding import held_parameters
from qspinn.quantizers.looking import has_input
from qspinn.quantizers.matching import SpikeMatcher, spike_matchers, watch
from qspinn.quantizers.neuron_formats import (
    Tensors,
    as_the_neuron_sees_it,
    check_neuron,
    decay_formats,
    open_tensor,
    step_to_tell_apart,
    threshold_format,
    threshold_to_hold,
)
from qspinn.quantizers.observer import Glimpse
from qspinn.quantizers.stored_format import check_finite, stored_format
from qspinn.quantizers.swaps import Observers
from qspinn.quantizers.synapse import QuantizedSynapse
from qspinn.quantizers.unit_matching import (
    UnitMatcher,
    unit_matchers,
    watch_units,
    with_choices,
)


class NotBinaryError(ValueError):
    """An input that was 0 or 1 when the plan was resolved is not, on calibration data.

    Attributes:
        layers: The synapse layers that it reaches.
    """

    def __init__(self, layers: Sequence[str]) -> None:
        """Names the layers."""
        self.layers = tuple(layers)
        super().__init__(
            f"{', '.join(self.layers)}: the input was 0 or 1 in the pass that the plan was "
            "resolved with, but is not on the calibration data, so it needs a format; resolve the "
            "plan with data that shows it: plan.resolve(module, batch)"
        )


def calibrate(
    module: nn.Module,
    plan: ResolvedPlan,
    run: Run | Inputs | None = None,
    learning: bool = False,
) -> ResolvedPlan:
    """Gives every tensor of ``plan`` a format.

    Parameters are looked at as a device would hold them (batch norm folded).
    Inputs and states are then observed while the network computes with these
    parameters quantised and its states in float; modules that declare their
    tensors compute in float meanwhile, since some could not forget a grid.

    Args:
        module: The network, no quantizers attached. It is left as it was;
            SpikingJelly's states are reset.
        plan: Resolved against ``module`` with an example input.
        run: A function that runs ``module`` on calibration data and calls
            ``functional.reset_net`` between batches; or one batch: a tensor, a tuple of
            positional arguments, or a dictionary of keyword arguments. Not used where
            nothing must be observed.
        learning: Whether the network will learn in these formats. What a module
            declares with bounds then gets a format that covers them, and else
            one that suits the value it holds now.

    Returns:
        The plan, complete.

    Raises:
        ValueError: Quantizers are attached; values that are not finite; a state that
            the data never reached; a format that cannot hold the threshold; no data
            where some is needed.
        NotBinaryError: An input that the plan takes for binary is not.
        TypeError: ``run`` is something else.
    """
    check_module(module, "calibrate")
    check_resolved(plan, "calibrate")
    check_detached(module, "calibrate", "")
    units = unit_matchers(module, plan, learning)
    plan = with_choices(plan, {path: one.middle for path, one in units.items()})
    for layer in plan.inventory.layers:
        tensors = plan.of_layer(layer.path)
        if layer.kind == "declared":
            child = module.get_submodule(layer.path)
            plan = plan.with_formats(declared_formats(child, layer.path, tensors, learning))
        else:
            plan = plan.with_formats(_parameter_formats(module, layer, tensors))
    matchers = {} if learning else spike_matchers(module, plan)
    given = as_run(module, run, "calibrate")
    observers = _observe(module, plan, given, matchers, units)
    plan = with_choices(plan, {path: one.best() for path, one in units.items()})
    for layer in plan.inventory.layers:
        tensors = plan.of_layer(layer.path)
        node = module.get_submodule(layer.path)
        plan = plan.with_formats(_observed_formats(node, tensors, observers, matchers))
        if layer.kind == "neuron" and layer.path not in units:
            plan = plan.with_formats(threshold_format(node, plan.of_layer(layer.path)))
            check_neuron(node, layer, plan.of_layer(layer.path))
    return plan


def _observe(
    module: nn.Module,
    plan: ResolvedPlan,
    run: Run | None,
    matchers: dict[str, SpikeMatcher],
    units: dict[str, UnitMatcher],
) -> Observers:
    observers = attach_observers(module, plan)
    watched = _watch_inputs(module, plan)
    handles = [*watch(matchers, module), *watch_units(units, module)]
    wanting = [*observers, *units]
    try:
        if wanting and run is None:
            raise ValueError(
                f"calibrate: {wanting[0]} is calibrated on data; give an input batch, "
                "or a function that runs the module"
            )
        with evaluation_mode(module):
            if wanting and run is not None:
                run()
    finally:
        for handle in handles:
            handle.remove()
        detach(module)
    others = [path for path, seen in watched.items() if not seen.is_binary(training=False)]
    if others:
        raise NotBinaryError(others)
    return observers


def _watch_inputs(module: nn.Module, plan: ResolvedPlan) -> dict[str, Glimpse]:
    """Watches the inputs that the plan takes for binary: synapse layer -> what it saw."""
    watched = {}
    for layer in plan.inventory.layers:
        child = module.get_submodule(layer.path)
        if isinstance(child, QuantizedSynapse) and not has_input(layer):
            watched[layer.path] = Glimpse(watches=True, per_call=1)
            attached_quantizer(child).observer = watched[layer.path]
    return watched


def _parameter_formats(module: nn.Module, layer: LayerInfo, tensors: Tensors) -> dict[str, Format]:
    child: Any = module.get_submodule(layer.path)
    formats: dict[str, Format] = {}
    if layer.kind == "synapse":
        for name, (value, counts) in held_parameters(module, layer).items():
            tensor = open_tensor(tensors, name)
            if tensor is not None:
                formats[tensor.path] = stored_format(tensor, value, counts=counts)
    formats |= decay_formats(child, layer, tensors)
    return formats


def _observed_formats(
    node: Any, tensors: Tensors, observers: Observers, matchers: dict[str, SpikeMatcher]
) -> dict[str, Format]:
    formats: dict[str, Format] = {}
    for tensor in tensors.values():
        observer = observers.get(tensor.path)
        if observer is None:
            continue
        if observer.empty:
            raise ValueError(
                f"{tensor.path}: the calibration data never reached it; calibrate on data that "
                "runs the whole network, or leave it out with a rule format=float32"
            )
        check_finite(tensor, observer.finite)
        values = observer.sample()
        at_least, step_at_most, signed = 0.0, math.inf, True
        if tensor.role == "input":
            signed = observer.minimum < 0.0
        elif tensor.info.name == "v" and has_threshold(node):
            at_least = threshold_to_hold(node, tensors, float(values.abs().max()))
            step_at_most = step_to_tell_apart(node)
            values = as_the_neuron_sees_it(node, values)
        chosen = choose_format(
            values,
            tensor.word_length,
            tensor.settings.calibration or "mse",
            tensor.rounding,
            signed=signed,
            at_least=at_least,
            step_at_most=step_at_most,
        )
        matcher = matchers.get(tensor.path)
        formats[tensor.path] = chosen if matcher is None else matcher.best(like=chosen)
    return formats
