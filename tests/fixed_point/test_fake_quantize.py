"""fake_quantize: the numbers of quantize, and a gradient by the stated rule."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from qspinn.fixed_point import (
    ROUNDINGS,
    FixedPointFormat,
    Format,
    PerChannelFormat,
    fake_quantize,
    quantize,
)
from qspinn.fixed_point.noise import noise_like
from tests.fixed_point.strategies import (
    DETERMINISTIC,
    OVERFLOWS,
    bits_of,
    formats_and_values,
    identical,
    per_channel_and_values,
    same,
)
from tests.reference.fixed_point import passes_gradient, quantized

FMT = FixedPointFormat(1, 3)
MODES = list(itertools.product(DETERMINISTIC, OVERFLOWS))
modes = pytest.mark.parametrize(("rounding", "overflow"), MODES)
every_mode = pytest.mark.parametrize(
    ("rounding", "overflow"), list(itertools.product(ROUNDINGS, OVERFLOWS))
)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(2)


def sample(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=seeded(), dtype=dtype) * 2


def value_and_gradient(x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    x = x.detach().clone().requires_grad_()
    result = fake_quantize(x, *arguments)
    (gradient,) = torch.autograd.grad(result, x, torch.ones_like(result))
    return result.detach(), gradient


@modes
@settings(max_examples=30, deadline=None)
@given(case=formats_and_values())
def test_values_and_gradients_follow_the_rule(
    case: tuple[FixedPointFormat, Tensor], rounding: str, overflow: str
) -> None:
    fmt, x = case
    values, gradient = value_and_gradient(x, fmt, rounding, overflow)
    numbers = x.tolist()
    assert same(values, [quantized(n, *bits_of(fmt), rounding, overflow) for n in numbers])
    wanted = [float(passes_gradient(n, *bits_of(fmt), rounding, overflow)) for n in numbers]
    assert gradient.tolist() == wanted


@modes
@settings(max_examples=10, deadline=None)
@given(case=per_channel_and_values())
def test_per_channel(case: tuple[PerChannelFormat, Tensor], rounding: str, overflow: str) -> None:
    fmt, x = case
    values, gradient = value_and_gradient(x, fmt, rounding, overflow)
    assert identical(values, quantize(x, fmt, rounding, overflow))
    for channel, one in enumerate(fmt.formats):
        slice_gradient = value_and_gradient(x[:, channel], one, rounding, overflow)[1]
        assert torch.equal(gradient[:, channel], slice_gradient)


@pytest.mark.parametrize(
    ("rounding", "wanted"),
    [
        # max is 1.875 and min -2; a step is 0.125
        ("truncate", [0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]),
        ("nearest", [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]),
        ("toward_zero", [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]),
        ("nearest_even", [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]),
        ("nearest_away", [0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]),
    ],
)
def test_ends_by_hand(rounding: str, wanted: list[float]) -> None:
    x = torch.tensor([-2.0625, -2.0, 0.0, 1.9, 1.9375, 1.99, 2.0])
    assert value_and_gradient(x, FMT, rounding)[1].tolist() == wanted


@every_mode
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_quantize_in_every_mode(rounding: str, overflow: str, dtype: torch.dtype) -> None:
    x = sample(300, dtype=dtype)
    values, gradient = value_and_gradient(x, FMT, rounding, overflow, seeded())
    assert identical(values, quantize(x, FMT, rounding, overflow, seeded()))
    assert gradient.dtype == dtype
    assert set(gradient.tolist()) == ({0.0, 1.0} if overflow == "saturate" else {1.0})


def test_stochastic_gradient_follows_the_number_drawn() -> None:
    """Half a step above the largest number, half of the draws saturate."""
    x = torch.full((1000,), FMT.max + FMT.step / 2)
    gradient = value_and_gradient(x, FMT, "stochastic", "saturate", seeded())[1]
    upper = noise_like(x, seeded()) >= 0.5
    assert torch.equal(gradient, (~upper).float())


@every_mode
def test_nan_and_infinities_get_no_gradient(rounding: str, overflow: str) -> None:
    x = torch.tensor([math.nan, math.inf, -math.inf, 0.5], requires_grad=True)
    fake_quantize(x, FMT, rounding, overflow).backward(torch.full((4,), math.nan))
    assert x.grad is not None
    assert x.grad[:3].tolist() == [0.0, 0.0, 0.0], "not even one of NaN"
    assert math.isnan(x.grad[3].item())


def test_incoming_gradients_are_passed_on_unchanged() -> None:
    x = sample(6, 5).requires_grad_()
    incoming = sample(6, 5) + 1
    fake_quantize(x, FMT).backward(incoming)
    inside = (quantize(x, FMT) - x).abs() <= FMT.step / 2
    assert x.grad is not None
    assert inside.any()
    assert not inside.all()
    assert torch.equal(x.grad, torch.where(inside, incoming, 0.0))


@pytest.mark.parametrize("overflow", OVERFLOWS)
def test_layouts_and_shapes(overflow: str) -> None:
    base = sample(4, 3, 5, 6)
    wanted = value_and_gradient(base, FMT, "nearest", overflow)
    last = base.to(memory_format=torch.channels_last)
    views = (last, base.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0))
    for x in views:
        x = x.requires_grad_()
        result = fake_quantize(x, FMT, "nearest", overflow)
        (gradient,) = torch.autograd.grad(result.sum(), x)
        assert identical(result.detach(), wanted[0])
        assert torch.equal(gradient, wanted[1])
    for shape in ((), (0,), (3, 0)):
        values, gradient = value_and_gradient(torch.ones(shape), FMT, "nearest", overflow)
        assert values.shape == gradient.shape == shape
        assert torch.equal(values, torch.ones(shape))
        assert torch.equal(gradient, torch.ones(shape))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_come_back_as_float32_and_get_their_gradient(dtype: torch.dtype) -> None:
    x = sample(50).to(dtype).requires_grad_()
    result = fake_quantize(x, FMT)
    assert identical(result.detach(), quantize(x.float(), FMT))
    result.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == dtype
    assert torch.equal(x.grad.float(), value_and_gradient(x.float(), FMT)[1])


def test_autocast_changes_nothing() -> None:
    fmt = FixedPointFormat(2, 20)
    x = sample(100)
    wanted = value_and_gradient(x, fmt)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values, gradient = value_and_gradient(x, fmt)
    assert identical(values, wanted[0])
    assert torch.equal(gradient, wanted[1])


def test_without_gradients_it_is_quantize() -> None:
    x = sample(20)
    assert not fake_quantize(x, FMT).requires_grad
    x.requires_grad_()
    with torch.no_grad():
        assert not fake_quantize(x, FMT).requires_grad
    assert fake_quantize(x, FMT).requires_grad


def test_the_input_is_kept_and_the_result_may_be_changed() -> None:
    x = sample(20).requires_grad_()
    before = x.detach().clone()
    result = fake_quantize(x, FMT)
    result[0] = 0.0
    result.sum().backward()
    assert torch.equal(x.detach(), before)
    assert x.grad is not None
    assert x.grad[0] == 0.0
    assert (x.grad[1:] == 1.0).any()


@every_mode
def test_only_one_bool_per_element_is_kept(rounding: str, overflow: str) -> None:
    x = sample(20, 3).requires_grad_()
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        fake_quantize(x, PerChannelFormat(5, (3, 4, 2), axis=-1), rounding, overflow)
    assert [(tensor.dtype, tensor.shape) for tensor in saved] == [(torch.bool, x.shape)]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(2), "Q1.6"), TypeError, "fake_quantize: expected a FixedPointFormat"),
        ((torch.zeros(2), FMT, "up"), ValueError, "unknown rounding 'up'"),
        ((torch.zeros(2), FMT, "nearest", "clip"), ValueError, "unknown overflow 'clip'"),
        ((torch.zeros(2), FixedPointFormat(0, 25)), ValueError, "25 bits besides the sign"),
        ((torch.zeros(2), PerChannelFormat(8, (6,))), ValueError, "has 2 there"),
    ],
)
def test_errors_are_those_of_quantize(
    arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    x, *rest = arguments
    for given_x in (x, x.clone().requires_grad_()):
        with pytest.raises(error, match=message.replace("fake_quantize", "quantize")):
            fake_quantize(given_x, *rest)
    with pytest.raises(TypeError, match="fake_quantize: expected a tensor, got float"):
        fake_quantize(1.0, *rest)  # type: ignore[arg-type]


def compiled_cases() -> list[tuple[Tensor, Format]]:
    special = torch.tensor([-0.0, -1e-9, 1e-45, 3e38, math.inf, -math.inf, math.nan, 0.5])
    x = torch.cat([sample(101), special])
    per_channel = PerChannelFormat(5, (3, -2), axis=0)
    return [(x, FMT), (torch.stack([x, x * 9]), per_channel)]


def assert_compiled_equals_eager(
    backend: str, rounding: str, overflow: str, x: Tensor, fmt: Any
) -> None:
    torch._dynamo.reset()

    def operation(x: Tensor) -> Tensor:
        return fake_quantize(x * 2, fmt, rounding, overflow)

    compiled: Any = torch.compile(operation, backend=backend, fullgraph=True)
    outcomes = []
    for function in (operation, compiled):
        leaf = x.detach().clone().requires_grad_()
        torch.manual_seed(4)
        result = function(leaf)
        result.sum().backward()
        assert leaf.grad is not None
        outcomes.append((result.detach(), leaf.grad))
    (eager, eager_gradient), (traced, traced_gradient) = outcomes
    assert torch.equal(torch.nan_to_num(eager, 99.0), torch.nan_to_num(traced, 99.0))
    assert torch.equal(eager.isnan(), traced.isnan())
    assert torch.equal(eager_gradient, traced_gradient)
    assert (eager_gradient == 2.0).any()


@pytest.mark.few(0.3)
@pytest.mark.parametrize(
    ("rounding", "overflow"), [*((rounding, "saturate") for rounding in ROUNDINGS), MODES[3]]
)
def test_traced_by_torch_compile(rounding: str, overflow: str) -> None:
    for x, fmt in compiled_cases():
        assert_compiled_equals_eager("aot_eager", rounding, overflow, x, fmt)


@pytest.mark.few(0.25, "campaign")
@pytest.mark.slow
@modes
def test_compiled_by_inductor(rounding: str, overflow: str) -> None:
    for x, fmt in compiled_cases():
        assert_compiled_equals_eager("inductor", rounding, overflow, x, fmt)
