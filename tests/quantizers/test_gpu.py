"""On a GPU a quantised network computes what it computes on the CPU, bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, calibrate

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(autouse=True)
def less_than_float32() -> Iterator[None]:
    """What PyTorch allows by default or on request: TF32, and the fastest convolution."""
    backends = torch.backends
    before = (backends.cudnn.allow_tf32, backends.cudnn.benchmark)
    precision = torch.get_float32_matmul_precision()
    backends.cudnn.allow_tf32, backends.cudnn.benchmark = True, True
    torch.set_float32_matmul_precision("high")
    yield
    backends.cudnn.allow_tf32, backends.cudnn.benchmark = before
    torch.set_float32_matmul_precision(precision)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(
        layer.Conv2d(2, 32, 3, padding=1, bias=False),
        layer.BatchNorm2d(32),
        neuron.LIFNode(),
        layer.Conv2d(32, 64, 3, padding=1),
        neuron.ParametricLIFNode(v_reset=None),
        layer.AvgPool2d(2),
        layer.Flatten(),
        layer.Linear(64 * 64, 10),
        neuron.IFNode(),
    )
    functional.set_step_mode(made, "m")
    return made.eval()


@pytest.mark.parametrize("bits", [4, 8, 12])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_the_same_sums_potentials_and_spikes(bits: int, granularity: str) -> None:
    net, x = network(), torch.rand(4, 3, 2, 16, 16)
    plan = QuantizationPlan.uniform(bits, granularity=granularity).resolve(net, x)
    attach(net, calibrate(net, plan, x))
    on_gpu = copy.deepcopy(net).cuda()
    for module, inputs in ((net, x), (on_gpu, x.cuda())):
        for child in module.modules():
            if isinstance(child, neuron.BaseNode):
                child.store_v_seq = True
        functional.reset_net(module)
        with torch.no_grad():
            module.result = module(inputs)
    assert torch.equal(net.result, on_gpu.result.cpu())
    pairs = zip(net.modules(), on_gpu.modules(), strict=True)
    compared = 0
    for one, other in pairs:
        if isinstance(one, neuron.BaseNode):
            assert torch.equal(one.v_seq, other.v_seq.cpu())
            compared += one.v_seq.numel()
    assert compared > 100_000
