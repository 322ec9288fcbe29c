"""The convolutional network: shapes, names, time, reset, init, errors."""

import copy
import pickle
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from spikingjelly.activation_based.model.parametric_lif_net import DVSGestureNet
from torch import Tensor, nn

from qspinn.networks import ConvSNN, NeuronSettings
from qspinn.plan import QuantizationPlan, footprint_of
from qspinn.quantizers import attach, calibrate

SMALL: dict[str, Any] = {
    "input_shape": (2, 9, 8),
    "num_classes": 3,
    "channels": (4, 5),
    "kernel_sizes": 3,
    "strides": (2, 1),
    "population": 2,
    "time_steps": 3,
}


def build(seed: int = 0, **changes: Any) -> ConvSNN:
    torch.manual_seed(seed)
    return ConvSNN(**{**SMALL, **changes})


def images(batch: int = 6) -> Tensor:
    return torch.rand(batch, 2, 9, 8, generator=torch.Generator().manual_seed(1)) * 2


def sequences(steps: int = 3) -> Tensor:
    """``[6, steps, 2, 9, 8]``: whole counts, another frame at each step."""
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 4, (6, steps, 2, 9, 8), generator=generator).float()


def test_static_images_and_sequences_give_scores_per_class() -> None:
    net = build()

    assert net(images()).shape == (6, 3)
    functional.reset_net(net)
    net.time_steps = None
    assert net(sequences(7)).shape == (6, 3)


def test_a_static_image_is_a_sequence_of_itself() -> None:
    net = build(hidden=7)
    static = net(images())
    functional.reset_net(net)

    repeated = net(images().unsqueeze(1).expand(6, SMALL["time_steps"], 2, 9, 8))

    assert static.unique().numel() > 1
    assert torch.equal(static, repeated)


@pytest.mark.parametrize("hidden", [0, 7])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("settings", [{}, {"kind": "if", "v_reset": None}, {"kind": "plif"}])
@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("pooling", [1, (1, 2)])
def test_multi_step_equals_a_loop_written_out(
    hidden: int, batch_norm: bool, settings: dict[str, Any], static: bool, pooling: Any
) -> None:
    changes = {"hidden": hidden, "batch_norm": batch_norm, "pooling": pooling}
    net, loop = (
        build(**changes, neuron=NeuronSettings(v_threshold=0.5, **settings)) for _ in range(2)
    )
    x = images() if static else sequences()
    if batch_norm:
        net(x)  # running statistics other than those at the start
        functional.reset_net(net)
        loop.load_state_dict(net.state_dict())
    scores = net.eval()(x)

    loop.eval()
    for module in loop.modules():
        if hasattr(module, "step_mode"):
            module.step_mode = "s"
    counts = torch.zeros(6, 3)
    for t in range(3):
        h = x if static else x[:, t]
        for block in loop.blocks:
            h = block.neuron(block.norm(block.conv(h)))
        if pooling != 1:  # written out: a neuron pair or pair of pairs fires if any of it does
            h = h[..., :4, :].unflatten(2, (2, 2)).amax(3).unflatten(3, (2, 2)).amax(4)
        h = h.reshape(6, -1)
        if loop.hidden is not None:
            h = loop.hidden.neuron(loop.hidden.linear(h))
        h = loop.output.neuron(loop.output.linear(h))
        for c in range(3):
            counts[:, c] += h[:, 2 * c] + h[:, 2 * c + 1]

    assert scores.unique().numel() > 1
    assert torch.equal(scores, counts / 6)


@pytest.mark.parametrize("static", [True, False])
def test_single_step_mode_gives_the_same_scores_and_gradients(static: bool) -> None:
    x = images() if static else sequences()
    multi, single = build(), build()
    functional.set_step_mode(single, "s")

    scores = [net(x) for net in (multi, single)]
    for values in scores:
        values.square().sum().backward()

    assert torch.equal(*scores)
    for (name, one), other in zip(multi.named_parameters(), single.parameters(), strict=True):
        assert one.grad is not None
        torch.testing.assert_close(one.grad, other.grad, msg=name)


def test_spikes_are_binary_in_every_layer() -> None:
    net = build(hidden=7)
    spikes: dict[str, Tensor] = {}
    for name, module in net.named_modules():
        if isinstance(module, neuron.BaseNode):
            module.register_forward_hook(
                lambda _module, _inputs, output, name=name: spikes.__setitem__(name, output)
            )

    net(images(64))

    assert list(spikes) == ["blocks.0.neuron", "blocks.1.neuron", "hidden.neuron", "output.neuron"]
    for name, values in spikes.items():
        assert set(values.unique().tolist()) == {0.0, 1.0}, name


