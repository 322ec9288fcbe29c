"""Runs from W&B: read through its interface, without a server."""

import json
import time
from types import SimpleNamespace

import pytest

from qspinn.app.errors import ConfigurationError
from qspinn.app.tracking.source import read_wandb
from qspinn.app.tracking.summary import RECORD_KEY
from qspinn.selection import Run


def stored(name, summary, state="finished"):
    return SimpleNamespace(id=f"id-{name}", name=name, summary=summary, state=state)


class Api:
    """What is used of wandb.Api."""

    def __init__(self, runs, pause=0.0):
        self.given, self.pause, self.asked = runs, pause, []

    def runs(self, path, filters, lazy):
        self.asked.append((path, filters, lazy))
        for run in self.given:
            time.sleep(self.pause)
            if isinstance(run, Exception):
                raise run
            yield run


def test_records_are_read_and_what_has_none_is_named(make_record):
    record = make_record(accuracy=0.75)
    good = stored("good", {RECORD_KEY: json.dumps(record.to_dict()), "accuracy": 0.75})
    stopped = stored("stopped", {"accuracy": 0.1})
    broken = stored("broken", {RECORD_KEY: '{"accuracy"'})
    old = stored("old", {RECORD_KEY: '{"schema_version": 0}'}, "crashed")
    api = Api([good, stopped, broken, old])
    first, *others = read_wandb("me/mine/sweep1", api)
    assert first == Run("wandb:me/mine/id-good", record)
    assert api.asked == [("me/mine", {"sweep": "sweep1"}, False)]
    assert [line.partition("): ")[0] for line in others] == [
        f"wandb:me/mine/id-{name} ({name}" for name in ("stopped", "broken", "old")
    ]
    assert "holds no record (it is finished)" in others[0]
    assert "its record is no JSON" in others[1]
    assert "schema_version" in others[2]
    assert list(read_wandb("me/mine", Api([]))) == []


def test_what_a_server_says_is_checked_like_a_file(make_record, monkeypatch):
    monkeypatch.setattr("qspinn.app.tracking.source.MOST_CHARACTERS", 20_000)
    record = json.dumps(make_record().to_dict())
    texts = {
        "twice": record.replace('"seed": 0', '"seed": 0, "seed": 1'),
        "enormous": record.replace('"footprint_bits": 800', f'"footprint_bits": {10**400}'),
        "digits": record.replace('"seed": 0', f'"seed": {"9" * 6000}'),
        "nan": record.replace("0.97", "NaN"),
        "nested": "[" * 15_000,
        "escape": record.replace("conv_snn", "\\u001b[2J"),
        "long": record + " " * 20_000,
        "list": "[1]",
    }
    runs = [stored(name, {RECORD_KEY: text}) for name, text in texts.items()]
    runs += [stored("number", {RECORD_KEY: 7}), stored("none", None), stored("word", "word")]
    told = list(read_wandb("me/mine", Api([*runs, stored("good", {RECORD_KEY: record})])))
    assert told.pop() == Run("wandb:me/mine/id-good", make_record())
    names = [*texts, "number", "none", "word"]
    assert [str(line).partition("): ")[0] for line in told] == [
        f"wandb:me/mine/id-{name} ({name}" for name in names
    ]


@pytest.mark.parametrize("place", ["", "me", "me/", "/mine", "a/b/c/d"])
def test_a_place_that_is_none(place):
    with pytest.raises(ConfigurationError, match="write wandb:entity/project"):
        list(read_wandb(place, Api([])))


def test_an_error_of_the_server_is_told(make_record):
    with pytest.raises(ConfigurationError, match=r"runs=wandb:me/mine: project not found"):
        list(read_wandb("me/mine", Api([ValueError("project not found")])))


def test_a_server_that_falls_silent_is_not_waited_for():
    started = time.monotonic()
    with pytest.raises(ConfigurationError, match=r"has not answered for 0\.1 s"):
        list(read_wandb("me/mine", Api([stored("late", {})], pause=30.0), seconds=0.1))
    assert time.monotonic() - started < 5


@pytest.mark.few(0.5)
@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"WANDB_API_KEY": None}, "no API key"),
        (
            {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"},
            "http://127.0.0.1:9 does not answer",
        ),
    ],
)
def test_without_a_key_or_a_network_it_ends_at_once(
    repository, forked, tmp_path, monkeypatch, environment, says
):
    for name, value in {"HOME": str(tmp_path), **environment}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    done = forked([str(repository / "select.py"), "runs=wandb:me/mine"], cwd=tmp_path)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
