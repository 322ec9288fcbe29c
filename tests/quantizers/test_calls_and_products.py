"""Layers called by keyword, and products that torch may compute in less than float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, nn

from qspinn.plan import QuantizationPlan, footprint
from qspinn.quantizers import attach, calibrate
from qspinn.steps.exactness import product_dtype


class Keywords(nn.Module):
    """Calls everything by keyword; SpikingJelly's neurons say ``x``."""

    def __init__(self, by_keyword: bool) -> None:
        super().__init__()
        self.by_keyword = by_keyword
        self.conv, self.norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)
        self.node, self.out = neuron.LIFNode(), layer.Linear(48, 2)

    def forward(self, image: Tensor) -> Any:
        if not self.by_keyword:
            return self.out(self.node(self.norm(self.conv(image))).flatten(1))
        spikes = self.node(x=self.norm(input=self.conv(input=image)))
        return self.out(input=spikes.flatten(1))


@pytest.mark.parametrize("training", [False, True])
def test_layers_called_by_keyword_compute_what_they_compute_by_position(training: bool) -> None:
    outputs = []
    x = (torch.rand(4, 2, 6, 6, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    for by_keyword in (False, True):
        torch.manual_seed(0)
        network = Keywords(by_keyword).eval()
        plan = calibrate(network, QuantizationPlan.uniform(6).resolve(network, {"image": x}), x)
        assert plan.inventory.layer("conv").norm == "norm"
        assert plan.inventory.notes == ()
        assert footprint(network, plan).by_tensor["node.v"] == 3 * 4 * 4 * 6
        outputs.append(attach(network, plan).train(training)(image=x))
    assert torch.equal(*outputs)


@pytest.fixture
def precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("precision")
@pytest.mark.parametrize("setting", ["highest", "high", "medium"])
def test_exact_sums_are_multiplied_in_float64_where_float32_is_not_multiplied_in_full(
    setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x = nn.Sequential(nn.Linear(6, 5), neuron.IFNode()).eval(), torch.rand(4, 6)
    attach(network, calibrate(network, QuantizationPlan.uniform(8).resolve(network, x), x))
    want, seen = network(x), []
    plain = nn.functional.linear

    def watched(*args: Tensor) -> Tensor:
        seen.append(args[0].dtype)
        return plain(*args)

    monkeypatch.setattr(nn.functional, "linear", watched)
    torch.set_float32_matmul_precision(setting)
    network[1].reset()
    assert torch.equal(network(x), want)
    assert seen == [torch.float32 if setting == "highest" else torch.float64]


def test_a_gpu_multiplies_in_float64() -> None:
    assert product_dtype(torch.float32, torch.device("cuda")) == torch.float64
    assert product_dtype(torch.float32, torch.device("cpu")) == torch.float32
    assert product_dtype(torch.float64, torch.device("cpu")) == torch.float64
