"""One call each: quantise, save, load, integer codes; and what to pass where it is wrong."""

import copy
import multiprocessing
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from qspinn.plan import QuantizationPlan, footprint_of, inspect, resolve
from qspinn.plan.summary import Summary
from qspinn.quantizers import (
    accumulator_word_lengths,
    attach,
    calibrate,
    detach,
    integer_codes,
    is_attached,
    load_quantized,
    plan_of,
    quantize_module,
    quantized_parameters,
    save_quantized,
)

PLAN = QuantizationPlan.uniform(word_length=6)


class Network(nn.Module):
    """Trained somewhere; takes images ``[N, 1, 6, 6]``."""

    def __init__(self, tau: float = 2.0, stride: int = 1, hidden: int = 5) -> None:
        super().__init__()
        self.conv = layer.Conv2d(1, 3, 3, stride, padding=1, bias=False)
        self.norm = layer.BatchNorm2d(3)
        self.lif = neuron.LIFNode(tau=tau)
        side = 6 if stride == 1 else 3
        self.hidden = layer.Linear(3 * side * side, hidden)
        self.fire = neuron.IFNode(v_threshold=0.5, v_reset=None)
        self.readout = layer.Linear(hidden, 4)

    def forward(self, x: Tensor, gain: Tensor | None = None) -> Tensor:
        x = x if gain is None else x * gain
        functional.reset_net(self)
        spikes = (self.fire(self.hidden(self.lif(self.norm(self.conv(x))).flatten(1))),)
        return sum(self.readout(one) for one in spikes)


def trained(seed: int = 0, **arguments: Any) -> Network:
    torch.manual_seed(seed)
    network = Network(**arguments)
    for _ in range(3):
        network(torch.rand(8, 1, 6, 6) * 4)  # statistics of the norm
    return network.eval()


IMAGES = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(1)) * 4
GAIN = torch.full((12, 1, 1, 1), 1.0)


def by_hand(network: nn.Module) -> nn.Module:
    """With the calls that there were before."""
    copied = copy.deepcopy(network)
    resolved = calibrate(copied, PLAN.resolve(copied, IMAGES), IMAGES)
    return attach(copied, resolved)


@pytest.mark.parametrize(
    ("batches", "run"),
    [
        (IMAGES, None),
        ([IMAGES], None),
        ([(IMAGES, GAIN)], None),
        ([{"x": IMAGES, "gain": GAIN}], None),
        ({"x": IMAGES}, None),
        (DataLoader(TensorDataset(IMAGES), batch_size=12), lambda one, batch: one(batch[0])),
        ((batch for batch in [IMAGES]), None),
        ([IMAGES.numpy()], lambda one, batch: one(torch.from_numpy(batch))),
    ],
    ids=["tensor", "list", "tuple", "dictionaries", "dictionary", "loader", "generator", "run"],
)
def test_any_way_of_calling(batches: Any, run: Any) -> None:
    network = trained()
    before = copy.deepcopy(network.state_dict())
    found = quantize_module(network, PLAN, batches, run)
    expected = by_hand(network)
    assert plan_of(found).formats() == plan_of(expected).formats()
    with torch.no_grad():
        assert torch.equal(found(IMAGES), expected(IMAGES))
        assert not torch.equal(found(IMAGES), network(IMAGES))
    assert not found.training
    assert not is_attached(network)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_calibration_takes_batches_in_any_form() -> None:
    network, formats = trained(), []
    for batch in (IMAGES, (IMAGES, GAIN), {"x": IMAGES, "gain": GAIN}):
        formats.append(calibrate(network, PLAN.resolve(network, batch), batch).formats())
    assert formats[0] == formats[1] == formats[2]


