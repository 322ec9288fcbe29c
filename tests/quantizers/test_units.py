"""Layers that count in units of their own: exact, in integers, and the network that was meant."""

from __future__ import annotations

import copy
import io
import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

from qspinn.export import device_model, verify
from qspinn.fixed_point import FixedPointFormat
from qspinn.networks import ConvSNN, NeuronSettings
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import (
    attach,
    calibrate,
    detach,
    integer_codes,
    load_quantized,
    plan_of,
    quantize_module,
    save_quantized,
)
from qspinn.quantizers.neuron import network_potentials

STEPS = 6


def inputs(*shape: int, seed: int = 0, rate: float = 0.4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator) < rate).float()


def network(node: nn.Module, seed: int = 0, gain: float = 1.5) -> nn.Module:
    torch.manual_seed(seed)
    made = nn.Sequential(layer.Linear(12, 5), node)
    with torch.no_grad():
        made[0].weight.mul_(gain * torch.tensor([[0.2], [1.0], [3.0], [0.7], [1.3]]))
    functional.set_step_mode(made, "m")
    return made


def with_thresholds(values: list[Any]) -> nn.Module:
    """A stranger's neurons, of several thresholds."""
    node: Any = neuron.SimpleIFNode(v_threshold=1.0, v_reset=None)
    node.v_threshold = torch.tensor(values)
    return network(node)


def nodes(reset: float | None) -> list[nn.Module]:
    return [
        neuron.IFNode(v_threshold=0.9, v_reset=reset),
        neuron.LIFNode(tau=2.0, v_threshold=0.9, v_reset=reset, decay_input=False),
        neuron.LIFNode(tau=4.0, v_threshold=0.9, v_reset=reset, decay_input=True),
    ]


