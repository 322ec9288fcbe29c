"""SpikingJelly's model zoo, quantised: it runs, learns, comes back, and equals integers."""

from __future__ import annotations

import importlib
import inspect
import io
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, model, neuron
from torch import Tensor, nn

from qspinn.plan import QuantizationPlan, ResolvedPlan
from qspinn.quantizers import attach, calibrate, detach, is_attached
from tests.quantizers.zoo import BY_NAME, ZOO
from tests.quantizers.zoo_integers import Compared, compare
from tests.quantizers.zoo_joints import compare_joints
from tests.quantizers.zoo_kinds import KINDS, Kind
from tests.quantizers.zoo_variant import Variant

BITS = (8, 4)
EXPLODING = {"spiking_resnet152": 1e-12, "sew_resnet152": 1e-12}
"""Whose gradients explode before they have learned, in float too; their loss is multiplied by this.

Not that of others: numbers too small for a float to hold in full are slow.
"""


def quantized(net: nn.Module, x: Tensor, bits: int, granularity: str = "tensor") -> ResolvedPlan:
    plan = QuantizationPlan.uniform(bits, granularity=granularity).resolve(net, x)
    plan = calibrate(net, plan, x)
    attach(net, plan)
    return plan


def output(net: nn.Module, x: Tensor) -> Tensor:
    functional.reset_net(net)
    with torch.no_grad():
        y = net(x)
    functional.reset_net(net)
    return y


def gradients(net: nn.Module, x: Tensor, loss: float = 1.0) -> dict[str, Tensor | None]:
    """Of a random sum of the scores, by training the network on ``x`` as a user would."""
    functional.reset_net(net)
    net.train()
    net.zero_grad(set_to_none=True)
    torch.manual_seed(3)  # dropout
    y = net(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(4))
    (y * weights * loss).sum().backward()
    functional.reset_net(net)
    net.eval()
    return {name: one.grad for name, one in net.named_parameters()}