def test_what_stays_in_float_is_warned_of_once() -> None:
    network = nn.Sequential(
        layer.Conv2d(1, 4, 3, padding=1), layer.AvgPool2d(3), layer.Flatten(), nn.GELU(),
        layer.Linear(16, 3), neuron.LIFNode(),
    )  # fmt: skip
    with pytest.warns(
        UserWarning, match=r"average over 9 values: 1\n  on no grid: gelu: 3"
    ) as found:
        quantize_module(network, PLAN, IMAGES)
    assert len(found) == 1
    assert found[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantize_module(trained(), PLAN, IMAGES)
        # What the plan leaves in float is no surprise.
        rule = {"layers": "readout", "format": "float32"}
        quantize_module(trained(), QuantizationPlan.uniform(rules=[rule]), IMAGES)


def test_a_plan_may_be_a_dictionary_and_batches_are_limited() -> None:
    seen: list[float] = []

    def run(one: nn.Module, batch: Tensor) -> None:
        seen.append(float(batch.sum()))
        one(batch)

    batches = list(IMAGES.split(2))
    quantize_module(trained(), PLAN.to_dict(), batches, run, calibration_batches=3)
    assert set(seen) == {float(batch.sum()) for batch in batches[:3]}


def test_the_plan_of_a_module() -> None:
    quantized = quantize_module(trained(), PLAN, IMAGES)
    plan = plan_of(quantized)
    assert plan.is_calibrated
    assert isinstance(plan.summary(), Summary)
    assert plan_of(copy.deepcopy(quantized)).formats() == plan.formats()
    detach(quantized)
    with pytest.raises(ValueError, match="no quantizers were attached to this Network"):
        plan_of(quantized)


def test_quantising_in_inference_mode_leaves_a_module_that_can_be_trained() -> None:
    with torch.inference_mode():
        quantized = quantize_module(trained(), PLAN, IMAGES.clone())
    quantized.train()(IMAGES).sum().backward()
    assert quantized.conv.weight.grad is not None


def test_integer_codes_are_what_a_device_stores() -> None:
    """Against the rounding of the folded parameters in NumPy, by formats read off the text."""
    network = trained()
    quantized = quantize_module(network, PLAN, IMAGES)
    codes, plan = integer_codes(quantized), plan_of(quantized)
    norm = network.norm
    scale = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach().double().numpy()
    shift = norm.bias.detach().double().numpy() - norm.running_mean.double().numpy() * scale
    values = {
        "conv.weight": network.conv.weight.detach().double().numpy() * scale[:, None, None, None],
        "conv.bias": shift,
        "hidden.weight": network.hidden.weight.detach().double().numpy(),
        "hidden.bias": network.hidden.bias.detach().double().numpy(),
        "readout.weight": network.readout.weight.detach().double().numpy(),
        "readout.bias": network.readout.bias.detach().double().numpy(),
        "lif.v_threshold": np.array(1.0),
        "lif.decay": np.array(0.5),
        "fire.v_threshold": np.array(0.5),
    }
    assert set(codes) == set(values)
    for path, value in values.items():
        text = plan.formats()[path]["format"]
        signed, (_, fraction) = not text.startswith("U"), text.lstrip("UQ").split(".")
        lowest, highest = (-32, 31) if signed else (0, 63)
        expected = np.clip(np.floor(value * 2.0 ** int(fraction) + 0.5), lowest, highest)
        found = codes[path].codes
        assert not found.is_floating_point()
        assert str(codes[path].format) == text
        # In float32 a folded weight may lie on the other side of a half: one step at most.
        assert np.abs(found.numpy() - expected).max() <= (1 if path.startswith("conv") else 0)
        assert np.mean(found.numpy() == expected) > 0.9


def test_integer_codes_per_channel_and_what_stays_in_float() -> None:
    plan = QuantizationPlan.uniform(
        word_length=4, granularity="channel", rules=[{"layers": "readout", "format": "float32"}]
    )
    quantized = quantize_module(trained(), plan, IMAGES)
    codes = integer_codes(quantized)
    assert not any(path.startswith("readout") for path in codes)
    one = codes["conv.weight"]
    assert int(one.codes.abs().max()) <= 8
    steps = torch.tensor([part.step for part in one.format.formats])
    bias_free = one.codes * steps[:, None, None, None]
    scale = quantized.norm.weight / torch.sqrt(quantized.norm.running_var + quantized.norm.eps)
    folded = quantized.conv.weight * scale[:, None, None, None]
    assert ((bias_free - folded).abs() <= steps[:, None, None, None]).all()


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, nn.Module]:
    quantized = quantize_module(trained(), PLAN, IMAGES)
    save_quantized(quantized, tmp_path / "network.pt")
    return tmp_path / "network.pt", quantized


def test_what_is_loaded_computes_the_same(saved: Any) -> None:
    path, quantized = saved
    fresh = Network()
    assert load_quantized(fresh, str(path)) is fresh
    fresh.eval()
    with torch.no_grad():
        assert torch.equal(fresh(IMAGES), quantized(IMAGES))
    assert plan_of(fresh).to_dict() == plan_of(quantized).to_dict()
    for key, one in integer_codes(quantized).items():
        assert torch.equal(integer_codes(fresh)[key].codes, one.codes)
    assert [path.name for path in path.parent.iterdir()] == ["network.pt"]


