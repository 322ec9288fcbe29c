"""W&B's real client against a server on this machine that answers, refuses, fails and hangs."""

import csv
import json
import os
import signal
import socket
import time

import pytest
import wandb

from qspinn.app.errors import ConfigurationError
from qspinn.app.folder.folder import RunFolder
from qspinn.app.tracking import client as wandb_client
from qspinn.app.tracking import logger as wandb_logger
from qspinn.app.tracking.history import STEP
from qspinn.app.tracking.server import Server, uploaded
from qspinn.app.tracking.source import read_wandb
from qspinn.app.tracking.summary import RECORD_KEY
from qspinn.selection import Run
from tests.app.tracking.test_wandb_logger import NO_KEY, entries_of, exit_codes, logged, summary_of
from tests.reference.wandb_server import KEY, MODES, serving

TROUBLES = [mode for mode in MODES if mode != "answer"]


@pytest.fixture
def client(tmp_path, monkeypatch):
    """Give wandb a home of its own, and no memory of the last test."""
    for name in (*NO_KEY, "WANDB_RUN_ID", "http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr("qspinn.app.tracking.server.PATIENCE_SECONDS", 0.2)
    wandb.teardown()
    wandb_client.forget()
    yield monkeypatch
    wandb_logger.finish_wandb(1)
    wandb.teardown()
    wandb_client.forget()


@pytest.fixture
def server(client):
    """A server that answers, and that the client is told of."""
    with serving() as state:
        client.setenv("WANDB_BASE_URL", state.address)
        yield state


ROWS = [{"step": 4 * i + 3, "epoch": i, "loss": 1 / (i + 1)} for i in range(4)]


def log_rows(logger, rows):
    for row in rows:
        logger.log_metrics({k: v for k, v in row.items() if k != "step"}, row["step"])
        logger.flush(row["step"])


def rows_of(run, *names):
    """The numbers of a history, without W&B's own."""
    keys = names or ("epoch", "loss")
    return [
        {"step": row[STEP], **{k: row[k] for k in keys if k in row}}
        for row in run.history
        if STEP in row
    ]


@pytest.mark.parametrize("mode", TROUBLES)
def test_the_probe_names_each_trouble(mode):
    says = {
        "refuse": r"does not accept the API key \(401\)",
        "fail": "answers with the error 500",
        "hang": r"has not answered within 0\.5 s",
        "stall": r"has not answered within 0\.5 s",
        "nonsense": "does not answer as a W&B server does",
        "web page": "does not answer as a W&B server does",
        "redirect": r"redirects to http://127\.0\.0\.1.*; set WANDB_BASE_URL",
    }
    import re

    with serving(mode) as state:
        reason = Server(state.address, KEY).why_unusable(0.5)
        assert reason is not None
        assert re.search(says[mode], reason)
        assert KEY not in reason + repr(Server(state.address, KEY))


def test_the_probe_takes_a_server_that_answers_and_its_proxy():
    with serving() as state:
        assert Server(state.address, KEY).why_unusable() is None
        asked = len(state.asked)
        proxied = Server("http://wandb.example", KEY, proxies={"http": state.address})
        assert "404" in (proxied.why_unusable() or "")  # a proxy is asked for the whole address
        assert len(state.asked) == asked
        dead = Server(state.address, KEY, proxies={"http": "http://127.0.0.1:9"})
        assert "does not answer" in (dead.why_unusable() or "")
    assert "does not answer" in (Server(state.address, KEY).why_unusable() or "")


@pytest.mark.parametrize("data", [b"\x00\xff garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b""])
def test_the_probe_survives_what_is_no_http(data):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        import threading

        def answer():
            connection, _ = listening.accept()
            with connection:
                connection.recv(100)
                connection.sendall(data)

        thread = threading.Thread(target=answer)
        thread.start()
        reason = Server(f"http://127.0.0.1:{listening.getsockname()[1]}", KEY).why_unusable(2.0)
        thread.join()
    assert reason is not None
    assert reason.isprintable()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["refuse", "fail", "hang"])
def test_a_server_in_trouble_means_offline_for_all_runs_with_one_line(
    server, client, tmp_path, capsys, mode
):
    client.setattr("qspinn.app.tracking.server.PROBE_SECONDS", 0.5)
    server.mode = mode
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        log_rows(wandb_logger.start_wandb(str(tmp_path / name)), ROWS)
        wandb_logger.finish_wandb(0)
    lines = [line for line in capsys.readouterr().out.splitlines() if "W&B" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"W&B: offline, {server.address} ")
    for entries in entries_of(tmp_path):
        assert exit_codes(entries) == [0]
        assert logged(entries)["loss"] == ROWS[-1]["loss"]
    assert len(list(tmp_path.rglob("offline-run-*/*.wandb"))) == 2


def test_a_server_that_answers_and_does_not_take_the_run_means_offline(
    server, client, tmp_path, capsys
):
    server._do_UpsertBucket = lambda values: None  # an error
    client.setattr("qspinn.app.tracking.client.INIT_SECONDS", 2.0)
    log_rows(wandb_logger.start_wandb(str(tmp_path)), ROWS)
    wandb_logger.finish_wandb(0)
    assert "W&B: offline, the server did not take the run" in capsys.readouterr().out
    (path,) = tmp_path.rglob("offline-run-*/*.wandb")
    assert logged(entries_of(path.parent)[0])["loss"] == ROWS[-1]["loss"]


@pytest.mark.parametrize("place", ["WANDB_MODE", "mode"])
def test_a_stated_mode_is_the_users_decision(server, client, tmp_path, place):
    server.mode = "refuse"
    given = {}
    if place == "mode":
        given["mode"] = "online"
    else:
        client.setenv("WANDB_MODE", "online")
    with pytest.raises(ConfigurationError, match=r"API key \(401\), and mode=online was asked for"):
        wandb_logger.start_wandb(str(tmp_path), **given)
    assert not list(tmp_path.rglob("*.wandb"))


@pytest.mark.parametrize(
    "given", [{"mode": "sometimes"}, {"artifact": "no"}, {"finish_seconds": 0}]
)
def test_values_that_cannot_be(server, tmp_path, given):
    with pytest.raises(ConfigurationError, match=next(iter(given))):
        wandb_logger.start_wandb(str(tmp_path), **given)


def test_a_run_arrives_with_all_that_belongs_to_it(server, tmp_path, make_record, capsys):

    record = make_record()
    logger = wandb_logger.start_wandb(
        str(tmp_path), name="n", group="g", job_type="night", notes="why", tags=["mine"]
    )
    logger.log_config({"seed": 3, "network": {"tau": 2.0}})
    logger.log_hyperparams({"seed": 3, "tau": 2.0})  # as Lightning does with the module's
    log_rows(logger, ROWS)
    log_rows(logger, ROWS[-1:])  # which Lightning repeats
    logger.log_record(record, RunFolder(tmp_path), quantized_network())
    wandb_logger.finish_wandb(0)

    ((name, run),) = server.runs.items()
    assert name == (tmp_path / "wandb_run_id.txt").read_text().strip()
    assert "RunResumeStatus" not in server.asked  # a new run is not asked for
    assert run.exit_code == 0
    assert rows_of(run) == ROWS
    assert run.config == {"seed": 3, "network": {"tau": 2.0}}
    assert [run.values[key] for key in ("displayName", "groupName", "jobType", "notes")] == [
        *("n", "g", "night", "why")
    ]
    assert set(run.values["tags"]) >= {"mine", "ptq", "nearest", "conv_snn"}
    # define_metric: "5" of a metric refers to the x axis by its place in the list, from 1 on.
    metrics = run.settings["m"]
    assert metrics[next(m["5"] for m in metrics if m.get("2") == "*" or m.get("5")) - 1]["1"] == (
        "epoch"
    )
    assert json.loads(run.summary[RECORD_KEY]) == record.to_dict()
    files = server.artifacts[f"network-{name}"]
    assert sorted(files) == ["quantized.pt", "record.json"]
    file = tmp_path / "quantized.pt"
    file.write_bytes(server.uploads[f"network-{name}/quantized.pt"])
    check_same_codes(file)


def quantized_network():
    import torch
    from torch import nn

    from qspinn.plan import QuantizationPlan
    from qspinn.quantizers import quantize_module

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 3))
    plan = QuantizationPlan.uniform(5, allow_no_neurons=True)
    return quantize_module(network, plan, torch.rand(2, 4))


