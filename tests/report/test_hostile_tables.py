"""Tables of runs: what is written is read back as it was, and what is damaged is named."""

import csv
import io
import json
import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from qspinn.records import RecordError, RunRecord, config_hash
from qspinn.report import print_footprint, print_selection
from qspinn.report.data import selection_values, significance_curves
from qspinn.report.front import draw_front, save_figure
from qspinn.report.page import page
from qspinn.report.significance import print_significance
from qspinn.report.table import read_table, write_table
from qspinn.selection import LinearReward, Run, Target, select, significance
from tests.mutations import mutations

FAST, MANY = 400, 8000
NAMES = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=12)


def record_of(roles, scheme="ptq", **values):
    bits = {role: 8 * (index + 1) for index, role in enumerate(roles)}
    config = {"scheme": scheme}
    fields = {
        "accuracy": 0.9,
        "footprint_bits": sum(bits.values()),
        "baseline_footprint_bits": 4 * sum(bits.values()),
        "training_footprint_bits": sum(bits.values()),
        "footprint_bits_by_role": bits,
        "baseline_footprint_bits_by_role": {role: 4 * n for role, n in bits.items()},
        "scheme": scheme,
        "rounding": "nearest",
        "word_lengths": {role: [8] * (index % 2) for index, role in enumerate(roles)},
        "network": "net",
        "data": "data",
        "seed": 0,
        "config": config,
        "config_hash": config_hash(config),
    }
    return RunRecord(**{**fields, **values})


def selection_of(*records):
    runs = [Run(f"run{index}", record) for index, record in enumerate(records)]
    return select(runs, Target(), LinearReward(), allow_mixed=True)


def kept(record):
    """What a table holds of a record."""
    names = (
        "accuracy",
        "footprint_bits",
        "footprint_bits_by_role",
        "word_lengths",
        "network",
        "data",
    )
    more = ("baseline_footprint_bits_by_role", "training_footprint_bits", "seed", "scheme")
    more += ("data_fingerprint", "status", "rounding", "baseline_accuracy")
    return {name: getattr(record, name) for name in (*names, *more)}


@given(roles=st.lists(NAMES, min_size=1, max_size=5, unique=True), network=NAMES, data=NAMES)
def test_any_names_are_read_back(tmp_path_factory, roles, network, data):
    path = tmp_path_factory.mktemp("table") / "t.csv"
    record = record_of(roles, network=network, data=data, rounding=data, data_fingerprint=network)
    write_table(selection_of(record), path)
    (run,) = read_table(path)
    assert kept(run.record) == kept(record)


def attack(path, seed, count):
    refused = 0
    for content in mutations(path.read_bytes(), seed, count):
        path.write_bytes(content)
        try:
            items = list(read_table(path))
        except RecordError as error:
            assert str(path) in str(error)
            refused += 1
            continue
        for item in items:
            if isinstance(item, str):
                assert str(path) in item
                refused += 1
            else:
                record = item.record
                assert record.footprint_bits == sum(record.footprint_bits_by_role.values())
    assert refused > count / 3


@pytest.fixture
def table(tmp_path):
    records = [record_of(["weight", "bias"]), record_of(["weight"], "itq", accuracy=0.8)]
    return write_table(selection_of(*records), tmp_path / "table.csv")


def test_changed_tables_are_refused_or_read(table):
    attack(table, 0, FAST)


@pytest.mark.slow
def test_many_changed_tables(table):
    attack(table, 1, MANY)


@pytest.mark.parametrize("cell", ["1_000", " 800", "8e2", "٨٠٠", "9" * 400, "0x320", "800.0"])
def test_numbers_are_written_as_people_write_them(table, cell):
    lines = table.read_text().splitlines()
    columns, cells = lines[0].split(","), lines[1].split(",")
    cells[columns.index("footprint_bits")] = cell
    table.write_text("\n".join([lines[0], ",".join(cells)]) + "\n")
    (told,) = read_table(table)
    assert "column 'footprint_bits'" in told


@pytest.mark.parametrize("cell", ["0.9_5", " 0.9", "٠.٩", "0x1p-1", "infinity", "0,9", "."])
def test_accuracies_are_written_as_people_write_them(table, cell):
    lines = list(csv.reader(io.StringIO(table.read_text())))
    lines[1][lines[0].index("accuracy")] = cell
    text = io.StringIO()
    csv.writer(text).writerows(lines)
    table.write_text(text.getvalue())
    told, other = read_table(table)
    assert "column 'accuracy'" in told
    assert other.record.accuracy == 0.8


def test_cells_may_be_longer_than_python_expects(tmp_path):
    """The csv module gives up beyond 128 Ki characters: the whole table would be unreadable."""
    usual = csv.field_size_limit()
    roles = [f"role {index} of many, {'x' * 60}" for index in range(4000)]
    record = record_of(roles, network="n" * 200_000)
    path = write_table(selection_of(record), tmp_path / "t.csv")
    (run,) = read_table(path)
    assert kept(run.record) == kept(record)
    assert csv.field_size_limit() == usual


@pytest.mark.parametrize("kind", ["pipe", "huge"])
def test_what_is_no_table_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "t.csv"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.touch()
        os.truncate(path, 3 << 30)
    with pytest.raises(
        RecordError, match=r"t\.csv cannot be read as a table: .*(regular file|makes? sense)"
    ):
        list(read_table(path))