def copied(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def check_state_dict(net: nn.Module, state: dict[str, Tensor]) -> None:
    held = net.state_dict()
    assert list(held) == list(state)
    assert all(torch.equal(held[name], value) for name, value in state.items())


def check_gradients(found: dict[str, Tensor | None], given: dict[str, Tensor | None]) -> None:
    """Every parameter that learns in float learns, too.

    What is next to nothing beside the rest of its layer is rounding: a bias before a norm.
    """
    largest: dict[str, float] = {}
    for name, expected in given.items():
        owner, size = name.rpartition(".")[0], 0.0 if expected is None else _size(expected)
        largest[owner] = max(largest.get(owner, 0.0), size)
    for name, expected in given.items():
        grad = found[name]
        assert (grad is None) == (expected is None), name
        if grad is None or expected is None:
            continue
        assert bool(expected.isfinite().all()), f"{name}: the float network itself"
        assert bool(grad.isfinite().all()), name
        if _size(expected) > 1e-4 * largest[name.rpartition(".")[0]]:
            assert bool((grad != 0).any()), f"{name}: no gradient in any place"


def _size(gradient: Tensor) -> float:
    return float(gradient.abs().max())


@pytest.mark.few(0.1, "campaign")
@pytest.mark.slow
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("variant", ZOO, ids=lambda variant: variant.name)
def test_it_is_quantised_learns_and_comes_back(variant: Variant, bits: int) -> None:
    net, x = variant.network(), variant.inputs(times=4)
    loss = EXPLODING.get(variant.name, 1.0)
    state, before = copied(net), output(net, x)
    expected = gradients(net, x, loss)
    net.load_state_dict(state)

    quantized(net, x, bits)
    y = output(net, x)
    assert y.shape == before.shape
    assert y.dtype == before.dtype
    assert bool(y.isfinite().all())
    assert not torch.equal(y, before)
    assert torch.equal(output(net, x), y)
    check_state_dict(net, state)

    saved = io.BytesIO()
    torch.save(net.state_dict(), saved)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    saved.seek(0)
    net.load_state_dict(torch.load(saved, weights_only=True))
    assert torch.equal(output(net, x), y)

    check_gradients(gradients(net, x, loss), expected)
    torch.optim.SGD(net.parameters(), 1e-3).step()
    assert bool(output(net, x).isfinite().all())

    net.load_state_dict(state)
    detach(net)
    assert not is_attached(net)
    assert torch.equal(output(net, x), before)
    check_state_dict(net, state)


def check(net: nn.Module, x: Tensor, plan: ResolvedPlan, kind: Kind | None = None) -> Compared:
    found = compare(net, plan, x, set() if kind is None else kind.ends())
    if kind is not None:
        compare_joints(found, kind.joined, kind.averaged)
    assert not found.wrong, "\n".join(found.wrong)
    return found


LONG_SUMS = ("layers on sums", 16)


def kinds_and_bits() -> Iterator[Any]:
    """Every kind at 8 bits; at length 4 too, and 16, whose sums are longer than a float32 holds."""
    for name in KINDS:
        for bits in (8, 16, 4):
            marks = [] if bits == 8 or (name, bits) == LONG_SUMS else [pytest.mark.slow]
            yield pytest.param(name, bits, marks=marks)


@pytest.mark.few(0.1)
@pytest.mark.parametrize(("name", "bits"), list(kinds_and_bits()))
def test_every_kind_of_network_equals_integers(name: str, bits: int) -> None:
    kind = KINDS[name]
    net, x = kind.variant.exactly_foldable(), kind.variant.inputs()

    found = check(net, x, quantized(net, x, bits), kind)

    assert found.skipped == []
    assert found.sums > kind.at_least
    assert found.steps > kind.at_least
    assert found.spikes > found.steps / 50
    assert found.joints == len(kind.joined) + len(kind.averaged)
    assert bool(found.off_grid) == kind.off_grid


def silent_at_first() -> nn.Module:
    """A layer behind a rectifier that lets nothing through until its input is bright."""
    net = nn.Sequential(
        *(layer.Conv2d(3, 4, 3), nn.ReLU(), layer.Conv2d(4, 4, 3), neuron.LIFNode()),
        *(layer.Flatten(), layer.Linear(64, 10), neuron.LIFNode()),
    )
    with torch.no_grad():
        net[0].weight.abs_().mul_(4)
        net[0].bias.fill_(-0.5)
        net[2].weight.mul_(4)
    functional.set_step_mode(net, "m")
    return net.eval()


@pytest.mark.parametrize("light", [1.0, 0.01, 0.0])
def test_a_dark_batch_does_not_make_spikes_of_numbers(light: float) -> None:
    torch.manual_seed(0)
    net, x = silent_at_first(), torch.rand(6, 4, 3, 8, 8)
    plan = QuantizationPlan.uniform(8).resolve(net, x * light)
    plan = calibrate(net, plan, x)
    attach(net, plan)

    found = check(net, x, plan)

    assert found.spikes > 20


@pytest.mark.parametrize(
    "name", ["current addition", "depthwise convolutions", "recurrent containers"]
)
def test_formats_of_channels_equal_integers(name: str) -> None:
    kind = KINDS[name]
    net, x = kind.variant.exactly_foldable(), kind.variant.inputs()

    plan = quantized(net, x, 6, "channel")

    weights = [tensor["format"] for tensor in plan.formats().values() if tensor["role"] == "weight"]
    assert any("|" in text for text in weights)
    check(net, x, plan, kind)


OFF_GRID = ("att_ms_resnet18", "masnn_dvs128_gesture", "SNASNet_forward", "SNASNet_backward")
"""Their currents are products of sigmoids or averages of nine numbers."""

OWN_STEP = ("ottt_", "SpikeDHS")
"""Their neurons compute more than a step, and are rounded after it."""


@pytest.mark.few(0.1, "campaign")
@pytest.mark.slow
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("variant", ZOO, ids=lambda variant: variant.name)
def test_every_layer_equals_integers(variant: Variant, bits: int) -> None:
    net, x = variant.exactly_foldable(), variant.inputs()
    plan = quantized(net, x, bits)

    found = check(net, x, plan)

    own_step = variant.name.startswith(OWN_STEP)
    assert own_step or found.skipped == []
    assert bool(found.off_grid) == (variant.name in OFF_GRID)
    assert not variant.name.startswith("ottt_") or found.rounded > 5000
    if not own_step:
        assert found.sums > 5000
        assert found.steps > 5000
        assert found.spikes > found.steps / 50


def test_a_wrong_sum_and_a_wrong_step_are_noticed() -> None:
    """Shows that the comparison can fail."""
    kind = KINDS["pooling before a neuron"]
    net: Any = kind.variant.exactly_foldable()
    x = kind.variant.inputs()
    plan = quantized(net, x, 8)
    step = 2.0**-20
    net[0].register_forward_hook(lambda _, __, y: y + step)
    net[7].register_forward_hook(lambda _, __, y: 1 - y)

    wrong = compare(net, plan, x).wrong

    assert {text.split(":")[0] for text in wrong} == {"0", "7"}


def test_the_zoo_is_whole() -> None:
    """Every builder that the installed SpikingJelly has is in the list."""
    builders = set()
    for found in pkgutil.iter_modules(model.__path__):
        module = importlib.import_module(f"{model.__name__}.{found.name}")
        public = {name: getattr(module, name) for name in module.__all__}
        functions = {name for name, one in public.items() if inspect.isfunction(one)}
        builders |= functions or set(public)
    names = {name.partition("_")[0] if name.startswith("SNASNet") else name for name in BY_NAME}
    parts = {name for name in builders if name.startswith(("Spiking", "SearchSpiking", "DSpike"))}
    assert builders - names - parts - {"save_v_LIFNode"} == set()
    assert len(ZOO) >= 55
