"""Compiled steps: the same spikes and potentials, bit for bit, and the same gradients."""

import copy
import pickle
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, calibrate
from qspinn.quantizers.class_swap import attached_quantizer
from qspinn.quantizers.compiled_step import compiled_step

NODES: dict[str, Any] = {
    "if, soft reset": lambda: neuron.IFNode(v_reset=None),
    "lif": lambda: neuron.LIFNode(tau=3.0),
    "lif, no input decay, detached": lambda: neuron.LIFNode(
        decay_input=False, detach_reset=True, v_reset=0.25
    ),
    "plif": lambda: neuron.ParametricLIFNode(decay_input=False),
}


def network(name: str = "lif", **changes: Any) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(layer.Linear(5, 7), NODES[name](), layer.Linear(7, 4), neuron.LIFNode())
    with torch.no_grad():
        for module in net:
            if isinstance(module, nn.Linear):
                module.weight.mul_(3)
    functional.set_step_mode(net, "m")
    for key, value in changes.items():
        setattr(net[1], key, value)
    return net


def sequence(batch: int = 6) -> Tensor:
    return torch.randint(0, 3, (5, batch, 5), generator=torch.Generator().manual_seed(1)).float()


def attached(name: str, compile_steps: bool, bits: int = 6, **settings: Any) -> nn.Sequential:
    net = network(name)
    plan = QuantizationPlan.uniform(bits, **settings).resolve(net, sequence())
    attach(net, calibrate(net, plan, sequence()), compile_steps)
    return net


def results(net: nn.Sequential, mode: str = "m", batch: int = 6) -> list[Tensor]:
    """Output, last potentials and gradients."""
    functional.reset_net(net)
    functional.set_step_mode(net, mode)
    net.zero_grad()
    x = sequence(batch)
    out = net(x) if mode == "m" else torch.stack([net(step) for step in x])
    kept = [out, net[1].v, net[3].v]
    (out.sum() + net[3].v.square().sum()).backward()
    gradients = [p.grad for p in net.parameters()]
    assert all(g is not None and bool(g.any()) for g in gradients)
    functional.reset_net(net)
    return [value.detach().clone() for value in (*kept, *gradients)]  # type: ignore[union-attr]


def assert_same(net: nn.Sequential, other: nn.Sequential, **changes: Any) -> None:
    for one, two in zip(results(net, **changes), results(other, **changes), strict=True):
        assert one.dtype == two.dtype
        assert torch.equal(one, two)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces as ``torch.compile`` does, but generates no code: seconds instead of minutes."""
    original = torch.compile

    def compile_without_code(function: Any, **settings: Any) -> Any:
        return original(function, backend="aot_eager", **settings)

    monkeypatch.setattr(torch, "compile", compile_without_code)
    compiled_step.cache_clear()
    yield
    compiled_step.cache_clear()


@pytest.mark.few(0.2)
@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("name", "bits", "overflow"),
    [*((name, 6, "saturate") for name in NODES), ("lif", 14, "wrap")],
)
def test_the_same_numbers(name: str, bits: int, overflow: str) -> None:
    """14 bits need float64 in the charge."""
    nets = [attached(name, flag, bits, overflow=overflow) for flag in (True, False)]
    assert [attached_quantizer(net[1]).compiled for net in nets] == [True, False]
    assert_same(*nets)
    if name == "plif":
        assert_same(*nets, mode="s")
        assert_same(*nets, batch=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lif", "plif"])
def test_the_same_numbers_from_generated_code(name: str) -> None:
    """Spikes and potentials lie on grids. The surrogate's derivative does not: code that fuses
    products and sums rounds it differently in the last bit.
    """
    compiled_step.cache_clear()
    compiled, eager = results(attached(name, True)), results(attached(name, False))
    for one, two in zip(compiled[:3], eager[:3], strict=True):
        assert torch.equal(one, two)
    for one, two in zip(compiled[3:], eager[3:], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("traced")
def test_equal_constants_are_compiled_once() -> None:
    net = attached("lif", True)
    first = results(net)
    made = compiled_step.cache_info().misses
    assert made == 2  # one per layer
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), attached("lif", True)):
        for one, other in zip(results(twin), first, strict=True):
            assert torch.equal(one, other)
    assert compiled_step.cache_info().misses == made


def test_random_numbers_are_not_compiled() -> None:
    with pytest.raises(ValueError, match=r"1\.v: rounding=stochastic .*compile_steps=false"):
        attached("lif", True, rounding="stochastic")
    # Of weights they are drawn outside of the step.
    settings = {"rounding": "stochastic", "roles": {"membrane": {"rounding": "nearest"}}}
    assert attached_quantizer(attached("lif", True, **settings)[1]).compiled


@pytest.mark.parametrize("role", ["membrane", "threshold"])
def test_what_stays_in_float_is_not_compiled(role: str) -> None:
    with pytest.raises(ValueError, match="no step to compile; write compile_steps=false"):
        attached("lif", True, roles={role: {"format": "float32"}})


def test_nothing_changes_where_it_is_refused() -> None:
    net = network()
    plan = QuantizationPlan.uniform(6, rounding="stochastic").resolve(net, sequence())
    plan = calibrate(net, plan, sequence())
    with pytest.raises(ValueError, match="stochastic"):
        attach(net, plan, compile_steps=True)
    assert type(net[1]) is neuron.LIFNode
