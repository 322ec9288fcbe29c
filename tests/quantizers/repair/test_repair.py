"""Repairs of whole networks: what they change, what they leave, and where the values go."""

import copy
import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

from qspinn.export import IntegerEngine, device_model, encode
from qspinn.plan import QuantizationPlan, ResolvedPlan
from qspinn.quantizers import (
    attach,
    calibrate,
    detach,
    integer_codes,
    load_quantized,
    plan_of,
    quantize_module,
    quantized_parameters,
    save_quantized,
)
from qspinn.quantizers.repair import REPAIRS, as_repairs, repair
from tests.quantizers.networks import made

ALL = "+".join(REPAIRS)
FEW = QuantizationPlan.uniform(word_length=3)


class Layers(nn.Module):
    """A convolution with a batch norm, a grouped one with a bias, and a linear readout."""

    def __init__(self, step_mode: str = "m", norm: bool = True) -> None:
        super().__init__()
        self.conv = layer.Conv2d(1, 4, 3, padding=1, bias=not norm)
        self.norm = layer.BatchNorm2d(4) if norm else nn.Identity()
        self.first = neuron.LIFNode(tau=2.0, decay_input=False)
        self.grouped = layer.Conv2d(4, 4, 3, stride=2, groups=2)
        self.second = neuron.IFNode(v_threshold=0.75, v_reset=None)
        self.flatten = layer.Flatten()
        self.out = layer.Linear(16, 5)
        self.last = neuron.ParametricLIFNode(2.0)
        functional.set_step_mode(self, step_mode)
        self.step_mode = step_mode

    def forward(self, x: Tensor) -> Tensor:
        return self.steps(x) if self.step_mode == "m" else torch.stack([self.steps(s) for s in x])

    def steps(self, x: Tensor) -> Tensor:
        x = self.first(self.norm(self.conv(x)))
        return self.last(self.out(self.flatten(self.second(self.grouped(x)))))


def network(step_mode: str = "m", norm: bool = True, seed: int = 0) -> Layers:
    torch.manual_seed(seed)
    made_ = Layers(step_mode, norm)
    for child in made_.modules():
        if isinstance(child, nn.Linear | nn.Conv2d):
            nn.init.normal_(child.weight, 0.1, 0.5)
        if isinstance(child, nn.BatchNorm2d):
            child.running_mean.uniform_(-0.2, 0.2)
            child.running_var.uniform_(0.3, 2.0)
            nn.init.uniform_(child.bias, -0.2, 0.6)
    return made_.eval()


