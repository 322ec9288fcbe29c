"""The graph of a network, from one forward pass: what feeds what, when, and what is read."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from qspinn.plan.graph import Operand, UnknownGraphError, Window, graph_of

T, M = 4, {"step_mode": "m"}


def kinds(graph):
    return [one.kind for _, one in graph]


def sources(graph):
    return [[(o.source, o.delay) for o in one.operands] for _, one in graph]


def lif(**settings):
    return neuron.LIFNode(**settings)


def frames(*shape):
    return torch.rand(T, 1, *shape)


def test_a_row_of_layers():
    net = nn.Sequential(nn.Linear(12, 8), lif(**M), nn.Linear(8, 3), lif(**M))
    graph = graph_of(net, frames(12))
    assert kinds(graph) == ["input", "synapse", "neuron", "synapse", "neuron"]
    assert sources(graph) == [[], [(0, 0)], [(1, 0)], [(2, 0)], [(3, 0)]]
    assert [one.path for _, one in graph] == ["", "0", "1", "2", "3"]
    assert [one.shape for _, one in graph] == [(12,), (8,), (8,), (3,), (3,)]
    assert not any(one.is_static for _, one in graph)
    assert (graph.steps, graph.frame_stride, graph.frame.tolist()) == (T, 12, list(range(12)))
    assert (graph.readout.operand, graph.readout.over, graph.readout.answers) == (4, "each", 3)
    assert graph.takers(1) == (2,)
    assert str(graph).splitlines()[1] == "%1 = synapse 0(%0): 8"
    assert str(graph).splitlines()[-1] == "answers: 3, each of %4 x 1"


class Stepped(nn.Module):
    """Calls a network once for each frame, and averages."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return sum(self.net(frame) for frame in x) / len(x)


class Averaged(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x).mean(0)


def convolutional():
    return nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1), layer.MaxPool2d(2), lif(), layer.AvgPool2d(2),
        layer.Conv2d(4, 4, 1), lif(), layer.Flatten(), layer.Linear(16, 3), lif(),
    )  # fmt: skip


def test_both_step_modes_give_the_same_graph():
    x = frames(2, 8, 8)
    single = Stepped(convolutional())
    multi = Averaged(convolutional())
    functional.set_step_mode(multi, "m")
    first, second = graph_of(single, x), graph_of(multi, x)
    assert str(first) == str(second)
    for one, other in zip(first.operations, second.operations, strict=True):
        assert (one.kind, one.operands, one.shape, one.taken, one.window, one.factor) == (
            other.kind, other.operands, other.shape, other.taken, other.window, other.factor
        )  # fmt: skip
    assert (first.readout.over, first.readout.scale) == ("sum", Fraction(1, T))
    assert np.array_equal(first.frame, second.frame)
    assert (first.frame_stride, first.steps) == (128, T)


def test_poolings_are_recognised():
    graph = graph_of(Stepped(convolutional()), frames(2, 8, 8))
    assert kinds(graph) == [
        "input", "synapse", "max", "neuron", "sum", "scale", "synapse", "neuron", "synapse",
        "neuron",
    ]  # fmt: skip
    halves = Window((8, 8), (2, 2), (2, 2), (0, 0))
    assert graph.operations[2].window == halves
    assert graph.operations[2].table is None
    assert graph.operations[4].window == Window((4, 4), (2, 2), (2, 2), (0, 0))
    assert graph.operations[5].factor == Fraction(1, 4)
    assert graph.operations[1].taken == (2, 8, 8)


