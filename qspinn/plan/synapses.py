"""Which layers are synapses: plain linear maps of their input, by a stored weight."""

from __future__ import annotations

from spikingjelly.activation_based import base, layer
from torch import Tensor, nn

from qspinn.plan.declared import declares_tensors
from qspinn.plan.float_class import float_class

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
SYNAPSES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
_PLAIN = frozenset(
    (
        *SYNAPSES,
        *(layer.Linear, layer.Conv1d, layer.Conv2d, layer.Conv3d),
        *(layer.ConvTranspose1d, layer.ConvTranspose2d, layer.ConvTranspose3d),
    )
)
# Methods that must not be replaced: nothing may happen between the stored weight and its use.
_USES_OF_WEIGHT = ("forward", "_forward", "_conv_forward", "weight", "bias")
_CALLS = ("forward", "__call__", "_call_impl", "_wrapped_call_impl")
# Exact types: a subclass (threshold-dependent, temporal-effective, ...) scales differently.
_FOLDABLE_NORMS = frozenset(
    (
        *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
        *(layer.BatchNorm1d, layer.BatchNorm2d, layer.BatchNorm3d),
    )
)


def is_synapse(module: nn.Module) -> bool:
    """Whether ``module`` is a linear or convolutional layer that uses its weight as it is.

    A subclass that changes the weight on its way (weight standardisation, a
    parametrization, a mask) is none: what it computes with is not what is stored.
    Nor is one that declares its tensors.
    """
    if not isinstance(module, SYNAPSES) or declares_tensors(module):
        return False
    return weight_changed_by(module) is None


def weight_changed_by(module: nn.Module) -> str | None:
    """Why a linear or convolutional layer may compute with another weight than it stores."""
    for name in (*_USES_OF_WEIGHT, *_CALLS):
        if name in vars(module):
            if name in ("weight", "bias"):
                return f"gets its {name} from a hook"
            return f"has its {name} replaced on the instance"
    if module._parameters.get("weight") is None and not _is_swapped(module):
        return "gets its weight from a hook or a parametrization"
    for kind in float_class(module).__mro__:
        if kind in _PLAIN:
            return None
        for name in (*_USES_OF_WEIGHT, *_CALLS):
            if name in vars(kind):
                return f"has a {name} of its own"
    return None


def is_foldable(module: nn.Module) -> bool:
    """Whether ``module`` is a batch norm that is an affine map at inference."""
    known = float_class(module) in _FOLDABLE_NORMS
    patched = any(name in vars(module) for name in _CALLS)
    return known and not patched and getattr(module, "running_mean", None) is not None


def channel_axis(module: nn.Module, dimensions: int) -> int:
    """The axis of output channels in what a synapse layer puts out or a batch norm takes.

    Args:
        module: A linear or convolutional layer, or a batch norm that can be folded.
        dimensions: Of its output (a synapse layer) or its input (a batch norm).
    """
    if isinstance(module, SYNAPSES):
        weight: Tensor = module.weight
        return dimensions - 1 - max(0, weight.dim() - 2)
    merged = isinstance(module, base.StepModule) and module.step_mode == "m"
    return 2 if merged else 1


def channels_of(module: nn.Module) -> int:
    """The number of output channels of a linear or convolutional layer."""
    for name in ("out_features", "out_channels"):
        if hasattr(module, name):
            return int(getattr(module, name))
    raise TypeError(f"{type(module).__name__} has no output channels")


def strangers_hooks(module: nn.Module) -> bool:
    """Whether foreign forward hooks see, and may change, the input or the output."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _is_swapped(module: nn.Module) -> bool:
    return float_class(module) is not type(module)
