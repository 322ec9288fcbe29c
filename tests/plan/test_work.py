"""Work and energy of small networks, worked out by hand."""

import copy
from fractions import Fraction as F

import pytest
import torch
from spikingjelly.activation_based import base, functional, layer, neuron
from torch import nn

from qspinn.plan import (
    EnergyModel,
    QuantizationPlan,
    WorkUnknownError,
    count_activity,
    footprint,
    inspect,
    work_of,
)
from qspinn.quantizers import plan_of, quantize_module
from tests.plan.declaring import Declaring

STEPS, SAMPLES = 3, 4


def spikes(*shape, seed=0, rate=0.5):
    drawn = torch.rand(STEPS, SAMPLES, *shape, generator=torch.Generator().manual_seed(seed))
    return (drawn < rate).float()


def in_mode(network, mode):
    """The network, and what runs it on a sequence ``[T, N, *]`` in this step mode."""
    functional.set_step_mode(network, mode)
    return (lambda x: network(x)) if mode == "m" else (lambda x: [network(step) for step in x])


def worked(network, x, mode="m", plan=None, model=None):
    run = in_mode(network, mode)
    inventory = inspect(network, run=lambda: run(x)) if plan is None else plan.inventory
    activity = count_activity(network, inventory, plan, [lambda: run(x)])
    return work_of(inventory, plan, activity, model)


def quantized(network, plan, x, mode):
    """A quantised copy, and its plan."""
    copied = quantize_module(network, plan, [x], lambda one, batch: in_mode(one, mode)(batch))
    return copied, plan_of(copied)


@pytest.mark.parametrize("mode", ["s", "m"])
def test_float_by_hand(mode):
    network = nn.Sequential(layer.Linear(5, 3), neuron.LIFNode(tau=2.0))
    x = spikes(5)
    work = worked(network, x, mode)
    operations = F(int(x.sum()) * 3, SAMPLES)
    assert (work.samples, work.time_steps) == (SAMPLES, STEPS)
    total = work.total
    assert total.synaptic_operations == operations
    assert total.dense_synaptic_operations == 5 * 3 * STEPS
    assert total.state_updates == 3 * STEPS
    # A leak; differences, sums and comparisons; biases.
    assert total.multiplications == 3 * STEPS
    assert total.additions == operations + 3 * STEPS + 3 * 3 * STEPS
    bits = operations * 32 + 5 * STEPS * 1 + 3 * STEPS * 32 + 2 * 3 * STEPS * 32
    assert total.bits_moved == bits
    arithmetic = (operations + 3 * STEPS + 9 * STEPS) * F("0.9") + 3 * STEPS * F("3.7")
    assert total.energy_compute_nj == pytest.approx(float(arithmetic / 1000))
    assert total.energy_memory_nj == pytest.approx(float(bits * F(10, 64) / 1000))
    assert work.energy_nj == work.float_energy_nj
    # One pass: products and sums, a bias, a comparison; weights, inputs, biases.
    once = 15 * F("4.6") + 3 * F("0.9") + 3 * F("0.9")
    once += (15 * 32 + 5 * 32 + 3 * 32) * F(10, 64)
    assert work.ann_energy_nj == work.ann_float_energy_nj == pytest.approx(float(once / 1000))


def add(bits):
    return F("0.03") * bits / 8 if bits <= 8 else F("0.03") + F("0.07") * (bits - 8) / 24


def multiply(bits, others):
    cells = bits * others
    return F("0.2") * cells / 64 if cells <= 64 else F("0.2") + F("2.9") * (cells - 64) / 960


