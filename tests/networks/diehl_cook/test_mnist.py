"""What the network learns from real images: 10,000 of them, once, without their labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qspinn.data.idx import read_idx
from qspinn.fixed_point import TensorQuantizer
from qspinn.networks import STDP, DiehlCook
from qspinn.networks.readouts import Proportion
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, calibrate
from tests.stdp.cases import quantizers

NEURONS, IMAGES = 100, 10_000


def accuracy(network: DiehlCook, folder: Path) -> float:
    """On the official test set; the readout knows labels of the images that were learned from."""
    images, labels, test_images, test_labels = (
        torch.as_tensor(read_idx(folder / name))
        for name in (
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
        )
    )
    images, test_images = (x[:IMAGES].unsqueeze(1) / 255 for x in (images, test_images))
    network.present(images, learning=True)
    readout = Proportion(NEURONS, 10)
    readout.fit(network.present(images).spike_counts, labels[:IMAGES].long())
    found = readout(network.present(test_images).spike_counts).argmax(1)
    return float((found == test_labels).double().mean())


# Measured: 86.4%, 85.9% and 82.1%; other seeds gave up to 2 points less. Neurons that learn nothing
# (first weights, theta alone): 41%.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("quantised", "at_least"), [("nothing", 0.83), ("weight", 0.82), ("all", 0.79)]
)
def test_real_images(shared_data: Path, quantised: str, at_least: float) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DiehlCook(neurons=NEURONS, stdp=STDP(rate_post=2.5e-3), backend="numba")
    if quantised == "weight":
        weight: TensorQuantizer = quantizers(network, 8, "stochastic")["weight"]
        network.use_fixed_point({"weight": weight})
    elif quantised == "all":
        plan = QuantizationPlan.uniform(8, "stochastic").resolve(network)
        attach(network, calibrate(network, plan, learning=True))
    assert accuracy(network, shared_data / "MNIST" / "raw") >= at_least