def check_same_codes(file):
    from torch import nn

    from qspinn.quantizers import integer_codes, load_quantized

    loaded = integer_codes(load_quantized(nn.Sequential(nn.Linear(4, 3)), file))
    given = integer_codes(quantized_network())
    assert loaded.keys() == given.keys()
    for path, codes in given.items():
        assert codes.codes.equal(loaded[path].codes)
        assert codes.format == loaded[path].format


def test_without_the_artifact_only_numbers_are_uploaded(server, tmp_path, make_record):
    logger = wandb_logger.start_wandb(str(tmp_path), artifact=False)
    logger.log_record(make_record(), RunFolder(tmp_path), quantized_network())
    wandb_logger.finish_wandb(0)
    ((name, run),) = server.runs.items()
    assert f"network-{name}" not in server.artifacts
    assert RECORD_KEY in run.summary


def test_a_killed_run_goes_on_without_losing_or_repeating_a_row(server, tmp_path):
    """The process dies with its last row not arrived; the table and the checkpoint have it."""
    logger = wandb_logger.start_wandb(str(tmp_path))
    log_rows(logger, ROWS[:2])
    wandb_logger.finish_wandb(1)
    (run,) = server.runs.values()
    assert rows_of(run) == ROWS[:2]

    logger = wandb_logger.start_wandb(str(tmp_path))
    logger.hand_over(ROWS[:3])  # the table of a run whose checkpoint is after three epochs
    log_rows(logger, ROWS[3:])
    wandb_logger.finish_wandb(0)
    (run,) = server.runs.values()
    assert rows_of(run) == ROWS

    # Killed once more, with a checkpoint from before what W&B has: rows are computed again.
    logger = wandb_logger.start_wandb(str(tmp_path))
    logger.hand_over(ROWS[:2])
    log_rows(logger, [*ROWS[2:], {"step": 19, "epoch": 4, "loss": 0.0}])
    wandb_logger.finish_wandb(0)
    assert rows_of(*server.runs.values()) == [*ROWS, {"step": 19, "epoch": 4, "loss": 0.0}]