def test_names_with_dollar_signs_are_no_formulas(tmp_path):
    """Matplotlib fails on a formula that it cannot read."""
    record = record_of(["weight"], rounding=r"$\nonsense{$", network="$x$")
    save_figure(draw_front(selection_of(record)), tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 1000


def printed(function, *values):
    console = Console(file=io.StringIO(), width=200, highlight=False)
    function(*values, console=console)
    return console.file.getvalue()


HARD = "[/x] [red]a[b] :smile: [link=file:///x]"


def test_brackets_in_names_are_no_marks(tmp_path):
    """Rich takes `[red]` for a colour, and an end without a beginning for an error."""
    formats = {HARD: {"role": HARD, "format": "Q0.7", "rounding": "n", "overflow": "s"}}
    values = {"network": HARD, "data": HARD, "rounding": HARD, "formats": formats}
    record = record_of([HARD], baseline_accuracy=0.95, word_lengths={HARD: [8]}, **values)
    found, _ = significance([record])
    assert printed(print_footprint, record).count(HARD) == 4
    assert printed(print_selection, selection_of(record)).count(HARD) == 1
    assert printed(lambda console: print_significance(found, 0.01, console)).count(HARD) == 1


def test_long_names_and_many_lines_do_not_bury_the_rest():
    shares = {"quantized": 1, "total": 2}
    summary = {"parameters": shares, "states": shares, "lines": ["l" * 50_000] * 5000}
    name = "n" * 3_000_000
    values = {"network": name, "data": name, "rounding": name, "summary": summary}
    record = record_of([name], baseline_accuracy=0.9, **values)
    for text in (printed(print_footprint, record), printed(print_selection, selection_of(record))):
        assert len(text) < 3_000_000
        assert "... and 4,800 more in the record" in text


def test_of_thousands_of_roundings_the_first_are_drawn_apart(tmp_path):
    """A legend with all of them would take the time, and the room."""
    records = [
        record_of(["w"], rounding=f"rounding {index}{'x' * 5000}", accuracy=index / 3000)
        for index in range(3000)
    ]
    figure = draw_front(selection_of(*records))
    save_figure(figure, tmp_path / "front.png")
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert len(labels) < 40
    assert "2,970 more roundings" in labels


HARD_NAMES = (
    "$a$",
    "[/]",
    "\u200b",
    "=1+1",
    "_x",
    "%20",
    "a b",
    "</script>",
    "\\",
    "\xa0",
    "0",
    "{}",
)
EDGES = (1, 2, 31, 32, 33, 800, 2**31, 2**53 + 1, 2**63 - 1)
SHARES = (0.0, 5e-324, 0.1 + 0.2, 0.97, 1 - 2**-53, 1.0)


def record_at_the_edges(chance):
    """Any values that a record may have, and none that a run would leave."""
    scheme = chance.choice(("none", "ptq", "itq"))
    roles = chance.sample(HARD_NAMES, 2)
    bits = chance.choice(EDGES)
    baseline_bits = bits if scheme == "none" else chance.choice(EDGES)
    first, second = chance.randrange(bits + 1), chance.randrange(baseline_bits + 1)
    accuracy = chance.choice(SHARES)
    values = {
        "accuracy": accuracy,
        "baseline_accuracy": chance.choice((None, accuracy)),
        "footprint_bits": bits,
        "baseline_footprint_bits": baseline_bits,
        "training_footprint_bits": max(bits, chance.choice(EDGES)),
        "footprint_bits_by_role": {roles[0]: first, roles[1]: bits - first},
        "baseline_footprint_bits_by_role": {roles[1]: second, roles[0]: baseline_bits - second},
        "rounding": None if scheme == "none" else chance.choice(HARD_NAMES),
        "word_lengths": {role: sorted(set(chance.choices(EDGES, k=2))) for role in roles},
        "network": chance.choice(HARD_NAMES),
        "data": chance.choice(HARD_NAMES),
        "seed": chance.choice((0, -1, 2**63 - 1, -(2**63) + 1)),
        "data_fingerprint": chance.choice((None, *HARD_NAMES)),
        "status": chance.choice(("completed", "interrupted")),
        "config": {"setting": chance.randrange(4)},
    }
    if scheme != "none":
        lengths = chance.choice(EDGES)
        own = {"role": roles[0], "format": "Q0.7", "rounding": "n", "overflow": "s"}
        values |= {"formats": {roles[1]: own}, "word_lengths": {roles[0]: [lengths]}}
        values["baseline_accuracy"] = chance.choice((None, *SHARES))
    return record_of(roles, scheme, **values)


def select_at_the_edges(path, seed, count):
    """What is selected, written and read back is selected again."""
    chance = random.Random(seed)
    for _ in range(count):
        records = [record_at_the_edges(chance) for _ in range(chance.randrange(1, 12))]
        runs = [Run(f"run{index}", record) for index, record in enumerate(records)]
        target = Target(
            max_drop=chance.choice((None, 0.01, 1.0)), max_bits=chance.choice((None, 1, 1000))
        )
        selection = select(runs, target, LinearReward(), allow_mixed=True)
        written = list(read_table(write_table(selection, path)))
        by_path = {run.path: run.record for run in written}
        assert len(by_path) == len(runs)
        for run in runs:
            assert kept(by_path[run.path]) == kept(run.record) | {
                "baseline_accuracy": by_path[run.path].baseline_accuracy
            }
        again = select(written, target, LinearReward(), allow_mixed=True)
        assert [row.group.path for row in again.compared] == [
            row.group.path for row in selection.compared
        ]
        assert again.hypervolume == selection.hypervolume
        printed(print_selection, selection)
        text = page(selection, significance_curves(selection))
        assert text.count("</script>") == 2
        json.dumps(selection_values(selection), allow_nan=False)


def test_selections_at_the_edges(tmp_path):
    select_at_the_edges(tmp_path / "t.csv", 0, 60)


@pytest.mark.campaign
@pytest.mark.slow
def test_many_selections_at_the_edges(tmp_path):
    select_at_the_edges(tmp_path / "t.csv", 1, 1000)