def inputs(seed: int = 1, samples: int = 6) -> Tensor:
    """Spikes ``[T, N, 1, 6, 6]``."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand((5, samples, 1, 6, 6), generator=generator) < 0.4).float()


BATCHES = [inputs(seed) for seed in range(3)]


def answer(module: nn.Module, x: Tensor) -> Tensor:
    functional.reset_net(module)
    with torch.no_grad():
        y: Tensor = module(x)
    functional.reset_net(module)
    return y


def resolved(module: nn.Module, plan: QuantizationPlan = FEW) -> ResolvedPlan:
    def run() -> None:
        for x in BATCHES:
            answer(module, x)

    return calibrate(module, plan.resolve(module, BATCHES[0]), run)


def repaired(module: nn.Module, repairs: str, plan: QuantizationPlan = FEW) -> Any:
    runs = [lambda x=x: answer(module, x) for x in BATCHES]
    return repair(module, resolved(module, plan), runs, repairs)


def seen(module: nn.Module, path: str, of_input: bool) -> list[Tensor]:
    """What a layer takes, or puts out, on each batch."""
    found: list[Tensor] = []
    child = module.get_submodule(path)
    handle = child.register_forward_hook(
        lambda _, args, out: found.append(args[0] if of_input else out)
    )
    for x in BATCHES:
        answer(module, x)
    handle.remove()
    return found


def in_sequences(calls: list[Tensor]) -> list[Tensor]:
    """Calls of single steps, as a sequence per batch."""
    return [torch.stack(calls[at : at + 5]) for at in range(0, len(calls), 5)]


def drift(sent: list[Tensor], wanted: list[Tensor]) -> np.ndarray:
    """The squared difference of answers, summed up over time, per channel; by NumPy."""
    total = np.zeros(sent[0].shape[2])
    for one, other in zip(sent, wanted, strict=True):
        level = np.zeros(one.shape[1:])
        for a, b in zip(one.numpy(), other.numpy(), strict=True):
            level = 0.99 * level + (a - b)
            total += (level**2).reshape(len(level), len(total), -1).sum((0, 2))
    return total


@pytest.mark.few(0.1)
@pytest.mark.parametrize("repairs", ["learned", "bias", "threshold", ALL])
@pytest.mark.parametrize("norm", [True, False])
def test_the_first_layer_answers_no_worse_than_without(repairs, norm):
    module = network(norm=norm)
    wanted = seen(module, "first", of_input=False)
    found = repaired(module, repairs)
    plain = attach(copy.deepcopy(module), resolved(module))
    better = attach(copy.deepcopy(module), found.plan, repaired=found.values)
    before = drift(seen(plain, "first", of_input=False), wanted)
    after = drift(seen(better, "first", of_input=False), wanted)
    assert after.sum() <= before.sum()
    if repairs in ("learned", "bias"):
        assert (after <= before).all()


@pytest.mark.parametrize("repairs", ["learned", "bias"])
def test_a_layer_without_neurons_behind_it_gives_no_worse_currents(repairs):
    torch.manual_seed(0)
    module = nn.Sequential(layer.Linear(36, 7, step_mode="m")).eval()
    x = [one.flatten(2) for one in BATCHES]
    plan = QuantizationPlan.uniform(3, allow_no_neurons=True)
    found = plan.resolve(module, x[0])
    found = calibrate(module, found, x[0])
    better = repair(module, found, [lambda one=one: module(one) for one in x], repairs)

    def errors(quantised: nn.Module) -> np.ndarray:
        with torch.no_grad():
            gaps = torch.cat([quantised(one) - module(one) for one in x]).numpy()
        error: np.ndarray = (gaps**2).mean((0, 1)) if repairs == "learned" else gaps.mean((0, 1))
        return np.abs(error)

    before = errors(attach(copy.deepcopy(module), found))
    after = errors(attach(copy.deepcopy(module), better.plan, repaired=better.values))
    assert (after <= before + 1e-6).all()
    assert after.sum() < before.sum()


def test_the_bias_alone_moves_the_mean_to_the_nearest_that_its_grid_has():
    """Against NumPy, by the currents of a layer that no neuron takes."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(36, 7)).eval()
    x = BATCHES[0].flatten(0, 1).flatten(1)
    rules = [{"role": "weight", "word_length": 2}, {"role": "bias", "format": "Q0.4"}]
    plan = QuantizationPlan.from_rules(rules, allow_no_neurons=True)
    found = calibrate(module, plan.resolve(module, x), x)
    values = repair(module, found, [lambda: module(x)], "bias").values
    held = dict(quantized_parameters(attach(copy.deepcopy(module), found)))
    exact, mean = module[0].weight.detach().double().numpy(), x.double().numpy().mean(0)
    wanted = exact @ mean + module[0].bias.detach().double().numpy()
    wanted -= held["0.weight"].double().numpy() @ mean
    nearest = np.clip(np.floor(wanted * 16 + 0.5) / 16, -1, 15 / 16)
    assert list(values) == ["0.bias", "0.weight"] or "0.bias" in values
    np.testing.assert_array_equal(values["0.bias"].numpy(), nearest)
    assert torch.equal(values.get("0.weight", held["0.weight"]), held["0.weight"])


@pytest.mark.few(0.2)
@pytest.mark.parametrize("repairs", ["learned", "bias", ALL])
def test_both_step_modes_give_the_same_values(repairs):
    multi, single = network("m"), network("s")
    single.load_state_dict(multi.state_dict())
    one, other = repaired(multi, repairs), repaired(single, repairs)
    assert one.plan == other.plan
    assert one.values.keys() == other.values.keys()
    for path, value in one.values.items():
        assert torch.equal(value, other.values[path]), path


def test_the_same_twice_and_the_network_as_it_was():
    module = network()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    before = answer(module, BATCHES[0])
    torch.manual_seed(5)
    random = torch.get_rng_state()
    one, other = repaired(module, ALL), repaired(module, ALL)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(one.values[path], other.values[path]) for path in one.values)
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert torch.equal(answer(module, BATCHES[0]), before)


@pytest.mark.few(0.2)
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("rounding", ["nearest", "truncate", "stochastic"])
def test_integers_are_those_of_the_repaired_values(granularity, rounding):
    module = network()
    plan = QuantizationPlan.uniform(
        4, granularity=granularity, roles={"weight": {"rounding": rounding}}
    )
    found = repaired(module, ALL, plan)
    attach(module, found.plan, repaired=found.values)
    stored = dict(quantized_parameters(module))
    codes = integer_codes(module)
    assert {"conv.weight", "conv.bias", "first.v_threshold"} <= found.values.keys()
    for path, value in found.values.items():
        if path in stored:
            assert torch.equal(stored[path], value)
        one = codes[path]
        step = torch.tensor(
            [fmt.step for fmt in getattr(one.format, "formats", [one.format])]
        ).reshape(-1, *[1] * max(0, value.dim() - 1))
        assert torch.equal((one.codes * step).reshape(value.shape).to(value), value)


