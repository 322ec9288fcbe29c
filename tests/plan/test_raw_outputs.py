"""A batch norm is folded only where nobody else sees what it normalises, and on its own axis."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import layer
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, calibrate


def norm(kind: Any, channels: int) -> nn.Module:
    made: nn.Module = kind(channels)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, low, high in (
            ("running_mean", -1, 1),
            ("running_var", 0.2, 3),
            ("weight", 0.5, 2),
            ("bias", -1, 1),
        ):
            values: Tensor = getattr(made, name)
            values.copy_(low + (high - low) * torch.rand(channels, generator=generator))
    return made


class Wired(nn.Module):
    def __init__(self, wiring: Callable[..., Any], synapse: nn.Module, batch_norm: nn.Module):
        super().__init__()
        self.wiring, self.synapse, self.norm = wiring, synapse, batch_norm
        self.kept: Any = None
        self.adds, self.sums = Adds(), Sums()

    def forward(self, x: Tensor) -> Any:
        return self.wiring(self, x)


class Adds(nn.Module):
    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return one + other


class Sums(nn.Module):
    def forward(self, parts: list[Tensor]) -> Tensor:
        return parts[0] + parts[1]


def check(network: nn.Module, x: Tensor) -> bool:
    """Whether it folds; in 20 bits it must compute what it computes in float."""
    network = network.eval()
    want = tree_leaves(network(x))
    resolved = QuantizationPlan.uniform(20).resolve(network, x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attach(network, calibrate(network, resolved, x))
    for one, other in zip(tree_leaves(network(x)), want, strict=True):
        assert torch.allclose(one.float(), other, atol=2e-5)
    return any(info.norm is not None for info in resolved.inventory.layers)


def spikes(*shape: int) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.5).float()


def conv() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(2, 3, 1)


def keep(m: Any, value: Tensor) -> Tensor:
    m.kept = value
    return value


def keep_in_a_list(m: Any, value: Tensor) -> Tensor:
    m.kept = {"raw": [value]}
    return value


def keep_a_view(m: Any, value: Tensor) -> Tensor:
    m.kept = value.flatten(1)
    return value


RAW: dict[str, Callable[..., Any]] = {
    "attribute": lambda m, x: m.norm(keep(m, m.synapse(x))),
    "list in an attribute": lambda m, x: m.norm(keep_in_a_list(m, m.synapse(x))),
    "view in an attribute": lambda m, x: m.norm(keep_a_view(m, m.synapse(x))),
    "returned": lambda m, x: (lambda y: (m.norm(y), y))(m.synapse(x)),
    "returned in a dictionary": lambda m, x: (lambda y: {"a": m.norm(y), "b": y})(m.synapse(x)),
    "second argument": lambda m, x: (lambda y: m.adds(m.norm(y), y))(m.synapse(x)),
    "keyword": lambda m, x: (lambda y: m.adds(one=m.norm(y), other=y))(m.synapse(x)),
    "in a list": lambda m, x: (lambda y: m.sums([m.norm(y), y]))(m.synapse(x)),
    "operation": lambda m, x: (lambda y: m.norm(y) + y.mean())(m.synapse(x)),
    "called twice": lambda m, x: m.norm(m.synapse(x)) + m.synapse(1 - x),
    "norm of the norm": lambda m, x: m.norm(m.norm(m.synapse(x))),
    "norm of both": lambda m, x: m.norm(m.synapse(x)) + m.norm(x.repeat(1, 2, 1, 1)[:, :3]),
    "changed in place": lambda m, x: m.norm(m.synapse(x).mul_(2)),
    "flipped": lambda m, x: m.norm(m.synapse(x).flip(1)),
}


@pytest.mark.parametrize("case", RAW)
def test_a_raw_output_that_somebody_sees_is_not_folded(case: str) -> None:
    network = Wired(RAW[case], conv(), norm(nn.BatchNorm2d, 3))
    assert not check(network, spikes(4, 2, 3, 3))


@pytest.mark.parametrize(
    "change",
    [
        lambda s, n: s.register_forward_hook(lambda module, args, output: output * 2),
        lambda s, n: s.register_forward_pre_hook(lambda module, args: (1 - args[0],)),
        lambda s, n: n.register_forward_pre_hook(lambda module, args: (args[0] * 2,)),
        lambda s, n: n.register_forward_hook(lambda module, args, output: output * 2),
        lambda s, n: setattr(n, "forward", lambda x: 2 * type(n).forward(n, x)),
    ],
    ids=["layer", "before the layer", "before the norm", "norm", "patched norm"],
)
def test_somebodys_hooks_are_honoured(change: Callable[..., Any]) -> None:
    network = nn.Sequential(conv(), norm(nn.BatchNorm2d, 3))
    change(network[0], network[1])
    assert not check(network, spikes(4, 2, 3, 3))


def plain(m: Any, x: Tensor) -> Any:
    return m.norm(m.synapse(x))


def turned(m: Any, x: Tensor) -> Any:
    return m.norm(m.synapse(x).transpose(1, 2)).transpose(1, 2)


@pytest.mark.parametrize(
    ("synapse", "batch_norm", "wiring", "shape", "folds"),
    [
        # The norm works on tokens, whether or not there are as many as features.
        (lambda: nn.Linear(6, 5), lambda: norm(nn.BatchNorm1d, 5), plain, (4, 5, 6), False),
        (lambda: nn.Linear(6, 7), lambda: norm(nn.BatchNorm1d, 5), plain, (4, 5, 6), False),
        (lambda: nn.Linear(6, 5), lambda: norm(nn.BatchNorm1d, 5), turned, (4, 5, 6), True),
        (lambda: nn.Linear(6, 7), lambda: norm(nn.BatchNorm1d, 7), turned, (4, 5, 6), True),
        (lambda: nn.Conv1d(2, 5, 1), lambda: norm(nn.BatchNorm1d, 5), turned, (4, 2, 5), False),
        # In multi-step mode a norm in single-step mode works on the batch.
        (
            lambda: layer.Conv2d(2, 3, 1, step_mode="m"),
            lambda: norm(nn.BatchNorm3d, 4),
            plain,
            (3, 4, 2, 3, 3),
            False,
        ),
        (
            lambda: nn.Conv2d(2, 6, 1),
            lambda: norm(nn.BatchNorm2d, 3),
            lambda m, x: m.norm(m.synapse(x).reshape(4, 3, 6, 3)),
            (4, 2, 3, 3),
            False,
        ),
        (
            lambda: nn.Conv2d(2, 6, 1),
            lambda: norm(nn.BatchNorm2d, 3),
            lambda m, x: m.norm(m.synapse(x)[:, 3:]),
            (4, 2, 3, 3),
            False,
        ),
        (
            lambda: nn.ConvTranspose2d(2, 3, 2, stride=2),
            lambda: norm(nn.BatchNorm2d, 3),
            plain,
            (4, 2, 3, 3),
            True,
        ),
    ],
)
def test_a_norm_is_folded_on_the_layers_own_axis(
    synapse: Any, batch_norm: Any, wiring: Any, shape: tuple[int, ...], folds: bool
) -> None:
    torch.manual_seed(0)
    network = Wired(wiring, synapse(), batch_norm())
    assert check(network, spikes(*shape)) == folds
