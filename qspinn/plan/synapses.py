"""Which layers are synapses: plain linear maps of their input, by a stored weight."""

from __future__ import annotations

from spikingjelly.activation_based import layer
from torch import nn

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
# What a subclass may not replace: between the stored weight and its use nothing may happen.
_USES_OF_WEIGHT = ("forward", "_forward", "_conv_forward", "weight", "bias")
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
    return not changes_weight(module)


def changes_weight(module: nn.Module) -> bool:
    """Whether a linear or convolutional layer may compute with another weight than it stores."""
    for kind in float_class(module).__mro__:
        if kind in _PLAIN:
            return False
        if any(name in vars(kind) for name in _USES_OF_WEIGHT):
            return True
    return False


def is_foldable(module: nn.Module) -> bool:
    """Whether ``module`` is a batch norm that is an affine map at inference."""
    known = float_class(module) in _FOLDABLE_NORMS
    return known and getattr(module, "running_mean", None) is not None
