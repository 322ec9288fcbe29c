"""Weights & Biases without a network: runs are written to files, and read back here."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from wandb.proto import wandb_internal_pb2

from qspinn.app.errors import ConfigurationError
from qspinn.app.tracking import client as wandb_client
from qspinn.app.tracking import logger as wandb_logger
from qspinn.app.tracking.summary import RECORD_KEY
from qspinn.records import RunRecord, read_record
from qspinn.selection import LinearReward
from tests.reference.wandb_server import KEY, serving

# Nothing of the machine's own settings: None unsets a variable.
NO_KEY = dict.fromkeys(("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR", "WANDB_BASE_URL"))


def messages_of(data: bytes) -> Iterator[bytes]:
    """Split W&B's file: LevelDB's log format behind 7 bytes of W&B's own.

    A block has 32,768 bytes; a chunk is a checksum (4 bytes), a length (2), a type (1: whole,
    2: first, 3: middle, 4: last part of a message) and its bytes; blocks end in zeros.
    """
    at, message = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length = int.from_bytes(data[at + 4 : at + 6], "little")
        if at + 7 + length > len(data):
            return
        kind = data[at + 6]
        message += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield message
            message = b""


def entries_in(path: Path) -> list[wandb_internal_pb2.Record]:
    """Return what one file recorded, up to its exit.

    W&B's service process writes the end of the file a moment after the run has finished.
    """
    deadline = time.monotonic() + 30
    while True:
        entries = []
        for message in messages_of(path.read_bytes()):
            entry = wandb_internal_pb2.Record()
            entry.ParseFromString(message)
            entries.append(entry)
        if exit_codes(entries) or time.monotonic() > deadline:
            return entries
        time.sleep(0.1)


def entries_of(folder: Path) -> list[list[wandb_internal_pb2.Record]]:
    """Return what each offline run below a folder recorded, oldest run first."""
    paths = sorted(folder.rglob("*.wandb"), key=lambda path: path.parent.name)
    return [entries_in(path) for path in paths]


def logged(entries: list[wandb_internal_pb2.Record]) -> dict[str, float]:
    """Return the last value of each metric."""
    values = {}
    for entry in entries:
        for item in entry.history.item:
            values[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    return values


def exit_codes(entries: list[wandb_internal_pb2.Record]) -> list[int]:
    return [entry.exit.exit_code for entry in entries if entry.HasField("exit")]


@pytest.fixture
def without_key(tmp_path, monkeypatch):
    """Give wandb a home without a key, and no memory of the last test."""
    for name in NO_KEY:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    wandb.teardown()
    wandb_client.forget()
    yield
    wandb.teardown()
    wandb_client.forget()


@pytest.mark.slow
def test_each_job_of_a_sweep_is_a_run_and_one_line_says_offline(launch_anew, tmp_path):
    done = launch_anew(
        "--multirun",
        "trainer.max_epochs=1",
        "seed=1,2",
        "logger=wandb",
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
        HOME=str(tmp_path),
        **NO_KEY,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "W&B" in line]
    assert len(lines) == 1
    assert "offline, no API key" in lines[0]
    assert "wandb:" not in done.stderr
    runs = entries_of(tmp_path / "sweep")
    assert len(runs) == 2
    for entries in runs:
        assert exit_codes(entries) == [0]
        values = logged(entries)
        assert {"train/loss", "val/accuracy", "test/accuracy", "ptq/test/accuracy"} <= set(values)
        assert values["accuracy"] == pytest.approx(values["ptq/test/accuracy"], abs=1e-6)
        assert values["footprint_bits"] > 0
    assert logged(runs[0]) != logged(runs[1])
    for seed, entries in zip((1, 2), runs, strict=True):
        check_handed_over(entries, seed, tmp_path)


def check_handed_over(entries, seed, folder):
    """What W&B compares runs by, the record, the tables and the artifact, grouped and tagged."""
    values = summary_of(entries)
    records = map(read_record, (folder / "sweep").glob("*/record.json"))
    (record,) = [record for record in records if record.seed == seed]
    assert RunRecord.from_dict(json.loads(values[RECORD_KEY])) == record
    assert values["reward"] == pytest.approx(LinearReward()(record.measured_on("validation")))
    assert values["footprint_bits/weight"] == record.footprint_bits_by_role["weight"]
    assert (values["scheme"], values["rounding"]) == ("ptq", "nearest")
    assert values["word_length/weight"] == 8
    begun = [entry.run for entry in entries if entry.HasField("run")]
    assert begun[0].run_group == f"ptq-nearest-8-{record.setting_key[:8]}"
    assert begun[0].display_name.endswith(f"seed={seed}")
    assert begun[0].job_type == "ptq"
    assert {"ptq", "nearest", "8-bit", "ConvSNN", "mnist_subset"} <= set(begun[-1].tags)
    assert {"footprint", "formats"} <= {name.partition("/")[0] for name in logged(entries)}
    artifacts = [entry.artifact for entry in entries if entry.HasField("artifact")]
    (model,) = [artifact for artifact in artifacts if artifact.type == "model"]
    assert {item.path for item in model.manifest.contents} == {"quantized.pt", "record.json"}


def summary_of(entries):
    """The last value of each entry of the summary."""
    return {
        item.key or "/".join(item.nested_key): json.loads(item.value_json)
        for entry in entries
        for item in entry.summary.update
    }


def test_the_configuration_is_logged_and_an_error_marks_the_run_as_failed(
    composed, tmp_path, monkeypatch, without_key
):
    from qspinn.app.run.train import train
    from qspinn.learning import SupervisedLearning

    def broken(self, batch, index):
        raise ArithmeticError("diverged")

    config = composed("logger=wandb", "trainer.max_epochs=1")
    monkeypatch.setattr(SupervisedLearning, "test_step", broken)
    with pytest.raises(ArithmeticError, match="diverged"):
        train(config, tmp_path / "run")
    (entries,) = entries_of(tmp_path / "run")
    assert exit_codes(entries) == [1]
    keys = {
        item.key or item.nested_key[0]
        for entry in entries
        for item in (*entry.config.update, *entry.run.config.update)
    }
    assert {"network", "quantization", "seed"} <= keys


def test_wandb_dir_names_another_place(tmp_path, monkeypatch, without_key):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("WANDB_DIR", str(elsewhere))
    logger = wandb_logger.start_wandb(str(tmp_path))
    logger.log_metrics({"x": 1.5}, step=0)
    wandb_logger.finish_wandb(0)
    (entries,) = entries_of(elsewhere)
    assert logged(entries)["x"] == 1.5
    assert not (tmp_path / "wandb").exists()


@pytest.mark.parametrize("mode", ["offline", "disabled", "online"])
def test_a_stated_mode_is_taken(monkeypatch, capsys, without_key, mode):
    monkeypatch.setenv("WANDB_MODE", mode)
    assert wandb_client.wandb_mode() == mode
    assert capsys.readouterr().out == ""


def test_a_mode_that_is_none_is_refused(monkeypatch, without_key):
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(ConfigurationError, match=r"WANDB_MODE='sometimes'; write one of online"):
        wandb_client.wandb_mode()


def test_a_key_without_a_server_means_offline(monkeypatch, capsys, without_key):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert wandb_client.wandb_mode() == "offline"
    assert "http://127.0.0.1:9 does not answer" in capsys.readouterr().out


def test_a_key_and_a_server_mean_online(monkeypatch, capsys, without_key):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with serving() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.address)
        assert wandb_client.wandb_mode() == "online"
    assert capsys.readouterr().out == ""


def test_pictures_are_logged(tmp_path, monkeypatch, without_key):
    from tests.app.show.test_pictures import trained

    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = wandb_logger.start_wandb(str(tmp_path))
    trained(tmp_path, loggers=[logger])
    wandb_logger.finish_wandb(0)

    (entries,) = entries_of(tmp_path)
    values = logged(entries)
    for name in ("weights", "confusion_matrix"):
        assert values[f"{name}/count"] == 1
        (file,) = values[f"{name}/filenames"]
        (copied,) = tmp_path.rglob(Path(file).name)
        assert copied.read_bytes() == (tmp_path / f"{name}.png").read_bytes()


def test_what_is_quantised_is_logged(tmp_path, monkeypatch, without_key, make_record):
    from qspinn.app.folder.folder import RunFolder

    monkeypatch.setenv("WANDB_MODE", "offline")
    lines = ["quantised: 93.7% of the parameters", "32-bit: 4 values, Linear is called twice"]
    summary = {
        "parameters": {"quantized": 60, "total": 64},
        "states": {"quantized": 0, "total": 0},
        "lines": lines,
    }
    logger = wandb_logger.start_wandb(str(tmp_path))
    logger.log_record(make_record(summary=summary), RunFolder(tmp_path))
    wandb_logger.finish_wandb(0)
    (entries,) = entries_of(tmp_path)
    values = summary_of(entries)
    assert values["quantized_parameters_share"] == 60 / 64
    assert values["quantized_states_share"] == 1.0
    assert values["quantized"] == "\n".join(lines)
    updates = [item for entry in entries for item in entry.config.update]
    logged_config = {item.key: json.loads(item.value_json) for item in updates if item.key}
    assert logged_config["quantized"] == summary


ENVIRONMENT = {
    "WANDB_PROJECT": "mine",
    "WANDB_ENTITY": "team",
    "WANDB_NAME": "first try",
    "WANDB_RUN_GROUP": "tries",
    "WANDB_TAGS": "one,two",
    "WANDB_NOTES": "what I think",
    "WANDB_JOB_TYPE": "night",
}


def begun_with(composed, tmp_path, *overrides):
    """The first entry that describes the run which a configuration starts."""
    from qspinn.app.compose.completing import to_plain
    from qspinn.app.folder.folder import RunFolder
    from qspinn.app.folder.naming import named_loggers
    from qspinn.app.run.building import build_loggers

    config = to_plain(composed("logger=wandb", *overrides))
    build_loggers(named_loggers(config), RunFolder(tmp_path))
    wandb_logger.finish_wandb(0)
    (entries,) = entries_of(tmp_path)
    return next(entry.run for entry in entries if entry.HasField("run"))


def test_the_environment_goes_before_our_defaults(composed, tmp_path, monkeypatch, without_key):
    for name, value in {**ENVIRONMENT, "WANDB_MODE": "offline"}.items():
        monkeypatch.setenv(name, value)
    run = begun_with(composed, tmp_path)
    assert (run.project, run.entity) == ("mine", "team")
    assert (run.display_name, run.run_group) == ("first try", "tries")
    assert set(run.tags) == {"one", "two"}
    assert (run.notes, run.job_type) == ("what I think", "night")


def test_what_the_user_writes_goes_before_the_environment(
    composed, tmp_path, monkeypatch, without_key
):
    for name, value in {**ENVIRONMENT, "WANDB_MODE": "offline"}.items():
        monkeypatch.setenv(name, value)
    given = ("project=a", "entity=b", "name=c", "group=d", "tags=[e]")
    run = begun_with(composed, tmp_path, *(f"logger.wandb.{text}" for text in given))
    assert (run.project, run.entity, run.display_name, run.run_group) == tuple("abcd")
    assert list(run.tags) == ["e"]


@pytest.mark.parametrize("value", [None, ""])
def test_our_defaults_without_the_environment(composed, tmp_path, monkeypatch, without_key, value):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
        if value is not None and name != "WANDB_TAGS":  # W&B itself refuses an empty tag
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = begun_with(composed, tmp_path, "seed=4")
    assert run.project == "qspinn"
    assert run.run_group.startswith("ptq-nearest-8-")
    assert run.display_name.endswith("seed=4")
    assert (run.job_type, run.notes) == ("ptq", "")


def test_a_logger_of_ones_own_takes_the_project_from_the_environment(
    tmp_path, monkeypatch, without_key
):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    wandb_logger.start_wandb(str(tmp_path))
    wandb_logger.finish_wandb(0)
    (entries,) = entries_of(tmp_path)
    assert next(entry.run for entry in entries if entry.HasField("run")).project == "mine"