def check_engine(module, x):
    """The integer engine gives the answers of a repaired network, and they say something."""
    model = device_model(module, x[:, :1])
    found = IntegerEngine(model).run(encode(model, x, 1)).sums
    wanted = answer(module, x).numpy()
    assert 0 < wanted.sum() < wanted.size
    np.testing.assert_array_equal(found.reshape(wanted.shape), wanted)


@pytest.mark.parametrize("norm", [True, False])
def test_the_integer_engine_gives_the_answers_of_the_repaired_network(norm):
    check_engine(quantize_module(network(norm=norm), FEW, BATCHES, repair=ALL), inputs(9))


@pytest.mark.few(0.5)
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_the_integer_engine_where_neurons_count_in_units_of_their_own(granularity, tmp_path):
    plan = QuantizationPlan.uniform(3, scale="free", granularity=granularity)
    module = quantize_module(network(), plan, BATCHES, repair=ALL)
    assert plan_of(module).units
    x = inputs(9)
    check_engine(module, x)
    save_quantized(module, tmp_path / "network.pt")
    loaded = load_quantized(network(seed=7), tmp_path / "network.pt")
    assert torch.equal(answer(loaded, x), answer(module, x))


@pytest.mark.few(0.2)
@pytest.mark.parametrize("repairs", ["learned", "bias", "threshold"])
def test_in_units_of_its_own_the_first_layer_answers_no_worse(repairs):
    plan = QuantizationPlan.uniform(2, scale="free", granularity="channel")
    module = network()
    wanted = seen(module, "first", of_input=False)
    found = repaired(module, repairs, plan)
    plain = attach(copy.deepcopy(module), resolved(module, plan))
    better = attach(copy.deepcopy(module), found.plan, repaired=found.values)
    before = drift(seen(plain, "first", of_input=False), wanted)
    after = drift(seen(better, "first", of_input=False), wanted)
    assert (after <= before).all()


def test_copies_pickles_and_files_hold_what_was_repaired(tmp_path):
    module = network()
    quantised = quantize_module(module, FEW, BATCHES, repair=ALL)
    wanted = answer(quantised, inputs(9))
    assert not torch.equal(answer(quantize_module(module, FEW, BATCHES), inputs(9)), wanted)
    for copied in (copy.deepcopy(quantised), pickle.loads(pickle.dumps(quantised))):
        assert torch.equal(answer(copied, inputs(9)), wanted)
    save_quantized(quantised, tmp_path / "network.pt")
    loaded = load_quantized(network(seed=7), tmp_path / "network.pt")
    assert plan_of(loaded) == plan_of(quantised)
    assert torch.equal(answer(loaded, inputs(9)), wanted)


def test_detaching_gives_back_the_float_network():
    module = network()
    before = answer(module, inputs(9))
    quantised = quantize_module(module, FEW, BATCHES, repair=ALL)
    assert [n for n, _ in quantised.state_dict().items()] == list(module.state_dict())
    assert torch.equal(answer(detach(quantised), inputs(9)), before)


@pytest.mark.parametrize("name", ["step loop", "containers", "residual"])
def test_networks_of_other_shapes(name):
    """Torch's layers in a loop, in containers, and sums of two layers before a neuron."""
    module = made(name)
    x = torch.rand((6, 3, 3, 2, 2), generator=torch.Generator().manual_seed(1))
    one = quantize_module(module, FEW, [x, x.flip(1)], _run, repair=ALL)
    assert torch.equal(answer(one, x), answer(copy.deepcopy(one), x))


def _run(module: nn.Module, x: Tensor) -> Tensor:
    return answer(module, x)