@pytest.mark.slow  # wandb sends every 15 s
def test_the_row_of_an_epoch_leaves_before_anything_is_logged_after_it(server, tmp_path):
    """What a kill right after the checkpoint must not take away."""
    log_rows(wandb_logger.start_wandb(str(tmp_path)), ROWS[:2])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if [rows_of(run) for run in server.runs.values()] == [ROWS[:2]]:
            return
        time.sleep(0.05)
    pytest.fail(f"the server has {server.runs}")


@pytest.mark.slow
def test_a_run_that_its_owner_deleted_is_begun_anew(server, client, tmp_path):
    log_rows(wandb_logger.start_wandb(str(tmp_path)), ROWS[:2])
    wandb_logger.finish_wandb(1)
    (name,) = server.runs
    server.deleted.add(name)
    client.setattr("qspinn.app.tracking.client.INIT_SECONDS", 2.0)  # it is asked again until then
    del server.runs[name]
    logger = wandb_logger.start_wandb(str(tmp_path))
    logger.hand_over(ROWS[:2])
    log_rows(logger, ROWS[2:])
    wandb_logger.finish_wandb(0)
    ((other, run),) = server.runs.items()
    assert other != name
    assert rows_of(run) == ROWS


@pytest.mark.slow
def test_an_offline_run_that_goes_on_is_complete_in_its_last_files(client, tmp_path):
    client.setenv("WANDB_MODE", "offline")
    log_rows(wandb_logger.start_wandb(str(tmp_path)), ROWS[:2])
    wandb_logger.finish_wandb(1)
    time.sleep(1.1)  # folders of wandb are named by seconds
    logger = wandb_logger.start_wandb(str(tmp_path))
    logger.hand_over(ROWS[:2])
    log_rows(logger, ROWS[2:])
    wandb_logger.finish_wandb(0)
    first, last = entries_of(tmp_path)
    assert history_of(first) == ROWS[:2]
    assert history_of(last) == ROWS
    ids = {entry.run.run_id for entries in (first, last) for entry in entries if entry.run.run_id}
    assert len(ids) == 1


