"""What batches show, the formats that follow from it, and when these stay."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

from qspinn.fixed_point import FixedPointFormat, PerChannelFormat
from qspinn.plan import QuantizationPlan, ResolvedPlan
from qspinn.quantizers import attach, calibrate, choose_channel_format, choose_format
from qspinn.quantizers.attach import reattach
from qspinn.quantizers.calibration import NotBinaryError
from qspinn.quantizers.following import EVERY, SETTLING, Following
from qspinn.quantizers.running import RunningRange
from tests.quantizers.networks import made, pixels, plan


def seen(*batches: Tensor, length: int = 6, always_signed: bool = True) -> RunningRange:
    found = RunningRange()
    for batch in batches:
        flat = batch.double().reshape(-1)
        extremes = (float(flat.min()), float(flat.max()))
        found.see(flat, extremes, length, "nearest", always_signed)
    return found


def normal(seed: int, scale: float = 1.0, count: int = 2000) -> Tensor:
    return scale * torch.randn(count, generator=torch.Generator().manual_seed(seed))


class TestRunningRange:
    @pytest.mark.parametrize("length", [3, 4, 6, 10])
    @pytest.mark.parametrize("scale", [1e-3, 0.7, 1.4, 300.0])
    def test_batches_alike_give_the_format_of_all_their_values(
        self, length: int, scale: float
    ) -> None:
        batches = [normal(seed, scale) for seed in range(5)]
        expected = choose_format(torch.cat(batches), length, "mse")
        assert seen(*batches, length=length).format(length, "mse") == expected

    @pytest.mark.parametrize("method", ["mse", "max", "percentile"])
    def test_a_blank_batch_decides_nothing(self, method: str) -> None:
        found = seen(torch.zeros(100), *(normal(seed) for seed in range(3)))
        expected = choose_format(torch.cat([normal(seed) for seed in range(3)]), 6, method)
        assert abs(found.format(6, method).integer_bits - expected.integer_bits) <= 1

    @pytest.mark.parametrize("method", ["mse", "max", "percentile"])
    def test_old_batches_are_forgotten(self, method: str) -> None:
        found = seen(*(normal(seed, 64.0) for seed in range(4)), *(normal(s) for s in range(80)))
        expected = choose_format(normal(0), 6, method)
        assert abs(found.format(6, method).integer_bits - expected.integer_bits) <= 1

    def test_one_odd_batch_among_many_does_not_decide(self) -> None:
        usual = [normal(seed) for seed in range(20)]
        odd = torch.cat([normal(20, count=1990), torch.full((10,), 3.9)])
        assert seen(*usual, odd).format(6, "mse") == seen(*usual).format(6, "mse")

    def test_an_input_gets_a_sign_once_any_value_is_negative(self) -> None:
        positive, negative = torch.rand(500), -torch.rand(500)
        assert not seen(positive, always_signed=False).format(6, "mse").signed
        found = seen(positive, negative, *[positive] * 9, always_signed=False)
        assert found.format(6, "mse").signed

    def test_limits_come_first(self) -> None:
        found = seen(normal(0, 0.01))
        assert found.format(4, "mse", at_least=3.0).max >= 3.0
        assert seen(normal(0, 100.0)).format(4, "mse", step_at_most=0.5).step <= 0.5

    def test_plain_types_hold_all_of_it(self) -> None:
        found = seen(normal(0), normal(1))
        again = RunningRange.from_dict(json.loads(json.dumps(found.to_dict())))
        assert again == found


class TestStaying:
    @pytest.mark.parametrize("method", ["mse", "max", "percentile"])
    def test_a_format_that_is_nearly_as_good_stays(self, method: str) -> None:
        """While values grow and shrink by a tenth, no format goes to and fro."""
        current, held = None, []
        for step in range(200):
            scale = 2.0 ** (step % 20 / 140) * 0.95
            values = normal(0, scale)
            current = choose_format(values, 5, method, current=current)
            held.append(current)
        assert len(set(held)) <= 2
        changes = sum(one != other for one, other in pairwise(held))
        assert changes <= 1

    @pytest.mark.parametrize("method", ["mse", "max"])
    def test_a_format_that_is_outgrown_does_not(self, method: str) -> None:
        current = choose_format(normal(0), 5, method)
        grown = choose_format(normal(0, 8.0), 5, method, current=current)
        assert grown.integer_bits >= current.integer_bits + 2
        assert choose_format(normal(0), 5, method, current=grown) == current

    @pytest.mark.parametrize("method", ["mse", "max", "percentile"])
    def test_channels_are_chosen_one_by_one(self, method: str) -> None:
        values = torch.stack([normal(seed, 2.0**seed) for seed in range(5)])
        fmt = choose_channel_format(values, 0, 5, method, "nearest")
        assert fmt.formats == tuple(choose_format(row, 5, method) for row in values)
        moved = values * torch.tensor([1.0, 16.0, 1.0, 1.0, 1.0])[:, None]
        again = choose_channel_format(moved, 0, 5, method, "nearest", current=fmt)
        same = [one == other for one, other in zip(again.formats, fmt.formats, strict=True)]
        assert same == [True, False, True, True, True]


def grouped(norm_kind: Any = layer.BatchNorm2d) -> nn.Sequential:
    """Two groups: the second one's input is always 0."""
    torch.manual_seed(0)
    conv: Any = layer.Conv2d(2, 8, 3, padding=1, bias=False, groups=2)
    network = nn.Sequential(conv, norm_kind(8), neuron.LIFNode())
    functional.set_step_mode(network, "m")
    return network


