"""The store of 32-bit trainings: the same records, and nothing trained twice."""

import functools
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from qspinn.app.errors import ConfigurationError
from qspinn.app.run.baselines import float_config, training_key
from qspinn.app.run.train import train
from qspinn.learning import SupervisedLearning, UnsupervisedLearning
from qspinn.records import comparable, read_record

QUICK = "experiment=unsupervised_quick"
PICTURES = "callbacks=default"
KINDS = {"supervised": (PICTURES,), "unsupervised": (QUICK, PICTURES)}
CACHES = shutil.ignore_patterns("__pycache__")
STOCHASTIC = "quantization.rounding=stochastic"
BATCHES = {"supervised": 12, "unsupervised": 8}  # that the tiny trainings of conftest.py have


def counting_batches(patch):
    """Return a list that grows with every batch that is learned from."""
    batches = []
    for owner in (SupervisedLearning, UnsupervisedLearning):
        original = owner.training_step

        def counting(self, batch, batch_idx, original=original):
            batches.append(batch_idx)
            return original(self, batch, batch_idx)

        patch.setattr(owner, "training_step", counting)
    return batches


@pytest.fixture
def trained(monkeypatch):
    """Return a list that grows with every batch that is learned from."""
    return counting_batches(monkeypatch)


@pytest.fixture(scope="module")
def store_of(composed, tmp_path_factory):
    """Return a function from a kind of network to a store that a candidate's run has filled."""

    @functools.cache
    def fill(kind):
        folder = tmp_path_factory.mktemp(kind)
        store = f"baselines.dir={folder / 'store'}"
        words = ("quantization.scheme=ptq", "quantization.word_length=5")
        with pytest.MonkeyPatch.context() as patch:
            batches = counting_batches(patch)
            train(composed(*KINDS[kind], store, *words), folder / "first")
        assert len(batches) == BATCHES[kind]
        return store

    return fill


def values_of(config):
    return OmegaConf.to_container(config, resolve=True)