@pytest.mark.parametrize(
    ("pool", "kind", "window"),
    [
        (layer.MaxPool2d(3, 2, 1), "max", Window((7, 6), (3, 3), (2, 2), (1, 1))),
        (layer.AvgPool2d((2, 1), (3, 2)), "sum", Window((7, 6), (2, 1), (3, 2), (0, 0))),
        (layer.AvgPool2d(3, 1, 1), "sum", Window((7, 6), (3, 3), (1, 1), (1, 1))),
        (layer.AdaptiveAvgPool2d((1, 2)), "sum", Window((7, 6), (7, 3), (7, 3), (0, 0))),
    ],
)
def test_windows(pool, kind, window):
    net = Stepped(nn.Sequential(layer.Conv2d(1, 2, 1), lif(), pool, layer.Conv2d(2, 2, 1), lif()))
    graph = graph_of(net, frames(1, 7, 6))
    found = next(one for _, one in graph if one.kind in ("sum", "max"))
    assert (found.kind, found.window) == (kind, window)
    assert found.shape == (2, *window.output)


def test_the_table_of_a_window_is_that_of_torch():
    window = Window((5, 4), (3, 2), (2, 1), (1, 0))
    x = torch.randn(3, 5, 4)
    wanted = nn.functional.avg_pool2d(x, (3, 2), (2, 1), (1, 0)) * 6
    values = np.append(x.numpy().reshape(-1), 0.0)
    assert np.allclose(values[window.table(3)].sum(-1), wanted.numpy().reshape(-1), atol=1e-5)


class Residual(nn.Module):
    def __init__(self, join):
        super().__init__()
        self.first, self.n = layer.Linear(6, 5), lif()
        self.second, self.m = layer.Linear(5, 5), lif()
        self.join = join

    def forward(self, x):
        x = self.n(self.first(x))
        return self.join(x, self.m(self.second(x)))


@pytest.mark.parametrize(
    ("join", "kind", "details"),
    [
        (lambda x, y: x + y, "add", (1, 1)),
        (lambda x, y: x - y, "add", (1, -1)),
        (lambda x, y: x * y, "multiply", ()),
        (lambda x, y: torch.logical_and(x, y).float(), "multiply", ()),
        (torch.maximum, "max", ()),
    ],
)
def test_joined_layers(join, kind, details):
    net = Stepped(nn.Sequential(Residual(join), layer.Linear(5, 2), lif()))
    graph = graph_of(net, frames(6))
    place = kinds(graph).index(kind)
    operation = graph.operations[place]
    assert operation.signs == details
    assert operation.shape == (5,)
    if kind != "max":
        assert sources(graph)[place] == [(2, 0), (4, 0)]
    assert operation.path == "net.0"


def test_factors_and_offsets():
    class Scaled(nn.Module):
        def forward(self, x):
            return 1.5 - x * 0.25

    net = Stepped(nn.Sequential(layer.Linear(3, 3), lif(), Scaled(), layer.Linear(3, 2), lif()))
    graph = graph_of(net, frames(3))
    found = [(one.kind, one.factor) for _, one in graph if one.kind in ("scale", "offset")]
    minus, quarter = ("scale", Fraction(-1)), ("scale", Fraction(1, 4))
    assert sorted(found) == [("offset", Fraction(3, 2)), minus, quarter]


def test_numbers_that_move_are_gathered():
    class Moved(nn.Module):
        def forward(self, x):
            return torch.cat([x.flip(-1), torch.zeros(1, 2), x[:, :1]], dim=-1)

    net = Stepped(nn.Sequential(layer.Linear(3, 3), lif(), Moved(), layer.Linear(6, 2), lif()))
    graph = graph_of(net, frames(3))
    gather = next(one for _, one in graph if one.kind == "gather")
    assert gather.table.tolist() == [2, 1, 0, -1, -1, 0]
    assert gather.operands == (Operand(2),)


def test_views_cost_no_operation():
    views = [nn.Unflatten(1, (2, 3)), lif(), nn.Flatten()]
    net = Stepped(nn.Sequential(layer.Linear(4, 6), *views, layer.Linear(6, 2), lif()))
    assert kinds(graph_of(net, frames(4))) == ["input", "synapse", "neuron", "synapse", "neuron"]


