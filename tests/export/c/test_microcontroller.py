"""Models in C on microcontrollers, as QEMU runs them: real images, the answers of the engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional

from qspinn.export import IntegerEngine, encode
from qspinn.export.declared import declared_model
from qspinn.networks import STDP, DiehlCook
from tests.export.c.firmware import TARGETS, answered, built, learned
from tests.export.random_models import random_codes, random_model
from tests.export.trained import TRAIN, conv_snn, images
from tests.stdp.cases import codes_of, quantizers

pytestmark = pytest.mark.slow
IMAGES = 100


def tools(name):
    target = TARGETS[name]
    if target.missing:
        pytest.skip(f"NOTHING WAS TESTED on {target.name}: there is no {', '.join(target.missing)}")
    return target


@pytest.mark.parametrize("layout", ["packed", "aligned"])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", TARGETS)
def test_images_get_the_answers_of_the_engine(tmp_path, name, bits, layout):
    target = tools(name)
    net, model = conv_snn(bits)
    x, labels = images()
    x, labels = x[TRAIN : TRAIN + IMAGES], labels[TRAIN : TRAIN + IMAGES].numpy()
    codes = encode(model, x)
    firmware = built(model, tmp_path, target, layout)
    found, wanted = answered(firmware, codes), IntegerEngine(model).run(codes)
    assert np.array_equal(found.answers, wanted.sums)
    assert np.array_equal(found.classes, wanted.classes)
    functional.reset_net(net)
    with torch.no_grad():
        assert np.array_equal(found.classes, net(x).argmax(1).numpy())
    assert (found.classes == labels).mean() > (0.8 if bits == 8 else 0.3)
    assert (found.instructions > found.longest_step).all()
    # Nothing but the struct is written to.
    assert firmware.data == firmware.bss == 0
    assert firmware.sizes.ram_bytes <= firmware.state <= firmware.sizes.ram_bytes + 64
    assert firmware.rodata >= firmware.sizes.payload_bits // 8 - 16


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.campaign
def test_random_models_get_the_answers_of_the_engine(tmp_path, name):
    """Whose sums may take more than 32 bits: the lower 32 are compared."""
    target, compared = tools(name), 0
    for seed in range(40):
        model = random_model(seed)
        if model.output.over == "each":
            continue
        codes = random_codes(model, seed, 3)
        firmware = built(model, tmp_path / str(seed), target, "packed")
        found = answered(firmware, codes)
        runs = [IntegerEngine(model).run(codes[..., i : i + 1, :]) for i in range(3)]
        wanted = np.concatenate([one.sums for one in runs])
        assert np.array_equal(found.answers, wanted.astype(np.int32)), seed
        assert found.classes.tolist() == [int(one.classes[0]) for one in runs], seed
        compared += 1
    assert compared > 20


@pytest.mark.parametrize("name", TARGETS)
def test_learning_in_160_kilobytes_is_that_of_the_simulation(tmp_path, name):
    """400 neurons, weights of 3 bits, whose first presentations teach most of what is learned."""
    target = tools(name)
    torch.manual_seed(0)
    network = DiehlCook(neurons=400, stdp=STDP(normalise="update"), backend="numba")
    network.use_fixed_point(quantizers(network, 16, "stochastic", weight=3))
    x = (images()[0][:5].reshape(-1, 1, 28, 28) * 255).round() / 256
    model = declared_model(network, x[:1], "network", (), None, learning=True)
    weight, theta, turns, instructions = learned(model, tmp_path, target, encode(model, x))
    before = network.weight.clone()
    network.present(x, learning=True)
    assert np.array_equal(weight, codes_of(network)[0].numpy())
    assert np.array_equal(theta, codes_of(network)[1].numpy())
    assert np.array_equal(turns, network.turns.numpy())
    assert not torch.equal(before, network.weight)
    print(f"{target.name}: {int(instructions[0]):,} instructions for a presentation")