def history_of(entries):
    rows = []
    for entry in entries:
        if entry.HasField("history"):
            items = entry.history.item
            row = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
            rows.append({"step": row[STEP], "epoch": row["epoch"], "loss": row["loss"]})
    return rows


@pytest.mark.few(0.2)
@pytest.mark.parametrize("mode", ["refuse", "fail", "hang"])
def test_a_server_lost_in_mid_run_leaves_a_complete_offline_run(
    server, client, tmp_path, make_record, capsys, mode
):
    client.setattr("qspinn.app.tracking.server.PROBE_SECONDS", 0.5)
    record = make_record()
    logger = wandb_logger.start_wandb(str(tmp_path))
    logger.log_config({"seed": 3})
    log_rows(logger, ROWS[:2])
    server.mode = mode
    log_rows(logger, ROWS[2:])
    logger.log_record(record, RunFolder(tmp_path), quantized_network())
    wandb_logger.finish_wandb(0)
    about = [line for line in capsys.readouterr().out.splitlines() if line.startswith("W&B")]
    address, line = about
    assert address.startswith(f"W&B: {server.address}/")
    assert "`wandb sync " in line
    (path,) = tmp_path.rglob("offline-run-*/*.wandb")
    assert str(path.parent) in line
    entries = entries_of(path.parent)[0]
    assert exit_codes(entries) == [0]
    assert history_of(e for e in entries if "loss" in logged([e]))[: len(ROWS)] == ROWS
    assert json.loads(summary_of(entries)[RECORD_KEY]) == record.to_dict()
    assert [e.artifact.type for e in entries if e.HasField("artifact")].count("model") == 1
    assert wandb_client.wandb_mode() == "offline"  # the next job of a sweep does not wait again


@pytest.mark.slow
def test_the_death_of_wandbs_process_ends_no_run(server, tmp_path, make_record, capsys):
    logger = wandb_logger.start_wandb(str(tmp_path))
    log_rows(logger, ROWS[:2])
    os.kill(wandb.setup()._connection._proc._process.pid, signal.SIGKILL)
    time.sleep(0.5)
    log_rows(logger, ROWS[2:])
    logger.log_record(make_record(), RunFolder(tmp_path))
    wandb_logger.finish_wandb(0)
    assert "`wandb sync " in capsys.readouterr().out
    (path,) = tmp_path.rglob("offline-run-*/*.wandb")
    assert history_of(e for e in entries_of(path.parent)[0] if "loss" in logged([e])) == ROWS


@pytest.mark.slow
def test_an_upload_is_waited_for_while_its_server_answers(client):
    with serving() as state:
        server = Server(state.address, KEY)
        assert uploaded(lambda: time.sleep(0.7), server, 60.0) is None
        assert (
            uploaded(lambda: time.sleep(60), server, 0.5) == "the upload has not ended after 0.5 s"
        )
        state.mode = "fail"
        assert "error 500" in (uploaded(lambda: time.sleep(60), server, 60.0) or "")
    reason = uploaded(lambda: 1 / 0, None, 60.0)
    assert reason is not None
    assert "ZeroDivisionError" in reason


