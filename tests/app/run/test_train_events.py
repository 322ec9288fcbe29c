"""Whole runs on event data, and of networks that are not ours."""

import json
from pathlib import Path

import pytest
from PIL import Image

from qspinn.app.errors import ConfigurationError
from qspinn.app.folder.folder import RunFolder
from qspinn.app.run.train import train
from qspinn.records import write_json, write_record

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


@pytest.mark.few(0.5)
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_benchmark_s_callbacks_quantise_one_training_in_many_ways(
    composed, nmnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import event_results as benchmark
    from nmnist import STUDY

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
    page = benchmark.report(STUDY, {"nmnist": rows})
    assert f"| none | 32 |  | {100 * record.accuracy:.2f}% |" in page
    assert "| PTQ | 7 | nearest |" in page
    not_run = (
        "PTQ nearest, 7 bits (4); PTQ truncate, 5 bits (4); ITQ nearest, 8, 6, 5, 4, 3 bits (5)"
    )
    assert not_run in page

    earlier = tmp_path / "nmnist.json"
    write_json(benchmark.figures({"nmnist_decolle": rows}), earlier)
    nothing = benchmark.all_rows(STUDY, tmp_path / "nothing", earlier)
    assert nothing == {"nmnist": [], "nmnist_decolle": rows}
    both = benchmark.all_rows(STUDY, tmp_path, earlier)
    assert both == {"nmnist": rows, "nmnist_decolle": rows}
    write_json(benchmark.figures({"nmnist": rows[:1]}), earlier)
    assert benchmark.all_rows(STUDY, tmp_path, earlier) == {"nmnist": rows, "nmnist_decolle": []}


def test_the_page_of_gestures_says_what_was_measured_and_what_was_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, repository: Path, make_record
) -> None:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import event_results
    import gestures

    def finish(setting: event_results.Setting, seed: int, accuracy: float, **values) -> None:
        folder = tmp_path / "runs" / "synthetic_gesture_decolle" / setting.key / str(seed)
        folder.mkdir(parents=True)
        record = make_record(scheme=setting.scheme, seed=seed, accuracy=accuracy, **values)
        write_record(record, folder / "record.json")

    eight = event_results.Setting("itq", 8, "nearest")
    assert eight in gestures.HIGHLIGHTS
    metrics = {}
    for setting in event_results.PTQ:
        metrics[f"{setting.key}/test/accuracy"] = 0.5
        metrics[f"{setting.key}/footprint_bits"] = 100.0 * setting.bits
    for seed, accuracy in enumerate((0.96, 0.98)):
        finish(event_results.NONE, seed, accuracy, metrics=metrics, bits=3200)
    finish(eight, 0, 0.95, bits=800)
    (mixed,) = (one for one in gestures.MIXED if one.scheme == "ptq")
    finish(mixed, 1, 0.97, bits=500)

    page = event_results.write_page(gestures.STUDY, tmp_path / "runs", tmp_path / "results")

    assert "**Synthetic data**" in page
    assert "| DECOLLE | none | 32 bits |  | 97.00% ± 1.41 |  | 2 |" in page
    assert "| DECOLLE | ITQ | 8 bits | 4.0x smaller | 95.00% | +1.00 points | 1 |" in page
    assert "| DECOLLE | ITQ | 5 bits | | not run | | 0 |" in page
    assert "| PTQ | 8 (weights 5) bits | 6.4x smaller | 97.00% | +1.00 points | 1 |" in page
    assert (
        "| PTQ | 5 | truncate | 50.00% ± 0.00 | +47.00 ± 1.41 points | 500 bits | 6.4x | 2 |"
        in page
    )
    assert "ITQ nearest, 8 bits (2); ITQ nearest, 6, 5, 4, 3, 8 (weights 5) bits (3)" in page
    assert "| Surrogate gradient | none | 32 bits | | not run | | 0 |" in page
    assert "missing): 32 bits (3); PTQ nearest, 8, 6, 5, 4, 3, 8 (weights 5) bits (3);" in page
    assert (tmp_path / "results" / "gestures.md").read_text(encoding="utf-8") == page
    rows = json.loads((tmp_path / "results" / "gestures.json").read_bytes())
    assert [row["accuracies"] for row in rows if row["scheme"] == "itq"] == [{"0": 0.95}]
    assert [row["weights"] for row in rows][-1] == 5
    nothing = tmp_path / "nothing"
    kept = event_results.all_rows(gestures.STUDY, nothing, tmp_path / "results" / "gestures.json")
    assert kept["synthetic_gesture_decolle"][-1].setting == mixed


@pytest.mark.slow
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
        (("quantization.compile_steps=3",), r"quantization.compile_steps=3; write true or false"),
        (
            ("quantization.scheme=itq", "quantization.repair=bias+learned"),
            r"repair='bias\+learned' repairs a network that is quantised after training, and "
            r"scheme=itq does not; write repair=none, or scheme=ptq",
        ),
        (
            ("quantization.scheme=none", "quantization.repair=bias"),
            r"scheme=none does not; write repair=none",
        ),
        (
            ("quantization.repair=biases",),
            r"quantization: repair='biases': unknown repair 'biases'; write none, one of learned",
        ),
        (
            ("quantization.learned_steps=weight",),
            r"learned_steps='weight' learns steps together with the weights, and scheme=ptq .*"
            r"write learned_steps=none, or scheme=itq",
        ),
        (
            ("quantization.scheme=itq", "quantization.learned_steps=all"),
            r"quantization: learned_steps='all'; write none, weight, membrane or weight\+membrane",
        ),
        (
            ("quantization.scheme=itq", "quantization.saturated=zero"),
            r"saturated='zero'; write one of returning, clip, pass",
        ),
    ],
)
def test_precisions_and_compilers_that_cannot_work(
    composed, tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        train(composed(*overrides), tmp_path)
