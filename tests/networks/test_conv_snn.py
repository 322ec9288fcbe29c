"""The convolutional network: shapes, names, time, reset, init, errors."""

import copy
import pickle
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, neuron
from torch import Tensor, nn

from qspinn.networks import ConvSNN, NeuronSettings

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


def test_static_images_and_sequences_give_scores_per_class() -> None:
    net = build()

    assert net(images()).shape == (6, 3)
    functional.reset_net(net)
    assert net(images().expand(7, 6, 2, 9, 8)).shape == (6, 3)


def test_a_static_image_is_a_sequence_of_itself() -> None:
    net = build(hidden=7)
    static = net(images())
    functional.reset_net(net)

    repeated = net(images().expand(SMALL["time_steps"], 6, 2, 9, 8))

    assert static.unique().numel() > 1
    assert torch.equal(static, repeated)


@pytest.mark.parametrize("hidden", [0, 7])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("settings", [{}, {"kind": "if", "v_reset": None}, {"kind": "plif"}])
@pytest.mark.parametrize("static", [True, False])
def test_multi_step_equals_a_loop_written_out(
    hidden: int, batch_norm: bool, settings: dict[str, Any], static: bool
) -> None:
    changes = {"hidden": hidden, "batch_norm": batch_norm}
    net, loop = (
        build(**changes, neuron=NeuronSettings(v_threshold=0.5, **settings)) for _ in range(2)
    )
    x = images() if static else torch.stack([images(), images().flip(0), images().flip(2)])
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
        h = x if static else x[t]
        for block in loop.blocks:
            h = block.neuron(block.norm(block.conv(h)))
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
    x = images() if static else images().expand(4, 6, 2, 9, 8)
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
    ],
)
def test_wrong_sizes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**changes)


@pytest.mark.parametrize("shape", [(2, 9, 8), (6, 1, 9, 8), (6, 2, 8, 9), (1, 3, 6, 2, 9, 8)])
def test_wrong_inputs(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \[N, C, H, W\] or \[T, N, C, H, W\]"):
        build()(torch.rand(shape))
