"""The CSV table of metrics."""

import csv

import pytest

from qspinn.app.run.metrics_table import MetricsTable


def rows_of(table):
    with open(table.path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def table(tmp_path):
    """Two epochs of five steps, and a test."""
    table = MetricsTable(tmp_path)
    for epoch, step in ((0, 4), (1, 9)):
        table.log_metrics({"val/loss": 0.1 / 3 + epoch, "epoch": epoch}, step)
        table.save()
        table.log_metrics({"train/loss": 0.5, "epoch": epoch}, step)
    table.log_metrics({"test/loss": 0.25, "epoch": 2}, 10)
    table.save()
    return table


def test_one_row_per_step_holds_all_that_was_logged(table):
    rows = rows_of(table)
    assert [(row["epoch"], row["step"]) for row in rows] == [("0", "4"), ("1", "9"), ("2", "10")]
    assert [row["train/loss"] for row in rows] == ["0.5", "0.5", ""]
    assert float(rows[0]["val/loss"]) == 0.1 / 3  # every digit
    assert list(rows[0]) == ["epoch", "step", "test/loss", "train/loss", "val/loss"]
    assert table.latest() == {"test/loss": 0.25, "train/loss": 0.5, "val/loss": 0.1 / 3 + 1}


def test_a_new_table_goes_on_from_the_file(table, tmp_path):
    again = MetricsTable(tmp_path)
    assert again.latest() == table.latest()
    before = table.path.read_text()
    again.keep_epochs(9)
    assert table.path.read_text() == before


@pytest.mark.parametrize(("epochs", "steps"), [(0, []), (1, ["4"]), (2, ["4", "9"])])
def test_what_comes_after_the_checkpoint_is_dropped(table, tmp_path, epochs, steps):
    again = MetricsTable(tmp_path)
    again.log_metrics({"ptq/loss": 1.0}, 11)  # belongs to no epoch
    again.keep_epochs(epochs)
    assert [row["step"] for row in rows_of(again)] == steps


def test_a_value_without_a_step_goes_into_the_latest_row(table):
    table.log_metrics({"accuracy": 0.5})
    table.finalize("success")
    assert rows_of(table)[-1]["accuracy"] == "0.5"
