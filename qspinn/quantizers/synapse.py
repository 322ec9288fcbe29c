"""Quantised linear and convolutional layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from qspinn.fixed_point import TensorQuantizer
from qspinn.plan.synapses import channel_axis
from qspinn.quantizers.class_swap import Swapped, attached_quantizer, substituted
from qspinn.quantizers.folding import (
    channel_extents,
    fold_scale,
    folded_bias,
    folded_parameters,
    folded_weight,
    per_channel,
    resolvable_scale,
    scale_of_signs,
)
from qspinn.quantizers.neuron import sequence_number
from qspinn.quantizers.observer import Sees
from qspinn.steps.exactness import product_dtype


@dataclass
class SynapseQuantizer:
    """What a synapse layer needs to compute with quantised values."""

    weight: TensorQuantizer | None = None  # quantizer of the weight; `None` leaves it in float
    bias: TensorQuantizer | None = None  # of the bias
    input: TensorQuantizer | None = None  # of the layer's input, where that is not binary
    norm: nn.Module | None = None  # the batch norm folded into weight and bias
    # What 1 stands for where its neurons have a unit of their own; `[1]` or `[C]`.
    unit: Tensor | None = None
    compute_dtype: torch.dtype = torch.float32  # float type in which sums are exact
    # Float type that the sums leave in; `None` for the layer's own.
    output_dtype: torch.dtype | None = None
    # A neuron that says when a sequence begins, for a stochastic input.
    clock: nn.Module | None = field(default=None, repr=False)
    # Sees the input while formats are calibrated, or follow the training.
    observer: Sees | None = field(default=None, repr=False)
    _sequence: int = field(default=-1, repr=False)

    def watch(self, name: str, observer: Sees | None) -> None:
        """Shows an observer the input from now on, or nobody."""
        self.observer = observer

    def quantized_input(self, x: Tensor) -> Tensor:
        """The input on its grid.

        Its random numbers begin anew with each sequence, so that a seed decides
        them and both step modes draw the same.
        """
        if self.input is None:
            return x
        sequence = -1 if self.clock is None else sequence_number(self.clock)
        if sequence == -1 or sequence != self._sequence:
            self._sequence = sequence
            self.input.restart()
        return self.input.state(x)

    def parameters(self, layer: nn.Module) -> tuple[Tensor, Tensor | None]:
        """Weight and bias that a device would hold, on their grids."""
        weight, bias = folded_parameters(layer, self.norm, self.unit)
        if self.weight is not None:
            weight = self.weight.stored(weight, layer.training)
        if self.bias is not None and bias is not None:
            bias = self.bias.stored(bias, layer.training)
        return weight, bias


class QuantizedSynapse(Swapped):
    """Mixin over ``Linear``, ``ConvNd`` and ``ConvTransposeNd``, torch's or SpikingJelly's.

    Where a batch norm follows, the folded weight is quantised, as a device holds
    it. While that batch norm trains on the statistics of the batch, the layer
    computes with the quantised folded weight and divides the scale out again, so
    that the norm sees what it normalises (Jacob et al., CVPR 2018, section 3.2;
    Krishnamoorthi, arXiv 1806.08342, section 3.2.1.2, with running scale). At
    inference the norm passes its input on, and what is computed is exact.
    """

    _quantizer: SynapseQuantizer

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """As the layer's own forward, with quantised values."""
        x, args, kwargs = input_of(args, kwargs)
        quantizer = self._quantizer
        layer: nn.Module = self  # type: ignore[assignment]
        if quantizer.observer is not None:
            quantizer.observer.see(x)
        with torch.autocast(x.device.type, enabled=False):
            # A reduced-precision product would not be exact. Sums in float64 are rounded once, to
            # the grid of the input, where rounding them to float32 before would move ties.
            own: torch.dtype = layer.weight.dtype  # type: ignore[assignment]
            x = quantizer.quantized_input(x.to(torch.promote_types(x.dtype, own))).to(own)
            norm = quantizer.norm
            if norm is not None and norm.training:
                return self._unscaled(x, norm, *args, **kwargs)
            weight, bias = quantizer.parameters(layer)
            dtype = product_dtype(quantizer.compute_dtype, x.device)
            y = self._computed(x, weight, bias, dtype, *args, **kwargs)
            return y.to(torch.promote_types(x.dtype, quantizer.output_dtype or x.dtype))

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        quantizer = self._quantizer
        for one in (quantizer.weight, quantizer.bias):
            if one is not None and one.repaired is not None:
                raise RuntimeError(
                    f"{one.path}: was repaired after training, so that other parameters do not "
                    "belong to what is held of it; detach the quantizers before loading any"
                )
        super()._load_from_state_dict(*args, **kwargs)  # type: ignore[misc]

    def computed(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What the layer would put out with other parameters; ``x`` is of their type."""
        return self._computed(x, weight, bias, torch.float32)

    def _unscaled(self, x: Tensor, norm: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        layer: nn.Module = self  # type: ignore[assignment]
        # Detached: the scale only says where the grid lies; the norm itself
        # carries the gradient of its parameters.
        scale = fold_scale(norm).detach()
        if self._quantizer.unit is not None:
            scale = scale / self._quantizer.unit.to(scale)
        quantizer = self._quantizer.weight
        if quantizer is None:
            scale = torch.where(scale == 0, torch.ones_like(scale), scale)
        elif quantizer.format.is_sign:
            scale = scale_of_signs(scale, layer, quantizer.format)
        else:
            extents = channel_extents(layer)
            scale = resolvable_scale(scale, extents, quantizer.format, quantizer.rounding)
        weight = folded_weight(layer, scale)
        if quantizer is not None:
            # With its gradient: behind a batch norm a larger weight lowers the scale, so that it
            # does not outgrow its range for good, and one whose gradient is cut stays behind.
            weight = quantizer.stored_with_gradient(weight)
        y = self._computed(x, weight, None, torch.float32, *args, **kwargs)
        y = y / per_channel(scale, layer)
        bias: Tensor | None = layer.bias  # type: ignore[assignment]
        return y if bias is None else y + per_channel(bias, layer)

    def _computed(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        if dtype == torch.float64 and weight.dtype != torch.float64:
            x, weight = x.double(), weight.double()
            bias = None if bias is None else bias.double()
        with substituted(self, weight=weight, bias=bias):  # type: ignore[arg-type]
            result: Tensor = super().forward(x, *args, **kwargs)  # type: ignore[misc]
        return result


@dataclass(frozen=True)
class FoldedBias:
    """What a folded batch norm needs to know of the bias that a device holds for it."""

    layer: nn.Module = field(repr=False)  # the synapse layer that the norm is folded into
    bias: TensorQuantizer | None = None  # quantizer of the folded bias; `None` leaves it in float
    # What 1 stands for where its neurons have a unit of their own; `[1]` or `[C]`.
    unit: Tensor | None = None

    @torch.no_grad()
    def error(self, norm: nn.Module) -> Tensor | None:
        """What rounding the folded bias adds to each channel's output; ``[C]``."""
        if self.bias is None:
            return None
        ideal = folded_bias(self.layer, norm, fold_scale(norm))
        if self.unit is not None:
            ideal = ideal / self.unit.to(ideal)
        return self.bias.stored_with_gradient(ideal) - ideal


class FoldedNorm(Swapped):
    """Mixin over a batch norm: at inference it has nothing left to do.

    While it trains, it adds what rounding the folded bias would add, so that the network learns
    with the biases that a device computes with; gradients pass as without.
    """

    _quantizer: FoldedBias

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Normalises while it trains on batch statistics, else returns its input."""
        x, args, kwargs = input_of(args, kwargs)
        if not self.training:  # type: ignore[attr-defined]
            return x
        # Of the statistics that the format was chosen for, before this batch moves them.
        error = self._quantizer.error(self)  # type: ignore[arg-type]
        result: Tensor = super().forward(x, *args, **kwargs)  # type: ignore[misc]
        # The norm's own axis: what it takes may be turned against what the layer puts out.
        behind = result.dim() - 1 - channel_axis(self, result.dim())  # type: ignore[arg-type]
        ones = [1] * behind
        if self._quantizer.unit is not None:
            result = result / self._quantizer.unit.to(result).reshape(-1, *ones)
        return result if error is None else result + error.to(result.dtype).reshape(-1, *ones)


def let_gradients_pass(module: nn.Module, saturated: str) -> None:
    """Says which gradient weights and biases get that lie beyond their ranges.

    Args:
        module: With quantizers attached; attached anew, it forgets what was said.
        saturated: One of :data:`qspinn.fixed_point.SATURATED`.
    """
    for child in module.modules():
        quantizer = attached_quantizer(child)
        if isinstance(quantizer, SynapseQuantizer):
            for one in (quantizer.weight, quantizer.bias):
                if one is not None:
                    one.saturated = saturated


def input_of(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    """The input of a layer that is called by position or by keyword, and the other arguments.

    torch's layers call it ``input``, SpikingJelly's ``x``.
    """
    if args:
        return args[0], args[1:], kwargs
    name = "input" if "input" in kwargs else "x"
    others = {key: value for key, value in kwargs.items() if key != name}
    return kwargs[name], (), others
