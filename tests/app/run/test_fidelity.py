"""A run's record says how far its network behaves as the 32-bit twin."""

import pytest

from qspinn.app.errors import ConfigurationError
from qspinn.app.run.train import train
from qspinn.records import read_record

LAYERS = {
    "supervised": [f"network.blocks.{i}.neuron" for i in range(3)] + ["network.output.neuron"],
    "unsupervised": ["network"],
    "local": ["network.layers.0", "network.layers.1"],
}
RUNS = {
    "supervised": ("network.neuron.v_threshold=0.3",),
    "unsupervised": ("experiment=unsupervised_quick",),
    "local": ("experiment=decolle_mnist_quick",),
}


@pytest.mark.few(0.1)
@pytest.mark.parametrize("scheme", ["ptq", "itq"])
@pytest.mark.parametrize("name", RUNS)
def test_it_is_recorded_for_every_network(composed, tmp_path, name, scheme):
    options = (f"quantization.scheme={scheme}", "quantization.word_length=4")
    record = train(composed(*RUNS[name], *options), tmp_path)

    found = record.fidelity
    assert [layer["layer"] for layer in found["layers"]] == LAYERS[name]
    assert found["samples"] == 64
    assert found["notes"] == []
    assert 0 < record.agreement <= 1
    assert any(layer["reference_rate"] > 0 for layer in found["layers"])
    if (name, scheme) != ("unsupervised", "itq"):  # weights that are on their grid already
        assert found["first_layer"] in LAYERS[name]
    assert record.metrics[f"{scheme}/fidelity/agreement"] == record.agreement
    assert read_record(tmp_path / "record.json") == record


@pytest.mark.slow
def test_a_run_without_it_is_the_same_run(composed, tmp_path):
    measured = train(composed("quantization.fidelity_samples=10"), tmp_path / "a")
    without = train(composed("quantization.fidelity_samples=0"), tmp_path / "b")

    assert measured.fidelity["samples"] == 10
    assert without.fidelity is None
    assert without.config_hash == measured.config_hash
    assert without.accuracy == measured.accuracy
    assert without.validation_accuracy == measured.validation_accuracy
    kept = {name: value for name, value in measured.metrics.items() if "fidelity/" not in name}
    assert without.metrics == kept
    # The record that lies there is that of this run, too.
    assert train(composed("quantization.fidelity_samples=3"), tmp_path / "a") == measured


def test_a_32_bit_network_is_compared_with_nothing(composed, tmp_path):
    assert train(composed("quantization.scheme=none"), tmp_path).fidelity is None


@pytest.mark.parametrize("samples", ["-1", "1.5", "null", "few"])
def test_a_number_that_cannot_be_is_refused_before_training(composed, tmp_path, samples):
    with pytest.raises(ConfigurationError, match=r"quantization.*fidelity_samples"):
        train(composed(f"quantization.fidelity_samples={samples}"), tmp_path)
    assert not list(tmp_path.rglob("*.ckpt"))
