"""What single calls of layers show of the work in them, and products that are no layer's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from spikingjelly.activation_based import base
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from qspinn.fixed_point import quantize
from qspinn.plan.fan_out import effective_operations
from qspinn.plan.inventory import LayerInfo
from qspinn.plan.resolved import ResolvedTensor
from qspinn.plan.surrogates import nearly_binary

__all__ = ["Call", "SeesProducts", "first_tensor", "is_code_of"]
__all__ += ["is_multi_step", "norm_call", "synapse_call"]

_FLOAT_INPUT = 32
_PRODUCTS = frozenset(
    (
        *(torch.matmul, torch.mm, torch.bmm, torch.baddbmm, torch.addmm, torch.addbmm, torch.mv),
        *(torch.einsum, torch.tensordot, torch.bilinear, torch.Tensor.matmul, torch.Tensor.mm),
        *(torch.Tensor.bmm, torch.Tensor.__matmul__, torch.Tensor.__rmatmul__, torch.Tensor.mv),
        *(nn.functional.linear, nn.functional.bilinear, nn.functional.conv1d),
        *(nn.functional.conv2d, nn.functional.conv3d, nn.functional.conv_transpose1d),
        *(nn.functional.conv_transpose2d, nn.functional.conv_transpose3d),
        nn.functional.scaled_dot_product_attention,
    )
)


@dataclass(frozen=True)
class Call:
    """One call of a synapse layer or batch norm; counts of all samples and steps in it.

    Attributes:
        path: Of the layer.
        weight: Name of its weights.
        factor: What they are multiplied by, see :class:`~qspinn.plan.activity.Connection`.
        operations: Effective ones.
        dense: Those if no input were 0.
        shape: Of the input.
        sums: Output values.
        is_multi: Whether the first axis is the time, by its step mode.
    """

    path: str
    weight: str
    factor: str | int | None
    operations: int
    dense: int
    shape: tuple[int, ...]
    sums: int
    is_multi: bool

    @property
    def inputs(self) -> int:
        """Input values."""
        return torch.Size(self.shape).numel()

    def steps(self, samples: int, steps: int) -> int:
        """The time steps in it: by the step mode, or else where samples and steps can be.

        Batch and time come first, one after the other or as one axis. Tokens that are neither
        belong to their time step.

        Args:
            samples: Of the batch.
            steps: For which each is shown.
        """
        first, shape = self.shape[0], self.shape
        if self.is_multi:
            return first
        if len(shape) > 2 and steps > 1 and shape[:2] == (steps, samples):
            return steps
        if first == samples or first % (samples * steps):
            return 1
        return steps


def synapse_call(
    layer: LayerInfo, module: nn.Module, held: ResolvedTensor | None, x: Tensor, output: Tensor
) -> Call:
    """What a synapse layer did.

    Args:
        layer: The layer.
        module: Itself.
        held: Its input as the plan has it, where that is no spike.
        x: Its input.
        output: What it put out.
    """
    factor, active = _active(layer, held, x.detach())
    operations, dense = effective_operations(module, active, output)
    shape = tuple(x.shape)
    multi = is_multi_step(module)
    return Call(layer.path, "weight", factor, operations, dense, shape, output.numel(), multi)


def norm_call(layer: LayerInfo, module: nn.Module, x: Tensor) -> Call:
    """What a batch norm did that is folded into nothing: one product and one sum per value."""
    size = x.numel()
    shape, multi = tuple(x.shape), is_multi_step(module)
    return Call(layer.path, "running_var", _FLOAT_INPUT, size, size, shape, size, multi)


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first tensor that a call was given; ``None`` without one."""
    return next((one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)), None)


def is_code_of(modules: Collection[int]) -> bool:
    """Whether what is running now was called by a method of one of these modules, by ``id``."""
    frame: Any = sys._getframe()
    while frame is not None:
        if id(frame.f_locals.get("self")) in modules:
            return True
        frame = frame.f_back
    return False


class SeesProducts(TorchFunctionMode):
    """Reports the name of each function that multiplies tensors by each other."""

    def __init__(self, see: Callable[[str], None]) -> None:
        super().__init__()
        self.see = see

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs one function of torch, and looks at it."""
        if func in _PRODUCTS:
            self.see(getattr(func, "__name__", str(func)))
        return func(*args, **(kwargs or {}))


def _active(
    layer: LayerInfo, held: ResolvedTensor | None, x: Tensor
) -> tuple[str | int | None, Tensor]:
    """What the weights are multiplied by, and where the input is not 0."""
    if not any(info.role == "input" for info in layer.tensors):
        return (None, x > 0.5) if nearly_binary(x) else (_FLOAT_INPUT, x != 0)
    if held is None or held.format is None:
        return "input", x != 0
    # Chance would need the layer's own random numbers.
    rounding = "nearest" if held.rounding == "stochastic" else held.rounding
    return "input", quantize(x.double(), held.format, rounding, held.overflow) != 0


def is_multi_step(module: nn.Module) -> bool:
    """Whether the first axis of what a module takes is the time."""
    return getattr(module, "step_mode", "s") == "m" or isinstance(module, base.MultiStepModule)