def test_records_are_read_back(server, tmp_path, make_record):
    """What select.py asks of the server; the server's list of runs is a stand-in."""
    logger = wandb_logger.start_wandb(str(tmp_path))
    record = make_record()
    logger.log_record(record, RunFolder(tmp_path))
    wandb_logger.finish_wandb(0)
    ((name, run),) = server.runs.items()

    class Api:
        def runs(self, path, filters, lazy):
            del path, filters, lazy
            stored = type("Stored", (), {"id": name, "name": "n", "state": "finished"})()
            stored.summary = run.summary
            return [stored]

    assert list(read_wandb("me/qspinn", Api())) == [Run(f"wandb:me/qspinn/{name}", record)]


def complete_history(server, folder):
    """The history of the only run, beside the table of its folder: steps and all their numbers."""
    (run,) = server.runs.values()
    with open(folder / "metrics.csv", newline="", encoding="utf-8") as file:
        table = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    names = {name for row in table for name in row} - {"step"}
    return rows_of(run, *names), table


ONLINE = ("logger=wandb", "logger.wandb.artifact=false")


@pytest.mark.slow
def test_the_history_of_a_killed_training_is_its_table(server, composed, launch_killed, tmp_path):
    """Killed while the second checkpoint is written, taken up, and compared with the table."""
    from qspinn.app.run.train import train

    overrides = (*ONLINE, "trainer.max_epochs=3")
    folder = tmp_path / "run"
    where = "qspinn.app.run.checkpoints:AtomicCheckpointIO:save_checkpoint"
    killed = launch_killed(where, 2, f"hydra.run.dir={folder}", *overrides)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(server.runs) == 1
    train(composed(*overrides), folder)
    history, table = complete_history(server, folder)
    assert [row["step"] for row in history] == [row["step"] for row in table]
    for sent, row in zip(history, table, strict=True):
        assert sent == pytest.approx(row, rel=1e-6)
    assert [row["epoch"] for row in history][:3] == [0, 1, 2]


@pytest.mark.slow
def test_a_training_taken_from_the_store_has_its_history(server, composed, tmp_path):
    from qspinn.app.run.train import train

    store = f"baselines.dir={tmp_path / 'store'}"
    train(composed(store), tmp_path / "first")  # trains, and logs nothing
    assert server.runs == {}
    train(composed(store, *ONLINE, "quantization.word_length=4"), tmp_path / "second")
    history, table = complete_history(server, tmp_path / "second")
    assert len(table) >= 4
    assert [row["step"] for row in history] == [row["step"] for row in table]
    for sent, row in zip(history, table, strict=True):
        assert sent == pytest.approx(row, rel=1e-6)
    (run,) = server.runs.values()
    assert set(run.config).isdisjoint({"fresh", "progress", "baselines", "exploration"})
    assert "network" in run.config
    assert "learning_rate" not in run.config


@pytest.mark.few(0.34, "campaign")
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["refuse", "fail", "hang"])
def test_a_server_lost_while_a_network_learns_changes_no_record(
    server, client, composed, tmp_path, mode
):
    from qspinn.app.run.metrics_table import MetricsTable
    from qspinn.app.run.train import train

    save = MetricsTable.save

    def losing(self):
        server.mode = mode
        save(self)

    client.setattr(MetricsTable, "save", losing)
    record = train(composed(*ONLINE, "trainer.max_epochs=2"), tmp_path / "run")
    (path,) = (tmp_path / "run").rglob("offline-run-*/*.wandb")
    values = summary_of(entries_of(path.parent)[0])
    assert json.loads(values[RECORD_KEY]) == record.to_dict()
