"""Neurons as people write them: understood, or named with the reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spikingjelly.activation_based import base, layer, neuron, surrogate
from torch import Tensor, nn

from qspinn.plan import QuantizationPlan, charge_of, footprint, inspect
from qspinn.plan.neurons import why_not
from tests.plan.networks import spikes


def overriding(name: str, parent: type[nn.Module] = neuron.LIFNode) -> nn.Module:
    """A subclass that overrides one method, in the most harmless way that there is."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(super(kind, self), name)(*args, **kwargs)

    kind = type("Stranger", (parent,), {name: method})
    return kind()


STEP = (
    "__call__",
    "forward",
    "functional_forward",
    "single_step_forward",
    "multi_step_forward",
    "multi_step_functional_forward",
    "__getattr__",
    "__setattr__",
)


class SquaredFire(neuron.SimpleIFNode):
    def neuronal_fire(self) -> Tensor:
        return self.surrogate_function(self.v * self.v - self.v_threshold)


class SetReset(neuron.SimpleLIFNode):
    def __init__(self) -> None:
        super().__init__(2.0, True)

    def neuronal_reset(self, spike: Tensor) -> None:
        self.v = self.v * (1.0 - 0.7 * spike)


class Added(neuron.LIFNode):
    def single_step_functional_forward(self, inputs: Any, states: Any, **kwargs: Any) -> Any:
        (spike,), (v,) = super().single_step_functional_forward(inputs, states, **kwargs)
        return (spike,), (v * 0.9,)


class Property(neuron.IFNode):
    @property
    def v(self) -> Any:
        if "v" not in self._memories:
            raise AttributeError("v")
        return self._memories["v"]


class SimpleComputed(neuron.SimpleIFNode):
    def __init__(self) -> None:
        self.__dict__["raw"] = 1.0
        super().__init__()

    @property
    def v_threshold(self) -> float:
        return 2.0 * self.raw

    @v_threshold.setter
    def v_threshold(self, value: float) -> None:
        pass


class Before:
    """A mixin that comes first."""

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        return super().multi_step_forward(2.0 * x_seq)  # type: ignore[misc]


class Mixed(Before, neuron.LIFNode):
    pass


class MixedAfter(neuron.LIFNode, Before):
    pass


class Readout(neuron.NonSpikingLIFNode):
    def forward(self, x_seq: Tensor) -> Tensor:
        return x_seq.sum(0)


class OwnSurrogate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.own = surrogate.ATan()
        self.slope = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.own(x)


class PerChannel(nn.Module):
    """A slope for each channel, or feature."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        soft = torch.sigmoid(self.slope * x)
        return (x >= 0).float() + (soft - soft.detach())


class Clamped(neuron.LIFNode):
    """Begins elsewhere; SpikingJelly's step."""

    def reset(self) -> None:
        super().reset()
        self.v = 0.3


class Regularised(neuron.LIFNode):
    def __init__(self) -> None:
        super().__init__()
        self.regulariser = nn.Dropout()


@pytest.mark.parametrize("parent", [neuron.IFNode, neuron.LIFNode, neuron.QIFNode])
@pytest.mark.parametrize("name", STEP)
def test_an_overridden_step_stays_in_float_and_is_named(name: str, parent: Any) -> None:
    node = overriding(name, parent)
    assert charge_of(node) is None
    assert why_not(node) == f"overrides {name}"


@pytest.mark.parametrize("name", ["forward", "multi_step_forward"])
def test_so_does_that_of_simple_nodes(name: str) -> None:
    assert why_not(overriding(name, neuron.SimpleIFNode)) == f"overrides {name}"


@pytest.mark.parametrize(
    "name",
    ["forward", "single_step_forward", "single_step_functional_forward", "materialize_states"],
)
def test_a_patched_instance_stays_in_float_and_is_named(name: str) -> None:
    node = neuron.LIFNode()
    setattr(node, name, getattr(node, name))
    assert charge_of(node) is None
    assert why_not(node) == f"has a {name} that was put in place of its class's"


def test_a_method_patched_into_the_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    original = neuron.LIFNode.multi_step_forward

    def patched(self: Any, x_seq: Tensor) -> Any:
        return original(self, x_seq)

    monkeypatch.setattr(neuron.LIFNode, "multi_step_forward", patched)
    assert why_not(neuron.LIFNode()) == "overrides multi_step_forward"
    monkeypatch.undo()
    assert why_not(neuron.LIFNode()) is None


def test_mixins_count_where_they_come_first() -> None:
    assert why_not(Mixed()) == "overrides multi_step_forward"
    assert charge_of(MixedAfter()) == "lif"


