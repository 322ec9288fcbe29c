"""Weights of 1 bit, which are signs, and ternary ones: torch, both engines and C are equal."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from qspinn.export import IntegerEngine, device_model, encode
from qspinn.export.c import write_c
from qspinn.export.compiled import CompiledEngine
from qspinn.export.nir_writing import values_of
from qspinn.export.saving import load_model, save_model
from qspinn.plan import QuantizationPlan, footprint_of
from qspinn.quantizers import plan_of, quantize_module
from tests.export.c.c_programs import SANITIZED, check_equal, compiled, needs_compiler
from tests.export.random_networks import SHORT
from tests.reference import model_file

MULTI = {"step_mode": "m"}
SETTINGS = (
    {},
    {"granularity": "channel"},
    {"scale": "free"},
    {"scale": "free", "granularity": "channel"},
)


def network(channels: int) -> nn.Sequential:
    """Convolutions with strides and groups, a batch norm, and linear layers."""
    torch.manual_seed(channels)
    made = nn.Sequential(
        *(layer.Conv2d(2, channels, 3, bias=False, **MULTI), neuron.LIFNode(**MULTI)),
        layer.Conv2d(channels, 2 * channels, 3, 2, groups=channels, padding=1, **MULTI),
        *(layer.BatchNorm2d(2 * channels, **MULTI), neuron.IFNode(v_reset=None, **MULTI)),
        *(layer.Flatten(**MULTI), layer.Linear(32 * channels, 10, **MULTI), neuron.IFNode(**MULTI)),
    )
    for one in made:
        if isinstance(one, nn.Conv2d | nn.Linear):
            with torch.no_grad():
                one.weight.mul_(3.0)
    made[3].running_var.fill_(0.3)
    return made.eval()


def check(made: nn.Sequential, weights: str, settings: dict[str, str], folder, repair="none"):
    x = (torch.rand(4, 6, 2, 9, 9) < 0.4).float()
    rounding = "nearest" if settings else "stochastic"
    roles = {"weight": SHORT[weights] | {"rounding": rounding}}
    plan = QuantizationPlan.uniform(5, roles=roles, **settings)
    quantised = quantize_module(made, plan, [x[:, :3], x[:, 3:]], repair=repair)
    held = [one for one in plan_of(quantised).tensors if one.role == "weight"]
    assert all(one.format.symmetric for one in held)
    with torch.no_grad():
        wanted = quantised(x).double().numpy()
    functional.reset_net(quantised)
    assert wanted.sum() > 0
    model = device_model(quantised, x[:, :1])
    save_model(model, folder / "model.qspinn")
    model = load_model(folder / "model.qspinn")
    codes = encode(model, x, 1)
    answers = IntegerEngine(model).run(codes)
    assert np.array_equal(answers.sums.reshape(wanted.shape) * 2.0**-answers.fraction_bits, wanted)
    assert np.array_equal(CompiledEngine(model).run(codes).sums, answers.sums)
    resolved = plan_of(quantised)
    footprint = footprint_of(resolved.inventory, resolved)
    for one in held:
        tensor = model.tensors[one.path]
        assert set(np.unique(tensor.codes)) == ({-1, 1} if weights == "signs" else {-1, 0, 1})
        assert np.array_equal(np.unique(np.sign(values_of(tensor))), np.unique(tensor.codes))
        assert tensor.bits == one.info.count * (1 if weights == "signs" else 2)
    assert sum(model.tensors[one.path].bits for one in held) == footprint.by_role["weight"]
    return model, codes


@pytest.mark.few(0.1)
@needs_compiler
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda one: "-".join(one.values()) or "plain")
@pytest.mark.parametrize("weights", SHORT)
def test_all_engines_are_equal(tmp_path, weights, settings):
    """Channels of which sums lie two in a word of C, and others."""
    channels = 8 if "granularity" in settings else 3
    model, codes = check(network(channels), weights, settings, tmp_path)
    check_equal(compiled(model, tmp_path / "c", flags=SANITIZED), codes)


@pytest.mark.few(0.5)
@needs_compiler
@pytest.mark.parametrize("weights", SHORT)
def test_repaired_networks_hold_numbers_of_the_format(tmp_path, weights):
    settings, repair = SETTINGS[-1], "learned+threshold+bias"
    model, codes = check(network(8), weights, settings, tmp_path, repair)
    check_equal(compiled(model, tmp_path / "c", flags=SANITIZED), codes)


def test_a_sign_takes_one_bit_in_a_file_and_in_c(tmp_path):
    """The bit of a sign is that of a number in two's complement: set if it is negative."""
    model, _ = check(network(8), "signs", SETTINGS[-1], tmp_path)
    _, tensors = model_file.read((tmp_path / "model.qspinn").read_bytes())
    for name in ("0.weight", "2.weight", "6.weight"):
        stored = np.array(tensors[f"tensor:{name}"][1]).reshape(model.tensors[name].shape)
        assert np.array_equal(np.where(stored < 0, -1, 1), model.tensors[name].codes)
    assert write_c(model, tmp_path / "c").payload_bits == model.stored_bits
