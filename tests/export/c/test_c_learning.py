"""The unsupervised network goes on learning in C: what the simulation learns, bit by bit."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from qspinn.data.idx import read_idx
from qspinn.export import DeviceModel, NotExportableError, device_model
from qspinn.export.c import CSizes, write_c
from qspinn.export.coding import encode
from qspinn.export.declared import declared_model
from qspinn.export.formats import OptionError, export
from qspinn.export.saving import load_model, save_model
from qspinn.fixed_point import PerChannelFormat
from qspinn.learning import UnsupervisedLearning
from qspinn.networks import STDP, DiehlCook
from qspinn.networks.readouts import MaximumResponse
from tests.export.c.c_programs import FAST, GCC, SANITIZED, STRICT, TYPES, needs_compiler
from tests.export.test_plastic_model import CLASSES, SHAPE, learned, pixels
from tests.stdp.cases import ROUNDINGS, codes_of, lively, quantizers

pytestmark = needs_compiler


@dataclass(frozen=True)
class Learned:
    """What a program in C wrote.

    Attributes:
        weight: Codes ``[inputs, neurons]``.
        theta: Codes ``[neurons]``.
        turns: ``[neurons]``.
        presentations: How many.
        labels: ``[neurons]``, where there are any.
        bytes: Of the struct.
        shown: Lines of what was shown in the end.
    """

    weight: np.ndarray
    theta: np.ndarray
    turns: np.ndarray
    presentations: int
    labels: np.ndarray
    bytes: int
    shown: np.ndarray


@dataclass(frozen=True)
class Program:
    """A learner that was compiled."""

    model: DeviceModel
    path: Path
    kind: str
    sizes: CSizes

    def run(self, images: Tensor, labelling: tuple[Tensor, Tensor] | None, test: Tensor) -> Learned:
        """Learns from images, labels neurons with others, and shows the rest."""
        dtype = TYPES[self.kind]
        parts = [encode(self.model, images).astype(dtype).tobytes()]
        count = 0
        if labelling is not None:
            shown, labels = labelling
            count = len(labels)
            codes = encode(self.model, shown).astype(dtype)
            marked = np.concatenate([codes, labels.numpy()[:, None].astype(dtype)], 1)
            parts.append(marked.tobytes())
        parts.append(encode(self.model, test).astype(dtype).tobytes())
        command = [str(self.path), str(len(images)), str(count)]
        done = subprocess.run(command, input=b"".join(parts), capture_output=True)
        assert done.returncode == 0, done.stderr[:2000].decode()
        rows: dict[str, list[list[int]]] = {}
        for line in done.stdout.decode().splitlines():
            words = line.split()
            name = words.pop(0) if words[0].isalpha() else "shown"
            rows.setdefault(name, []).append([int(one) for one in words])
        arrays = {name: np.array(values) for name, values in rows.items()}
        return Learned(
            arrays["weight"],
            arrays["theta"][0],
            arrays["turns"][0],
            int(arrays["presentations"][0, 0]),
            arrays.get("labels", np.zeros((1, 0), int))[0],
            int(arrays["bytes"][0, 0]),
            arrays.get("shown", np.zeros((0, 0), int)),
        )


def compiled(
    model: DeviceModel, folder: Path, layout: str = "aligned", flags: Any = FAST
) -> Program:
    """Writes and compiles a learner; any warning is a failure."""
    sizes = write_c(model, folder, "net", layout, learning=True)
    for extra in ("main", "learn_main"):
        command = [str(GCC), *STRICT, *flags, "-o", extra, "net.c", f"net_{extra}.c"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:3000]
    header = (folder / "net.h").read_text(encoding="utf-8")
    kind = header.split("void net_step(net_state *s, const ")[1].split(" ")[0]
    return Program(model, folder / "learn_main", kind, sizes)


def check_equal(found: Learned, network: Any) -> None:
    """Weights, thetas and counters are those of the simulation."""
    assert found.presentations == int(network.presentations)
    assert np.array_equal(found.turns, network.turns.numpy())
    weight, theta = codes_of(network)
    assert np.array_equal(found.theta, theta.numpy())
    assert np.array_equal(found.weight, weight.numpy())


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


@pytest.mark.parametrize("case", range(len(CASES)))
def test_settings(tmp_path: Path, case: int) -> None:
    rounding = ("stochastic", "nearest")[case % 2]
    layout = ("packed", "aligned")[case // 2 % 2]
    check_network(tmp_path, rounding, layout, FAST, **CASES[case])


def test_labels(tmp_path: Path) -> None:
    check_labels(tmp_path, "packed", FAST)


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


def test_a_model_keeps_how_it_learns_where_it_was_asked_to(tmp_path: Path) -> None:
    module = learned("maximum")
    images = pixels(2, SHAPE, 7)
    for learning in (False, True):
        model = device_model(module, images[:1], learning=learning)
        save_model(model, tmp_path / "model.qspinn")
        assert load_model(tmp_path / "model.qspinn").learning == model.learning
        assert (model.learning is not None) == learning


def test_the_command_line_option(tmp_path: Path) -> None:
    images = pixels(1, SHAPE, 7)
    model = device_model(learned("maximum"), images, name="net", learning=True)
    files = export("c", model, tmp_path, {"learning": "true", "layout": "packed"})
    assert [one.name for one in files][:4] == ["net.h", "net.c", "net_main.c", "net_learn_main.c"]
    assert load_model(tmp_path / "model.qspinn").learning == model.learning
    assert "Learning in C: " in (tmp_path / "summary.txt").read_text(encoding="utf-8")
    with pytest.raises(OptionError, match="does not say how it learns"):
        export("c", device_model(learned("maximum"), images), tmp_path, {"learning": "true"})


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
    with pytest.raises(ValueError, match="does not say how it learns"):
        write_c(device_model(module, images), tmp_path, learning=True)
    together = lively("numba", parallel=2)
    together.use_fixed_point(quantizers(together, 8))
    with pytest.raises(NotExportableError, match=r"stdp\.parallel=2: a device is shown one image"):
        declared_model(together, images.flatten(1)[:, :6], "network", (), None, learning=True)


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
    assert program.sizes.learner_bytes <= found.bytes < program.sizes.learner_bytes + 16


@pytest.mark.slow
@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("layout", ["packed", "aligned"])
def test_settings_with_sanitizers(tmp_path: Path, case: int, rounding: str, layout: str) -> None:
    overflow = "wrap" if case % 3 == 2 else "saturate"
    check_network(tmp_path, rounding, layout, SANITIZED, overflow, **CASES[case])


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