def test_containers_that_feed_back():
    inner = nn.Sequential(layer.Linear(4, 3), lif())
    net = nn.Sequential(
        layer.Linear(6, 4), lif(),
        layer.LinearRecurrentContainer(inner, in_features=4, out_features=3),
        layer.Linear(3, 3),
        layer.ElementWiseRecurrentContainer(neuron.IFNode(), torch.add),
    )  # fmt: skip
    graph = graph_of(Stepped(net), frames(6))
    late = [(n, o.source) for n, one in graph for o in one.operands if o.delay]
    assert len(late) == 2
    for taker, source in late:
        assert source > taker
        assert graph.operations[source].kind == "neuron"


class Loop(nn.Module):
    def __init__(self, delay=1):
        super().__init__()
        self.a, self.n, self.back = layer.Linear(6, 4), lif(), layer.Linear(4, 4)
        self.delay = delay

    def forward(self, x):
        before = [torch.zeros(1, 4)] * self.delay
        total = 0.0
        for frame in x:
            before.append(self.n(self.a(frame) + self.back(before[-self.delay])))
            total = total + before[-1]
        return total


def test_loops_of_a_network_itself():
    graph = graph_of(Loop(), frames(6))
    back = next(n for n, one in graph if one.path == "back")
    spikes = next(n for n, one in graph if one.kind == "neuron")
    assert graph.operations[back].operands == (Operand(spikes, 1),)
    assert (graph.readout.over, graph.readout.scale) == ("sum", 1)


def test_what_lies_further_back_is_refused():
    with pytest.raises(UnknownGraphError, match="back: Linear takes something else in step 2"):
        graph_of(Loop(delay=2), torch.rand(6, 1, 6))


class Static(nn.Module):
    """Shows an image for some steps."""

    def __init__(self, repeat_first=False):
        super().__init__()
        self.conv, self.n = layer.Conv2d(1, 2, 3), lif()
        self.out, self.o = layer.Linear(32, 3), lif()
        self.repeat_first = repeat_first

    def forward(self, x):
        current = self.conv(x)
        total = 0.0
        for _ in range(T):
            current = self.conv(x) if self.repeat_first else current
            total = total + self.o(self.out(self.n(current).flatten(1)))
        return total / T


def test_images_that_stay():
    graph = graph_of(Static(), torch.rand(1, 1, 6, 6))
    assert [one.is_static for _, one in graph] == [True, True, False, False, False]
    assert (graph.frame_stride, graph.steps, graph.readout.over) == (0, T, "sum")
    assert " once" in str(graph).splitlines()[0]


def test_time_merged_into_the_batch():
    net = nn.Sequential(
        layer.SeqToANNContainer(nn.Linear(6, 4)), lif(**M), nn.Linear(4, 2), lif(**M)
    )
    plain = nn.Sequential(nn.Linear(6, 4), lif(**M), nn.Linear(4, 2), lif(**M))
    merged = [(one.kind, one.operands, one.shape) for _, one in graph_of(net, frames(6))]
    assert merged == [(one.kind, one.operands, one.shape) for _, one in graph_of(plain, frames(6))]


def test_rows_of_tokens():
    net = nn.Sequential(nn.Linear(6, 4), lif(**M))
    graph = graph_of(net, frames(3, 6))
    assert (graph.operations[1].rows, graph.operations[1].shape) == (3, (3, 4))