@pytest.mark.parametrize("mode", ["s", "m"])
def test_fixed_point_by_hand(mode):
    """Weights of 3 bits, membranes of 6, leaks of 4, biases of 5, pixels of 7."""
    network = nn.Sequential(
        layer.Linear(5, 3), neuron.LIFNode(tau=2.0, v_threshold=0.3), layer.Linear(3, 2, bias=False)
    )
    lengths = {"weight": 3, "bias": 5, "membrane": 6, "threshold": 6, "decay": 4, "input": 7}
    plan = QuantizationPlan.uniform(
        8, roles={role: {"word_length": bits} for role, bits in lengths.items()}
    )
    x = spikes(5) * 0.75
    network, resolved = quantized(network, plan, x, mode)
    run, seen = in_mode(network, mode), []
    network[1].register_forward_hook(lambda node, given, out: seen.append(out.sum()))
    run(x)
    fired = int(sum(seen))
    functional.reset_net(network)
    work = worked(network, x, mode, resolved)
    pixels = F(int((x != 0).sum()) * 3, SAMPLES)
    between = F(fired * 2, SAMPLES)
    first, second, lif = (work.layers[path] for path in "021")
    assert first.synaptic_operations == first.multiplications == pixels
    arithmetic = pixels * (multiply(3, 7) + add(3 + 7 + 3)) + 3 * STEPS * add(3 + 7 + 3)
    assert first.energy_compute_nj == pytest.approx(float(arithmetic / 1000))
    assert first.bits_moved == pixels * 3 + 5 * STEPS * 7 + 3 * STEPS * 5
    assert (second.synaptic_operations, second.multiplications) == (between, 0)
    assert second.energy_compute_nj == pytest.approx(float(between * add(3 + 2) / 1000))
    assert second.bits_moved == between * 3 + 3 * STEPS
    updates = 3 * STEPS
    arithmetic = updates * (3 * add(6) + multiply(6, 4))
    assert lif.energy_compute_nj == pytest.approx(float(arithmetic / 1000))
    assert lif.bits_moved == updates * 2 * 6
    once = 15 * (multiply(3, 3) + add(3 + 3 + 3)) + 6 * (multiply(3, 3) + add(3 + 3 + 2))
    once += 3 * add(9) + (3 + 2) * add(3)
    once += ((15 + 6) * 3 + (5 + 3) * 3 + 3 * 5) * F(10, 64)
    assert work.ann_energy_nj == pytest.approx(float(once / 1000))
    assert work.energy_nj < work.float_energy_nj


def test_the_size_of_the_network_chooses_the_memory():
    network = nn.Sequential(layer.Linear(5, 3), neuron.LIFNode(tau=2.0))
    x = spikes(5)
    functional.set_step_mode(network, "m")
    held = footprint(network, example_input=x).baseline_inference_bits
    small, large = (
        worked(network, x, model=EnergyModel(memories=[[held / 8 - less, 1.0]], dram=64.0))
        for less in (0, 0.125)
    )
    moved = small.total.bits_moved
    assert small.total.energy_memory_nj == pytest.approx(moved * (1 / 64) / 1000)
    assert large.total.energy_memory_nj == pytest.approx(moved / 1000)


def test_a_readout_that_never_fires_takes_all_steps_at_once():
    """SpikingJelly's neurons without spikes know no step mode."""
    network = nn.Sequential(layer.Linear(5, 3), neuron.NonSpikingIFNode())
    work = worked(network, spikes(5))
    assert (work.samples, work.time_steps) == (SAMPLES, STEPS)
    assert work.layers["1"].additions == 3 * STEPS


@pytest.mark.parametrize("mode", ["s", "m"])
def test_thresholds_and_leaks_of_each_channel_are_read(mode):
    node = neuron.IFNode(v_threshold=0.5)
    shared = worked(nn.Sequential(layer.Linear(5, 3), node), spikes(5), mode)
    own = neuron.ParametricLIFNode()
    own.w = nn.Parameter(torch.zeros(3))
    separate = worked(nn.Sequential(layer.Linear(5, 3), own), spikes(5), mode)
    extra = separate.layers["1"].bits_moved - shared.layers["1"].bits_moved
    assert extra == 3 * STEPS * 32
    assert shared.layers["1"].multiplications == 0


