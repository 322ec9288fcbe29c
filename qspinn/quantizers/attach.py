"""Attaches a resolved plan to a live module, and detaches it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from qspinn.plan import ResolvedPlan, declares_tensors, layers_of, reset_states
from qspinn.plan.compiled import check_not_compiled
from qspinn.plan.expected import check_module, check_resolved
from qspinn.quantizers.class_swap import Narrowed, attached_quantizer, is_swapped, restore, swap
from qspinn.quantizers.compiling import compile_swaps
from qspinn.quantizers.declared import QuantizedDeclared, declared_quantizers, stored_values
from qspinn.quantizers.neuron import NeuronQuantizer
from qspinn.quantizers.precision import warn_of_floats
from qspinn.quantizers.repaired import give_repaired
from qspinn.quantizers.swaps import (
    Observers,
    Swap,
    neuron_swap,
    set_clocks,
    submodule,
    synapse_swaps,
)
from qspinn.quantizers.synapse import QuantizedSynapse

_PLAN = "_qspinn_plan"


def attach(
    module: nn.Module,
    plan: ResolvedPlan,
    compile_steps: bool = False,
    repaired: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Makes ``module`` compute as the plan says, from its next forward pass on.

    Parameters stay in float underneath (so that an optimizer can train them) and
    are rounded wherever they are used; ``state_dict`` keys, parameter order and
    identity do not change. SpikingJelly's states are reset. A module that declares
    its tensors is told the formats, and computes with them by itself.

    Args:
        module: The module that ``plan`` was resolved against, or a copy of it.
        plan: Calibrated.
        compile_steps: Whether the time step of IF, LIF and PLIF neurons is compiled by
            ``torch.compile``: the same numbers in fewer kernels, after a wait of some
            seconds per layer, batch size and format at its first use.
        repaired: Tensor path -> what a device holds of it in place of the rounded parameter,
            as :func:`qspinn.quantizers.repair.repair` found it. The parameters underneath stay
            as they are, and must not be changed while it is attached.

    Returns:
        ``module`` itself.

    Warns:
        FloatWarning: Something stays in float besides what the plan leaves there.

    Raises:
        ValueError: Quantizers are attached already, a tensor has no format yet, a
            module that declares its tensors refuses its formats, steps that
            cannot be compiled, or repaired values that do not fit.
    """
    attach_quietly(module, plan, compile_steps, repaired)
    warn_of_floats(plan)
    return module


