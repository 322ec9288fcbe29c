"""What torch's operations do to numbers that lie on a fixed-point grid."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

# The result lies on a grid where all operands do: copies, selections, sums and products.
_PRESERVING: Final = frozenset(
    """
    add sub rsub neg abs sum cumsum mm bmm addmm baddbmm addbmm dot mv addmv convolution mul
    square relu relu_ hardtanh clamp clamp_min clamp_max maximum minimum max min amax amin
    max_pool2d max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d
    adaptive_max_pool3d max_unpool2d
    sort topk cat stack clone copy copy_ _to_copy contiguous flip roll repeat constant_pad_nd pad
    reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d replication_pad3d index
    index_select index_put index_put_ index_copy index_add gather scatter scatter_add
    select_scatter slice_scatter masked_fill masked_select take where embedding unfold im2col
    col2im upsample_nearest1d upsample_nearest2d upsample_nearest3d pixel_shuffle pixel_unshuffle
    channel_shuffle tril triu _unsafe_view new_zeros new_ones zeros_like ones_like empty_like full
    full_like zero_ fill_ zeros ones empty new_empty new_full floor ceil round sign heaviside eq
    ne lt le gt ge logical_and logical_or logical_not logical_xor bitwise_and bitwise_or
    bitwise_not isfinite isnan any all nonzero argmax argmin sgn dropout native_dropout bernoulli
    bernoulli_ lift_fresh _local_scalar_dense rand randn rand_like randn_like uniform_ normal_
    """.split()  # noqa: SIM905
)
_SCALING: Final = frozenset({"mul", "div", "add", "sub", "rsub"})
_AVERAGES: Final = frozenset({"mean", "avg_pool1d", "avg_pool2d", "avg_pool3d"})
_ADAPTIVE: Final = frozenset({"_adaptive_avg_pool2d", "_adaptive_avg_pool3d"})

_PHRASES: Final = {
    "native_batch_norm": "batch norm that is not folded",
    "_native_batch_norm_legit_no_training": "batch norm that is not folded",
    "_native_batch_norm_legit": "batch norm that is not folded",
    "cudnn_batch_norm": "batch norm that is not folded",
    "native_layer_norm": "layer norm",
    "native_group_norm": "group norm",
    "_softmax": "softmax",
    "_safe_softmax": "softmax",
    "_log_softmax": "log-softmax",
    "upsample_linear1d": "linear interpolation",
    "upsample_bilinear2d": "bilinear interpolation",
    "_upsample_bilinear2d_aa": "bilinear interpolation",
    "upsample_trilinear3d": "trilinear interpolation",
    "upsample_bicubic2d": "bicubic interpolation",
    "_scaled_dot_product_flash_attention_for_cpu": "attention",
    "_native_multi_head_attention": "attention",
}
NORMS: Final = frozenset({"layer norm", "group norm", "batch norm that is not folded"})
# These want all their floating-point operands in one type.
_ONE_TYPE: Final = frozenset(
    """
    mm bmm addmm baddbmm addbmm dot mv addmv vdot convolution _convolution mkldnn_convolution
    native_layer_norm native_group_norm native_batch_norm _native_batch_norm_legit
    _native_batch_norm_legit_no_training cudnn_batch_norm batch_norm index_put index_put_
    index_copy index_copy_ index_add index_add_ scatter scatter_ scatter_add scatter_add_ lerp
    _prelu_kernel grid_sampler_2d grid_sampler_3d _native_multi_head_attention
    _transformer_encoder_layer_fwd _scaled_dot_product_flash_attention_for_cpu _trilinear
    embedding_bag lstm gru rnn_tanh rnn_relu mkldnn_rnn_layer _cdist_forward masked_scatter
    select_scatter slice_scatter
    """.split()  # noqa: SIM905
)


def name_of(operation: Any) -> str:
    """The name of an operator overload, such as ``"mul"``, without its in-place underscore."""
    name = str(operation.overloadpacket.__name__)
    plain = name.removesuffix("_")
    return plain if name not in _PRESERVING and plain else name


def leaves_grid(
    operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: object
) -> str | None:
    """Why the result of an operation lies on no grid although its operands do.

    Args:
        operation: The operator overload.
        args: Its arguments.
        kwargs: Its keyword arguments.
        result: What it returned.

    Returns:
        A short phrase for a user, such as ``"average over 9 values"``; ``None`` where the result
        lies on a grid.
    """
    name = name_of(operation)
    if name in _AVERAGES:
        return _average(name, args, kwargs, result)
    if name in _ADAPTIVE:
        return _adaptive(args[0], result)
    if name == "div" and kwargs.get("rounding_mode") is not None:
        return None
    if name in _SCALING:
        factors = [*(one for one in args if _is_number(one)), kwargs.get("alpha", 1)]
        inverted = name == "div"
        if inverted and _is_tensor(args[1]):
            return "division"
        for factor in factors:
            exact = _exact(factor)
            if exact is None or (inverted and exact == 0):
                return f"scaling by {_shown(factor)}"
            if not _is_dyadic(1 / exact if inverted else exact):
                word = "division" if inverted else "scaling" if name == "mul" else "addition"
                return f"{word} {'of' if word == 'addition' else 'by'} {_shown(factor)}"
        return None
    if name == "pow":
        exponent = args[1] if len(args) > 1 else None
        whole = isinstance(exponent, int | float) and exponent >= 0 and float(exponent).is_integer()
        return None if whole else "power"
    if name in _PRESERVING:
        return None
    return _PHRASES.get(name, name.strip("_").replace("_", " "))


def wants_one_type(operation: Any) -> bool:
    """Whether an operation refuses operands of different floating-point types."""
    name = str(operation.overloadpacket.__name__)
    return name in _ONE_TYPE


def written_operands(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors among the operands that an operation changes in place."""
    schema = operation._schema
    if not schema.is_mutable:
        return []
    written: list[Tensor] = []
    for number, argument in enumerate(schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = args[number] if number < len(args) else kwargs.get(argument.name)
        written += tensors_in(value)
    return written


def tensors_in(value: object) -> list[Tensor]:
    """All tensors in nested tuples, lists and dictionaries."""
    return [one for one in tree_leaves(value) if isinstance(one, Tensor)]


def address(value: Tensor) -> int:
    """Which storage the numbers of a tensor lie in; the same for all views of them.

    No other storage has it while a weak reference to this one is held, even when its memory has
    been freed and is used again.
    """
    return value.untyped_storage()._cdata


def is_whole(values: Tensor) -> bool:
    """Whether all values are whole numbers, as counts of events are."""
    if not values.is_floating_point():
        return True
    return bool((values == torch.floor(values)).all())


def _average(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: object
) -> str | None:
    if name == "mean":
        return _averaged(_ratio(args[0].numel(), result))
    kernel = args[1] if len(args) > 1 else kwargs.get("kernel_size", ())
    sizes = [kernel] if isinstance(kernel, int) else list(kernel)
    dimensions = {"avg_pool1d": 1, "avg_pool2d": 2, "avg_pool3d": 3}[name]
    sizes = sizes * dimensions if len(sizes) == 1 else sizes
    padding = tree_leaves(args[3]) if len(args) > 3 else [0]
    includes = args[5] if len(args) > 5 else True
    divisor = args[6] if len(args) > 6 else None
    if any(padding) and not includes:
        return "average over a varying number of values"
    return _averaged(Fraction(int(divisor) if divisor is not None else math.prod(sizes)))


def _ratio(numel: int, result: object) -> Fraction:
    made = tensors_in(result)
    return Fraction(numel, max(1, made[0].numel()))


def _adaptive(taken: Tensor, result: object) -> str | None:
    """Windows of one size, or else of one value each where the result is the larger one."""
    made = tensors_in(result)[0]
    count = 1
    for before, after in zip(taken.shape, made.shape, strict=True):
        if before % after == 0:
            count *= before // after
        elif after % before != 0:
            return "average over a varying number of values"
    return _averaged(Fraction(count))


def _averaged(count: Fraction) -> str | None:
    if count.denominator != 1:
        return "average over a varying number of values"
    return None if _is_dyadic(1 / count) else f"average over {count} values"


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0


def _is_number(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.dim() == 0 and value.dtype != torch.bool
    return isinstance(value, int | float) and not isinstance(value, bool)


def _exact(value: Any) -> Fraction | None:
    try:
        return Fraction(float(value))
    except (ValueError, OverflowError):
        return None


def _is_dyadic(value: Fraction, most_bits: int = 16) -> bool:
    """Whether ``value`` is a whole number of steps of a power of two that is not too small."""
    denominator = value.denominator
    return denominator & (denominator - 1) == 0 and denominator <= 2**most_bits


def _shown(value: Any) -> str:
    return f"{float(value):.4g}"


def float_tensors(values: Iterable[Tensor]) -> list[Tensor]:
    """Those with floating-point numbers, more than one each."""
    return [one for one in values if one.is_floating_point() and one.dim() > 0]
