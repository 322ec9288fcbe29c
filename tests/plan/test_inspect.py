"""What a dry run finds out: folds, binary inputs, states, and what cannot be quantised."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.model import spiking_resnet
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from qspinn.plan import Inventory, QuantizationPlan, footprint, inspect
from qspinn.quantizers import attach, calibrate, detach
from tests.plan.networks import Wired, spikes, two_layers

X = spikes(3, 2, 4, 4)


def folds(wiring: Any) -> bool:
    """Whether the convolution's batch norm is folded, so wired."""
    inventory = inspect(Wired(wiring).eval(), X)
    paths = [info.path for info in inventory.layers]
    folded = inventory.layer("conv").norm == "norm"
    assert ("norm" in paths) == (not folded)
    return folded


def current_from(wiring: Any) -> str | None:
    return inspect(Wired(wiring).eval(), X).layer("neuron").current_from


class TestFolding:
    @pytest.mark.parametrize(
        "wiring",
        [
            lambda m, x: m.neuron(m.norm(m.conv(x))),
            lambda m, x: m.neuron(m.norm(nn.Identity()(m.conv(x)))),
            lambda m, x: m.neuron(m.norm(m.conv(x).flatten(0, 1).unflatten(0, (3, 2)))),
            lambda m, x: m.neuron(m.norm(m.conv(m.norm(m.conv(x))))),
            lambda m, x: m.neuron(m.norm(m.conv(x)) + m.extra(x)),
        ],
        ids=["plain", "identity", "views", "called twice", "residual"],
    )
    def test_folded(self, wiring: Any) -> None:
        assert folds(wiring)

    @pytest.mark.parametrize(
        "wiring",
        [
            lambda m, x: m.neuron(m.norm(m.pool(m.conv(x)))),
            lambda m, x: m.neuron(m.norm(m.relu(m.conv(x)))),
            lambda m, x: m.neuron(m.norm(m.conv(x) * 1.5)),
            lambda m, x: m.neuron(m.norm(m.conv(x).mul_(1.5))),
            lambda m, x: m.neuron(m.norm(m.conv(x)) + m.conv(x)),
            lambda m, x: (lambda y: m.neuron(m.norm(y) + y))(m.conv(x)),
            lambda m, x: (lambda y: m.neuron(m.norm(y) + m.extra(y)))(m.conv(x)),
            lambda m, x: (lambda y: m.neuron(m.norm(y) + m.pool(y).mean()))(m.conv(x)),
            lambda m, x: (lambda y: m.neuron(m.norm(y) * y.sum()))(m.conv(x)),
            lambda m, x: m.neuron(m.norm(m.conv(x)) + m.norm(m.extra(x))),
            lambda m, x: m.neuron(m.norm(x) + m.conv(x)),
            lambda m, x: m.neuron(m.norm(m.conv(x).transpose(2, 3).contiguous())),
        ],
        ids=[
            *("pool between", "in-place activation between", "scaled", "scaled in place"),
            *("also used directly", "added by hand", "fed to another layer", "pooled as well"),
            *("summed by hand", "norm of two layers", "norm of the input", "copied between"),
        ],
    )
    def test_not_folded(self, wiring: Any) -> None:
        assert not folds(wiring)

    @pytest.mark.parametrize(
        "norm",
        [
            nn.BatchNorm2d(3, track_running_stats=False),
            layer.ThresholdDependentBatchNorm2d(1.0, 1.0, 3),
            nn.GroupNorm(1, 3),
            nn.InstanceNorm2d(3, affine=True),
        ],
        ids=lambda norm: type(norm).__name__,
    )
    def test_norms_that_are_no_affine_map(self, norm: nn.Module) -> None:
        network = nn.Sequential(layer.Conv2d(2, 3, 3), norm, neuron.IFNode())
        functional.set_step_mode(network, "m")
        x = spikes(2, 3, 2, 4, 4)
        if isinstance(norm, nn.GroupNorm | nn.InstanceNorm2d) or not hasattr(norm, "step_mode"):
            functional.set_step_mode(network, "s")
            x = x[0]
        assert inspect(network, x).layer("0").norm is None

    def test_without_a_dry_run_nothing_is_folded(self) -> None:
        inventory = inspect(two_layers())
        assert inventory.layer("0").norm is None
        assert inventory.layer("1").kind == "other"