def attach_quietly(
    module: nn.Module,
    plan: ResolvedPlan,
    compile_steps: bool = False,
    repaired: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """As :func:`attach`, for callers that say themselves what stays in float."""
    check_module(module, "attach")
    check_not_compiled(module, "attach")
    check_resolved(plan, "attach")
    return _attach(module, plan, None, compile_steps, repaired=repaired)


def reattach(
    module: nn.Module,
    plan: ResolvedPlan,
    compile_steps: bool = False,
    repaired: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Gives an attached module the formats of ``plan``, between two batches.

    Modules that declare their tensors keep what they have: some could not forget a grid.
    States are left as they are, for whoever looks at them after a batch; the next one must
    begin with fresh ones.

    Raises:
        ValueError: As :func:`attach`; the module is then without quantizers.
    """
    for child in module.modules():
        if is_swapped(child) and not isinstance(child, QuantizedDeclared):
            restore(child)
    return _attach(module, plan, None, compile_steps, declared=False, repaired=repaired)


def attach_observers(module: nn.Module, plan: ResolvedPlan) -> Observers:
    """Attaches what has a format, and observers to the states and inputs that have none.

    Returns:
        Tensor path -> observer.
    """
    observers: Observers = {}
    _attach(module, plan, observers)
    return observers


def detach(module: nn.Module) -> nn.Module:
    """Takes all quantizers off: the float network, exactly as it was.

    A module that declares its tensors is told to compute in float again; what it
    held on a grid only may stay there.

    Returns:
        ``module`` itself, with SpikingJelly's states reset.
    """
    check_module(module, "detach")
    module.__dict__.pop(_PLAN, None)
    for child in module.modules():
        if is_swapped(child):
            restore(child)
    reset_states(module)
    return module


def is_attached(module: nn.Module) -> bool:
    """Whether any layer of ``module`` has a quantizer."""
    check_module(module, "is_attached")
    return any(is_swapped(child) for child in module.modules())


def plan_of(module: nn.Module) -> ResolvedPlan:
    """The resolved plan that quantizers were attached to ``module`` with.

    Raises:
        TypeError: Not a module.
        ValueError: A module without quantizers, or one of which only a parent or a
            child has been given to ``attach``.
    """
    check_module(module, "plan_of")
    plan = module.__dict__.get(_PLAN)
    if not isinstance(plan, ResolvedPlan):
        raise ValueError(
            f"plan_of: no quantizers were attached to this {type(module).__name__}; give the "
            "module that attach, quantize_module or load_quantized returned"
        )
    return plan


def check_detached(module: nn.Module, owner: str, already: str = " already") -> None:
    """Refuses a module with quantizers, on behalf of ``owner``."""
    if is_attached(module):
        raise ValueError(
            f"{owner}: quantizers are attached{already}; call qspinn.quantizers.detach first"
        )


def quantized_parameters(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What a device would store: path and value of every weight and bias, on its grid.

    Yields:
        ``(path, value)`` for each synapse layer with quantizers, batch norm folded,
        and for all that other modules declare with a value.
    """
    check_module(module, "quantized_parameters")
    for path, child in module.named_modules():
        prefix = f"{path}." if path else ""
        if isinstance(child, QuantizedDeclared):
            for name, value in stored_values(child):  # type: ignore[arg-type]
                yield f"{prefix}{name}", value
        if isinstance(child, QuantizedSynapse):
            with torch.no_grad():
                weight, bias = attached_quantizer(child).parameters(child)  # type: ignore[arg-type]
            yield f"{prefix}weight", weight
            if bias is not None:
                yield f"{prefix}bias", bias


@torch.inference_mode(False)  # what is made here outlives it
def _attach(
    module: nn.Module,
    plan: ResolvedPlan,
    observers: Observers | None,
    compile_steps: bool = False,
    declared: bool = True,
    repaired: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    if declared:
        check_detached(module, "attach")
    _check_dtypes(module)
    if not plan.inventory.from_forward_pass:
        raise ValueError(
            "attach: the plan was resolved without a forward pass, so it does not know which batch "
            "norms to fold; write plan.resolve(module, example_input)"
        )
    without = sorted(set(plan.scaled) - set(plan.units))
    if without:
        raise ValueError(
            f"attach: {without[0]} is to count in a unit of its own (scale=free), and has none "
            "yet; call qspinn.quantizers.calibrate"
        )
    swaps: list[Swap] = []
    for layer in plan.inventory.layers:
        tensors = plan.of_layer(layer.path)
        if not tensors:
            continue
        child = submodule(module, layer)
        if layer.kind == "declared":
            if observers is None and declared:
                quantizers = declared_quantizers(child, layer.path, tensors)
                swaps.append((child, QuantizedDeclared, quantizers))
        elif layer.kind == "synapse":
            swaps += synapse_swaps(module, child, layer, plan, observers)
        else:
            swaps.append(neuron_swap(child, layer, tensors, plan, observers))
    narrowed = (module.get_submodule(path) for path in plan.inventory.narrowed)
    swaps += [(child, Narrowed, None) for child in narrowed]
    set_clocks(swaps)
    give_repaired(plan, swaps, repaired or {})
    own = (p.dtype for _, p in _watched_parameters(module) if p.is_floating_point())
    spike_dtype = next(own, torch.get_default_dtype())
    for _, _, quantizer in swaps:
        if isinstance(quantizer, NeuronQuantizer):
            quantizer.spike_dtype = spike_dtype
    if compile_steps:
        compile_swaps(swaps)
    # Nothing is changed until everything is known to fit.
    _swap_all(swaps)
    if declared:
        reset_states(module)
    if observers is None:
        module.__dict__[_PLAN] = plan  # copies and pickles carry it
    return module


def _swap_all(swaps: list[Swap]) -> None:
    done: list[nn.Module] = []
    try:
        for child, mixin, quantizer in swaps:
            swap(child, mixin, quantizer)
            done.append(child)
    except Exception:
        for child in done:
            restore(child)
        raise


def _watched_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """All but those of modules that compute by themselves."""
    for path, child in layers_of(module):
        if not declares_tensors(child):
            prefix = f"{path}." if path else ""
            for name, parameter in child.named_parameters(recurse=False):
                yield f"{prefix}{name}", parameter


def _check_dtypes(module: nn.Module) -> None:
    for name, parameter in _watched_parameters(module):
        if parameter.dtype in (torch.float16, torch.bfloat16):
            raise ValueError(
                f"attach: {name} is {parameter.dtype}, which holds too few bits for exact sums; "
                "keep the parameters in float32 (mixed precision by autocast is fine)"
            )
