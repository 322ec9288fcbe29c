"""Whole runs on event data, and of networks that are not ours."""

from pathlib import Path

import pytest
from PIL import Image

from qspinn.app.errors import ConfigurationError
from qspinn.app.folder import RunFolder
from qspinn.app.train import train
from qspinn.records import write_json

SHORT = (
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=3",
    "trainer.limit_test_batches=1",
    "trainer.accelerator=cpu",
    "quantization.calibration_batches=2",
    "quantization.word_length=5",
    "progress=none",
)


@pytest.fixture
def nmnist(shared_data: Path) -> Path:
    folder = shared_data / "N-MNIST-small"
    if not folder.is_dir():
        pytest.skip(f"no folder N-MNIST-small in {shared_data}")
    return folder


@pytest.mark.parametrize("scheme", ["ptq", "itq"])
def test_real_recordings(composed, nmnist: Path, tmp_path: Path, scheme: str) -> None:
    config = composed(
        "experiment=nmnist",
        f"data.root={nmnist}",
        "data.cache=null",
        "data.folds=5",
        "data.fold=2",
        "network.channels=[4,4,4]",
        f"quantization.scheme={scheme}",
        "trainer.precision=bf16-mixed",
        *SHORT,
        tiny=False,
    )
    record = train(config, tmp_path)

    assert (record.network, record.data) == ("ConvSNN", "nmnist")
    roles = ("weight", "bias", "membrane", "threshold", "decay", "input")
    assert record.word_lengths == {role: [5] for role in roles}
    assert record.baseline_footprint_bits / record.footprint_bits == pytest.approx(32 / 5)
    # By hand: three strided blocks of 4 channels on 34x34 pixels, and 4 neurons for each class.
    neurons = 4 * (17 * 17 + 9 * 9 + 5 * 5) + 40
    assert record.footprint_bits_by_role["membrane"] == 5 * neurons
    assert {"events.gif", "spikes.png", "membranes.png"} <= {p.name for p in tmp_path.iterdir()}
    with Image.open(tmp_path / "events.gif") as clip:
        assert clip.n_frames == config.data.time_steps
    RunFolder(tmp_path).clear()
    assert not list(tmp_path.glob("*.gif"))
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize("scheme", ["ptq", "itq"])
def test_real_recordings_learned_layer_by_layer(
    composed, nmnist: Path, tmp_path: Path, scheme: str
) -> None:
    config = composed(
        "experiment=nmnist_decolle",
        f"data.root={nmnist}",
        "data.cache=null",
        "data.folds=5",
        "data.time_steps=5",
        "network.channels=[3]",
        "network.kernel_sizes=5",
        "network.strides=1",
        "network.pools=2",
        "network.hidden=[7]",
        f"quantization.scheme={scheme}",
        *SHORT,
        tiny=False,
    )
    record = train(config, tmp_path)

    assert (record.network, record.data) == ("decolle", "nmnist")
    roles = ("weight", "bias", "membrane", "threshold", "decay", "trace")
    assert record.word_lengths == {role: [5] for role in roles}  # counts are whole numbers
    # By hand: 2x17x17 pixels, 3 channels 17x17 pooled to 8x8, 7 neurons.
    assert record.footprint_bits_by_role["trace"] == 5 * 2 * (2 * 17 * 17 + 3 * 8 * 8)
    neurons = 3 * 17 * 17 + 7
    assert record.footprint_bits_by_role["membrane"] == 5 * (neurons + 2)  # and what a spike adds
    assert 0 <= record.metrics["train/activity_layer_1"] <= 1


def test_the_benchmark_s_callbacks_quantise_one_training_in_many_ways(
    composed, nmnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import nmnist as benchmark

    settings = [benchmark.Setting("ptq", 7, "nearest"), benchmark.Setting("ptq", 5, "truncate")]
    config = composed(
        "experiment=nmnist",
        f"data.root={nmnist}",
        "data.cache=null",
        "data.folds=5",
        "network.channels=[4,4,4]",
        "quantization.scheme=none",
        "callbacks.activity=null",
        *map(benchmark.ptq_callback, settings),
        *SHORT,
        tiny=False,
    )
    folder = tmp_path / "nmnist" / "none_32_none" / "0"
    record = train(config, folder)
    monkeypatch.setattr(benchmark, "PTQ", tuple(settings))

    rows = list(benchmark.rows_of(tmp_path / "nmnist"))

    assert [row.setting for row in rows] == [benchmark.Setting("none"), *settings]
    assert rows[0].accuracies == {0: record.accuracy}
    size = record.baseline_footprint_bits
    assert [row.bits for row in rows] == [size, size * 7 // 32, size * 5 // 32]
    for row in rows[1:]:
        assert row.accuracies == {0: record.metrics[f"{row.setting.key}/test/accuracy"]}
        assert row.losses == {0: record.accuracy - row.accuracies[0]}
    page = benchmark.report({"nmnist": rows})
    assert f"| none | 32 |  | {100 * record.accuracy:.2f}% |" in page
    assert "| PTQ | 7 | nearest |" in page
    earlier = tmp_path / "nmnist.json"
    write_json(benchmark.figures({"nmnist_decolle": rows}), earlier)
    assert benchmark.all_rows(tmp_path / "nothing", earlier) == {"nmnist_decolle": rows}
    assert benchmark.all_rows(tmp_path, earlier) == {"nmnist": rows, "nmnist_decolle": rows}
    write_json(benchmark.figures({"nmnist": rows[:1]}), earlier)
    assert benchmark.all_rows(tmp_path, earlier) == {"nmnist": rows}


def test_a_network_of_spikingjelly_as_it_is(composed, tmp_path: Path) -> None:
    config = composed(
        "network=from_callable",
        "network.module.channels=2",
        "network.time_steps=2",
        *SHORT,
        tiny=False,
    )
    record = train(config, tmp_path)
    assert record.network == "MNISTNet"
    assert record.baseline_footprint_bits / record.footprint_bits == pytest.approx(32 / 5)


def test_a_network_for_other_images_is_refused_before_training(composed, tmp_path: Path) -> None:
    config = composed(
        "network=from_callable",
        "network.module._target_=spikingjelly.activation_based.model.parametric_lif_net.CIFAR10Net",
        "network.module.channels=2",
        "network.time_steps=2",
        *SHORT,
        tiny=False,
    )
    with pytest.raises(ConfigurationError, match="CIFAR10Net cannot take an input"):
        train(config, tmp_path)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("trainer.precision=bf16-true",), "trainer.precision='bf16-true'.*write bf16-mixed"),
        (
            ("quantization.scheme=none", "quantization.compile_steps=true"),
            r"compile_steps=true .*write false, or scheme=itq",
        ),
        (("quantization.compile_steps=3",), r"quantization.compile_steps=3: write true or false"),
    ],
)
def test_precisions_and_compilers_that_cannot_work(
    composed, tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        train(composed(*overrides), tmp_path)