def half_blank(seed: int = 0) -> Tensor:
    x = torch.rand((3, 16, 2, 6, 6), generator=torch.Generator().manual_seed(seed))
    x[:, :, 1] = 0.0
    return x


def follow(
    network: nn.Module, found: ResolvedPlan, batches: int, following: Following | None = None
) -> tuple[ResolvedPlan, Following]:
    """Runs batches in training mode with formats that follow."""
    following = following or Following()
    for seed in range(batches):
        functional.reset_net(network)
        following.begin_batch(network, found)
        network(half_blank(seed))
        following.end_batch(network, found)
        new = following.follow(network, found)
        found = found if new == found else (reattach(network, new), new)[1]
    assert not following.failures
    return found, following


class TestFollowing:
    def test_a_silent_channel_takes_no_range_from_the_others(self) -> None:
        """Its variance falls to 0, and so its folded weights grow by a factor of 300."""
        network = grouped().train()
        found = calibrate(network, plan(4).resolve(network, half_blank()), half_blank())
        attach(network, found)
        found, _ = follow(network, found, 120)
        scale = network[1].weight / (network[1].running_var + network[1].eps).sqrt()
        folded = (network[0].weight * scale.view(-1, 1, 1, 1)).detach()
        assert folded[4:].abs().max() > 30 * folded[:4].abs().max()
        fmt = found.of_layer("0")["weight"].format
        assert isinstance(fmt, FixedPointFormat)
        assert folded[:4].abs().max() / 4 < fmt.max < 2 * folded[:4].abs().max()

    @pytest.mark.parametrize("granularity", ["tensor", "channel"])
    def test_formats_are_those_of_the_parameters_now(self, granularity: str) -> None:
        network = grouped().train()
        using = plan(6, granularity=granularity)
        found = calibrate(network, using.resolve(network, half_blank()), half_blank())
        attach(network, found)
        with torch.no_grad():
            network[0].weight.mul_(16.0)
            network[1].bias.fill_(100.0)
        followed = Following().follow(network, found)
        for name, more in (("weight", 4), ("bias", 6)):
            before, after = (one.of_layer("0")[name].format for one in (found, followed))
            for old, new in zip(parts(before), parts(after), strict=True):
                assert new.integer_bits >= old.integer_bits + more - 1

    def test_stated_formats_stay(self) -> None:
        network = grouped().train()
        roles = {role: {"format": "Q3.6"} for role in ("weight", "membrane", "input")}
        using = plan(8, roles=roles)
        found = calibrate(network, using.resolve(network, half_blank()), half_blank())
        attach(network, found)
        with torch.no_grad():
            network[0].weight.mul_(1e4)
        followed, _ = follow(network, found, 3)
        for role in roles:
            assert [str(t.format) for t in followed.tensors if t.role == role] == ["Q3.6"]

    def test_thresholds_of_a_soft_reset_stay_where_they_suit_weights_that_stay(self) -> None:
        """They were chosen with less room above them than there may be at most."""
        torch.manual_seed(0)
        network = nn.Sequential(layer.Linear(12, 5), neuron.IFNode(v_reset=None))
        functional.set_step_mode(network, "m")
        with torch.no_grad():
            network[0].weight.mul_(0.6)
        x = (torch.rand(6, 16, 12, generator=torch.Generator().manual_seed(1)) < 0.4).float()
        found = calibrate(network, plan(4, scale="free").resolve(network, x), x, learning=True)
        attach(network, found)
        followed = Following().follow(network, found).units["1"]
        assert 1.0 / 1.5 <= followed.scale[0] / found.units["1"].scale[0] <= 1.5

    def test_a_learned_leak_is_followed(self) -> None:
        network = nn.Sequential(nn.Linear(8, 4), neuron.ParametricLIFNode(init_tau=20.0))
        x = torch.rand(6, 8)
        found = calibrate(network, plan(6).resolve(network, x), x)
        attach(network, found)
        with torch.no_grad():
            network[1].w.fill_(0.5)
        followed = Following().follow(network, found)
        fmt = followed.of_layer("1")["decay"].format
        assert isinstance(fmt, FixedPointFormat)
        assert fmt.max >= float(torch.tensor(0.5).sigmoid())
        assert found.of_layer("1")["decay"].format != fmt

    def test_later_batches_are_looked_at_now_and_then(self) -> None:
        network = grouped().train()
        found = calibrate(network, plan(8).resolve(network, half_blank()), half_blank())
        attach(network, found)
        _, following = follow(network, found, SETTLING + 4 * EVERY)
        assert following.ranges["2.v"].batches == SETTLING + 4
        again = Following.from_state_dict(json.loads(json.dumps(following.state_dict())))
        assert again == following

    def test_a_batch_that_diverges_changes_nothing(self) -> None:
        network = grouped().eval()
        found = calibrate(network, plan(8).resolve(network, half_blank()), half_blank())
        attach(network, found)
        found, following = follow(network, found, 2)
        before = following.state_dict()["ranges"]
        following.begin_batch(network, found)
        network(torch.full_like(half_blank(), float("nan")))
        following.end_batch(network, found)
        assert following.follow(network, found) == found
        assert following.state_dict()["ranges"] == before
        assert "2.v: a batch held values that are not finite" in following.failures["2"]


