"""Windows of inputs: with them, every linear and convolutional layer is a matrix product."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import layer
from torch import Tensor, nn

from qspinn.quantizers.repair.windows import flat, rows_of, weight_of, windows

KINDS = {
    1: (nn.Conv1d, nn.ConvTranspose1d),
    2: (nn.Conv2d, nn.ConvTranspose2d),
    3: (nn.Conv3d, nn.ConvTranspose3d),
}


def whole(child: Any) -> Any:
    """The layer with small whole numbers as weights, so that all sums are exact."""
    child = child.double()
    with torch.no_grad():
        child.weight.copy_(torch.randint(-4, 5, child.weight.shape))
    return child


def product(child: Any, x: Tensor, most: int | None = None) -> Tensor:
    """``[positions, channels]``."""
    rows = rows_of(child, child.weight.detach())
    return torch.einsum("sgk,gck->sgc", windows(child, x, most), rows).flatten(1)


def outputs(child: Any, x: Tensor) -> Tensor:
    """The same of the layer itself, without its bias."""
    with torch.no_grad():
        y = child(flat(child, x))
        if child.bias is not None:
            y = y - child.bias.reshape(-1, *[1] * max(0, y.dim() - 2))
    return y.movedim(1, -1).reshape(-1, y.shape[1]) if y.dim() > 2 else y


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_products_with_windows_are_what_convolutions_compute(data):
    dims = data.draw(st.integers(1, 3))
    transposed = data.draw(st.booleans())
    groups = data.draw(st.sampled_from([1, 2]))

    def sizes(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(low, high)) for _ in range(dims))

    kernel, stride, dilation = sizes(1, 3), sizes(1, 3), sizes(1, 2)
    arguments: dict[str, Any] = {"stride": stride, "dilation": dilation, "groups": groups}
    if transposed:
        arguments["padding"] = tuple(data.draw(st.integers(0, side - 1)) for side in kernel)
        arguments["output_padding"] = tuple(data.draw(st.integers(0, one - 1)) for one in stride)
    else:
        arguments["padding"] = sizes(0, 2)
        arguments["padding_mode"] = data.draw(st.sampled_from(["zeros", "circular", "replicate"]))
    torch.manual_seed(data.draw(st.integers(0, 99)))
    child = whole(KINDS[dims][transposed](2 * groups, 3 * groups, kernel, **arguments))
    x = torch.randint(-3, 4, (2, 2 * groups, *sizes(5, 7))).double()
    assert torch.equal(product(child, x), outputs(child, x))
    weight = child.weight.detach()
    assert torch.equal(weight_of(child, rows_of(child, weight)), weight)


@pytest.mark.parametrize("mode", ["s", "m"])
def test_time_and_samples_are_positions(mode):
    torch.manual_seed(0)
    child = whole(layer.Conv2d(3, 4, 3, padding=1, step_mode=mode))
    x = torch.randint(0, 2, (5, 2, 3, 4, 4)).double()
    plain = nn.Conv2d(3, 4, 3, padding=1).double()
    plain.load_state_dict(child.state_dict())
    assert torch.equal(product(child, x), outputs(plain, x))


def test_a_linear_layer_takes_any_number_of_axes():
    child = whole(nn.Linear(6, 4))
    x = torch.randint(0, 2, (5, 3, 6)).double()
    assert torch.equal(product(child, x), outputs(child, x))


@pytest.mark.parametrize("child", [nn.Linear(3, 2), nn.Conv2d(3, 2, 2)], ids=["linear", "conv"])
def test_no_more_positions_than_asked_for_spread_over_all_of_them(child):
    child = whole(child)
    shape = (40, 3) if isinstance(child, nn.Linear) else (10, 3, 3, 3)
    x = torch.arange(40 * 3 if len(shape) == 2 else 270).double().reshape(shape)
    every, some = windows(child, x), windows(child, x, 11)
    assert len(every) == 40
    assert 5 < len(some) <= 11
    at = [int((every == one).flatten(1).all(1).nonzero()[0]) for one in some]
    assert at == sorted(at)
    assert at[-1] >= 30


def test_padding_by_name():
    child = whole(nn.Conv1d(2, 3, 4, padding="same"))
    x = torch.randint(0, 2, (2, 2, 9)).double()
    assert torch.equal(product(child, x), outputs(child, x))