def test_scores_are_exact_shares_of_the_votes() -> None:
    # 1/3 is no binary fraction: only a sum before the division makes equal counts equal scores.
    net = build(population=3, time_steps=5)

    counts = net(images(64)) * 15

    assert torch.equal(counts.round() / 15, (counts / 15))
    assert (counts - counts.round()).abs().max() < 1e-5


def test_state_stays_until_it_is_reset() -> None:
    net = build()
    first = net(images())
    second = net(images())
    functional.reset_net(net)

    assert not torch.equal(first, second)
    assert torch.equal(net(images()), first)


def test_membranes_start_at_the_reset_value() -> None:
    net = build(neuron=NeuronSettings(v_reset=-0.5))
    net(images())
    functional.reset_net(net)

    assert [node.v for node in net.modules() if isinstance(node, neuron.BaseNode)] == [-0.5] * 3


def test_the_seed_decides_the_weights() -> None:
    same, other = build(seed=0)(images()), build(seed=1)(images())

    assert torch.equal(build(seed=0)(images()), same)
    assert not torch.equal(other, same)


def test_copies_and_pickles() -> None:
    net = build()
    expected = net(images())
    functional.reset_net(net)

    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(twin(images()), expected)


def test_names_and_sizes_by_hand() -> None:
    shapes = {name: tuple(p.shape) for name, p in build(hidden=7).named_parameters()}

    assert shapes == {
        "blocks.0.conv.weight": (4, 2, 3, 3),
        "blocks.0.conv.bias": (4,),
        "blocks.1.conv.weight": (5, 4, 3, 3),
        "blocks.1.conv.bias": (5,),
        "hidden.linear.weight": (7, 5 * 5 * 4),
        "hidden.linear.bias": (7,),
        "output.linear.weight": (6, 7),
        "output.linear.bias": (6,),
    }


def test_normalised_convolutions_have_no_bias() -> None:
    names = set(dict(build(batch_norm=True).named_parameters()))

    assert {"blocks.0.norm.weight", "blocks.0.norm.bias"} < names
    assert "blocks.0.conv.bias" not in names


def test_default_network_is_small_and_alive_before_training() -> None:
    torch.manual_seed(0)
    net = ConvSNN()
    sizes = sum(p.numel() for p in net.parameters())
    spikes = net.output_spikes(torch.rand(50, 1, 28, 28))

    assert sizes < 60_000
    assert 0.001 < spikes.mean() < 0.5


def test_initial_weights_have_the_documented_spread() -> None:
    torch.manual_seed(0)
    net = ConvSNN()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            assert module.weight.std().item() * fan_in**0.5 == pytest.approx(2, rel=0.1)
            assert module.bias is not None
            assert not module.bias.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": ()}, r"channels=\[\]: write at least one"),
        ({"channels": (4, 0)}, "channels=0: write 1 or more"),
        ({"kernel_sizes": (3, 3, 3)}, r"kernel_sizes=\[3, 3, 3\]: write one number, or 2"),
        ({"kernel_sizes": 4}, "kernel_sizes=4: write an odd number"),
        ({"kernel_sizes": 0}, "kernel_sizes=0: write 1 or more"),
        ({"strides": 0}, "strides=0: write 1 or more"),
        ({"strides": (2, 2, 2)}, "strides="),
        ({"channels": (2,) * 6, "strides": 2}, "image is 1x1 before this block"),
        ({"input_shape": (28, 28)}, r"input_shape=\[28, 28\]: write three sizes"),
        ({"num_classes": 0}, "num_classes=0"),
        ({"population": 0}, "population=0"),
        ({"time_steps": 0}, "time_steps=0: write 1 or more"),
        ({"hidden": -1}, "hidden=-1: write 0 or more"),
        ({"pooling": 0}, "pooling=0: write 1 or more"),
        ({"pooling": (1, 2, 1)}, r"pooling=\[1, 2, 1\]: write one number, or 2"),
        ({"pooling": (2, 3)}, "pooling=3: the image is 2x2 after this block's convolution"),
        ({"dropout": 1.0}, "dropout=1.0: write 0 .none. to less than 1"),
        ({"dropout": -0.1}, "dropout=-0.1"),
    ],
)
def test_wrong_sizes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**changes)


@pytest.mark.parametrize("shape", [(2, 9, 8), (6, 1, 9, 8), (6, 2, 8, 9), (1, 3, 6, 2, 9, 8)])
def test_wrong_inputs(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"images \[N, C, H, W\] or sequences \[N, T, C, H, W\]"):
        build()(torch.rand(shape))


