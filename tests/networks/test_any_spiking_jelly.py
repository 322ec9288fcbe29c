"""Networks of SpikingJelly's users, as they come."""

from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.model import parametric_lif_net, spiking_resnet, spiking_vgg
from torch import Tensor, nn

from qspinn.networks import AnySpikingJelly

SHAPE = (2, 6, 6)


def counts(batch: int = 3, steps: int = 4, shape: tuple[int, ...] = SHAPE) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 3, (batch, steps, *shape), generator=generator).float()


def small(*behind: nn.Module) -> nn.Sequential:
    """A network of somebody's, ``[T, N, 2, 6, 6]`` -> ``[T, N, 5]``."""
    torch.manual_seed(0)
    return nn.Sequential(
        layer.Conv2d(2, 4, 3), neuron.LIFNode(), layer.Flatten(), layer.Linear(64, 5), *behind
    )


def wrapped(module: nn.Module, **changes: Any) -> AnySpikingJelly:
    settings: dict[str, Any] = {"input_shape": SHAPE, "num_classes": 5}
    return AnySpikingJelly(module, **{**settings, **changes})


@pytest.mark.parametrize("mode", ["m", "s"])
def test_it_is_a_loop_over_time_and_a_mean(mode: str) -> None:
    net, twin = wrapped(small(), step_mode=mode), small()
    functional.set_step_mode(twin, "s")
    x = counts()

    expected = torch.stack([twin(x[:, t]) for t in range(4)]).mean(0)

    torch.testing.assert_close(net(x), expected)
    assert torch.equal(net(x), net(x))  # every call starts from reset states


def test_a_static_image_is_shown_for_some_steps() -> None:
    image = counts(steps=1)[:, 0]
    for steps, given in ((4, None), (7, 7)):
        net = wrapped(small(), time_steps=given)
        static = net(image)
        repeated = net(image.unsqueeze(1).expand(-1, steps, -1, -1, -1))
        assert torch.equal(static, repeated)


class LastStep(nn.Module):
    """Gives ``[N, classes]``: what a network with a readout of its own does."""

    def __init__(self, index: Any) -> None:
        super().__init__()
        self.net, self.index = small(), index

    def forward(self, x: Tensor) -> Any:
        return self.index(self.net(x))


def test_scores_without_time_are_taken_as_they_are() -> None:
    x = counts()
    twin = small()
    functional.set_step_mode(twin, "m")
    last = twin(x.transpose(0, 1))[-1]
    assert torch.equal(wrapped(LastStep(lambda y: y[-1]))(x), last)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (lambda y: y.transpose(0, 1), r"\[3, 4, 5\] .*time comes first: the module must not swap"),
        (lambda y: y[..., :3], r"\[4, 3, 3\] .*the module has 3 classes and the data 5"),
        (lambda y: y[0, :, :3], r"\[3, 3\] .*the module has 3 classes and the data 5"),
        (lambda y: y.flatten(0, 1), r"made \[12, 5\] from an input \[4, 3, 2, 6, 6\]"),
        (lambda y: y[..., None, None], r"ends without a classifier"),
        (lambda y: (y, y), r"returned a tuple: expected class scores \[T, N, classes\]"),
    ],
)
def test_outputs_that_are_no_class_scores_say_what_is_wrong(index: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrapped(LastStep(index))(counts())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"module": 3}, r"module=3 is no torch.nn.Module: write network.module._target_"),
        ({"module": nn.Linear(3, 3)}, r"module=Linear has no layer of SpikingJelly that keeps"),
        ({"step_mode": "x"}, r"step_mode='x': write one of m, s"),
        ({"num_classes": 0}, "num_classes=0: write 1 or more"),
        ({"time_steps": 0}, "time_steps=0: write 1 or more"),
        ({"input_shape": (3, 3)}, r"input_shape=\[3, 3\]: write three sizes"),
    ],
)
def test_wrong_arguments(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrapped(**{"module": small(), **changes})


def test_wrong_inputs() -> None:
    with pytest.raises(ValueError, match=r"expected images \[N, C, H, W\] or sequences"):
        wrapped(small())(counts(shape=(2, 6, 7)))
    with pytest.raises(ValueError, match=r"4 steps, but time_steps=3; write network.time_steps=4"):
        wrapped(small(), time_steps=3)(counts())
    other = wrapped(small(), input_shape=(3, 6, 6))
    with pytest.raises(ValueError, match=r"Sequential cannot take an input \[4, 3, 3, 6, 6\]"):
        other(counts(shape=(3, 6, 6)))


PUBLISHED: list[tuple[Any, tuple[int, ...], int]] = [
    (parametric_lif_net.MNISTNet, (1, 28, 28), 10),
    (spiking_resnet.spiking_resnet18, (3, 32, 32), 10),
    (spiking_vgg.spiking_vgg11_bn, (3, 32, 32), 10),
]


@pytest.mark.few(0.5)
@pytest.mark.parametrize(("made", "shape", "classes"), PUBLISHED)
def test_published_networks_run_and_learn(made: Any, shape: tuple[int, ...], classes: int) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"channels": 4} if made is parametric_lif_net.MNISTNet else {}
    if not sizes:
        sizes = {"num_classes": classes}
    module = made(spiking_neuron=neuron.LIFNode, detach_reset=True, **sizes)
    net = AnySpikingJelly(module, shape, classes, time_steps=2)
    net(counts(2, 2, shape)).square().sum().backward()
    assert net.name == type(module).__name__
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)