def test_plain_layers_over_time_and_batch_merged_or_not():
    """torch's own layers know no step mode: time may come merged, in front, or not at all."""

    class Plain(nn.Module):
        def __init__(self, merged):
            super().__init__()
            self.first, self.second = nn.Linear(5, 3), nn.Linear(3, 2)
            self.one, self.two = neuron.IFNode(v_threshold=0.1), neuron.IFNode()
            self.merged = merged

        def forward(self, x):
            current = self.first(x[0])  # once for all steps
            s = self.one(current.expand(STEPS, *current.shape))
            s = (
                self.second(s.flatten(0, 1)).unflatten(0, s.shape[:2])
                if self.merged
                else (self.second(s))
            )
            return self.two(s)

    torch.manual_seed(0)
    network, x = Plain(True), spikes(5)
    functional.set_step_mode(network, "m")
    merged = worked(network, x)
    network.merged = False
    apart = worked(network, x)
    assert merged.to_dict() == apart.to_dict()
    assert merged.layers["first"].dense_synaptic_operations == 15
    assert merged.layers["second"].dense_synaptic_operations == 6 * STEPS
    # One pass of an ANN has each weight once.
    once = (15 + 6) * F("4.6") + (3 + 2) * 2 * F("0.9")
    once += (15 + 6 + 5 + 3 + 3 + 2) * 32 * F(10, 64)
    assert merged.ann_energy_nj == pytest.approx(float(once / 1000))


def test_a_batch_norm_that_is_not_folded_multiplies():
    network = nn.Sequential(
        layer.BatchNorm1d(5, step_mode="m"), layer.Linear(5, 3), neuron.IFNode()
    )
    work = worked(network, spikes(5))
    assert work.layers["0"].multiplications == 5 * STEPS


def test_several_batches_are_averaged():
    network = nn.Sequential(layer.Linear(5, 3), neuron.IFNode())
    run = in_mode(network, "m")
    x, other = spikes(5, seed=1), spikes(5, seed=2)[:, :1]
    inventory = inspect(network, x)
    both = count_activity(network, inventory, None, [lambda: run(x), lambda: run(other)])
    work = work_of(inventory, None, both)
    assert work.samples == SAMPLES + 1
    assert work.total.synaptic_operations == 3 * float(x.sum() + other.sum()) / (SAMPLES + 1)
    assert work.time_steps == STEPS
    assert work.total.state_updates == 3 * STEPS


@pytest.mark.parametrize("mode", ["s", "m"])
def test_nothing_is_left_behind(mode):
    network = nn.Sequential(layer.Linear(5, 3), layer.Dropout(0.5), neuron.LIFNode(tau=2.0)).train()
    x, run = spikes(5), in_mode(network, mode)
    inventory = inspect(network, run=lambda: run(x))
    before, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    count_activity(network, inventory, None, [lambda: run(x)])
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert network[2].v == 0.0
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in network.modules())


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.neuron = layer.Linear(5, 5), neuron.IFNode()

    def forward(self, x):
        s = self.neuron(self.linear(x))
        return s @ s.transpose(-1, -2)


class Home(nn.Module):
    """A neuron of somebody's own."""

    def __init__(self):
        super().__init__()
        self.decay = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return (x * self.decay > 0.2).float()


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (Attending(), r"multiplies tensors outside"),
        (nn.Sequential(layer.Linear(5, 3), neuron.IFNode(), Home()), r"2 \(Home\)"),
        (nn.Sequential(layer.Linear(5, 3), nn.PReLU(), neuron.IFNode()), r"1 \(PReLU\)"),
        (nn.Sequential(layer.Linear(5, 3)), "no neuron was called"),
        (
            nn.Sequential(
                layer.Linear(5, 3),
                neuron.IFNode(),
                Declaring({"name": "weight", "role": "weight", "shape": (2,)}),
            ),
            r"2 \(Declaring\) declares its tensors but has no report_work",
        ),
    ],
)
def test_what_cannot_be_counted_is_said(network, why):
    with pytest.raises(WorkUnknownError, match=why):
        worked(network, spikes(5))