class Real:
    """One layer in the potentials of the network itself, in exact rationals.

    Weights are ``scale * code * 2^-f`` with any scale, and the potential is rounded to whole
    multiples of ``scale``, between ends that are as far from rest as the codes say.
    """

    def __init__(self, net: Any) -> None:
        plan, codes = plan_of(net), integer_codes(net)
        unit = plan.units["1"]
        node = net[1]
        channels = net[0].out_features
        self.reset = None if node.v_reset is None else Fraction(node.v_reset)
        rest = self.reset or Fraction(0)
        membrane = plan.of_layer("1")["v"].format
        assert isinstance(membrane, FixedPointFormat)
        step, origin = Fraction(membrane.step), Fraction(unit.rest)
        thresholds = codes["1.v_threshold"]
        held = thresholds.codes.reshape(-1).tolist() * (channels // thresholds.codes.numel())
        threshold = [Fraction(one) * Fraction(thresholds.format.step) for one in held]
        # The scale for which the threshold is exactly that of the network.
        gap = Fraction(node.v_threshold) - rest
        self.scale = [gap / (one - origin) for one in threshold]
        self.threshold, self.rest, self.origin, self.step = node.v_threshold, rest, origin, step
        self.ends = (Fraction(membrane.min), Fraction(membrane.max))
        self.weight = _values(codes["0.weight"])
        self.bias = [one[0] for one in _values(codes["0.bias"])]
        self.leak = None
        if "1.decay" in codes:
            self.leak = Fraction(float(codes["1.decay"].codes) * codes["1.decay"].format.step)
        self.decay_input = bool(getattr(node, "decay_input", True))

    def run(self, x: Tensor) -> tuple[list[list[int]], list[list[Fraction]]]:
        """Spikes and potentials in units, of each step, for inputs ``[T, inputs]``."""
        v = [self.rest] * len(self.scale)
        spikes, potentials = [], []
        for arrived in x.long().tolist():
            fired = []
            for j, scale in enumerate(self.scale):
                row = self.weight[j]
                current = sum((w for w, one in zip(row, arrived, strict=True) if one), Fraction(0))
                h = self._charged(v[j], (current + self.bias[j]) * scale)
                h = self._held(h, scale)
                fires = h >= Fraction(self.threshold)
                fired.append(int(fires))
                if fires:
                    h = self.rest if self.reset is not None else h - Fraction(self.threshold)
                v[j] = self._held(h, scale)
            spikes.append(fired)
            above = [(one - self.rest) / scale for one, scale in zip(v, self.scale, strict=True)]
            potentials.append([one + self.origin for one in above])
        return spikes, potentials

    def _charged(self, v: Fraction, x: Fraction) -> Fraction:
        if self.leak is None:
            return v + x
        above = v - self.rest
        return v + self.leak * (x - above) if self.decay_input else v + x - self.leak * above

    def _held(self, v: Fraction, scale: Fraction) -> Fraction:
        """On the grid, and within its ends."""
        steps = (v - self.rest) / scale / self.step
        code = ((steps + Fraction(1, 2)) // 1) * self.step
        low, high = (end - self.origin for end in self.ends)
        return self.rest + scale * min(max(code, low), high)


def _values(held: Any) -> list[list[Fraction]]:
    formats = getattr(held.format, "formats", [held.format])
    rows = held.codes.reshape(len(held.codes), -1).tolist()
    return [
        [Fraction(code) * Fraction(formats[j % len(formats)].step) for code in row]
        for j, row in enumerate(rows)
    ]


def check_against_rationals(quantized: Any, x: Tensor) -> int:
    """Compares spikes and potentials of every step; returns how many spikes there were."""
    quantized[1].store_v_seq = True
    with torch.no_grad():
        found = quantized(x.unsqueeze(1))[:, 0]
    held = quantized[1].v_seq[:, 0]
    functional.reset_net(quantized)
    spikes, potentials = Real(quantized).run(x)
    assert found.long().tolist() == spikes
    expected = [[Fraction(one) for one in row] for row in held.double().tolist()]
    assert expected == potentials
    return int(found.sum())


@pytest.mark.few(0.2, "campaign")
@pytest.mark.parametrize("reset", [None, 0.0, 0.3])
@pytest.mark.parametrize("kind", [0, 1, 2], ids=["if", "lif", "lif with decaying input"])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_equals_the_network_in_its_own_potentials(
    reset: float | None, kind: int, granularity: str, bits: int
) -> None:
    net = network(nodes(reset)[kind], gain=4.0)
    roles = {"decay": {"word_length": 8}} if kind else {}
    plan = QuantizationPlan.uniform(bits, scale="free", granularity=granularity, roles=roles)
    quantized = quantize_module(net, plan, inputs(STEPS, 16, 12))
    assert set(plan_of(quantized).units) == {"1"}
    total = sum(
        check_against_rationals(quantized, inputs(STEPS, 12, seed=seed)) for seed in range(1, 4)
    )
    assert total > 0


@settings(max_examples=15)
@given(
    seed=st.integers(0, 1 << 20),
    gain=st.floats(0.3, 6.0),
    bits=st.integers(2, 9),
    weights=st.integers(1, 5),
    levels=st.sampled_from(["all", "symmetric"]),
    membrane=st.integers(2, 12),
    threshold=st.integers(1, 12),
    below=st.sampled_from(["free", "power_of_two"]),
    granularity=st.sampled_from(["tensor", "channel"]),
    kind=st.integers(0, 2),
    reset=st.sampled_from([None, 0.0, -0.4]),
)
def test_any_word_lengths(
    seed: int,
    gain: float,
    bits: int,
    weights: int,
    levels: str,
    membrane: int,
    threshold: int,
    below: str,
    granularity: str,
    kind: int,
    reset: float | None,
) -> None:
    plan = QuantizationPlan.uniform(
        bits,
        scale="free",
        granularity=granularity,
        roles={
            "weight": {"word_length": weights, "levels": levels},
            "membrane": {"word_length": membrane, "scale": below},
            "threshold": {"word_length": threshold},
            **({"decay": {"word_length": 8}} if kind else {}),
        },
    )
    net = network(nodes(reset)[kind], seed, gain)
    quantized = quantize_module(net, plan, inputs(STEPS, 4, 12, seed=seed))
    check_against_rationals(quantized, inputs(STEPS, 12, seed=seed + 1))


def convolutional(step_mode: str = "m", **settings: Any) -> nn.Module:
    torch.manual_seed(1)
    made = ConvSNN((2, 8, 8), 3, (4, 6), 3, hidden=5, population=2, **settings)
    functional.set_step_mode(made, step_mode)
    return made


NEURONS = {
    "hard reset": NeuronSettings(),
    "another reset": NeuronSettings(v_reset=-0.5, decay_input=True),
    "soft reset": NeuronSettings(v_reset=None),
    "if": NeuronSettings(kind="if"),
    "plif": NeuronSettings(kind="plif"),
}


@pytest.mark.few(0.2, "campaign")
@pytest.mark.parametrize("settings", NEURONS.values(), ids=NEURONS.keys())
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_engines_give_what_the_network_gives(
    settings: NeuronSettings, granularity: str, step_mode: str
) -> None:
    net = convolutional(step_mode, neuron=settings, batch_norm=step_mode == "m")
    x = inputs(6, 4, 2, 8, 8)
    plan = QuantizationPlan.uniform(4, scale="free", granularity=granularity)
    quantized = quantize_module(net, plan, x)
    assert len(plan_of(quantized).units) == 4
    model = device_model(quantized, x[:1])
    assert verify(model, quantized, x).equal


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_potentials_as_the_network_counts_them(granularity: str) -> None:
    """Above rest by the share of the way to the threshold that they are in units."""
    net = network(neuron.IFNode(v_threshold=0.9, v_reset=0.3), gain=4.0)
    plan = QuantizationPlan.uniform(4, scale="free", granularity=granularity)
    quantized: Any = quantize_module(net, plan, inputs(STEPS, 16, 12))
    quantized(inputs(STEPS, 3, 12))
    unit, v = plan_of(quantized).units["1"], quantized[1].v.double()
    threshold = integer_codes(quantized)["1.v_threshold"].codes.reshape(-1).double()
    share = (v - unit.rest) / (threshold - unit.rest)
    assert torch.allclose(network_potentials(quantized[1], v), 0.3 + share * 0.6)
    assert torch.equal(network_potentials(net[1], v), v)  # type: ignore[index]


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_both_step_modes_agree(granularity: str) -> None:
    x = inputs(6, 4, 2, 8, 8)
    plan = QuantizationPlan.uniform(3, scale="free", granularity=granularity)
    outputs = []
    for mode in ("s", "m"):
        quantized = quantize_module(convolutional(mode), plan, x)
        outputs.append(quantized(x))
    assert torch.equal(*outputs)
    assert outputs[0].any()


@pytest.mark.few(0.25)
@pytest.mark.parametrize("rounding", ["truncate", "stochastic", "toward_zero", "nearest_even"])
def test_every_rounding(rounding: str) -> None:
    x = inputs(6, 4, 2, 8, 8)
    plan = QuantizationPlan.uniform(6, rounding, scale="free", granularity="channel")
    quantized = quantize_module(convolutional(), plan, x)
    assert verify(device_model(quantized, x[:1]), quantized, x).equal


def test_thresholds_for_each_channel_of_a_stranger() -> None:
    net: Any = with_thresholds([0.3, 0.6, 0.9, 1.2, 1.5])
    x = inputs(STEPS, 16, 12)
    for granularity in ("tensor", "channel"):
        plan = QuantizationPlan.uniform(5, scale="free", granularity=granularity)
        quantized = quantize_module(net, plan, x)
        codes = integer_codes(quantized)["1.v_threshold"].codes
        assert codes.numel() == 5
        unit = plan_of(quantized).units["1"]
        nearest = (net[1].v_threshold.double() / unit.tensor + unit.rest).round()
        assert torch.equal(codes.reshape(-1).double(), nearest)


def test_few_bits_lose_less_than_with_powers_of_two() -> None:
    """Weights of 2 bits whose sizes are no powers of two."""
    torch.manual_seed(0)
    net: Any = network(neuron.IFNode(v_threshold=1.0))
    with torch.no_grad():
        sizes = torch.tensor([[0.11], [0.19], [0.27], [0.37], [0.61]])
        net[0].weight.copy_(sizes * torch.randint(-1, 2, (5, 12)))
        net[0].bias.zero_()
    x = inputs(20, 16, 12)
    with torch.no_grad():
        expected = net(x)
    functional.reset_net(net)
    wrong = {}
    for scale in ("power_of_two", "free"):
        plan = QuantizationPlan.uniform(
            8,
            scale=scale,
            granularity="channel",
            roles={"weight": {"word_length": 2, "granularity": "channel"}},
        )
        wrong[scale] = float((quantize_module(net, plan, x)(x) != expected).float().mean())
    assert wrong["free"] < wrong["power_of_two"] / 4


class TestTheModuleItself:
    """What becomes of a module that is told its units, and forgets them."""

    def test_detach_gives_back_the_float_network(self) -> None:
        net, x = convolutional(batch_norm=True).eval(), inputs(6, 4, 2, 8, 8)
        state = {name: value.clone() for name, value in net.state_dict().items()}
        before = net(x)
        functional.reset_net(net)
        plan = QuantizationPlan.uniform(3, scale="free").resolve(net, x)
        attach(net, calibrate(net, plan, x))
        net(x)
        detach(net)
        assert torch.equal(net(x), before)
        assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())

    @pytest.mark.parametrize("granularity", ["tensor", "channel"])
    def test_copies_pickles_and_files(self, granularity: str, tmp_path: Path) -> None:
        x = inputs(6, 4, 2, 8, 8)
        plan = QuantizationPlan.uniform(3, scale="free", granularity=granularity)
        quantized = quantize_module(convolutional(), plan, x)
        expected = quantized(x)
        functional.reset_net(quantized)
        save_quantized(quantized, tmp_path / "net.pt")
        buffer = io.BytesIO()
        torch.save(quantized, buffer)
        buffer.seek(0)
        others = [
            copy.deepcopy(quantized),
            pickle.loads(pickle.dumps(quantized)),
            torch.load(buffer, weights_only=False),
            load_quantized(convolutional(), tmp_path / "net.pt"),
        ]
        assert all(torch.equal(one.eval()(x), expected) for one in others)

    @pytest.mark.few(0.25)
    @pytest.mark.parametrize("batch_norm", [False, True])
    @pytest.mark.parametrize("granularity", ["tensor", "channel"])
    def test_gradients_are_those_of_the_network(self, batch_norm: bool, granularity: str) -> None:
        """In long words there is nothing to tell the two apart."""
        x = inputs(6, 4, 2, 8, 8)
        found = []
        for bits in (None, 16):
            net = convolutional(batch_norm=batch_norm).eval()
            if bits is not None:
                plan = QuantizationPlan.uniform(bits, scale="free", granularity=granularity)
                attach(net, calibrate(net, plan.resolve(net, x), x, learning=True))
            net.train(batch_norm)
            weights = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
            (net(x) * weights).sum().backward()
            found.append({name: one.grad for name, one in net.named_parameters()})
        for name, expected in found[0].items():
            assert expected is not None
            given_one = found[1][name]
            assert given_one is not None
            wrong = float((given_one - expected).norm() / (1e-4 + expected.norm()))
            assert wrong < 0.02, name


class TestWhatCannotBe:
    """Errors name the layer and the way out."""

    def test_a_threshold_that_is_not_above_rest(self) -> None:
        net = network(neuron.IFNode(v_threshold=0.5, v_reset=0.5))
        with pytest.raises(ValueError, match=r"1: scale=free needs thresholds above .* is 0 above"):
            quantize_module(net, QuantizationPlan.uniform(4, scale="free"), inputs(STEPS, 4, 12))

    def test_a_membrane_of_one_bit_around_zero(self) -> None:
        net = network(neuron.IFNode(v_reset=None))
        plan = QuantizationPlan.uniform(4, scale="free", roles={"membrane": {"word_length": 1}})
        with pytest.raises(ValueError, match="1: a membrane of 1 bit holds no threshold"):
            quantize_module(net, plan, inputs(STEPS, 4, 12))

    def test_weights_that_are_not_finite(self) -> None:
        net: Any = network(neuron.IFNode())
        with torch.no_grad():
            net[0].weight[0, 0] = float("nan")
        with pytest.raises(ValueError, match="not finite"):
            quantize_module(net, QuantizationPlan.uniform(4, scale="free"), inputs(STEPS, 4, 12))

    def test_data_is_needed(self) -> None:
        net = network(neuron.IFNode())
        plan = QuantizationPlan.uniform(4, scale="free").resolve(net, inputs(STEPS, 2, 12))
        with pytest.raises(ValueError, match="is calibrated on data"):
            calibrate(net, plan)


def test_a_membrane_of_one_bit_below_its_threshold() -> None:
    """It tells rest from nothing, so that a neuron spikes by the current of one step alone."""
    net = network(neuron.IFNode())
    plan = QuantizationPlan.uniform(4, scale="free", roles={"membrane": {"word_length": 1}})
    quantized = quantize_module(net, plan, inputs(STEPS, 8, 12))
    assert check_against_rationals(quantized, inputs(STEPS, 12, seed=5)) > 0


def test_silent_channels() -> None:
    """Weights that are all 0 suit every unit."""
    net: Any = network(neuron.IFNode())
    with torch.no_grad():
        net[0].weight[1] = 0.0
        net[0].bias[1] = 0.0
    for granularity in ("tensor", "channel"):
        plan = QuantizationPlan.uniform(3, scale="free", granularity=granularity)
        quantized = quantize_module(net, plan, inputs(STEPS, 8, 12))
        check_against_rationals(quantized, inputs(STEPS, 12, seed=5))
