"""What the network of Diehl and Cook says that it computes, against its spikes."""

import pytest
import torch

from qspinn.networks import DiehlCook, DiehlCookSettings
from qspinn.networks.readouts import Readouts
from qspinn.plan import QuantizationPlan, count_activity, inspect, work_of
from qspinn.quantizers import plan_of, quantize_module

INPUTS, NEURONS, STEPS, IMAGES = 9, 7, 20, 5


@pytest.fixture
def images():
    return torch.rand(IMAGES, 1, 3, 3, generator=torch.Generator().manual_seed(1))


def network(**values):
    torch.manual_seed(0)
    settings = DiehlCookSettings(max_rate=500.0, **values)
    return DiehlCook((1, 3, 3), NEURONS, STEPS, settings)


def worked(made, run, plan=None):
    inventory = inspect(made) if plan is None else plan.inventory
    return work_of(inventory, plan, count_activity(made, inventory, plan, [run]))


@pytest.mark.parametrize("backend", ["reference", "numba", "torch"])
@pytest.mark.parametrize("one_winner", [True, False])
def test_presentations(images, backend, one_winner):
    made = network(one_winner=one_winner, threshold=-58.0)
    made.backend = backend
    shown = made.present(images, record=True)
    fired = int(shown.spikes.sum())
    assert shown.input_spikes > 0
    assert fired > 0
    work = worked(made, lambda: made.present(images))
    assert (work.samples, work.time_steps) == (IMAGES, STEPS)
    total = work.total
    operations = shown.input_spikes * NEURONS + fired * (NEURONS - 1)
    assert total.synaptic_operations == operations / IMAGES
    dense = INPUTS * NEURONS + NEURONS * (NEURONS - 1)
    assert total.dense_synaptic_operations == STEPS * dense
    # Potentials, refractory counters, and two steps of spikes on their way.
    assert total.state_updates == STEPS * NEURONS * 4
    assert total.multiplications == STEPS * NEURONS
    # One pass of an ANN has no inhibition and no theta.
    weights, nj = INPUTS * NEURONS, 1000
    once = weights * (3.7 + 0.9) + NEURONS * 0.9 + (weights + INPUTS) * 32 * 10 / 64
    assert work.ann_energy_nj == pytest.approx(once / nj)


@pytest.mark.parametrize("bits", [None, 6])
def test_bits_moved_are_those_of_the_plan(images, bits):
    made, plan = network(), None
    if bits is not None:
        made = quantize_module(
            made, QuantizationPlan.uniform(bits), [images], lambda one, x: one.present(x)
        )
        plan = plan_of(made)
    shown = made.present(images)
    arrived, fired = shown.input_spikes, int(shown.spike_counts.sum())
    held = bits or 32
    work = worked(made, lambda: made.present(images), plan)
    passes, counter = IMAGES * STEPS, 3
    moved = arrived * NEURONS * held + passes * INPUTS + passes * NEURONS
    moved += passes * NEURONS * 2 * (held + counter + 2)
    moved += passes * NEURONS * held  # theta
    assert work.total.bits_moved == moved / IMAGES
    assert fired >= 0


def test_learning_is_not_counted(images):
    made = network()
    report = []
    made.report_work(report)
    made.present(images, learning=True)
    assert report == []


@pytest.mark.parametrize("mode", ["s", "m"])
def test_as_a_layer(images, mode):
    made = network(threshold=-58.0)
    made.step_mode = mode
    spikes = (torch.rand(STEPS, IMAGES, INPUTS) < 0.4).float()

    def run():
        return made(spikes) if mode == "m" else torch.stack([made(one) for one in spikes])

    fired = int(run().sum())
    made.reset()
    work = worked(made, run)
    operations = int(spikes.sum()) * NEURONS + fired * (NEURONS - 1)
    assert (work.samples, work.time_steps) == (IMAGES, STEPS)
    assert work.total.synaptic_operations == operations / IMAGES


@pytest.mark.parametrize("chosen", ["maximum", "proportion", "ridge"])
def test_readouts(images, chosen):
    class Read(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network, self.readout = network(threshold=-58.0), Readouts(chosen, NEURONS, 3)

    made = Read()
    counts = made.network.present(images).spike_counts
    made.readout.fit(counts, torch.arange(IMAGES) % 3)
    work = worked(made, lambda: made.readout(made.network.present(images).spike_counts))
    classes = 1 if chosen == "maximum" else 3
    answered = int((counts != 0).sum())
    readout = work.layers["readout"]
    assert readout.synaptic_operations == answered * classes / IMAGES
    assert readout.dense_synaptic_operations == NEURONS * classes
    multiplied = 0 if chosen == "maximum" else answered * classes
    assert readout.multiplications == multiplied / IMAGES
    assert work.time_steps == STEPS