class TestCurrents:
    """Whether a neuron's input is exactly what a layer computes."""

    @pytest.mark.parametrize(
        "wiring",
        [
            lambda m, x: m.neuron(m.conv(x)),
            lambda m, x: m.neuron(m.norm(m.conv(x))),
            lambda m, x: torch.stack([m.neuron(y[None]) for y in m.conv(x)]),
        ],
        ids=["plain", "folded norm", "slices"],
    )
    def test_unchanged(self, wiring: Any) -> None:
        assert current_from(wiring) == "conv"

    @pytest.mark.parametrize(
        "wiring",
        [
            lambda m, x: m.neuron(m.conv(x).add_(m.extra(x))),
            lambda m, x: m.neuron(m.conv(x) + x),
            lambda m, x: m.neuron(m.relu(m.conv(x))),
            lambda m, x: m.neuron(m.pool(m.conv(x))),
            lambda m, x: m.neuron(m.norm(m.pool(m.conv(x)))),
            lambda m, x: m.neuron(x + 0 * m.conv(x).sum()),
            lambda m, x: (m.neuron(m.conv(x)), m.neuron(m.extra(x)))[0],
            lambda m, x: m.conv(m.neuron(x)),
        ],
        ids=[
            *("added in place", "added", "in-place activation", "pooled", "unfolded norm"),
            *("something else", "two layers", "input"),
        ],
    )
    def test_changed(self, wiring: Any) -> None:
        assert current_from(wiring) is None

    def test_sources_go_through_what_lies_between(self) -> None:
        def wiring(m: Any, x: Tensor) -> Tensor:
            out: Tensor = m.neuron(m.pool(m.norm(m.conv(x))) + m.extra(x)[..., ::2, ::2])
            return out

        info = inspect(Wired(wiring).eval(), X).layer("neuron")
        assert info.sources == ("conv", "extra")

    def test_sources_end_at_neurons(self) -> None:
        network = two_layers()
        inventory = inspect(network, X)
        assert inventory.layer("2").sources == ("0",)
        assert inventory.layer("5").sources == ("4",)

    def test_spiking_resnet(self) -> None:
        network = spiking_resnet.spiking_resnet18(
            spiking_neuron=neuron.LIFNode, num_classes=3, detach_reset=True
        )
        functional.set_step_mode(network, "m")
        inventory = inspect(network, torch.rand(2, 1, 3, 32, 32))
        synapses = [info for info in inventory.layers if info.kind == "synapse"]
        assert len(synapses) == 21
        assert sum(info.norm is not None for info in synapses) == 20  # all but the classifier
        assert not any("BatchNorm" in info.type_name for info in inventory.layers)
        sums = [inventory.layer(f"layer{i}.{j}.sn2") for i in range(1, 5) for j in range(2)]
        assert all(info.current_from is None for info in sums)
        assert all(f"{info.path[:-3]}conv2" in info.sources for info in sums)
        assert inventory.layer("layer1.0.sn1").current_from == "layer1.0.conv1"