def test_a_number_of_steps_that_is_not_the_data_s_is_no_silent_setting() -> None:
    with pytest.raises(ValueError, match=r"7 steps, but time_steps=3; write network.time_steps=7"):
        build()(sequences(7))
    with pytest.raises(ValueError, match=r"need a number of steps .* write network.time_steps=4"):
        build(time_steps=None)(images())


def test_dropout_silences_inputs_for_a_whole_sample_and_only_while_training() -> None:
    net = build(hidden=40, dropout=0.5)
    assert net.hidden is not None
    seen: list[Tensor] = []
    for block in (net.hidden, net.output):
        block.linear.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
        block.neuron.v_threshold = 0.05
    x = images(400)

    net(x)
    for values in seen:
        assert set(values.unique().tolist()) == {0.0, 2.0}
    before = seen[0].detach()
    seen.clear()
    functional.reset_net(net)
    net.eval()
    net(x)

    spikes = seen[0]
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    # What was silenced was silenced at all steps, what was not is as without dropout.
    kept = ((before == 2 * spikes) | (spikes == 0)).all(0)
    silenced = ((before == 0) | (spikes == 0)).all(0)
    spiked = spikes.amax(0) > 0
    assert bool((kept | silenced)[spiked].all())
    assert kept[spiked].float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_it_is_spikingjelly_s_dvs_gesture_net() -> None:
    """With the weights of SpikingJelly's own, in their order, it makes its scores."""
    torch.manual_seed(0)
    peer = DVSGestureNet(
        6, neuron.ParametricLIFNode, surrogate_function=surrogate.ATan(), detach_reset=True
    )
    functional.set_step_mode(peer, "m")
    with torch.no_grad():  # so that the last layers are not silent
        for module in peer.modules():
            if isinstance(module, nn.BatchNorm2d | nn.Linear):
                module.weight.mul_(4)
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
    settings = NeuronSettings(kind="plif", decay_input=True)
    net = ConvSNN(
        (2, 128, 128),
        11,
        channels=[6] * 5,
        kernel_sizes=3,
        strides=1,
        pooling=2,
        hidden=512,
        population=10,
        dropout=0.5,
        time_steps=None,
        neuron=settings,
        batch_norm=True,
    )
    x = torch.randint(0, 3, (3, 4, 2, 128, 128)).float()
    peer.train()(x.transpose(0, 1))  # running statistics other than those at the start
    functional.reset_net(peer)
    theirs = peer.state_dict()
    assert [value.shape for value in theirs.values()] == [
        value.shape for value in net.state_dict().values()
    ]
    net.load_state_dict(dict(zip(net.state_dict(), theirs.values(), strict=True)))

    with torch.no_grad():
        expected = peer.eval()(x.transpose(0, 1)).mean(0)
        scores = net.eval()(x)

    assert scores.unique().numel() > 3
    torch.testing.assert_close(scores, expected)


def test_everything_of_it_is_quantised_and_batch_norms_are_folded() -> None:
    torch.manual_seed(0)
    settings = NeuronSettings(kind="plif", decay_input=True, v_threshold=0.25)
    net = build(batch_norm=True, pooling=(1, 2), hidden=9, dropout=0.5, neuron=settings).eval()
    x = sequences()
    net.train()(x)
    functional.reset_net(net)
    net.eval()
    plan = QuantizationPlan.uniform(6).resolve(net, x)
    plan = calibrate(net, plan, x)

    # Every tensor has a format, and the only layer that sees numbers is the first.
    assert not [
        info.path
        for layer in plan.inventory.layers
        for info in layer.tensors
        if info.path not in plan.formats()
    ]
    assert [t.path for t in plan.tensors if t.role == "input"] == ["blocks.0.conv.input"]
    assert [layer.norm for layer in plan.inventory.layers if layer.norm] == [
        "blocks.0.norm",
        "blocks.1.norm",
    ]
    sizes = footprint_of(plan.inventory, plan)
    by_hand = {
        "weight": 6 * (4 * 2 * 9 + 5 * 4 * 9 + 5 * 2 * 2 * 9 + 9 * 6),
        "bias": 6 * (4 + 5 + 9 + 6),
        "membrane": 6 * (4 * 5 * 4 + 5 * 5 * 4 + 9 + 6),  # pooling comes after the neurons
        "threshold": 6 * 4,
        "decay": 6 * 4,
    }
    assert {role: bits for role, bits in sizes.by_role.items() if bits} == by_hand
    assert sizes.inference_bits == sum(by_hand.values())
    assert sizes.reduction == pytest.approx(32 / 6)

    attach(net, plan)
    scores = [net(x)]
    functional.reset_net(net)
    functional.set_step_mode(net, "s")
    scores.append(net(x))
    assert torch.equal(*scores)
    assert scores[0].unique().numel() > 2
