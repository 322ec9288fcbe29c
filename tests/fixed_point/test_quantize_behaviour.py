"""What quantize does besides being exact: layouts, dtypes, allocations, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qspinn.fixed_point import (
    ROUNDINGS,
    FixedPointFormat,
    Format,
    PerChannelFormat,
    from_integers,
    quantize,
    to_integers,
)
from tests.fixed_point.strategies import DETERMINISTIC, OVERFLOWS, identical

Q1_6 = FixedPointFormat(1, 6)
FORMATS: dict[str, Format] = {
    "fine": Q1_6,
    "coarse": FixedPointFormat(9, -2),
    "per channel": PerChannelFormat(8, (6, 7, 9), axis=1),
    "per channel, coarse": PerChannelFormat(8, (6, -2, 9), axis=1),
}
formats = pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS.keys())
every_mode = pytest.mark.parametrize(
    ("rounding", "overflow"), [(r, o) for r in ROUNDINGS for o in OVERFLOWS]
)


def sample(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=dtype) * 4


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(11)


class NewStorages(TorchDispatchMode):
    """Collects the sizes of the storages that operations return and that were not there before."""

    def __init__(self, *known: Tensor) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.sizes: list[int] = []
        self.kept: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            storage = leaf.untyped_storage() if isinstance(leaf, Tensor) else None
            if storage is not None and storage.data_ptr() not in self.known:
                self.known.add(storage.data_ptr())
                self.sizes.append(storage.nbytes())
                self.kept.append(leaf)  # so that no address is used twice
        return result


def allocated_bytes(operation: Any) -> int:
    operation()
    cpu = [ProfilerActivity.CPU]
    with profile(activities=cpu, profile_memory=True, acc_events=True) as profiler:
        kept = operation()
    assert kept is not None
    return sum(max(event.self_cpu_memory_usage, 0) for event in profiler.events() or ())


@pytest.mark.parametrize("rounding", sorted({*DETERMINISTIC} - {"nearest_away"}))
@pytest.mark.parametrize("fmt", [Q1_6, FixedPointFormat(9, -2)], ids=["fine", "coarse"])
def test_allocates_nothing_but_the_result(rounding: str, fmt: FixedPointFormat) -> None:
    x = sample(7, 3, 1000)
    with NewStorages(x) as storages:
        quantize(x, fmt, rounding)
    assert storages.sizes == [x.nbytes]


@pytest.mark.parametrize("rounding", DETERMINISTIC)
@pytest.mark.parametrize("fmt", [Q1_6, FixedPointFormat(9, -2)], ids=["fine", "coarse"])
def test_kernels_allocate_nothing_either(rounding: str, fmt: FixedPointFormat) -> None:
    x = sample(7, 3, 1000)
    scalars = 128  # torch wraps the Python numbers that it is given
    assert x.nbytes <= allocated_bytes(lambda: quantize(x, fmt, rounding)) <= x.nbytes + scalars
    assert allocated_bytes(lambda: torch.sub(x + 1, x)) >= 2 * x.nbytes, "it counts temporaries"


@pytest.mark.parametrize("rounding", DETERMINISTIC)
@pytest.mark.parametrize("name", ["per channel", "per channel, coarse"])
def test_per_channel_allocates_the_result_and_scales(rounding: str, name: str) -> None:
    x = sample(7, 3, 1000)
    with NewStorages(x) as storages:
        quantize(x, FORMATS[name], rounding)
    large = [size for size in storages.sizes if size > 64]
    assert large == [x.nbytes]


@formats
@every_mode
def test_layout_does_not_matter(fmt: Format, rounding: str, overflow: str) -> None:
    base = sample(4, 3, 5, 6)
    wanted = quantize(base, fmt, rounding, overflow, seeded())
    wide = torch.zeros(4, 3, 5, 12)
    wide[..., ::2] = base
    layouts = {
        "channels last": base.to(memory_format=torch.channels_last),
        "transposed": base.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0),
        "strided": wide[..., ::2],
    }
    for name, x in layouts.items():
        assert not x.is_contiguous(), name
        assert identical(quantize(x, fmt, rounding, overflow, seeded()), wanted), name


def test_dense_layouts_are_kept() -> None:
    x = sample(4, 3, 5, 6).to(memory_format=torch.channels_last)
    assert quantize(x, Q1_6).stride() == x.stride()


@every_mode
def test_expanded_empty_and_scalar_tensors(rounding: str, overflow: str) -> None:
    row = torch.tensor([0.26, -7.0, 1.0])
    fmt = FixedPointFormat(1, 1)
    result = quantize(row.expand(4, 3), fmt, rounding, overflow)
    assert result.shape == (4, 3)
    assert quantize(torch.empty(0, 3), fmt, rounding, overflow).shape == (0, 3)
    assert identical(quantize(torch.tensor(1.0), fmt, rounding, overflow), torch.tensor(1.0))
    per_channel = PerChannelFormat(4, (1, 2, 3), axis=-1)
    assert quantize(torch.empty(0, 3), per_channel, rounding, overflow).shape == (0, 3)


def test_per_channel_takes_negative_axes() -> None:
    x = sample(2, 3, 4)
    for axis in (-3, -2, -1):
        bits = (2, 5, 7, 6)[: x.shape[axis]]
        result = quantize(x, PerChannelFormat(8, bits, axis=axis))
        assert identical(result, quantize(x, PerChannelFormat(8, bits, axis=axis + 3)))
        for channel, one in enumerate(PerChannelFormat(8, bits).formats):
            part = x.select(axis, channel)
            assert identical(result.select(axis, channel), quantize(part, one))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@every_mode
def test_halves_are_returned_in_float32(dtype: torch.dtype, rounding: str, overflow: str) -> None:
    x = sample(50).to(dtype)
    result = quantize(x, FixedPointFormat(2, 20), rounding, overflow, seeded())
    assert identical(
        result, quantize(x.float(), FixedPointFormat(2, 20), rounding, overflow, seeded())
    )


def test_no_gradient_passes_and_parameters_are_taken() -> None:
    weight = torch.nn.Parameter(sample(5))
    result = quantize(weight, Q1_6)
    assert type(result) is Tensor
    assert not result.requires_grad
    assert weight.requires_grad
    assert weight.is_leaf


def test_autocast_changes_nothing() -> None:
    x = sample(100)
    wanted = quantize(x, FixedPointFormat(2, 20))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert identical(quantize(x, FixedPointFormat(2, 20)), wanted)


def test_inference_mode() -> None:
    wanted = quantize(sample(10), Q1_6)
    with torch.inference_mode():
        assert identical(quantize(sample(10), Q1_6), wanted)


@pytest.mark.parametrize("text", ["Q0.24", "Q24.0", "UQ24.0", "UQ0.24", "Q-40.64"])
def test_float32_takes_24_bits(text: str) -> None:
    fmt = FixedPointFormat.parse(text)
    ends = torch.tensor([fmt.max, fmt.min])
    assert identical(quantize(ends, fmt), ends)


@pytest.mark.parametrize("text", ["Q0.25", "Q25.0", "UQ25.0", "UQ0.25", "Q31.0", "UQ16.16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_float32_refuses_wider_formats(text: str, dtype: torch.dtype) -> None:
    fmt = FixedPointFormat.parse(text)
    wide = PerChannelFormat(fmt.word_length, (fmt.fraction_bits,), fmt.signed)
    x = torch.zeros(1, dtype=dtype)
    bits = fmt.integer_bits + fmt.fraction_bits
    message = rf"{bits} bits besides the sign, .* use torch\.float64 or a shorter word"
    for one in (fmt, wide):
        for operation in (quantize, to_integers):
            with pytest.raises(ValueError, match=message):
                operation(x, one)
        with pytest.raises(ValueError, match=message):
            from_integers(torch.zeros(1, dtype=torch.int32), one)
        assert quantize(x.double(), one).tolist() == [0.0]


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64, torch.uint8])
def test_refuses_other_dtypes(dtype: torch.dtype) -> None:
    for operation in (quantize, to_integers):
        with pytest.raises(TypeError, match=f"{operation.__name__}: {dtype} is not supported"):
            operation(torch.zeros(2, dtype=dtype), Q1_6)


@pytest.mark.parametrize("x", [1.0, [1.0], np.ones(2, dtype=np.float32), None])
def test_refuses_what_is_no_tensor(x: Any) -> None:
    for operation in (quantize, to_integers, from_integers):
        with pytest.raises(TypeError, match=f"{operation.__name__}: expected a tensor, got"):
            operation(x, Q1_6)


@pytest.mark.parametrize("fmt", ["Q1.6", None, 8, (1, 6)])
def test_refuses_what_is_no_format(fmt: Any) -> None:
    for operation in (quantize, to_integers):
        with pytest.raises(TypeError, match=r"expected a FixedPointFormat.*parse_format reads"):
            operation(torch.zeros(2), fmt)
    with pytest.raises(TypeError, match=r"from_integers: expected a FixedPointFormat"):
        from_integers(torch.zeros(2, dtype=torch.int32), fmt)


def test_refuses_unknown_modes() -> None:
    x = torch.zeros(2)
    names = "truncate, nearest, stochastic, toward_zero, nearest_even, nearest_away"
    with pytest.raises(ValueError, match=f"unknown rounding 'round'; write one of {names}"):
        quantize(x, Q1_6, "round")
    with pytest.raises(ValueError, match="unknown overflow 'clip'; write one of saturate, wrap"):
        quantize(x, Q1_6, "nearest", "clip")


@pytest.mark.parametrize(
    ("axis", "shape", "message"),
    [
        (0, (2, 3), r"3 channels on axis 0: .* shape \(2, 3\) has 2 there; give one format per"),
        (-1, (3, 2), r"3 channels on axis -1: .* shape \(3, 2\) has 2 there"),
        (2, (3, 3), r"axis 2: the tensor of shape \(3, 3\) has no such axis"),
        (-3, (3, 3), r"axis -3: the tensor of shape \(3, 3\) has no such axis"),
        (0, (), r"axis 0: the tensor of shape \(\) has no such axis"),
    ],
)
def test_per_channel_must_fit_the_shape(axis: int, shape: tuple[int, ...], message: str) -> None:
    fmt = PerChannelFormat(8, (5, 6, 7), axis=axis)
    x = torch.zeros(shape)
    for operation in (quantize, to_integers):
        with pytest.raises(ValueError, match=message):
            operation(x, fmt)
    with pytest.raises(ValueError, match=message):
        from_integers(x.to(torch.int32), fmt)