def _loaded_elsewhere(path: Path, queue: Any) -> None:
    torch.manual_seed(99)
    network = load_quantized(Network(), path).eval()
    with torch.no_grad():
        queue.put(network(IMAGES).tolist())


def test_what_is_loaded_in_another_process_computes_the_same(saved: Any) -> None:
    path, quantized = saved
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_loaded_elsewhere, args=(path, queue))
    process.start()
    found = queue.get(timeout=60)
    process.join()
    with torch.no_grad():
        assert found == quantized(IMAGES).tolist()


class Smaller(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = layer.Conv2d(1, 3, 3, padding=1, bias=False)


class OtherNeuron(Network):
    def __init__(self) -> None:
        super().__init__()
        self.lif = neuron.ParametricLIFNode()


class More(Network):
    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Parameter(torch.zeros(1))


@pytest.mark.parametrize(
    ("make", "difference"),
    [
        (Smaller, "it has no layer 'norm'|it has no layer 'lif'"),
        (OtherNeuron, r"lif \(ParametricLIFNode\) was a LIFNode"),
        (lambda: Network(hidden=6), r"hidden.weight has the shape \(6, 108\), not \(5, 108\)"),
        (More, "the file has no extra"),
        (lambda: Network(tau=3.0), "lif: tau is 3.0, not 2.0"),
        (lambda: Network(stride=2), r"hidden.weight has the shape|conv: stride is \(2, 2\)"),
    ],
    ids=["layer", "class", "shape", "parameter", "constant", "stride"],
)
def test_a_file_of_another_network_is_refused(saved: Any, make: Any, difference: str) -> None:
    path, _ = saved
    module = make()
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ValueError, match=f"does not fit this .*: ({difference})"):
        load_quantized(module, path)
    assert not is_attached(module)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


def test_every_damaged_file_is_refused(saved: Any) -> None:
    """One bit of each stretch of it: torch itself would load other numbers."""
    path, _ = saved
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        weights = max(archive.infolist(), key=lambda one: one.file_size)
    places = [*range(0, len(whole), len(whole) // 40), weights.header_offset + 200]
    refused: list[str] = []
    fresh = Network()
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        try:
            load_quantized(Network(), path)
        except ValueError as error:
            refused.append(str(error))
    # Padding between the parts carries nothing.
    assert len(refused) > len(places) / 2
    assert all("damaged" in one or "is no file of save_quantized" in one for one in refused)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is no file of save_quantized, or is cut off"):
        load_quantized(fresh, path)


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="a checkpoint of Lightning"):
        load_quantized(Network(), tmp_path / "other.ckpt")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="is no file of save_quantized"):
        load_quantized(Network(), tmp_path / "text")
    with pytest.raises(FileNotFoundError):
        load_quantized(Network(), tmp_path / "nothing")


