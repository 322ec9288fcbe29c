"""The unsupervised network goes on learning in C: what the simulation learns, bit by bit."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qspinn.data.idx import read_idx
from qspinn.export import NotExportableError, device_model
from qspinn.export.c import write_c
from qspinn.export.declared import declared_model
from qspinn.export.formats import OptionError, export
from qspinn.export.saving import load_model, save_model
from qspinn.fixed_point import PerChannelFormat
from qspinn.learning import UnsupervisedLearning
from qspinn.networks import STDP, DiehlCook
from qspinn.networks.readouts import MaximumResponse
from tests.export.c.c_programs import FAST, SANITIZED, needs_compiler
from tests.export.c.learners import check_equal, compiled
from tests.export.test_plastic_model import CLASSES, SHAPE, learned, pixels
from tests.export.test_saving import MODEL
from tests.stdp.cases import ROUNDINGS, lively, quantizers

pytestmark = needs_compiler


def check_network(
    folder: Path, rounding: str, layout: str, flags: Any, overflow: str = "saturate", **changes: Any
) -> None:
    """A tiny network after some images, begun anew and gone on with."""
    network = lively("numba", **changes)
    network.use_fixed_point(quantizers(network, 8, rounding, overflow, weight=5, v=9))
    images = pixels(14, network.input_shape, 3)
    network.present(images[:2], learning=True)
    before = network.weight.clone()
    model = declared_model(network, images[:1], "network", (), None, learning=True)
    program = compiled(model, folder, layout, flags)
    found = program.run(images[2:10], None, images[10:])
    network.present(images[2:10], learning=True)
    check_equal(found, network)
    assert not torch.equal(before, network.weight)
    assert np.array_equal(found.shown, network.present(images[10:]).spike_counts.numpy())


def check_labels(folder: Path, layout: str, flags: Any, rounding: str = "stochastic") -> None:
    """Neurons that are labelled on the device, and the classes that it gives."""
    module = learned("maximum", rounding)
    network = module.network
    images, labels = pixels(60, SHAPE, 7), torch.arange(60) % CLASSES
    model = device_model(module, images[:1], learning=True)
    program = compiled(model, folder, layout, flags)
    found = program.run(images[:20], (images[20:40], labels[20:40]), images[40:])
    network.present(images[:20], learning=True)
    readout = MaximumResponse(network.neurons, CLASSES)
    readout.fit(network.present(images[20:40]).spike_counts, labels[20:40])
    check_equal(found, network)
    wanted = readout.labels.where(readout.labels >= 0, CLASSES)
    assert np.array_equal(found.labels, wanted.numpy())
    assert len(set(found.labels.tolist())) > 1
    scores = readout(network.present(images[40:]).spike_counts)
    assert np.array_equal(found.shown[:, 0], scores.argmax(1).numpy())
    members = torch.bincount(wanted, minlength=CLASSES)[:CLASSES].clamp_min(1)
    assert np.array_equal(found.shown[:, 1:], (scores * members).round().numpy())


CASES: list[dict[str, Any]] = [
    {},
    {"rate_pre": 0.0, "trace_target": 0.0},
    {"normalise": "update"},
    {"normalise": "update", "update": "deferred", "refractory": 0},
    {"update": "deferred", "inhibition_delay": 3},
    {"update": "deferred", "weight_sum": None, "one_winner": False},
    {"weight_sum": None, "inhibition_delay": 1, "time_steps": 70},
    {"one_winner": False, "inhibition_delay": 3, "refractory": 0, "rate_pre": 0.1},
]


@pytest.mark.slow
@pytest.mark.parametrize("case", range(len(CASES)))
def test_settings(tmp_path: Path, case: int) -> None:
    rounding = ("stochastic", "nearest")[case % 2]
    layout = ("packed", "aligned")[case // 2 % 2]
    check_network(tmp_path, rounding, layout, FAST, **CASES[case])


@pytest.mark.slow
def test_labels(tmp_path: Path) -> None:
    check_labels(tmp_path, "packed", FAST)


@pytest.mark.few(0.34, "campaign")
@pytest.mark.slow
@pytest.mark.parametrize("rounding", ["nearest", "truncate", "stochastic"])
@pytest.mark.parametrize("layout", ["packed", "aligned"])
def test_labels_with_sanitizers(tmp_path: Path, rounding: str, layout: str) -> None:
    check_labels(tmp_path, layout, SANITIZED, rounding)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["packed", "aligned"])
def test_formats_per_neuron(tmp_path: Path, layout: str) -> None:
    network = lively("numba", time_steps=70)
    held = quantizers(network, 8, "stochastic", v=9)
    fmt = PerChannelFormat(4, (2, 3, 4, 3), False, 1)
    network.use_fixed_point({**held, "weight": replace(held["weight"], format=fmt)})
    images = pixels(12, network.input_shape, 4)
    model = declared_model(network, images[:1], "network", (), None, learning=True)
    found = compiled(model, tmp_path, layout, SANITIZED).run(images[:8], None, images[8:])
    network.present(images[:8], learning=True)
    check_equal(found, network)
    assert np.array_equal(found.shown, network.present(images[8:]).spike_counts.numpy())


def test_a_model_keeps_how_it_learns_unless_it_is_told_not_to(tmp_path: Path) -> None:
    module = learned("maximum")
    images = pixels(2, SHAPE, 7)
    sizes = {}
    for learning in (False, True, None):
        model = device_model(module, images[:1], learning=learning)
        sizes[learning] = save_model(model, tmp_path / "model.qspinn")
        assert load_model(tmp_path / "model.qspinn").learning == model.learning
        assert (model.learning is None) == (learning is False)
        assert model.learning_refused is None
    assert sizes[True] == sizes[None]
    assert sizes[True].payload_bits == sizes[False].payload_bits
    assert sizes[True].header_bytes > sizes[False].header_bytes


@pytest.mark.parametrize("readout", ["maximum", "proportion", "ridge"])
def test_the_command_line_option(tmp_path: Path, readout: str) -> None:
    images = pixels(1, SHAPE, 7)
    model, said = device_model(learned(readout), images, name="net"), []
    options = {"learning": "true", "layout": "packed"}
    files = export("c", model, tmp_path, options, say=said.append)
    assert [one.name for one in files][:4] == ["net.h", "net.c", "net_main.c", "net_learn_main.c"]
    assert load_model(tmp_path / "model.qspinn").learning == model.learning
    assert said[1].startswith("Learning in C: ")
    labels = "it labels neurons on the device"
    none = "it labels no neurons, which needs learning.readout=maximum; net_show gives the spikes"
    assert (labels in said[1], none in said[1]) == (readout == "maximum", readout != "maximum")
    text = (tmp_path / "summary.txt").read_text(encoding="utf-8")
    assert "\n".join(said) in text
    header = (tmp_path / "net.h").read_text(encoding="utf-8")
    assert "void net_learn(" in header
    assert "void net_show(" in header
    assert ("net_label" in header) == (readout == "maximum")


def test_a_learner_that_is_no_network_is_refused(tmp_path: Path) -> None:
    module = learned("maximum")
    model = device_model(module, pixels(1, SHAPE, 7), learning=True)
    learning = model.learning
    assert learning is not None
    for wrong in (
        replace(learning, turns=learning.turns[1:]),
        replace(learning, weight=replace(learning.weight, rate_post=(1, 2))),
    ):
        with pytest.raises(ValueError, match="numbers for 12 neurons"):
            save_model(replace(model, learning=wrong), tmp_path / "model.qspinn")
    with pytest.raises(ValueError, match="normalise='never': write one of none"):
        replace(learning, normalise="never")


def test_what_does_not_learn_is_refused(tmp_path: Path) -> None:
    module, images = learned("maximum"), pixels(1, SHAPE, 7)
    model = device_model(module, images, learning=False)
    with pytest.raises(OptionError, match="does not say how it learns, as those of earlier vers"):
        export("c", model, tmp_path, {"learning": "true"})
    with pytest.raises(ValueError, match="learning=true: whole does not learn by itself; leave"):
        write_c(MODEL, tmp_path, learning=True)
    together = lively("numba", parallel=2)
    together.use_fixed_point(quantizers(together, 8))
    given = (together, images.flatten(1)[:, :6], "network", (), None)
    reason = r"network: stdp\.parallel=2: a device is shown one image .*train with stdp\.parallel=1"
    with pytest.raises(NotExportableError, match=reason):
        declared_model(*given, learning=True)
    save_model(declared_model(*given), tmp_path / "model.qspinn")
    loaded = load_model(tmp_path / "model.qspinn")
    assert loaded.learning is None
    with pytest.raises(ValueError, match=f"^learning=true: {reason}"):
        write_c(loaded, tmp_path, learning=True)


def said_of(network: Any) -> dict[str, Any]:
    said = network.device_learning()
    return {key: dict(one) if isinstance(one, dict) else one for key, one in said.items()}


def without_theta(said: dict[str, Any]) -> None:
    del said["theta"]


def without_bits(said: dict[str, Any]) -> None:
    del said["theta"]["bits"]


DECLARATIONS: list[tuple[Any, str]] = [
    (without_theta, r"device_learning\(\): 'theta' is missing; write weight, theta, "),
    (without_bits, r"device_learning\(\), theta: 'bits' is missing; write plus, keep, bits"),
    (lambda said: said.update(more=1), r"device_learning\(\): 'more' is not known; write weight"),
    (lambda said: said["weight"].update(x=1), r"\(\), weight: 'x' is not known; write spare, fine"),
    (lambda said: said.update(deferred=1), "deferred=1: write True or False"),
    (lambda said: said.update(key=np.int64(3)), r"key=.*3.*: write a whole number \(int\)"),
    (lambda said: said["theta"].update(plus=0.5), "theta, plus=0.5: write a whole number"),
    (lambda said: said["weight"].update(maximum=(0,)), "weight, maximum=0: lies outside 1 to"),
    (
        lambda said: said["trace_pre"].update(state=PerChannelFormat(8, (8, 7), False)),
        "trace_pre, state=.*: write one format for all traces",
    ),
]


@pytest.mark.parametrize("case", range(len(DECLARATIONS)))
def test_wrong_declarations_cost_the_learning_and_not_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: int
) -> None:
    change, reason = DECLARATIONS[case]
    network = lively("numba")
    network.use_fixed_point(quantizers(network, 8))
    said = said_of(network)
    change(said)
    monkeypatch.setattr(network, "device_learning", lambda: said)
    given = (network, pixels(1, network.input_shape, 7), "network", (), None)
    with pytest.raises(NotExportableError, match=f"^network: .*{reason}"):
        declared_model(*given, learning=True)
    model = declared_model(*given)
    assert re.match(f"network: .*{reason}", str(model.learning_refused))
    save_model(model, tmp_path / "model.qspinn")
    assert load_model(tmp_path / "model.qspinn").learning_refused == model.learning_refused


def test_more_neurons_than_a_header_has_room_for_cost_the_learning_and_not_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qspinn.export.learning.MOST_NUMBERS", 7)
    network = lively("numba")  # 4 neurons, with a counter and four numbers shared by all
    network.use_fixed_point(quantizers(network, 8))
    model = declared_model(
        network, pixels(1, network.input_shape, 7), "network", (), None, learning=None
    )
    assert "8 numbers for 4 neurons: the header of a model file has room for 7; take fewer" in str(
        model.learning_refused
    )
    save_model(model, tmp_path / "model.qspinn")


@pytest.mark.few(0.2, "campaign")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("rounding", "stdp"),
    [
        ("stochastic", STDP(normalise="update")),
        ("stochastic", STDP(rate_pre=1e-3, rate_post=1e-2, trace_target=0.1)),
        ("nearest", STDP(rate_post=0.1)),
    ],
)
def test_real_images(tmp_path: Path, shared_data: Path, rounding: str, stdp: STDP) -> None:
    """400 neurons learn 1,000 digits with weights of 3 bits, and are labelled with 500."""
    raw = shared_data / "MNIST" / "raw"
    pictures = read_idx(raw / "train-images-idx3-ubyte").reshape(-1, 1, 28, 28)[:1700]
    labels = torch.from_numpy(read_idx(raw / "train-labels-idx1-ubyte")[:1700].astype(np.int64))
    images = torch.from_numpy(pictures.astype(np.float32)) / 256
    torch.manual_seed(0)
    module = UnsupervisedLearning(DiehlCook(neurons=400, stdp=stdp, backend="numba"), 10, "maximum")
    network: Any = module.network
    # Formats that hold what is to be learned, and not only what the network begins with.
    network.use_fixed_point(quantizers(network, 16, rounding, weight=3))
    model = declared_model(module, images[:1], "network", (), None, learning=True)
    program = compiled(model, tmp_path, "packed", ("-O2",))

    found = program.run(images[:1000], (images[1000:1500], labels[1000:1500]), images[1500:])

    network.present(images[:1000], learning=True)
    check_equal(found, network)
    readout = MaximumResponse(400, 10)
    readout.fit(network.present(images[1000:1500]).spike_counts, labels[1000:1500])
    assert np.array_equal(found.labels, readout.labels.where(readout.labels >= 0, 10).numpy())
    scores = readout(network.present(images[1500:]).spike_counts)
    assert np.array_equal(found.shown[:, 0], scores.argmax(1).numpy())
    accuracy = (found.shown[:, 0] == labels[1500:].numpy()).mean()
    print(f"{rounding}: {found.bytes:,} bytes, {accuracy:.3f} of 200 images right")
    assert int(network.turns.sum()) > 1000
    assert accuracy > 0.3
    assert found.bytes < 160 * 1024
    assert program.sizes is not None
    assert program.sizes.learner_bytes <= found.bytes < program.sizes.learner_bytes + 16


@pytest.mark.few(0.06, "campaign")
@pytest.mark.slow
@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("layout", ["packed", "aligned"])
def test_settings_with_sanitizers(tmp_path: Path, case: int, rounding: str, layout: str) -> None:
    overflow = "wrap" if case % 3 == 2 else "saturate"
    check_network(tmp_path, rounding, layout, SANITIZED, overflow, **CASES[case])


@pytest.mark.few(0.1, "campaign")
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_random_formats_and_settings(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)

    def one_of(*values: Any) -> Any:
        return values[random.integers(len(values))]

    network = lively(
        "numba",
        seed,
        time_steps=one_of(30, 64, 70),
        neurons=one_of(1, 4, 7),
        inhibition_delay=one_of(1, 2, 3),
        refractory=one_of(0, 1, 3),
        one_winner=one_of(True, False),
        max_rate=one_of(300.0, 1000.0),
        rate_pre=one_of(0.0, 0.02, 0.5),
        trace_target=one_of(0.0, 0.2),
        normalise=one_of("presentation", "update"),
        weight_sum=one_of(None, 2.5, 2.5),
        update=one_of("online", "online", "deferred"),
    )
    lengths = {
        name: int(random.integers(6, 20))
        for name in ("v", "theta", "threshold", "reset", "inhibition", "leak", "trace_pre")
    }
    rounding, overflow = one_of(*ROUNDINGS), one_of("saturate", "wrap")
    held = quantizers(network, 9, rounding, overflow, **lengths, weight=int(random.integers(1, 18)))
    if random.random() < 0.3:
        bits = tuple(int(one) for one in random.integers(1, 6, network.neurons))
        held["weight"] = replace(held["weight"], format=PerChannelFormat(4, bits, False, 1))
    for name in held:
        if random.random() < 0.3:
            held[name] = replace(held[name], rounding=one_of(*ROUNDINGS))
    try:
        network.use_fixed_point(held)
    except ValueError as error:
        pytest.skip(str(error))  # formats with which the network could not work
    images = pixels(12, network.input_shape, seed)
    network.theta.uniform_(0.0, 1.0)
    model = declared_model(network, images[:1], "network", (), None, learning=True)
    program = compiled(model, tmp_path, one_of("packed", "aligned"), SANITIZED)
    found = program.run(images[:9], None, images[9:])
    network.present(images[:9], learning=True)
    check_equal(found, network)
    assert np.array_equal(found.shown, network.present(images[9:]).spike_counts.numpy())