class TestBinaryInputs:
    def inputs(self, network: nn.Module, x: Tensor) -> list[str]:
        resolved = QuantizationPlan.uniform(8).resolve(network, x)
        return [tensor.path for tensor in resolved.tensors if tensor.role == "input"]

    def test_spikes_and_pixels(self) -> None:
        assert self.inputs(two_layers(), X) == []
        assert self.inputs(two_layers(), X * 0.5) == ["0.input"]

    @pytest.mark.parametrize("threshold", [0.1, 1e9])
    def test_averages_of_neurons_that_are_silent_yet(self, threshold: float) -> None:
        """A network that never fires in the dry run still averages spikes later."""
        network = nn.Sequential(
            nn.Conv2d(2, 2, 3, padding=1),
            neuron.IFNode(threshold),
            nn.Conv2d(2, 2, 3, padding=1),
            neuron.IFNode(threshold),
            nn.AvgPool2d(2),
            nn.Conv2d(2, 2, 2),
            neuron.IFNode(threshold),
            nn.MaxPool2d(1),
            nn.Flatten(),
            nn.Linear(2, 2),
        )
        assert self.inputs(network, X) == ["5.input"]

    @pytest.mark.parametrize("first", [0.5, 1.0])
    def test_every_call_counts(self, first: float) -> None:
        class Loop(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(4, 2)

            def forward(self, x: Tensor) -> Tensor:
                return self.fc(x * first) + self.fc(x * (1.5 - first))

        assert self.inputs(Loop(), spikes(3, 4)) == ["fc.input"]

    def test_sums_of_spikes(self) -> None:
        class Added(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b = neuron.IFNode(1e9), neuron.IFNode(1e9)
                self.fc = nn.Linear(4, 2)

            def forward(self, x: Tensor) -> Tensor:
                return self.fc(self.a(x) + self.b(x))

        assert self.inputs(Added(), spikes(3, 4)) == ["fc.input"]

    @pytest.mark.parametrize("silent", [False, True])
    def test_graded_spikes(self, silent: bool) -> None:
        """Nodes that send more than 0 and 1, whether they have done so yet or not."""
        node = neuron.LIAFNode(torch.relu, False)
        network = nn.Sequential(nn.Linear(4, 4), node, nn.Linear(4, 2)).eval()
        with torch.no_grad():
            network[0].bias.fill_(-99.0 if silent else 0.7)
        assert self.inputs(network, spikes(3, 4)) == ["2.input"]


class TestTheModuleIsLeftAlone:
    def test_flags_buffers_states_and_hooks(self) -> None:
        network = two_layers().train()
        network[1].eval()
        before = {key: value.clone() for key, value in network.state_dict().items()}
        inspect(network, X)
        assert [child.training for child in network] == [True, False, True, True, True, True]
        assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
        assert all(not isinstance(node.v, Tensor) for node in (network[2], network[5]))
        assert not any(c._forward_hooks or c._forward_pre_hooks for c in network.modules())

    def test_also_when_the_forward_pass_fails(self) -> None:
        network = two_layers().train()
        with pytest.raises(RuntimeError):
            inspect(network, spikes(3, 9, 4, 4))
        assert network.training
        assert not any(c._forward_hooks or c._forward_pre_hooks for c in network.modules())

    def test_random_numbers(self) -> None:
        torch.manual_seed(0)
        expected = torch.rand(3)
        network = two_layers()
        torch.manual_seed(0)
        inspect(network, X)
        assert torch.equal(torch.rand(3), expected)

    def test_in_inference_mode(self) -> None:
        with torch.inference_mode():
            inventory = inspect(two_layers(), spikes(3, 2, 4, 4))
        assert inventory.layer("0").norm == "1"

    def test_an_attached_module_is_seen_as_the_float_one(self) -> None:
        network = two_layers()
        expected = inspect(network, X)
        resolved = QuantizationPlan.uniform(8).resolve(network, X)
        attach(network, calibrate(network, resolved, X))
        assert inspect(network, X) == expected
        assert inspect(network) == inspect(detach(network))

    def test_plain_types(self) -> None:
        inventory = inspect(two_layers(), X)
        assert Inventory.from_dict(inventory.to_dict()) == inventory


class TestWhatStaysFloat:
    def notes(self, network: nn.Module, x: Tensor) -> tuple[str, ...]:
        inventory = inspect(network, x)
        resolved = QuantizationPlan.uniform(8).resolve(network, x)
        attach(network, calibrate(network, resolved, x))
        functional.reset_net(network)
        network(x)
        return inventory.notes

    @pytest.mark.parametrize(
        "make",
        [
            lambda: neuron.PSN(T=3),
            lambda: neuron.MaskedPSN(k=2, T=3, step_mode="m"),
            lambda: neuron.SlidingPSN(k=2, step_mode="m"),
            lambda: neuron.DSRLIFNode(T=3),
        ],
        ids=["PSN", "MaskedPSN", "SlidingPSN", "DSR"],
    )
    @pytest.mark.parametrize("length", [8, 16])
    def test_neurons_that_do_not_step(self, make: Any, length: int) -> None:
        network = nn.Sequential(layer.Linear(4, 2, step_mode="m"), make()).eval()
        x = torch.rand(3, 2, 4)
        (note,) = self.notes(network, x)
        assert note.startswith("1 (")
        assert note.endswith("stays 32-bit")
        detach(network)
        held = sum(p.numel() for p in network[1].parameters())
        held += sum(b.numel() for b in network[1].buffers() if b.is_floating_point())
        if isinstance(network[1], neuron.DSRLIFNode):
            held += 2  # it loops over time, with a value per neuron from step to step
        found = footprint(network, QuantizationPlan.uniform(length), x)
        assert found.by_role.get("other", 0) == 32 * held

    def test_gated_lif_keeps_its_states_in_the_footprint(self) -> None:
        node = neuron.GatedLIFNode(T=3, inplane=2)
        network = nn.Sequential(layer.Conv2d(2, 2, 3, step_mode="m"), node).eval()
        x = spikes(3, 2, 2, 5, 5)
        (note,) = self.notes(network, x)
        assert "1 (GatedLIFNode)" in note
        found = footprint(detach(network), QuantizationPlan.uniform(8), x)
        assert found.by_tensor["1.v"] == found.by_tensor["1.u"] == 2 * 3 * 3 * 32
        assert found.by_tensor["1.conduct"] == 3 * 2 * 32

    def test_a_synapse_filter_is_a_trace_that_a_device_holds_to_classify(self) -> None:
        network = nn.Sequential(nn.Linear(4, 3), layer.SynapseFilter(tau=10.0), neuron.LIFNode())
        found = footprint(network.eval(), QuantizationPlan.uniform(8), spikes(2, 4))
        assert found.by_tensor["1.out_i"] == 3 * 8
        assert found.by_tensor["1.decay"] == 8
        assert found.by_role["trace"] == found.baseline_by_role["trace"] // 4 == 3 * 8

    @pytest.mark.parametrize(
        "make",
        [
            lambda: parametrizations.weight_norm(nn.Linear(4, 3)),
            lambda: layer.WSLinear(4, 3),
        ],
        ids=["parametrization", "weight standardisation"],
    )
    def test_layers_that_change_their_weight(self, make: Any) -> None:
        network = nn.Sequential(make(), neuron.IFNode()).eval()
        x = spikes(2, 4)
        before = network[0](x)
        (note,) = self.notes(network, x)
        assert "does not compute with the weight that it stores: stays 32-bit" in note
        assert torch.equal(network[0](x), before)
        found = footprint(network, QuantizationPlan.uniform(8), x)
        assert found.by_role["other"] == 32 * sum(p.numel() for p in network.parameters())

    def test_a_subclass_that_changes_nothing_is_quantised(self) -> None:
        class Mine(nn.Linear):
            def extra(self) -> int:
                return 1

        resolved = QuantizationPlan.uniform(8).resolve(Mine(3, 2), spikes(2, 3))
        assert [tensor.role for tensor in resolved.tensors] == ["weight", "bias"]

    def test_layers_that_are_not_called(self) -> None:
        def wiring(m: Any, x: Tensor) -> Tensor:
            out: Tensor = m.conv(x)
            return out

        inventory = inspect(Wired(wiring), X)
        assert inventory.notes == (
            "neuron (IFNode) was not called in the dry run: stays 32-bit",
            "norm (BatchNorm2d) was not called in the dry run: stays 32-bit",
            "extra (Conv2d) was not called in the dry run: stays 32-bit",
        )
        assert inventory.layer("extra").kind == "other"

    def test_fallback_neurons_say_so(self) -> None:
        network = nn.Sequential(nn.Linear(4, 3), neuron.QIFNode())
        (note,) = inspect(network, spikes(2, 4)).notes
        assert note.startswith("1 (QIFNode) has no exact integer formula")

    def test_lazy_layers_say_what_to_do(self) -> None:
        with pytest.raises(ValueError, match=r"0 \(LazyLinear\) has no shape yet; run the module"):
            inspect(nn.Sequential(nn.LazyLinear(3), neuron.IFNode()))
