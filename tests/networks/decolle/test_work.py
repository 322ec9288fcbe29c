"""What a network of DECOLLE layers says that it computes, against a loop over its traces."""

import pytest
import torch
from spikingjelly.activation_based import functional

from qspinn.networks import Decolle
from qspinn.plan import count_activity, inspect, work_of
from tests.reference import synaptic_operations as reference

STEPS, IMAGES, CLASSES, BURN_IN = 6, 3, 4, 2


def network():
    torch.manual_seed(3)
    return Decolle(
        *((1, 8, 8), CLASSES),
        **{"channels": [3], "kernel_sizes": 3, "strides": 2, "pools": 2, "hidden": [5]},
        time_steps=STEPS,
        burn_in=BURN_IN,
        coding="bernoulli",
    ).eval()


def expected(made, x):
    """Operations of both layers and of the readout, step by step."""
    first, last = made.layers
    operations = [0, 0, 0]
    functional.reset_net(made)
    with torch.no_grad():
        for t, frame in enumerate(made.encoded(x)):
            taken = made.step(frame)
            for sample in (first.p != 0).numpy():
                operations[0] += reference.convolution(
                    sample, (3, 3), (2, 2), (1, 1), (1, 1), first.shape.neurons[1:], 3, 1
                )
            operations[1] += reference.linear((last.p != 0).numpy(), 5)
            if t >= BURN_IN:
                operations[2] += int(taken[-1].spikes.sum()) * CLASSES
    functional.reset_net(made)
    return operations


@pytest.mark.parametrize("mode", ["s", "m"])
def test_both_step_modes(mode):
    made = network()
    x = torch.rand(IMAGES, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    first, last, read = expected(made, x)
    functional.set_step_mode(made, mode)
    inventory = inspect(made)
    activity = count_activity(made, inventory, None, [lambda: made(x)])
    work = work_of(inventory, None, activity)
    assert (work.samples, work.time_steps) == (IMAGES, STEPS)
    conv, linear = work.layers["layers.0"], work.layers["layers.1"]
    assert conv.synaptic_operations == first / IMAGES
    # Traces are no spikes: every operation is a product; so are the leaks of both traces.
    neurons = 3 * 4 * 4
    assert conv.multiplications == pytest.approx(first / IMAGES + STEPS * (2 * 64 + neurons))
    assert conv.state_updates == STEPS * (2 * 64 + neurons)
    assert linear.synaptic_operations == pytest.approx((last + read) / IMAGES)
    features = 3 * 2 * 2
    dense = features * 5 * STEPS + 5 * CLASSES * (STEPS - BURN_IN)
    assert linear.dense_synaptic_operations == dense
