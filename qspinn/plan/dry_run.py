"""Finds out what a module is made of, from its layers and from one forward pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from spikingjelly.activation_based import layer
from torch import Tensor, nn
from torch.nn.modules import loss as torch_loss

from qspinn.plan.inventory import Inventory, LayerInfo, TensorInfo
from qspinn.plan.neurons import charge_of, has_threshold, reset_states, state_names

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
SYNAPSES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
# Exact types: a subclass (threshold-dependent, temporal-effective, ...) scales differently.
FOLDABLE_NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    layer.BatchNorm1d,
    layer.BatchNorm2d,
    layer.BatchNorm3d,
)
# These hand their input on, so they are no consumer that folding would cheat.
PASS_THROUGH = (nn.Identity, nn.Flatten, nn.Unflatten)


def inspect(
    module: nn.Module,
    example_input: Tensor | None = None,
    run: Callable[[], object] | None = None,
) -> Inventory:
    """Lists the layers of ``module`` and the tensors that a device would hold.

    Args:
        module: Any module. It is left as it was: training flags, parameters and
            buffers; SpikingJelly's neuron states are reset.
        example_input: A batch as ``module`` takes it.
        run: Instead of ``example_input``, for modules that are not simply called:
            does one forward pass of ``module``.

    Returns:
        The inventory. Without a forward pass, numbers of neurons are unknown, no
        batch norm is folded and every layer input may be non-binary.
    """
    if run is None and example_input is not None:
        given = example_input

        def run() -> object:
            return module(given)

    trace = None if run is None else _trace(module, run)
    layers: list[LayerInfo] = []
    notes: list[str] = []
    folded = {} if trace is None else trace.folds(module)
    may_fold = trace is None and any(is_foldable(child) for child in module.modules())
    for path, child in module.named_modules():
        found = _layer_info(path, child, trace, folded, notes)
        if found is not None:
            layers.append(_with_possible_bias(found) if may_fold else found)
    return Inventory(tuple(layers), tuple(notes))


@dataclass
class _Trace:
    """What one forward pass showed: calls, binary inputs, and who feeds whom."""

    binary_inputs: dict[str, bool] = field(default_factory=dict)
    fed_by: dict[str, set[str | None]] = field(default_factory=dict)
    feeds: dict[str, set[str]] = field(default_factory=dict)
    state_shapes: dict[str, dict[str, tuple[int, ...]]] = field(default_factory=dict)
    # Outputs are kept alive so that no storage address is given out twice.
    produced: dict[int, tuple[str, int]] = field(default_factory=dict)
    alive: list[Tensor] = field(default_factory=list)

    def note_input(self, path: str, module: nn.Module, value: Tensor) -> None:
        source = self._source(value)
        self.fed_by.setdefault(path, set()).add(source)
        if source is not None:
            self.feeds.setdefault(source, set()).add(path)
        if isinstance(module, SYNAPSES):
            binary = bool(((value == 0) | (value == 1)).all())
            self.binary_inputs[path] = self.binary_inputs.get(path, True) and binary

    def note_output(self, path: str, value: Tensor) -> None:
        self.produced[value.untyped_storage().data_ptr()] = (path, value._version)
        self.alive.append(value)

    def _source(self, value: Tensor) -> str | None:
        # Views share the storage; an in-place change moves the version on.
        path, version = self.produced.get(value.untyped_storage().data_ptr(), (None, 0))
        return path if version == value._version else None

    def only_source(self, path: str) -> str | None:
        sources = self.fed_by.get(path, set())
        return next(iter(sources)) if len(sources) == 1 else None

    def folds(self, module: nn.Module) -> dict[str, str]:
        """Synapse layer -> the batch norm that it alone feeds and that it alone is fed to."""
        found = {}
        for path, child in module.named_modules():
            source = self.only_source(path)
            if not is_foldable(child) or source is None or self.feeds.get(source) != {path}:
                continue
            if isinstance(module.get_submodule(source), SYNAPSES):
                found[source] = path
        return found


def is_foldable(module: nn.Module) -> bool:
    """Whether ``module`` is a batch norm that is an affine map at inference."""
    known = getattr(module, "_float_class", type(module)) in FOLDABLE_NORMS
    return known and getattr(module, "running_mean", None) is not None


def _trace(module: nn.Module, run: Callable[[], object]) -> _Trace:
    trace = _Trace()
    handles = []
    for path, child in module.named_modules():
        is_container = any(True for _ in child.children()) and charge_of(child) is None
        if is_container or isinstance(child, PASS_THROUGH):
            continue

        def before(m: nn.Module, args: tuple[object, ...], path: str = path) -> None:
            if args and isinstance(args[0], Tensor):
                trace.note_input(path, m, args[0])

        def after(m: nn.Module, args: object, output: object, path: str = path) -> None:
            if isinstance(output, Tensor) and (isinstance(m, SYNAPSES) or is_foldable(m)):
                trace.note_output(path, output)
            if charge_of(m) is not None:
                trace.state_shapes[path] = _state_shapes(m)

        handles += [child.register_forward_pre_hook(before), child.register_forward_hook(after)]
    training = {child: child.training for child in module.modules()}
    reset_states(module)
    module.eval()
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
        for child, flag in training.items():
            child.training = flag
        reset_states(module)
    trace.alive.clear()
    return trace


def _state_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for name in state_names(module):
        value = getattr(module, name)
        if isinstance(value, Tensor) and value.is_floating_point():
            shapes[name] = tuple(value.shape[1:])
    return shapes


def _layer_info(
    path: str, module: nn.Module, trace: _Trace | None, folded: dict[str, str], notes: list[str]
) -> LayerInfo | None:
    if path in folded.values():
        return None
    if isinstance(module, SYNAPSES):
        if trace is None or path in trace.binary_inputs:
            return _synapse_info(path, module, trace, folded.get(path))
        notes.append(
            f"{path} ({type(module).__name__}) was not called in the dry run: stays 32-bit"
        )
    elif (charge := charge_of(module)) is not None:
        if trace is None or path in trace.state_shapes:
            info = _neuron_info(path, module, trace, folded)
            if charge == "fallback":
                notes.append(
                    f"{path} ({type(module).__name__}) has no exact integer formula here: "
                    "its state is rounded after the float computation"
                )
            return info
        notes.append(
            f"{path} ({type(module).__name__}) was not called in the dry run: stays 32-bit"
        )
    return _other_info(path, module)


def _synapse_info(
    path: str, module: nn.Module, trace: _Trace | None, norm: str | None
) -> LayerInfo:
    weight: Tensor = module.weight  # type: ignore[assignment]
    axis = 1 if isinstance(module, TRANSPOSED) else 0
    groups = int(getattr(module, "groups", 1))
    outputs = weight.shape[axis] * (groups if axis == 1 else 1)
    # A transposed layer with groups repeats axis 1 per group: no axis is the output channel.
    channel_axis = axis if axis == 0 or groups == 1 else None
    tensors = [TensorInfo(path, "weight", "weight", tuple(weight.shape), channel_axis)]
    bias: object = module.bias
    if bias is not None or norm is not None:
        tensors.append(TensorInfo(path, "bias", "bias", (outputs,), 0))
    if trace is None or not trace.binary_inputs[path]:
        tensors.append(TensorInfo(path, "input", "input", None))
    fan_in = math.prod(weight.shape) // outputs if axis == 0 else _transposed_fan_in(weight, groups)
    return LayerInfo(
        path, "synapse", type(module).__name__, tuple(tensors), norm=norm, fan_in=fan_in
    )


def _with_possible_bias(info: LayerInfo) -> LayerInfo:
    """Before the dry run, a batch norm somewhere may still give this layer a bias."""
    if info.kind != "synapse" or "bias" in info.roles():
        return info
    return replace(info, tensors=(*info.tensors, TensorInfo(info.path, "bias", "bias", None, 0)))


def _transposed_fan_in(weight: Tensor, groups: int) -> int:
    return weight.shape[0] // groups * math.prod(weight.shape[2:])


def _neuron_info(
    path: str, module: nn.Module, trace: _Trace | None, folded: dict[str, str]
) -> LayerInfo:
    shapes: dict[str, tuple[int, ...] | None] = dict.fromkeys(state_names(module))
    if trace is not None:
        shapes = dict(trace.state_shapes[path])
    charge = charge_of(module)
    tensors = [TensorInfo(path, name, "membrane", shape) for name, shape in shapes.items()]
    if has_threshold(module):
        tensors.append(TensorInfo(path, "v_threshold", "threshold", ()))
    if charge in ("lif", "plif"):
        tensors.append(TensorInfo(path, "decay", "decay", ()))
    if charge == "fallback":
        tensors += _direct_tensors(path, module)
    norms = {norm: synapse for synapse, norm in folded.items()}
    source = None if trace is None else trace.only_source(path)
    source = norms.get(source, source) if source is not None else None
    reset = getattr(module, "v_reset", None)
    return LayerInfo(
        path,
        "neuron",
        type(module).__name__,
        tuple(tensors),
        charge=charge,
        current_from=source,
        reset_word=reset is not None and reset != 0.0,
    )


def _other_info(path: str, module: nn.Module) -> LayerInfo | None:
    if isinstance(module, torch_loss._Loss):
        return None
    tensors = _direct_tensors(path, module)
    return LayerInfo(path, "other", type(module).__name__, tuple(tensors)) if tensors else None


def _direct_tensors(path: str, module: nn.Module) -> list[TensorInfo]:
    held = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return [
        TensorInfo(path, name, None, tuple(value.shape))
        for name, value in held
        if value.is_floating_point()
    ]