def test_properties() -> None:
    assert why_not(Property()) == "computes its state v in a property"
    assert "v_threshold in a property" in str(why_not(SimpleComputed()))


def test_readouts() -> None:
    assert why_not(Readout()) == "overrides forward"
    assert charge_of(neuron.NonSpikingLIFNode()) == "lif"


@pytest.mark.parametrize("node", [SquaredFire(), SetReset(), Added()], ids=lambda n: str(n))
def test_a_replaced_part_that_is_called_is_a_fallback(node: nn.Module) -> None:
    assert charge_of(node) == "fallback"
    assert why_not(node) is None


@pytest.mark.parametrize("node", [Clamped(), Regularised()], ids=lambda n: str(n))
def test_what_leaves_the_step_alone_is_understood(node: nn.Module) -> None:
    assert charge_of(node) == "lif"


class TestSurrogates:
    @pytest.mark.parametrize(
        "function",
        [
            surrogate.ATan(),
            OwnSurrogate(),
            surrogate.Rect(),
            PerChannel(3),
            PerChannel(3, 1, 1),
            lambda x: (x >= 0).float(),
            lambda x: (x > 0).float() + torch.sigmoid(x) - torch.sigmoid(x).detach(),
            lambda x: torch.sigmoid(x) + ((x > 0).float() - torch.sigmoid(x)).detach(),
        ],
        ids=[
            *("ATan", "own", "Rect", "per channel", "per map"),
            *("step", "step and soft", "soft and step"),
        ],
    )
    def test_whatever_fires_is_understood(self, function: Any) -> None:
        assert charge_of(neuron.LIFNode(surrogate_function=function)) == "lif"
        assert charge_of(neuron.SimpleIFNode(surrogate_function=function)) == "if"

    @pytest.mark.parametrize(
        "function",
        [
            surrogate.ATan(spiking=False),
            surrogate.MultiLevelSpikeCount(4),
            torch.sign,
            torch.relu,
            lambda x: x.no_such_attribute,
        ],
        ids=["soft", "counts", "ternary", "relu", "unknown"],
    )
    def test_what_sends_more_than_spikes_is_a_fallback(self, function: Any) -> None:
        assert charge_of(neuron.LIFNode(surrogate_function=function)) == "fallback"

    def test_looking_draws_no_random_numbers(self) -> None:
        node = neuron.IFNode(surrogate_function=lambda x: torch.bernoulli(torch.sigmoid(x)))
        torch.manual_seed(3)
        expected = torch.rand(4)
        torch.manual_seed(3)
        assert charge_of(node) == "if"
        assert torch.equal(torch.rand(4), expected)

    @pytest.mark.parametrize(
        "make",
        [Regularised, lambda: neuron.LIFNode(surrogate_function=OwnSurrogate())],
        ids=["regulariser", "surrogate"],
    )
    def test_a_neuron_with_children_counts_as_any(self, make: Any) -> None:
        plan, x = QuantizationPlan.uniform(8), spikes(2, 6)
        found = footprint(nn.Sequential(nn.Linear(6, 5), make()), plan, x).by_tensor
        plain = footprint(nn.Sequential(nn.Linear(6, 5), neuron.LIFNode()), plan, x).by_tensor
        slope = found.pop("1.surrogate_function.slope", None)
        assert slope in (None, 2 * 32)
        assert found == plain

    @pytest.mark.parametrize("change", ["mode", "method", "method of the class", "hook"])
    def test_a_function_that_changes_is_asked_anew(
        self, change: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        function = surrogate.ATan()
        node = neuron.LIFNode(surrogate_function=function)
        assert charge_of(node) == "lif"
        if change == "mode":
            function.set_spiking_mode(False)
        elif change == "method":
            function.spiking_function = lambda x, **constants: x
        elif change == "method of the class":
            monkeypatch.setattr(surrogate.ATan, "spiking_function", lambda x, **constants: x)
            monkeypatch.setattr(surrogate.ATan, "forward", lambda self, x: x)
        else:
            function.register_forward_hook(lambda module, given, answer: 2 * answer)
        assert charge_of(node) == "fallback"
        assert charge_of(neuron.LIFNode(surrogate_function=surrogate.Sigmoid())) == "lif"

    def test_a_layer_inside_a_surrogate_is_no_synapse(self) -> None:
        class Gated(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.gate = nn.Linear(50, 50)

            def forward(self, x: Tensor) -> Tensor:
                soft = torch.sigmoid(x) * self.gate(x.expand(*x.shape[:-1], 50))
                return (x >= 0).float() + (soft - soft.detach())

        node = neuron.LIFNode(surrogate_function=Gated())
        network = nn.Sequential(nn.Linear(6, 50), node, nn.Linear(50, 2)).eval()
        assert charge_of(node) == "lif"
        info = inspect(network, spikes(2, 6)).layer("1.surrogate_function.gate")
        assert info.kind == "other"
        assert [tensor.count for tensor in info.tensors] == [2500, 50]

    def test_a_layer_inside_the_step_of_a_neuron_is_a_synapse(self) -> None:
        class Recurrent(neuron.LIFNode):
            def __init__(self) -> None:
                super().__init__()
                self.weights = nn.Linear(5, 5)

            def single_step_functional_forward(self, inputs: Any, states: Any, **_: Any) -> Any:
                taken = inputs[0] + self.weights((states[0] > 0.5).float())
                return super().single_step_functional_forward((taken,), states)

        found = inspect(nn.Sequential(nn.Linear(6, 5), Recurrent()).eval(), spikes(2, 6))
        assert found.layer("1").charge == "fallback"
        assert found.layer("1.weights").kind == "synapse"

    def test_nearly_binary_spikes_leave_the_next_input_binary(self) -> None:
        node = neuron.LIFNode(surrogate_function=lambda x: (x >= 0).float() + x - x.detach())
        network = nn.Sequential(nn.Linear(6, 50), node, nn.Linear(50, 2)).eval()
        assert "input" not in inspect(network, spikes(2, 6)).layer("2").roles()


def test_the_potentials_of_a_readout_that_is_not_understood_are_counted() -> None:
    class Last(neuron.NonSpikingLIFNode):
        def forward(self, x_seq: Tensor) -> Tensor:
            return super().forward(x_seq)[-1]

    network = nn.Sequential(layer.Linear(6, 5, step_mode="m"), Last()).eval()
    found = footprint(network, QuantizationPlan.uniform(8), spikes(3, 2, 6))
    assert found.by_tensor["1.v"] == 5 * 32


def test_a_hook_that_scales_spikes_makes_the_next_input_non_binary() -> None:
    network = nn.Sequential(nn.Linear(6, 50), neuron.LIFNode(), nn.Linear(50, 2)).eval()
    with torch.no_grad():
        network[0].bias.fill_(3.0)
    network[1].register_forward_hook(lambda module, taken, sent: sent * 0.5)
    assert "input" in inspect(network, spikes(2, 6)).layer("2").roles()


class TestRecurrent:
    """The output that a container feeds back is kept from step to step."""

    @pytest.mark.parametrize("wrapped", [False, True])
    def test_spikes_are_one_bit_per_neuron(self, wrapped: bool) -> None:
        inner: nn.Module = neuron.LIFNode()
        inner = nn.Sequential(nn.Linear(6, 6), inner) if wrapped else inner
        network = nn.Sequential(layer.LinearRecurrentContainer(inner, 6, 6, step_mode="m"))
        found = footprint(network, QuantizationPlan.uniform(8), spikes(3, 4, 6))
        assert found.by_tensor["0.y"] == 6
        (item,) = (one for one in found.items if one.path == "0.y")
        assert item.baseline_bits == 6

    def test_anything_else_has_a_grid_of_its_own(self) -> None:
        container = layer.ElementWiseRecurrentContainer(nn.Linear(6, 6), torch.add, step_mode="m")
        (info,) = (
            one for one in inspect(container).layers if one.type_name == type(container).__name__
        )
        assert [tensor.role for tensor in info.tensors] == ["membrane"]
        assert info.charge == "fallback"

    def test_a_subclass_with_a_step_of_its_own_is_not_understood(self) -> None:
        class Own(layer.ElementWiseRecurrentContainer):
            def forward(self, x: Tensor) -> Tensor:
                return x

        found = inspect(Own(neuron.LIFNode(), torch.add))
        assert all(one.type_name != "Own" for one in found.layers)


def test_a_neuron_without_a_known_step_is_named() -> None:
    class Nothing(base.MemoryModule):
        def __init__(self) -> None:
            super().__init__()
            self.register_memory("v", 0.0)

    assert "not known" in str(why_not(Nothing()))
    assert "not known" in str(why_not(neuron.PSN(T=3)))


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("v_reset", torch.zeros(3, 1, 1), "has a tensor as its v_reset"),
        ("v_reset", nn.Parameter(torch.tensor(0.0)), "has a tensor as its v_reset"),
        ("v_threshold", [1.0], "has a list as its v_threshold"),
        ("tau", "2", "has a str as its tau"),
    ],
)
def test_constants_that_no_step_can_take(name: str, value: Any, reason: str) -> None:
    node = neuron.LIFNode()
    delattr(node, name)
    setattr(node, name, value)
    assert str(why_not(node)).startswith(reason)
