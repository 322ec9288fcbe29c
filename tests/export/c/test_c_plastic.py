"""The unsupervised network and DECOLLE in C: the answers and states of the engine in NumPy."""

from __future__ import annotations

import pytest
import torch

from qspinn.export import device_model, encode
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import quantize_module
from tests.export.c.c_programs import FAST, SANITIZED, check_equal, compiled, needs_compiler
from tests.export.test_decolle_model import images, small
from tests.export.test_plastic_model import SHAPE, learned, pixels

pytestmark = needs_compiler

FAST_CASES = [
    ("maximum", "nearest", "aligned", {}),
    ("proportion", "stochastic", "packed", {}),
    ("ridge", "truncate", "aligned", {"one_winner": False, "inhibition_delay": 3}),
    ("proportion", "nearest", "packed", {"scale": "free"}),
]
SLOW_CASES = [
    (readout, rounding, layout, {"one_winner": one_winner, "refractory": refractory})
    for readout in ("maximum", "proportion", "ridge")
    for rounding in ("nearest", "stochastic", "nearest_even")
    for layout in ("aligned", "packed")
    for one_winner, refractory in ((True, 0), (False, 3))
]


def check_unsupervised(folder, readout, rounding, layout, changes, flags):
    module = learned(readout, rounding, **changes)
    shown = pixels(20, SHAPE, 5)
    model = device_model(module, shown[:1])
    program = compiled(model, folder, layout=layout, flags=flags)
    check_equal(program, encode(model, shown))
    assert program.sizes.payload_bits == model.stored_bits


@pytest.mark.few(0.5)
@pytest.mark.parametrize(("readout", "rounding", "layout", "changes"), FAST_CASES)
def test_the_unsupervised_network(tmp_path, readout, rounding, layout, changes):
    check_unsupervised(tmp_path, readout, rounding, layout, changes, FAST)


@pytest.mark.slow
@pytest.mark.parametrize(("readout", "rounding", "layout", "changes"), SLOW_CASES)
@pytest.mark.campaign
def test_the_unsupervised_network_with_sanitizers(tmp_path, readout, rounding, layout, changes):
    check_unsupervised(tmp_path, readout, rounding, layout, changes, SANITIZED)


@pytest.mark.parametrize(
    ("coding", "rounding", "more"),
    [
        ("direct", "nearest", {"scale": "free", "granularity": "channel"}),
        ("counts", "stochastic", {}),
    ],
)
def test_decolle(tmp_path, coding, rounding, more):
    shown = images(coding)
    shown = shown.round() if coding == "counts" else shown
    network = quantize_module(small(coding), QuantizationPlan.uniform(6, rounding, **more), shown)
    model = device_model(network.eval(), shown[:1])
    program = compiled(model, tmp_path)
    check_equal(program, encode(model, shown, key=1))
    assert program.sizes.payload_bits == model.stored_bits
    assert torch.isfinite(shown).all()