def parts(fmt: Any) -> tuple[FixedPointFormat, ...]:
    return fmt.formats if isinstance(fmt, PerChannelFormat) else (fmt,)


class TwoInputs(nn.Module):
    """Called on two tensors, the second by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = made("sequential")

    def forward(self, x: Tensor, *, gain: Tensor) -> Tensor:
        return self.inner(x * gain)


class TestCalibrating:
    def test_any_way_of_calling(self) -> None:
        network, gain = TwoInputs(), torch.tensor(2.0)
        found = plan().resolve(network.inner, pixels())
        expected = calibrate(network.inner, found, pixels() * 2.0)
        again = calibrate(network.inner, found, (pixels() * 2.0,))
        assert again == expected
        whole = inspected(network, gain)
        named = calibrate(network, whole, {"x": pixels(), "gain": gain})
        assert [t.format for t in named.tensors] == [t.format for t in expected.tensors]

    @pytest.mark.parametrize("run", [[torch.rand(2, 8)], 3, "x"])
    def test_anything_else_is_refused(self, run: Any) -> None:
        network = made("sequential")
        found = plan().resolve(network, pixels())
        said = f"calibrate: run is a {type(run).__name__}; give a function that runs the module"
        with pytest.raises(TypeError, match=said):
            calibrate(network, found, run)

    def test_an_input_that_is_not_binary_after_all(self) -> None:
        network = nn.Sequential(nn.Linear(8, 6), neuron.IFNode())
        events = (torch.rand(4, 8) > 0.5).float()
        found = plan().resolve(network, events)
        assert calibrate(network, found, events).is_calibrated
        with pytest.raises(NotBinaryError, match=r"0: the input was 0 or 1 in the pass") as caught:
            calibrate(network, found, 2.0 * events)
        assert caught.value.layers == ("0",)
        assert calibrate(network, plan().resolve(network, 2.0 * events), events).is_calibrated


def inspected(network: nn.Module, gain: Tensor) -> ResolvedPlan:
    from qspinn.plan import inspect, resolve

    using = QuantizationPlan.uniform(word_length=8)
    return resolve(using, inspect(network, run=lambda: network(pixels(), gain=gain)))


def test_a_batch_that_is_looked_at_steps_without_compilation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a compiled step holds cannot be seen; the numbers are the same."""
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("compiled"))
    network = grouped().train()
    found = calibrate(network, plan(6).resolve(network, half_blank()), half_blank())
    attach(network, found, compile_steps=True)
    following = Following()
    following.begin_batch(network, found)
    spikes = network(half_blank())
    following.end_batch(network, found)
    assert following.ranges["2.v"].batches == 1
    plain = attach(grouped().train(), found)
    assert torch.equal(spikes, plain(half_blank()))
