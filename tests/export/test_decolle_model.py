"""DECOLLE as a device model: whole numbers, the same as the network computes in floats."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from qspinn.data import MNISTSubset
from qspinn.export import DeviceModel, IntegerEngine, NotExportableError, device_model, encode
from qspinn.export.declared import declared_model
from qspinn.fixed_point import to_integers
from qspinn.learning import LocalLearning
from qspinn.networks import Decolle
from qspinn.plan import QuantizationPlan, footprint
from qspinn.quantizers import plan_of, quantize_module
from tests.networks.decolle.cases import CLASSES, SHAPES, Case, cases
from tests.networks.decolle.test_twin import EIGHT_BITS, OVERFLOW, ROUNDING, usable


def network_of(case: Case) -> Decolle:
    """The layer of a case as a network."""
    shape = SHAPES[case.shape]
    convolves = shape.kernel_size is not None
    network = Decolle(
        shape.inputs,
        CLASSES,
        [shape.outputs] if convolves else [],
        shape.kernel_size or 1,
        shape.stride,
        shape.pool,
        [] if convolves else [shape.outputs],
        burn_in=2,
        coding="counts" if case.binary else "direct",
        input_max=3.0,
    )
    network.layers[0] = case.layer()
    return network.eval()


def keys_of(network: Decolle) -> dict[str, int]:
    """The keys that the last sequence was rounded with."""
    return {
        f"layers.{index}.{name}": draws.key
        for index, layer in enumerate(network.layers)
        for name, draws in layer._fixed._draws.items()  # type: ignore[union-attr, operator]
    }


def seen_by(model: DeviceModel, codes: Any, keys: dict[str, int]) -> tuple[Any, dict[str, Any]]:
    """The answers, and the outputs of all operations at all steps, by their paths."""
    seen = defaultdict(list)
    paths = [one.path for one in model.operations]
    answers = IntegerEngine(model).run(
        codes, keys=keys, watch=lambda step, number, value: seen[paths[number]].append(value)
    )
    return answers, seen


def check_steps(case: Case) -> int:
    """Every state after every step. Returns how many spikes there were."""
    network, x = network_of(case), case.inputs()
    layer: Any = network.layers[0]
    formats = {name: one.format for name, one in case.quantizers().items()}
    wanted = defaultdict(list)
    for frame in x:
        with torch.no_grad():
            step = layer.step(frame)
        values = {"u": step.membrane, **{name: getattr(layer, name) for name in "pqr"}}
        for name, value in values.items():
            codes = to_integers(value, formats[name])
            wanted[f"layers.0.{name}"].append(codes.numpy().astype(np.int64))
        wanted["spikes"].append(step.spikes.long().numpy())
    model = declared_model(network, x.transpose(0, 1)[:1], "network", (), None)
    keys = keys_of(network)
    codes = encode(model, x, batch_axis=1, key=keys.get("layers.0.input"))
    _, seen = seen_by(model, codes, keys)
    pooled = case.shape == "pooled"
    seen["spikes"] = seen["layers.0.pooled" if pooled else "layers.0.fired"]
    for name, values in wanted.items():
        assert np.array_equal(seen[name], values), name
    return int(np.sum(wanted["spikes"]))


@ROUNDING
@OVERFLOW
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_every_state_at_every_step(rounding: str, overflow: str, data: st.DataObject) -> None:
    check_steps(data.draw(cases(rounding, overflow).filter(usable)))


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_eight_bits_fire(shape: str) -> None:
    assert check_steps(Case(shape, EIGHT_BITS, "stochastic", "saturate", False, False, 5)) > 0


def small(coding: str = "direct", **changes: Any) -> Decolle:
    """Two layers, one of them pooled."""
    torch.manual_seed(0)
    largest = 3.0 if coding in ("direct", "counts") else 1.0
    arguments: dict[str, Any] = {"channels": (4,), "kernel_sizes": 3, "strides": 1, "pools": 2}
    arguments |= {"hidden": (7,), "time_steps": 8, "burn_in": 2, **changes}
    return Decolle((1, 9, 8), 3, coding=coding, input_max=largest, **arguments).eval()


def images(coding: str = "direct", count: int = 6) -> Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.rand(count, 1, 9, 8, generator=random) * (1.0 if coding == "bernoulli" else 4.0)


def quantized(network: nn.Module, x: Tensor, plan: QuantizationPlan) -> Any:
    module = quantize_module(network, plan, x)
    functional.reset_net(module)
    return module


@pytest.mark.parametrize("rounding", ["nearest", "truncate", "stochastic"])
@pytest.mark.parametrize("coding", ["direct", "binary", "counts", "bernoulli"])
def test_scores_of_a_network(coding: str, rounding: str) -> None:
    x = images(coding)
    rules = [{"word_length": 8, "rounding": rounding}]
    if coding == "direct":
        rules.append({"role": "input", "rounding": "nearest"})
    network = quantized(small(coding), x, QuantizationPlan.from_rules(rules))
    model = device_model(network, x[:1], classes=["a", "b", "c"])
    assert (model.steps, model.classes) == (8, ("a", "b", "c"))

    with torch.no_grad():
        scores = network(x)
    drawn = coding == "bernoulli"
    codes = torch.stack(list(network.encoded(x))).flatten(2).long().numpy() if drawn else None
    answers, seen = seen_by(model, encode(model, x) if codes is None else codes, keys_of(network))

    wanted = (scores.double() * 6).numpy()
    found = answers.sums * 2.0**-answers.fraction_bits
    assert np.allclose(found, wanted, rtol=1e-6, atol=0)
    assert model.output.scale * 6 == 1
    assert np.array_equal(answers.classes, scores.argmax(1).numpy())
    assert np.sum(seen["layers.0.fired"]) > 0
    assert np.sum(seen["layers.1.fired"]) > 0


def test_scores_of_long_words_are_exact() -> None:
    """Sums over steps have more bits than what a step says."""
    x = images()
    rules: list[Any] = [{"word_length": 8}, {"role": "weight", "word_length": 22}]
    network = quantized(small(time_steps=34), x, QuantizationPlan.from_rules(rules))
    model = device_model(network, x[:1])
    with torch.no_grad():
        scores = network(x)
    answers = IntegerEngine(model).run(encode(model, x))
    found = answers.sums * 2.0**-answers.fraction_bits
    assert np.array_equal(scores.double().numpy() * 32, found)


def test_what_is_stored_is_what_the_footprint_counts() -> None:
    x = images()
    network = quantized(small(), x, QuantizationPlan.uniform(5))
    model, counted = device_model(network, x[:1]), footprint(network, plan_of(network))
    assert model.stored_bits == counted.flash_bits
    assert model.state_bits == counted.ram_bits


def test_sequences_of_frames() -> None:
    x = images(count=20).reshape(4, 5, 1, 9, 8)
    network = quantized(small(), x, QuantizationPlan.uniform(8))
    model = device_model(network, x[:1])
    assert (model.steps, model.frame_stride) == (5, 72)
    with torch.no_grad():
        scores = network(x)
    answers = IntegerEngine(model).run(encode(model, x))
    assert np.array_equal(answers.classes, scores.argmax(1).numpy())


def test_the_module_that_learns_is_exported_as_well() -> None:
    x = images()
    learning = LocalLearning(small(), torch.optim.Adam, num_classes=3).eval()
    module = quantized(learning, x, QuantizationPlan.uniform(8))
    model = device_model(module, x[:1])
    assert "network.layers.1.readout" in model.tensors
    answers = IntegerEngine(model).run(encode(model, x))
    with torch.no_grad():
        assert np.array_equal(answers.classes, module(x).argmax(1).numpy())


@pytest.mark.slow
def test_real_images() -> None:
    """The network of `conf/network/decolle.yaml`, trained a little."""
    data = MNISTSubset(eval_batch_size=250)
    learning = LocalLearning(Decolle(), torch.optim.Adamax)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=30,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(learning, datamodule=data)
    data.setup("test")
    images, labels = next(iter(data.test_dataloader()))
    module = quantized(learning.eval(), images[:64], QuantizationPlan.uniform(8))
    model = device_model(module, images[:1])
    answers = IntegerEngine(model).run(encode(model, images))
    with torch.no_grad():
        assert np.array_equal(answers.classes, module(images).argmax(1).numpy())
    assert (answers.classes == labels.numpy()).mean() > 0.5


def test_an_input_that_would_be_drawn_at_each_step_is_refused() -> None:
    x = images()
    network = quantized(small(), x, QuantizationPlan.uniform(8, rounding="stochastic"))
    with pytest.raises(NotExportableError, match=r"layers.0.input.*write 'nearest'"):
        device_model(network, x[:1])


def test_what_stays_in_float_is_refused() -> None:
    x = images()
    plan = QuantizationPlan.from_rules([{"word_length": 8}, {"role": "decay", "format": "float32"}])
    with pytest.raises(NotExportableError, match=r"leak_q.*floating point"):
        device_model(quantized(small(), x, plan), x[:1])