def state_of(folder: Path):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.few(0.2)
@pytest.mark.parametrize("scheme", ["none", "ptq"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_record_is_the_same_with_and_without(
    composed, store_of, tmp_path, trained, kind, scheme
):
    # A run of another candidate has trained; the first one here only loads.
    store = store_of(kind)
    trained.clear()
    overrides = (*KINDS[kind], STOCHASTIC, f"quantization.scheme={scheme}")
    shared = train(composed(*overrides, store), tmp_path / "shared")
    assert len(trained) == 0
    alone = train(composed(*overrides), tmp_path / "alone")
    assert len(trained) == BATCHES[kind]

    assert comparable(shared) == comparable(alone)
    texts = [(tmp_path / name / "metrics.csv").read_text() for name in ("shared", "alone")]
    assert texts[0] == texts[1]
    pictures = [
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.png")}
        for name in ("shared", "alone")
    ]
    assert pictures[0] == pictures[1]
    drawn = {"weights.png"} if kind == "unsupervised" else {"spikes.png", "membranes.png"}
    assert drawn <= pictures[0].keys()
    states = [state_of(tmp_path / name) for name in ("shared", "alone")]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.slow
def test_who_trains_makes_no_difference(composed, tmp_path, trained):
    """The run that trains the baseline has the same record as the run that finds it."""
    records = []
    for name in ("one", "two"):
        store = f"baselines.dir={tmp_path / name}"
        if name == "two":
            train(composed(store, "quantization.scheme=none"), tmp_path / "none")
        records.append(train(composed(store, STOCHASTIC), tmp_path / f"{name}-run"))
    assert comparable(records[0]) == comparable(records[1])
    assert len(trained) == 2 * BATCHES["supervised"]


@pytest.mark.slow
def test_a_thousand_candidates_cost_one_training(composed, tmp_path, trained):
    store = f"baselines.dir={tmp_path / 'store'}"
    for word_length in (3, 4, 6):
        record = train(
            composed(store, f"quantization.word_length={word_length}"),
            tmp_path / str(word_length),
        )
        assert record.word_lengths["weight"] == [word_length]
    assert len(trained) == BATCHES["supervised"]
    # Each run has a file of its own: what happens to one is nothing to the others.
    paths = [(tmp_path / name / "checkpoints" / "last.ckpt") for name in "346"]
    assert {path.stat().st_nlink for path in paths} == {1}
    train(composed(store, "seed=1"), tmp_path / "seed")
    assert len(trained) == 2 * BATCHES["supervised"]
    assert len(list((tmp_path / "store").glob("*/baseline.json"))) == 2


def baselines_of(twin):
    return {
        "baseline_accuracy": twin.accuracy,
        "validation_baseline_accuracy": twin.validation_accuracy,
    }


@pytest.mark.slow
def test_an_itq_run_finds_its_baseline(composed, tmp_path, trained):
    store = f"baselines.dir={tmp_path / 'store'}"
    itq = (store, "quantization.scheme=itq", STOCHASTIC)
    before = train(composed(*itq), tmp_path / "before")
    assert before.baseline_accuracy is None
    none = train(composed(store, "quantization.scheme=none"), tmp_path / "none")
    count = len(trained)
    after = train(composed(*itq), tmp_path / "after")
    assert len(trained) == count + BATCHES["supervised"]  # its own training
    assert after.baseline_accuracy == none.accuracy
    wanted = {**comparable(before), **baselines_of(none)}
    assert comparable(after) == wanted


@pytest.mark.slow
def test_an_itq_run_trains_its_baseline_if_asked(composed, tmp_path, trained):
    store = f"baselines.dir={tmp_path / 'store'}"
    itq = ("quantization.scheme=itq", STOCHASTIC)
    alone = train(composed(*itq), tmp_path / "alone")
    asked = train(composed(*itq, store, "baselines.train_for_itq=true"), tmp_path / "asked")
    assert len(trained) == 3 * BATCHES["supervised"]
    none = train(composed(store, "quantization.scheme=none"), tmp_path / "none")
    assert len(trained) == 3 * BATCHES["supervised"]
    assert asked.baseline_accuracy == none.accuracy
    assert comparable(asked) == {**comparable(alone), **baselines_of(none)}


@pytest.mark.slow
def test_an_early_stop_is_taken_over(composed, tmp_path, trained):
    stop = (
        "trainer.max_epochs=6",
        "+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping",
        "+callbacks.stop.monitor=val/loss",
        "+callbacks.stop.patience=1",
        "+callbacks.stop.min_delta=100",
    )
    alone = train(composed(*stop), tmp_path / "alone")
    assert len(trained) < 24
    del trained[:]
    store = f"baselines.dir={tmp_path / 'store'}"
    shared = train(composed(*stop, store), tmp_path / "shared")
    assert len(trained) < 24
    count = len(trained)
    again = train(composed(*stop, store), tmp_path / "again")
    assert len(trained) == count
    assert comparable(alone) == comparable(shared) == comparable(again)


@pytest.mark.slow
def test_no_checkpoint_is_left_where_none_is_wanted(composed, tmp_path):
    off = ("callbacks.checkpoint=null", "+trainer.enable_checkpointing=false")
    overrides = (*off, "trainer.max_epochs=1")
    alone = train(composed(*overrides), tmp_path / "alone")
    shared = train(composed(*overrides, f"baselines.dir={tmp_path / 's'}"), tmp_path / "shared")
    assert alone.checkpoint is shared.checkpoint is None
    assert comparable(alone) == comparable(shared)
    assert not (tmp_path / "shared" / "checkpoints").exists()


SAME = ["quantization.word_length=3", "quantization.scheme=itq", "progress=none", "logger=wandb"]
OTHER = [
    "seed=7",
    "data.max_shift=1",
    "network.time_steps=3",
    "learning.loss=cross_entropy",
    "trainer.max_epochs=4",
    "threads=2",
    "+callbacks.more._target_=lightning.pytorch.callbacks.LearningRateMonitor",
]


def test_the_key_is_of_what_the_training_depends_on(composed):
    def key(*overrides, data="the same"):
        return training_key(float_config(values_of(composed(*overrides))), data)

    assert {key(override) for override in SAME} == {key()}
    others = [key(override) for override in OTHER]
    assert len({key(), key(data="other"), *others}) == 2 + len(OTHER)


def test_the_key_knows_versions_and_sources(composed, monkeypatch, tmp_path):
    import qspinn.app.run.baselines as module

    values = float_config(values_of(composed()))
    before = training_key(values, "data")
    with monkeypatch.context() as patch:
        patch.setattr(module, "library_versions", lambda: dict.fromkeys(module.LIBRARIES, "0"))
        assert training_key(values, "data") != before
    for name in ("same", "other"):
        copied = shutil.copytree(module.PACKAGE, tmp_path / name, ignore=CACHES)
        if name == "other":
            with open(copied / "networks" / "conv_snn.py", "a") as file:
                file.write("\n")
        with monkeypatch.context() as patch:
            patch.setattr(module, "PACKAGE", copied)
            assert (training_key(values, "data") == before) == (name == "same")


def test_the_key_knows_the_files_of_strangers_and_their_helpers(composed, monkeypatch, tmp_path):
    values = float_config(values_of(composed()))
    network, helper = tmp_path / "strange_network.py", tmp_path / "strange_helper.py"
    weights = tmp_path / "weights.pt"
    monkeypatch.syspath_prepend(tmp_path)
    network.write_text("from strange_helper import size\nclass Net: pass\n")
    helper.write_text("def size(): return 1\n")
    values["network"] = {"_target_": "strange_network.Net", "weights": str(weights)}
    keys = [training_key(values, "data")]
    for path in (network, helper, weights):
        path.write_text("".join((*(path.read_text() if path.exists() else ""), "# changed\n")))
        keys.append(training_key(values, "data"))
    assert len(set(keys)) == 4


def test_the_key_knows_constants_and_late_imports_of_strangers(composed, monkeypatch, tmp_path):
    """Values that say nothing of the module they are from, and modules not imported yet."""
    values = float_config(values_of(composed()))
    package = tmp_path / "somebodys_nets"
    package.mkdir()
    texts = {
        "__init__.py": "",
        "net.py": "from .sizes import LAYERS\nclass Net:\n  def f(self):\n    from . import late\n",
        "sizes.py": "LAYERS = [1, 2]\n",
        "late.py": "import somebodys_nets.deeper\n",
        "deeper.py": "",
        "unused.py": "",
    }
    for name, text in texts.items():
        (package / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    values["network"] = {"_target_": "somebodys_nets.net.Net"}
    keys = [training_key(values, "data")]
    for name in texts:
        (package / name).write_text(texts[name] + "# changed\n")
        keys.append(training_key(values, "data"))
    assert len(set(keys)) == len(texts)  # all but the one that nobody imports
    assert keys[-1] == keys[-2]


def test_the_key_knows_modules_in_folders_without_init_files(composed, monkeypatch, tmp_path):
    values = float_config(values_of(composed()))
    deep = tmp_path / "plain" / "folders" / "within"
    deep.mkdir(parents=True)
    (tmp_path / "flat_net.py").write_text(
        "class Net:\n  def f(self):\n    from plain.folders.within.sizes import SIZE\n"
    )
    (deep / "sizes.py").write_text("SIZE = 1\nimport plain.folders.nothing, plain.old\n")
    (tmp_path / "plain" / "old.py").write_text("print 'of another Python'\n")
    monkeypatch.syspath_prepend(tmp_path)
    values["network"] = {"_target_": "flat_net.Net"}
    keys = [training_key(values, "data")]
    for path in (deep / "sizes.py", tmp_path / "plain" / "old.py"):
        path.write_text(path.read_text() + "# changed\n")
        keys.append(training_key(values, "data"))
    assert len(set(keys)) == 3


def test_packages_that_pip_has_put_elsewhere_are_libraries(composed, monkeypatch, tmp_path):
    """As with ``pip install --target``, a ``.pth`` file, or the packages of another environment."""
    values = float_config(values_of(composed()))
    library, mine = tmp_path / "library", tmp_path / "mine"
    (library / "somelib-1.0.dist-info").mkdir(parents=True)
    mine.mkdir()
    (library / "somelib.py").write_text("SIZE = 1\n")
    (mine / "leaning_net.py").write_text(
        "class Net:\n  def f(self):\n    import somelib, lean_helper\n"
    )
    (mine / "lean_helper.py").write_text("")
    for place in (library, mine):
        monkeypatch.syspath_prepend(place)
    values["network"] = {"_target_": "leaning_net.Net"}
    before = training_key(values, "data")
    (library / "somelib.py").write_text("SIZE = 2\n")
    assert training_key(values, "data") == before
    (mine / "lean_helper.py").write_text("# changed\n")
    assert training_key(values, "data") != before


@pytest.mark.parametrize("group", ["network", "learning"])
def test_the_key_knows_folders_that_a_class_reads(composed, tmp_path, group):
    values = float_config(values_of(composed()))
    values[group] = {**values[group], "weights": str(tmp_path), "long": "x" * 5000, "nul": "a\0b"}
    keys = [training_key(values, "data")]
    for text in ("one", "two"):
        (tmp_path / "layer0.bin").write_text(text)
        keys.append(training_key(values, "data"))
    assert len(set(keys)) == 3


def test_a_root_of_a_strangers_data_may_mean_anything(composed):
    values = float_config(values_of(composed()))
    strange = {**values["data"], "_target_": "lightning.LightningDataModule"}
    keys = [training_key({**values, "data": {**strange, "root": n}}, "data") for n in (2, 3)]
    assert keys[0] != keys[1]


@pytest.mark.parametrize("where", ["root", "download"])
def test_the_key_does_not_know_where_the_data_lie(composed, where):
    values = float_config(values_of(composed()))
    keys = [
        training_key({**values, "data": {**values["data"], where: place}}, "data")
        for place in ("a", "b")
    ]
    assert keys[0] == keys[1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["baselines.dir=5"], r"baselines\.dir=5; write a folder, or null"),
        (["baselines.train_for_itq=maybe"], r"train_for_itq='maybe'; write true or false"),
        (["baselines.train_for_itq=true"], r"needs a store; write baselines\.dir=FOLDER"),
    ],
)
def test_bad_values_are_reported(composed, tmp_path, overrides, message):
    with pytest.raises(ConfigurationError, match=message):
        train(composed(*overrides), tmp_path)


def test_a_bad_candidate_trains_no_baseline(composed, tmp_path, trained):
    store = f"baselines.dir={tmp_path / 'store'}"
    bad = composed(store, "quantization.rules=[{layers:no,role:weight,word_length:4}]")
    with pytest.raises(ConfigurationError, match="matches no layer"):
        train(bad, tmp_path / "run")
    assert trained == []
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_an_entry_that_cannot_be_read_says_so(composed, tmp_path, trained):
    config = composed("trainer.max_epochs=1", f"baselines.dir={tmp_path / 'store'}")
    train(config, tmp_path / "one")
    (file,) = (tmp_path / "store").glob("*/baseline.json")
    file.write_text("{")
    with pytest.raises(
        ConfigurationError, match=r"baseline\.json cannot be used.*delete the folder"
    ):
        train(config, tmp_path / "two")
    file.unlink()  # what remains is a training that was broken off after its last epoch
    count = len(trained)
    assert (
        train(config, tmp_path / "two").accuracy
        == read_record(tmp_path / "one" / "record.json").accuracy
    )
    assert len(trained) == count
    assert json.loads(file.read_text())["measured"]["test/accuracy"] > 0


@pytest.mark.slow
def test_a_training_that_was_killed_is_gone_on_with(composed, launch_killed, tmp_path, trained):
    store = f"baselines.dir={tmp_path / 'store'}"
    step = "qspinn.learning.supervised:SupervisedLearning:training_step"
    killed = launch_killed(step, 6, store, f"hydra.run.dir={tmp_path / 'killed'}")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not list((tmp_path / "store").glob("*/baseline.json"))
    shared = train(composed(store, "quantization.word_length=5"), tmp_path / "shared")
    assert len(trained) == BATCHES["supervised"] - 4  # the first epoch was kept
    alone = train(composed("quantization.word_length=5"), tmp_path / "alone")
    assert comparable(shared) == comparable(alone)


WAITING = """
import sys
from pathlib import Path
from omegaconf import OmegaConf
from qspinn.app.run.train import train
config, output = sys.argv[1:]
print("READY", flush=True)
sys.stdin.readline()
train(OmegaConf.load(config), Path(output))
"""


@pytest.mark.slow
def test_processes_that_start_together_train_once(composed, repository, tmp_path):
    processes = []
    for index in range(3):
        config = composed(
            f"baselines.dir={tmp_path / 'store'}", f"quantization.word_length={3 + index}"
        )
        OmegaConf.save(config, tmp_path / f"{index}.yaml")
        arguments = [str(tmp_path / f"{index}.yaml"), str(tmp_path / f"run{index}")]
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", WAITING, *arguments],
                cwd=repository,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    for process in processes:
        assert process.stdout.readline() == "READY\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    printed = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum(text.count("epoch 1/3") for text in printed) == 1
    assert sum("waiting for the 32-bit training" in text for text in printed) == 2
    assert sum("32-bit training taken from" in text for text in printed) == 3
