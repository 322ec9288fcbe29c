"""States of neurons that nobody declared: found, counted for one sample, and named."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import pytest
import torch
from spikingjelly.activation_based import layer, neuron, rnn
from torch import Tensor, nn

from qspinn.plan import QuantizationPlan, footprint, inspect

NEURONS = 5


class Explicit(nn.Module):
    """As snnTorch has it: the caller keeps the potential."""

    def forward(self, x: Tensor, mem: Tensor) -> tuple[Tensor, Tensor]:
        mem = 0.5 * mem + x
        spike = (mem > 1).float()
        return spike, mem - spike


class Pair(NamedTuple):
    v: Tensor
    i: Tensor


class Named(nn.Module):
    """As norse has it: the caller keeps a tuple of potential and current."""

    def forward(self, x: Tensor, state: Pair | None) -> tuple[Tensor, Pair]:
        if state is None:
            state = Pair(torch.zeros_like(x), torch.zeros_like(x))
        v = state.v + 0.25 * (state.i - state.v)
        spike = (v > 1).float()
        return spike, Pair((1 - spike) * v, state.i * 0.5 + x)


class Attribute(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mem: Any = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.mem = 0.5 * self.mem + x
        spike = (self.mem > 1).float()
        self.mem = self.mem - spike
        return spike


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mem", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.mem.shape != x.shape:
            self.mem = torch.zeros_like(x)
        self.mem.mul_(0.5).add_(x)
        spike = (self.mem > 1).float()
        self.mem.sub_(spike)
        return spike


class InADict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.state: dict[str, Any] = {}

    def forward(self, x: Tensor) -> Tensor:
        v = self.state.get("v", 0.0) * 0.5 + x
        spike = (v > 1).float()
        self.state = {"v": v * (1 - spike)}
        return spike


class Loop(nn.Module):
    """Loops over time by itself, with its state in a local variable."""

    def __init__(self, axis: int = 0) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, xs: Tensor) -> Tensor:
        v = torch.zeros_like(xs.select(self.axis, 0))
        out = torch.zeros_like(xs)
        for t in range(xs.shape[self.axis]):
            v = v + (xs.select(self.axis, t) - v) / 2
            spike = (v >= 1).float()
            v = v * (1 - spike)
            out.select(self.axis, t).copy_(spike)
        return out


class Synaptic(nn.Module):
    def forward(self, xs: Tensor) -> Tensor:
        i = v = 0.0
        out = []
        for x in xs:
            i = 0.5 * i + x
            v = 0.5 * v + i
            out.append((v >= 1).float())
            v = v - out[-1]
        return torch.stack(out)


class Network(nn.Module):
    def __init__(self, node: nn.Module, how: str) -> None:
        super().__init__()
        self.first, self.node, self.last = nn.Linear(6, NEURONS), node, nn.Linear(NEURONS, 2)
        self.how = how

    def forward(self, x: Tensor) -> Any:
        if self.how == "once":
            return self.last(self.node(self.first(x)))
        if self.how == "steps":
            return sum(self.last(self.node(self.first(x))) for _ in range(4))
        if self.how == "sequence":
            return self.last(self.node(self.first(x.expand(4, *x.shape)))).mean(0)
        if self.how == "sequence behind batch":
            return self.last(self.node(self.first(x.unsqueeze(1).expand(-1, 4, -1)))).mean(1)
        state: Any = torch.zeros(x.shape[0], NEURONS) if self.how == "tensor" else None
        out: Any = 0
        for _ in range(4):
            spike, state = self.node(self.first(x), state)
            out = out + self.last(spike)
        return out


def held(network: nn.Module, x: Tensor, path: str = "node") -> list[int]:
    """Numbers of values that the layer keeps for one sample."""
    found = inspect(network.eval(), x)
    infos = [info for one in found.layers if one.path == path for info in one.tensors]
    return sorted(info.count for info in infos if info.for_state)


CASES = {
    "potential of the caller": (Explicit, "tensor", 1),
    "tuple of the caller": (Named, "tuple", 2),
    "attribute": (Attribute, "steps", 1),
    "attribute, one call": (Attribute, "once", 1),
    "buffer in place": (InPlace, "steps", 1),
    "buffer in place, one call": (InPlace, "once", 1),
    "dictionary": (InADict, "steps", 1),
    "dictionary, one call": (InADict, "once", 1),
    "loop": (Loop, "sequence", 1),
    "loop on the second axis": (lambda: Loop(1), "sequence behind batch", 1),
    "loop with two states": (Synaptic, "sequence", 2),
}


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("case", CASES)
def test_a_state_is_found_and_counted_for_one_sample(case: str, batch: int) -> None:
    make, how, states = CASES[case]
    network, x = Network(make(), how), torch.rand(batch, 6)
    assert held(network, x) == [NEURONS] * states
    resolved = QuantizationPlan.uniform(8).resolve(network, x)
    bits = footprint(network, resolved).by_role
    assert bits["other"] == 32 * NEURONS * states
    (note,) = [note for note in resolved.inventory.notes if "keeps a state" in note]
    assert note.startswith("node (")
    assert note.endswith("stays 32-bit")


def test_what_is_found_does_not_depend_on_where_values_lie() -> None:
    """Memory that is freed and used again is another value: that differs from run to run."""
    order = random.Random(0)
    network, x = Network(Synaptic(), "sequence"), torch.rand(5, 6)
    for _ in range(100):
        freed = [torch.empty(5, NEURONS) for _ in range(20)]
        order.shuffle(freed)
        while freed:
            freed.pop()
        assert held(network, x) == [NEURONS] * 2


def test_looking_leaves_the_states_as_they_were() -> None:
    network, x = Network(Attribute(), "once").eval(), torch.rand(4, 6)
    inspect(network, x)
    assert network.node.mem == 0.0
    network(x[:3])
    before = network.node.mem
    inspect(network, x[:3])
    assert network.node.mem is before


def test_looking_leaves_records_and_numbers_changed_in_place_as_they_were() -> None:
    class Recording(InPlace):
        def __init__(self) -> None:
            super().__init__()
            self.record: list[Tensor] = []
            self.counts: dict[str, int] = {}

        def forward(self, x: Tensor) -> Tensor:
            spike = super().forward(x)
            self.record.append(spike)
            self.counts["calls"] = self.counts.get("calls", 0) + 1
            return spike

    network, x = Network(Recording(), "steps").eval(), torch.rand(4, 6)
    network(x)
    record, counts, mem = network.node.record, network.node.counts, network.node.mem
    before, numbers = list(record), mem.clone()
    inspect(network, x)
    assert network.node.record is record
    assert record == before
    assert network.node.counts is counts
    assert counts == {"calls": 4}
    assert network.node.mem is mem
    assert torch.equal(mem, numbers)


def test_potentials_in_the_forward_of_the_network() -> None:
    class Inline(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, NEURONS), nn.Linear(NEURONS, 2)

        def forward(self, xs: Tensor) -> Tensor:
            v: Any = 0.0
            u: Any = 0.0
            out: Any = 0.0
            for x in xs:
                v = 0.5 * v + self.first(x)
                spike = (v > 1).float()
                v = v - spike
                u = 0.5 * u + self.last(spike)
                out = out + (u > 1).float()
            return out

    for steps in (2, 3, 6):
        assert held(Inline(), torch.rand(steps, 4, 6), "") == [2, NEURONS]


def test_a_current_that_stays_the_same_is_no_state() -> None:
    class Static(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, NEURONS), nn.Linear(NEURONS, 2)

        def forward(self, x: Tensor) -> Tensor:
            current, v, out = self.first(x), 0.0, torch.zeros(())
            for _ in range(4):
                v = 0.5 * v + current
                spike = (v > 1).float()
                v = v - spike
                out = out + self.last(spike)
            return out

    assert held(Static(), torch.rand(4, 6), "") == [NEURONS]


def test_what_is_no_state() -> None:
    class Gated(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            a, b = x.chunk(2, -1)
            return torch.cat([nn.functional.gelu(a) * b] * 2, -1)

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(6, 18)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).reshape(*x.shape[:-1], 3, 6).permute(2, 0, 1, 3)
            return ((q * 0.5) @ k.transpose(-2, -1)).softmax(-1) @ v

    for network, x in (
        (nn.Sequential(nn.Linear(6, 4), Gated(), nn.Linear(4, 2)), torch.rand(3, 6)),
        (Attention(), torch.rand(2, 5, 6)),
        (nn.MultiheadAttention(6, 2), (torch.rand(5, 2, 6),) * 3),
        (nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU()), torch.rand(3, 6)),
    ):
        found = inspect(network.eval(), x)
        assert not any(info.for_state for info in found.tensors())
        assert not found.has_neurons


@pytest.mark.parametrize(
    ("make", "states"),
    [
        (lambda: rnn.SpikingLSTM(8, 8, 2), 4 * [8]),
        (lambda: rnn.SpikingGRU(8, 8, 1), [8]),
        (lambda: rnn.SpikingVanillaRNN(8, 8, 1), [8]),
        (lambda: nn.LSTM(8, 8, 2), [16, 16]),
        (lambda: nn.LSTM(8, 8, proj_size=4), [4, 8]),
        (lambda: nn.GRU(8, 4, bidirectional=True), [8]),
        (lambda: nn.RNN(8, 8), [8]),
    ],
    ids=["SpikingLSTM", "SpikingGRU", "SpikingVanillaRNN", "LSTM", "projected", "two ways", "RNN"],
)
def test_recurrent_layers(make: Any, states: list[int]) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = make()

        def forward(self, xs: Tensor) -> Tensor:
            out: Tensor = self.recurrent(xs)[0]
            return out

    found = inspect(Recurrent().eval(), torch.rand(5, 3, 8))
    assert sorted(info.count for info in found.tensors() if info.for_state) == sorted(states)
    assert any("recurrent" in note for note in found.notes)


def test_spikes_that_are_fed_back_take_one_bit_each() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.back = nn.Linear(6, NEURONS), nn.Linear(NEURONS, NEURONS)
            self.node, self.last = neuron.LIFNode(), nn.Linear(NEURONS, 2)

        def forward(self, xs: Tensor) -> Tensor:
            spikes, out = torch.zeros(xs.shape[1], NEURONS), torch.zeros(())
            for x in xs:
                spikes = self.node(self.first(x) + self.back(spikes))
                out = out + self.last(spikes)
            return out

    network, x = Recurrent().eval(), torch.rand(4, 3, 6)
    resolved = QuantizationPlan.uniform(8).resolve(network, x)
    assert footprint(network, resolved).by_role["other"] == NEURONS
    assert resolved.summary().states.share == 1.0


class TestBatchAxis:
    """A state has one value per neuron, whatever the batch and wherever its axis lies."""

    def test_without_a_batch_axis(self) -> None:
        network = nn.Sequential(nn.Linear(6, 50), neuron.LIFNode(), nn.Linear(50, 2))
        assert held(network, torch.rand(6), "1") == [50]
        assert held(network, torch.rand(4, 6), "1") == [50]

    def test_images_without_a_batch_axis(self) -> None:
        network = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), neuron.LIFNode())
        for x in (torch.rand(1, 8, 6), torch.rand(1, 1, 8, 6), torch.rand(4, 1, 8, 6)):
            assert held(network, x, "1") == [3 * 8 * 6]

    @pytest.mark.parametrize("shape", [(5, 4, 6), (1, 4, 6), (5, 1, 6), (1, 1, 6), (3, 6)])
    def test_behind_the_time_steps(self, shape: tuple[int, ...]) -> None:
        network = nn.Sequential(layer.Linear(6, 5, step_mode="m"), neuron.LIFNode(step_mode="m"))
        assert held(network, torch.rand(shape), "1") == [5]

    @pytest.mark.parametrize("tokens_first", [False, True])
    def test_tokens_merged_into_the_batch(self, tokens_first: bool) -> None:
        class Tokens(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear, self.node = nn.Linear(6, 8), neuron.LIFNode()

            def forward(self, x: Tensor) -> Tensor:
                x = x.transpose(0, 1) if tokens_first else x
                out: Tensor = self.node(self.linear(x.reshape(-1, 6)))
                return out

        for batch in (1, 2, 4):
            assert held(Tokens(), torch.rand(batch, 7, 6), "node") == [7 * 8]

    def test_a_loss_that_wants_the_whole_batch(self) -> None:
        """The network runs on half of a batch; what follows it fails, and does not matter."""
        network = nn.Sequential(nn.Linear(6, 5), neuron.LIFNode()).eval()
        x, target = torch.rand(4, 6), torch.rand(4, 5)
        found = inspect(network, run=lambda: torch.stack([network(x), target]))
        assert found.layer("1").tensors[0].shape == (5,)

    def test_a_network_for_one_batch_size(self) -> None:
        class Fixed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.node = nn.Conv2d(1, 2, 3), neuron.IFNode()

            def forward(self, x: Tensor) -> Tensor:
                out: Tensor = self.node(self.conv(x).reshape(4, 2, 4, 4))
                return out

        assert held(Fixed(), torch.rand(4, 1, 6, 6), "node") == [2 * 4 * 4]


def test_a_network_without_neurons_is_refused_unless_asked_for() -> None:
    network, x = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)), torch.rand(3, 6)
    with pytest.raises(ValueError, match=r"no spiking neuron.*allow_no_neurons=True"):
        footprint(network, QuantizationPlan.uniform(8), x)
    plan = QuantizationPlan.uniform(8, allow_no_neurons=True)
    assert footprint(network, plan, x).reduction == 4.0
    assert QuantizationPlan.from_dict(plan.to_dict()) == plan
    assert footprint(network, None, x).reduction == 1.0