class Read(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.a, self.n = layer.Linear(6, 4, **M), lif(**M)
        self.how = how

    def forward(self, x):
        return self.how(self, self.n(self.a(x)))


@pytest.mark.parametrize(
    ("how", "over", "scale", "terms"),
    [
        (lambda net, y: y, "each", 1, 1),
        (lambda net, y: list(y), "each", 1, 1),
        (lambda net, y: y.sum(0), "sum", 1, 1),
        (lambda net, y: y.mean(0), "sum", Fraction(1, T), 1),
        (lambda net, y: y[-1], "last", 1, 1),
        (lambda net, y: y.mean(0).view(1, 2, 2).mean(-1), "sum", Fraction(1, 2 * T), 2),
        (lambda net, y: -y.sum(0), "sum", -1, 1),
        (lambda net, y: net.n.v, "last", 1, 1),
    ],
)
def test_readouts(how, over, scale, terms):
    graph = graph_of(Read(how), frames(6))
    assert (graph.readout.over, graph.readout.scale) == (over, scale)
    assert graph.readout.table.shape == (4 // terms, terms)


@pytest.mark.parametrize(
    ("decode", "over", "scale"),
    [(None, "each", 1), ("last_mem", "last", 1), ("mean-mem", "sum", Fraction(1, T))],
)
def test_neurons_that_never_fire(decode, over, scale):
    net = nn.Sequential(nn.Linear(6, 3), neuron.NonSpikingLIFNode(decode=decode))
    graph = graph_of(net, frames(6))
    assert (graph.readout.over, graph.readout.scale) == (over, scale)
    assert graph.operations[graph.readout.operand].path == "1"


class Doing(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.act = act

    def forward(self, x):
        return self.act(x)


def after_spikes(act):
    return nn.Sequential(nn.Linear(6, 4), lif(**M), Doing(act), nn.Linear(4, 4), lif(**M))


REFUSED = {
    "constant": (after_spikes(lambda x: x + torch.arange(4.0)), "2: add takes a constant tensor"),
    "unknown": (after_spikes(torch.sigmoid), "2: computes sigmoid, which no operation"),
    "power": (after_spikes(lambda x: x**3), "2: computes pow"),
    "two outputs": (Read(lambda net, y: (y.sum(0), y[:, :, :2].sum(0))), "returns 2 tensors"),
    "no output": (Read(lambda net, y: None), "returns 0 tensors"),
    "alone": (Read(lambda net, y: torch.ones(3)), "constant tensor that is no layer's"),
    "some steps": (Read(lambda net, y: y[1:].sum(0)), "counts some time steps and leaves out"),
    "ways": (
        Read(lambda net, y: y.sum(0) + torch.cat([y[0, :, 2:], y[0, :, :2]], 1)),
        "counts some time steps in another way|different",
    ),
    "factors": (Read(lambda net, y: y[0] + 2 * y[1:].sum(0)), "with different factors"),
    "norm": (
        nn.Sequential(
            nn.Linear(6, 4), lif(**M), layer.SeqToANNContainer(nn.BatchNorm1d(4)), lif(**M)
        ),
        r"2\.0: computes batch norm that is not folded",
    ),
    "maximum": (
        nn.Sequential(nn.Linear(6, 3), neuron.NonSpikingLIFNode(decode="max-mem")),
        "max-mem of potentials",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_operation_says_is_refused(name):
    net, message = REFUSED[name]
    with pytest.raises(UnknownGraphError, match=message):
        graph_of(net, frames(6))


class Uneven(nn.Module):
    """Layers that do other numbers of steps, or something else in some step."""

    def __init__(self, kind):
        super().__init__()
        self.a, self.n, self.b, self.o = layer.Linear(6, 4), lif(), layer.Linear(4, 4), lif()
        self.kind = kind

    def forward(self, x):
        total = 0.0
        for t, frame in enumerate(x):
            y = self.n(self.a(frame))
            if self.kind == "fewer" and t % 2:
                continue
            y = y + 1 if self.kind == "once" and t == 2 else y
            y = y.flip(-1) if self.kind == "order" and t == 2 else y
            total = total + self.o(self.b(y))
        return total


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("fewer", "n: its neurons do 4 steps where others do 2"),
        ("once", "the network itself: add is computed in step 2 where another step"),
        ("order", "b: Linear takes something else in step 2 than in step 1"),
    ],
)
def test_steps_that_differ_are_refused(kind, message):
    with pytest.raises(UnknownGraphError, match=message):
        graph_of(Uneven(kind), frames(6))


def test_states_are_reset_and_the_mode_stays():
    net = Stepped(convolutional()).train()
    x = frames(2, 8, 8)
    graph_of(net, x)
    assert net.training
    assert all(one.v == 0.0 for one in net.modules() if isinstance(one, neuron.BaseNode))
    with pytest.raises(UnknownGraphError):
        graph_of(after_spikes(torch.sigmoid).train(), frames(6))