def test_a_neuron_without_a_formula_is_counted_as_another_and_noted():
    work = worked(nn.Sequential(layer.Linear(5, 3), neuron.QIFNode()), spikes(5))
    assert work.lines()[-1] == "counted as a leaky integrator: 1 (QIFNode)"
    assert work.layers["1"].multiplications == 3 * STEPS


def test_a_recurrent_container_keeps_its_spikes():
    inner = nn.Sequential(layer.Linear(5, 3), neuron.IFNode(v_threshold=0.1))
    network = layer.LinearRecurrentContainer(inner, 5, 3, step_mode="m")
    work = worked(network, spikes(5))
    assert work.layers[""].state_updates == 3 * STEPS
    assert work.layers[""].bits_moved == 2 * 3 * STEPS
    assert work.layers["rc"].dense_synaptic_operations == 8 * 5 * STEPS


class Reporting(base.MemoryModule):
    """Somebody's layer that computes by itself: nothing of qspinn is imported for it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(5, 3))
        self.register_memory("u", None)
        self.report = None

    def device_tensors(self):
        return [
            {"name": "weight", "role": "weight", "shape": (5, 3), "value": self.weight},
            {"name": "u", "role": "membrane", "shape": (3,), "low": 0.0, "high": 8.0},
        ]

    def use_fixed_point(self, quantizers):
        """Computes as ever."""

    def report_work(self, report):
        self.report = report

    def single_step_forward(self, x):
        if self.u is None:
            self.u = torch.zeros(len(x), 3)
            if self.report is not None:
                self.report.sequence(len(x))
        self.u = self.u + x @ self.weight
        if self.report is not None:
            operations = int(x.sum()) * 3
            self.report.synapses("weight", operations, sizes=(15, 5, 3), samples=len(x))
            self.report.updates("u", samples=len(x), additions=2)
        return (self.u > 1).float()

    def multi_step_forward(self, x_seq):
        return torch.stack([self.single_step_forward(x) for x in x_seq])


@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize("bits", [None, 4])
def test_a_module_that_reports_is_counted_as_layers_are(mode, bits):
    x = spikes(5)
    same = nn.Sequential(layer.Linear(5, 3, bias=False), neuron.IFNode(v_threshold=100.0))
    found = []
    for network in (nn.Sequential(Reporting()), same):
        made, plan = network, None
        if bits is not None:
            made, plan = quantized(network, QuantizationPlan.uniform(bits), x, mode)
        found.append(worked(made, x, mode, plan))
    reported, seen = found
    for name, value in vars(seen.total).items():
        assert vars(reported.total)[name] == pytest.approx(value), name
    assert reported.ann_energy_nj == pytest.approx(seen.ann_energy_nj)
    assert reported.time_steps == STEPS


@pytest.mark.parametrize("wrong", ["synapses", "updates"])
def test_a_report_on_what_is_not_declared_is_refused(wrong):
    class Mistaken(Reporting):
        def single_step_forward(self, x):
            out = super().single_step_forward(x)
            if self.report is not None and wrong == "synapses":
                self.report.synapses("w", 1, sizes=(1, 1, 1), samples=len(x))
            elif self.report is not None:
                self.report.updates("v", samples=len(x))
            return out

    with pytest.raises(WorkUnknownError, match="which it does not declare"):
        worked(nn.Sequential(Mistaken()), spikes(5))


def test_the_lines_name_the_winner_whoever_it_is():
    network = nn.Sequential(layer.Linear(5, 3), neuron.IFNode())
    silent, busy = (worked(network, spikes(5, rate=rate)) for rate in (0.0, 1.0))
    assert "the ANN wins" in busy.lines()[2]
    assert busy.ann_energy_nj < busy.energy_nj
    cheap = EnergyModel(memories=[[8192, 1e-6]])
    quiet = worked(network, spikes(5, rate=0.0), model=cheap)
    assert "the spiking network wins" in quiet.lines()[2]
    assert quiet.energy_nj < quiet.ann_energy_nj
    assert silent.total.synaptic_operations == 0
