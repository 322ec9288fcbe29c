"""What is written of runs that fail."""

import pickle

import pytest

from qspinn.app.folder.failures import record_failure, transportable
from qspinn.records import read_failure


class Stubborn(Exception):
    """Cannot be made anew from its text."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def test_a_failure_has_its_configuration_and_where_it_came_from(composed, tmp_path):
    config = composed("seed=3", "learning.optimizer.lr=nan")
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError as error:
        record_failure(config, tmp_path, error)
    failure = read_failure(tmp_path / "failure.json")
    assert (failure.error, failure.message) == ("ZeroDivisionError", "by zero")
    assert "test_failures.py" in failure.traceback
    assert failure.config["seed"] == 3
    assert failure.config["learning"]["optimizer"]["lr"] == "nan"
    assert "progress" not in failure.config


def test_a_configuration_that_cannot_be_resolved_is_kept_as_it_is(composed, tmp_path):
    config = composed()
    config.data.batch_size = "${nowhere}"
    record_failure(config, tmp_path, KeyError("nowhere"))
    assert read_failure(tmp_path / "failure.json").config["data"]["batch_size"] == "${nowhere}"


@pytest.mark.parametrize("error", [ValueError("a"), Stubborn(1, 2), RuntimeError(lambda: 0)])
def test_errors_travel_between_processes(error):
    sent = pickle.loads(pickle.dumps(transportable(error)))
    assert str(error) in str(sent)
