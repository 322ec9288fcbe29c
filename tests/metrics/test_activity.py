"""What neurons did, against the steps written out."""

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from qspinn.metrics import record_activity
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, calibrate


def network(v_reset: float | None = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Linear(4, 6),
        neuron.LIFNode(v_threshold=0.5, v_reset=v_reset),
        layer.Linear(6, 3),
        neuron.IFNode(v_threshold=0.25, v_reset=v_reset),
    )
    functional.set_step_mode(net, "m")
    return net


def currents() -> Tensor:
    return torch.rand(7, 2, 4, generator=torch.Generator().manual_seed(1)) * 3


def run(net: nn.Module, mode: str) -> Tensor:
    functional.reset_net(net)
    functional.set_step_mode(net, mode)
    x = currents()
    return net(x) if mode == "m" else torch.stack([net(step) for step in x])


@pytest.mark.parametrize("mode", ["m", "s"])
@pytest.mark.parametrize("v_reset", [0.0, None])
def test_spikes_and_potentials_are_those_of_the_steps_written_out(
    mode: str, v_reset: float | None
) -> None:
    net = network(v_reset)
    with torch.no_grad(), record_activity(net) as recorded:
        out = run(net, mode)
        v = torch.zeros(2, 6)
        for t, x in enumerate(currents()):
            h = v + (net[0](x) - v) / 2.0
            spike = (h >= 0.5).float()
            v = h - 0.5 * spike if v_reset is None else h * (1 - spike)
            assert torch.equal(recorded["1"].spikes[t], spike)
            torch.testing.assert_close(recorded["1"].potentials[t], v)

    assert list(recorded) == ["1", "3"]
    assert torch.equal(recorded["3"].spikes, out)
    assert [one.threshold for one in recorded.values()] == [0.5, 0.25]
    assert all(0 < one.spikes.mean() < 1 for one in recorded.values())


def test_the_highest_of_several_thresholds_is_told() -> None:
    net = network()
    for node in (net[1], net[3]):
        node.surrogate_function = surrogate.Rect()
    net[1].v_threshold = torch.linspace(0.1, 0.75, 6)
    del net[3].v_threshold
    net[3].v_threshold = torch.nn.Parameter(torch.tensor(0.5))
    with torch.no_grad(), record_activity(net) as recorded:
        run(net, "m")
    assert [one.threshold for one in recorded.values()] == [0.75, 0.5]


def test_a_neuron_that_records_nothing_is_left_out() -> None:
    class Own(neuron.IFNode):
        def multi_step_forward(self, x_seq: Tensor) -> Tensor:
            return (x_seq.cumsum(0) >= 1.0).float()

    net = network()
    net[1] = Own(step_mode="m")
    with torch.no_grad(), record_activity(net) as recorded:
        run(net, "m")
    assert list(recorded) == ["3"]


@pytest.mark.parametrize("mode", ["m", "s"])
def test_quantised_neurons_are_seen_on_their_grids(mode: str) -> None:
    net = network()
    x = currents()
    plan = calibrate(net, QuantizationPlan.uniform(5).resolve(net, x), x)
    attach(net, plan)

    with torch.no_grad():
        unwatched = run(net, mode)
        with record_activity(net) as recorded:
            watched = run(net, mode)

    assert torch.equal(unwatched, watched)
    for path, one in recorded.items():
        step = plan.of_layer(path)["v"].format.step  # type: ignore[union-attr]
        codes = one.potentials / step
        assert torch.equal(codes, codes.round())
        assert codes.unique().numel() > 3


def test_it_leaves_the_network_as_it_was_and_shows_what_is_called() -> None:
    net = network()
    net[3].store_v_seq = True
    with record_activity(net) as recorded:
        net[:2](currents())
    assert list(recorded) == ["1"]
    assert net[3].store_v_seq
    net[1].store_v_seq = False

    def broken() -> None:
        with record_activity(net):
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        broken()
    assert [node.store_v_seq for node in (net[1], net[3])] == [False, True]
    assert not net[1]._forward_hooks
    with record_activity(nn.Linear(2, 2)) as nothing:
        pass
    assert nothing == {}
