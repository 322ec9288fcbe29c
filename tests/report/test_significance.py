"""The table and the picture of significance."""

import io

from rich.console import Console

from qspinn.report.significance import draw_significance, print_significance
from qspinn.selection import SweepPoint
from qspinn.selection.search.significance import Significance

FOUND = (
    Significance(
        "weight",
        "weight",
        ("a.weight",),
        1000,
        (SweepPoint(2, 0.5, 0.01, 0.4, 2), SweepPoint(8, 0.9, 0.0, 0.0, 2)),
        8,
    ),
    Significance("input", "input", ("a.input",), 0, (SweepPoint(2, 0.7, 0.0, 0.2, 1),), None),
)


def test_the_table_shows_every_word_length():
    console = Console(file=io.StringIO(), width=120)
    print_significance(FOUND, 0.01, console)
    rows = [line.split() for line in console.file.getvalue().splitlines()]
    assert ["weight", "1,000", "40.00", "0.00", "8", "bits"] in rows
    assert ["input", "0", "20.00", "-", "none"] in rows


def test_the_picture_has_a_line_per_role_and_the_target():
    figure = draw_significance(FOUND, 0.01, "net on data")
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert sorted(labels) == ["32-bit", "input", "target", "weight (1,000)"]
    levels = [
        line.get_ydata()[0] for line in axes.lines if line.get_label() in ("32-bit", "target")
    ]
    assert [round(float(level), 6) for level in levels] == [90.0, 89.0]