def test_a_failed_write_leaves_the_file_before(saved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path, quantized = saved
    before = path.read_bytes()

    def fail(*args: Any) -> None:
        args[1].write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_quantized(quantized, path)
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ["network.pt"]


def test_quantizers_are_not_put_on_twice(saved: Any) -> None:
    path, quantized = saved
    for call in (
        lambda: load_quantized(quantized, path),
        lambda: quantize_module(quantized, PLAN, IMAGES),
    ):
        with pytest.raises(ValueError, match="quantizers are attached already"):
            call()
    with pytest.raises(ValueError, match="no quantizers were attached to this Network"):
        save_quantized(trained(), path)
    with pytest.raises(ValueError, match="no quantizers were attached to this Network"):
        integer_codes(trained())


def resolved(network: nn.Module) -> Any:
    return PLAN.resolve(network, IMAGES)


WRONG: dict[str, tuple[Any, str]] = {
    "attach, a plan": (lambda n: attach(n, PLAN), r"attach: plan is a QuantizationPlan, which kn"),
    "attach, a dictionary": (lambda n: attach(n, PLAN.to_dict()), r"attach: plan is a dict, which"),
    "attach, text": (lambda n: attach(n, "8"), "attach: plan is a str; give a ResolvedPlan"),
    "attach, None": (lambda n: attach(n, None), "attach: plan is None; give a ResolvedPlan"),
    "attach, swapped": (lambda n: attach(resolved(n), n), "attach: module is a ResolvedPlan; the"),
    "attach, a class": (lambda n: attach(Network, resolved(n)), "a class; give an instance of it"),
    "calibrate": (lambda n: calibrate(n, PLAN, IMAGES), "calibrate: plan is a QuantizationPlan"),
    "calibrate, swapped": (lambda n: calibrate(resolved(n), n), "calibrate: module is a Resolved"),
    "calibrate, a list": (
        lambda n: calibrate(n, resolved(n), [IMAGES]),
        "calibrate: run is a list; give a function that runs the module, or one batch",
    ),
    "footprint_of": (lambda n: footprint_of(PLAN, n), "inventory is a QuantizationPlan and plan a"),
    "accumulators": (lambda n: accumulator_word_lengths(n), "plan is a Network; give a Resolved"),
    "is_attached": (lambda n: is_attached(PLAN), "is_attached: module is a QuantizationPlan"),
    "quantized_parameters": (lambda n: dict(quantized_parameters("x")), "module is a str"),
    "detach": (lambda n: detach(resolved(n)), "detach: module is a ResolvedPlan"),
    "inspect": (lambda n: inspect(PLAN), "inspect: module is a QuantizationPlan"),
    "plan.resolve": (lambda n: PLAN.resolve(n.state_dict(), IMAGES), "module is a OrderedDict"),
    "resolve": (lambda n: resolve(PLAN, n), "inventory a Network; write resolve"),
    "resolve, a dictionary": (lambda n: resolve({}, inspect(n)), "plan is a dict and inventory"),
    "quantize_module, text": (lambda n: quantize_module(n, "8 bits", IMAGES), "plan is a str; gi"),
    "quantize_module, resolved": (
        lambda n: quantize_module(n, resolved(n), IMAGES),
        "plan is a ResolvedPlan; give a QuantizationPlan",
    ),
    "quantize_module, swapped": (lambda n: quantize_module(PLAN, n, IMAGES), "module is a Quanti"),
    "quantize_module, a list": (
        lambda n: quantize_module(n, PLAN, [[IMAGES, GAIN]]),
        r"a batch is a list, .*run=lambda module, batch: module\(batch\[0\]\)",
    ),
    "quantize_module, a tuple": (
        lambda n: quantize_module(n, PLAN, (IMAGES, GAIN)),
        r"batches is a tuple; .*\[\(first, second\)\]",
    ),
    "quantize_module, no data": (lambda n: quantize_module(n, PLAN, 3), "batches is a int; give"),
    "quantize_module, an array": (
        lambda n: quantize_module(n, PLAN, [IMAGES.numpy()]),
        "inputs is a ndarray; give a tensor",
    ),
    "quantize_module, run": (lambda n: quantize_module(n, PLAN, IMAGES, 8), "run is a int; write"),
    "plan_of": (lambda n: plan_of(PLAN), "plan_of: module is a QuantizationPlan"),
    "integer_codes": (lambda n: integer_codes(n.state_dict()), "module is a OrderedDict"),
    "save_quantized": (lambda n: save_quantized("x.pt", n), "module is a str"),
    "load_quantized": (lambda n: load_quantized("x.pt", n), "load_quantized: module is a str"),
    "from_dict": (lambda n: QuantizationPlan.from_dict("uniform"), "plan is a str; write a dict"),
    "from_rules": (lambda n: QuantizationPlan.from_rules("weights"), "rules is a str; write a li"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_what_to_pass_is_said(name: str) -> None:
    call, message = WRONG[name]
    with pytest.raises(TypeError, match=message):
        call(trained())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "batches gives no batch; give at least one"),
        ((IMAGES, None, 0), "calibration_batches=0; write a number of batches, 1 or more"),
        ((IMAGES, None, True), "calibration_batches=True"),
    ],
)
def test_values_that_cannot_be(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quantize_module(trained(), PLAN, *arguments)


@pytest.mark.parametrize("how", ["compile()", "forward", "torch.compile"])
def test_compiled_modules_are_refused_everywhere(how: str) -> None:
    network: Any = trained()
    plan = calibrate(network, PLAN.resolve(network, IMAGES), IMAGES)
    if how == "compile()":
        network.hidden.compile(backend="eager")
    elif how == "forward":
        network.hidden.forward = torch.compile(network.hidden.forward, backend="eager")
    else:
        network.hidden = torch.compile(network.hidden, backend="eager")
    for call in (
        lambda: quantize_module(network, PLAN, IMAGES),
        lambda: inspect(network, IMAGES),
        lambda: PLAN.resolve(network, IMAGES),
        lambda: attach(network, plan),
    ):
        with pytest.raises(ValueError, match=r"Network is compiled \(its hidden"):
            call()