class Tied(nn.Module):
    """Two layers that share one weight, and one that has its own."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
        self.two.weight = self.one.weight
        self.fire, self.last = neuron.IFNode(), neuron.IFNode()
        self.own = nn.Linear(6, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.own(self.last(self.two(self.fire(self.one(x)))))


def test_what_is_left_as_it_was_is_noted(caplog):
    torch.manual_seed(0)
    x = (torch.rand(8, 6) < 0.5).float()
    with caplog.at_level("INFO", logger="qspinn"):
        module = quantize_module(Tied(), FEW, x, _run, repair="learned+bias")
    (told,) = [one.getMessage() for one in caplog.records if "not repaired" in one.getMessage()]
    assert "one: shares its parameters with another layer" in told
    assert "two: shares its parameters with another layer" in told
    assert "own: has no bias to repair" in told
    stored = dict(quantized_parameters(module))
    assert torch.equal(stored["one.weight"], stored["two.weight"])


def test_biases_are_never_added():
    module = network()
    before = integer_codes(quantize_module(module, FEW, BATCHES)).keys()
    assert integer_codes(quantize_module(module, FEW, BATCHES, repair=ALL)).keys() == before


def test_thresholds_per_channel_move_one_by_one():
    module = network("s")
    module.first = neuron.SimpleIFNode(v_threshold=1.0, v_reset=None)
    module.first.v_threshold = torch.tensor([0.5, 0.75, 1.0, 1.25]).reshape(4, 1, 1)
    plan = QuantizationPlan.uniform(5, roles={"weight": {"word_length": 2}})
    wanted = in_sequences(seen(module, "first", of_input=False))
    found = repaired(module, "threshold", plan)
    value = found.values["first.v_threshold"]
    assert value.shape == (4, 1, 1)
    plain = attach(copy.deepcopy(module), resolved(module, plan))
    better = attach(copy.deepcopy(module), found.plan, repaired=found.values)
    before = drift(in_sequences(seen(plain, "first", of_input=False)), wanted)
    after = drift(in_sequences(seen(better, "first", of_input=False)), wanted)
    assert (after <= before).all()
    assert after.sum() < before.sum()


def test_a_threshold_of_a_stated_format_stays_in_it():
    module = network()
    roles = {"threshold": {"format": "UQ1.2"}, "membrane": {"format": "Q2.3"}}
    found = repaired(module, "threshold", QuantizationPlan.uniform(3, roles=roles))
    for path in ("first", "second", "last"):
        assert str(found.plan.of_layer(path)["v_threshold"].format) == "UQ1.2"
        assert 0.0 < float(found.values[f"{path}.v_threshold"]) <= 1.75


def test_a_repaired_layer_refuses_to_learn_and_to_load():
    module = quantize_module(network(), FEW, BATCHES, repair="learned")
    module.train()
    with pytest.raises(RuntimeError, match=r"conv.weight: was repaired .*cannot learn"):
        module(BATCHES[0])
    module.eval()
    with pytest.raises(RuntimeError, match=r"repaired .*detach"):
        module.load_state_dict(network(seed=3).state_dict())
    detach(module).load_state_dict(network(seed=3).state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: {"conv.weight": v["conv.weight"][:1]}, "conv.weight: the repaired value has"),
        (lambda v: {"conv.weight": v["conv.weight"] + 0.01}, "off the grid of Q1.1"),
        (lambda v: {"nothing.weight": v["conv.weight"]}, "nothing.weight: was repaired, but"),
    ],
)
def test_values_that_do_not_fit_are_refused(change, message):
    module = network()
    found = repaired(module, "learned")
    with pytest.raises(ValueError, match=message):
        attach(module, found.plan, repaired=change(dict(found.values)))


def test_what_cannot_be_repaired_is_said():
    module = network()
    plan = resolved(module)
    with pytest.raises(ValueError, match="no calibration data"):
        repair(module, plan, [], "learned")
    with pytest.raises(ValueError, match="unknown repair 'all'"):
        repair(module, plan, [lambda: None], "all")
    with pytest.raises(ValueError, match="has no formats yet"):
        repair(module, FEW.resolve(module, BATCHES[0]), [lambda: None], "bias")
    attach(module, plan)
    with pytest.raises(ValueError, match="quantizers are attached"):
        repair(module, plan, [lambda: None], "bias")


def test_none_changes_nothing():
    module = network()
    plan = resolved(module)
    found = repair(module, plan, [lambda: None], "none")
    assert (found.plan, dict(found.values), found.notes) == (plan, {}, ())


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("none", ()),
        (None, ()),
        ("bias", ("bias",)),
        ("bias+learned", ("learned", "bias")),
        (["threshold", "bias"], ("threshold", "bias")),
        (" bias + threshold ", ("threshold", "bias")),
    ],
)
def test_how_repairs_are_written(given, meant):
    assert as_repairs(given, "repair") == meant


@pytest.mark.parametrize("given", ["", "biases", "none+bias", "bias+bias", [], 3, ["bias", 1], {}])
def test_what_is_no_repair(given):
    with pytest.raises(ValueError, match=re.escape(f"here={given!r}")):
        as_repairs(given, "here")
