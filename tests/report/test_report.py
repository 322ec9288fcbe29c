"""Tables: right numbers, nothing cut, no escapes in a pipe."""

import io
import re

import pytest
from rich.console import Console

from qspinn.report import SHOW_ALL, print_footprint, print_selection
from qspinn.report.cells import bits, percent, points, portion, sorted_roles, times, words
from qspinn.selection import LinearReward, Run, Target, select


def printed(function, *args, width=40, terminal=False, **kwargs):
    """What a function prints on a console far narrower than its tables."""
    file = io.StringIO()
    color = "standard" if terminal else None
    console = Console(file=file, width=width, force_terminal=terminal, color_system=color)
    function(*args, console=console, **kwargs)
    assert console.width == width
    return file.getvalue()


def cells(line):
    """The cells of a printed row: columns stand at least two blanks apart."""
    return re.split(r"\s{2,}", line.strip())


def row(text, start):
    """The cells of the first line that begins with `start`."""
    line, *_ = [line for line in text.splitlines() if line.strip().startswith(start)]
    return cells(line)


@pytest.fixture
def record(make_record):
    return make_record(
        bits=1_100_000,
        baseline_bits=3_520_000,
        accuracy=0.9712,
        baseline_accuracy=0.9750,
        footprint_bits_by_role={"membrane": 300_000, "weight": 800_000},
        baseline_footprint_bits_by_role={"membrane": 320_000, "weight": 3_200_000},
        word_lengths={"weight": 8, "membrane": [10, 30]},
    )


def test_the_table_of_a_quantized_run(record):
    text = printed(print_footprint, record)
    assert "conv_snn on mnist_subset" in text
    heading = next(line for line in text.splitlines() if "32-bit" in line)
    assert cells(heading) == ["32-bit", "PTQ, nearest", "word length", "change"]
    assert row(text, "test accuracy") == ["test accuracy", "97.50%", "97.12%", "-0.38 points"]
    assert row(text, "weight") == ["weight (bits)", "3,200,000", "800,000", "8", "4.0x"]
    assert row(text, "membrane") == ["membrane (bits)", "320,000", "300,000", "10/30", "1.1x"]
    assert row(text, "total") == ["total (bits)", "3,520,000", "1,100,000", "3.2x"]
    assert text.index("weight (bits)") < text.index("membrane") < text.index("total")


def summary(parameters, states, *lines):
    counts = [{"quantized": part, "total": 1000} for part in (parameters, states)]
    return {"parameters": counts[0], "states": counts[1], "lines": list(lines)}


def test_below_the_table_stands_what_is_not_quantised(make_record):
    lines = ("quantised: 99.9% of the parameters", f"32-bit: 12 values, {'a long reason ' * 9}")
    record = make_record(summary=summary(999, 1000, *lines))
    text = printed(print_footprint, record)
    assert text.endswith(f"  {lines[0]}\n  {lines[1].rstrip()}\n") or lines[1] in text
    assert text.index("total (bits)") < text.index(lines[0]) < text.index("32-bit: 12")
    float_network = make_record(scheme="none", bits=3200, summary=summary(0, 0, "nothing"))
    assert "nothing" not in printed(print_footprint, float_network)


def test_a_selection_says_how_much_of_each_run_is_quantised(make_record):
    base = {"baseline_accuracy": 0.98}
    runs = [
        Run("float", make_record(scheme="none", bits=3200, accuracy=0.98)),
        Run("all", make_record(bits=900, accuracy=0.979, summary=summary(1000, 1000), **base)),
        Run("older", make_record(bits=950, accuracy=0.98, setting_key="1" * 64, **base)),
    ]
    assert "quantised" not in printed(print_selection, select(runs, Target()))
    partly = summary(999, 400, "quantised: 99.9% of the parameters", "32-bit: 600 values")
    runs.append(Run("some", make_record(bits=500, setting_key="2" * 64, summary=partly, **base)))
    text = printed(print_selection, select(runs, Target()))
    assert "quantised (parameters / states)" in text
    assert "99.9% / 40.0%" in row(text, "some")
    assert "100% / 100%" in row(text, "all")
    assert row(text, "older").count("-") == 1
    winner = text[text.index("Winner: some") :].splitlines()
    assert winner[1:3] == ["  quantised: 99.9% of the parameters", "  32-bit: 600 values"]


def test_numbers_are_aligned_right(record):
    lines = printed(print_footprint, record).splitlines()
    ends = {
        line.index(number) + len(number)
        for line in lines
        for number in ("97.50%", "3,200,000", "320,000", "3,520,000")
        if re.search(rf"(?<![\d,]){number}", line)
    }
    assert len(ends) == 1


def test_a_gain_and_an_unknown_baseline(make_record):
    gain = make_record(accuracy=0.98, baseline_accuracy=0.975)
    assert row(printed(print_footprint, gain), "test accuracy")[-1] == "+0.50 points"
    unknown = row(printed(print_footprint, make_record(scheme="itq")), "test accuracy")
    assert unknown == ["test accuracy", "-", "97.00%", "-"]


def test_the_table_of_a_32_bit_run_has_one_column(make_record):
    text = printed(print_footprint, make_record(scheme="none", bits=3200, accuracy=0.5))
    assert row(text, "test accuracy") == ["test accuracy", "50.00%"]
    assert row(text, "total") == ["total (bits)", "3,200"]
    assert "change" not in text


@pytest.mark.parametrize(
    ("share", "shown"),
    [(1.0, "100%"), (0.99999, "99.9%"), (0.5, "50.0%"), (0.0, "0.0%"), (None, "-")],
)
def test_a_share_is_never_rounded_up_to_all(share, shown):
    assert portion(share) == shown


def test_how_values_look():
    assert [percent(0.98765), percent(1.0), percent(None)] == ["98.77%", "100.00%", "-"]
    assert [points(0.0123), points(-0.00001), points(-0.5), points(None)] == [
        "1.23",
        "0.00",
        "-50.00",
        "-",
    ]
    assert [bits(1234567), times(4), times(3.96)] == ["1,234,567", "4.0x", "4.0x"]
    assert sorted_roles({"other", "decay", "weight", "bias"}) == [
        "weight",
        "bias",
        "decay",
        "other",
    ]
    assert words({}) == "-"
    assert words({"weight": [8], "bias": [8]}) == "8"
    assert words({"bias": [8], "weight": [4, 6]}) == "weight 4/6, bias 8"


@pytest.fixture
def selection(make_record):
    base = {"baseline_accuracy": 0.98}
    runs = [
        Run("outputs/a/record.json", make_record(bits=800, accuracy=0.975, **base)),
        Run("outputs/b/record.json", make_record(bits=900, accuracy=0.974, scheme="itq", **base)),
        Run("outputs/c/record.json", make_record(bits=400, accuracy=0.9, **base)),
        Run("outputs/[d]/record.json", make_record(bits=3200, accuracy=0.98, scheme="none")),
    ]
    return select(runs, Target(), LinearReward(0.1))


def test_a_selection_in_the_terminal(selection):
    text = printed(print_selection, selection)
    assert "Target: accuracy at most 1 point below the baseline\n" in text
    assert "Reward: accuracy - 0.1 * footprint / baseline footprint\n" in text
    assert "Pareto front: 2 of 3 candidates\n" in text
    about = ["ptq", "nearest", "8", "0"]
    front = ["outputs/a", *about, "97.50%", "0.50", "800", "4.0x", "0.9500"]
    assert row(text, "outputs/a") == front
    reference = ["none (32-bit)", "-", "-", "0", "98.00%", "0.00", "3,200", "1.0x", "0.8800"]
    assert row(text, "outputs/[d]") == ["outputs/[d]", *reference]
    assert row(text, "outputs/b")[-3:] == ["3.6x", "0.9459", "outputs/a"]
    assert row(text, "outputs/c")[-1] == "loses 8.00 points of accuracy, 7.00 too many"
    assert text.splitlines()[-1].startswith("Winner: outputs/a/record.json has the best reward")


def test_nothing_is_cut_and_a_pipe_gets_plain_text(selection):
    text = printed(print_selection, selection, width=20)
    assert "\x1b" not in text
    assert "…" not in text
    assert all(line == line.rstrip() for line in text.splitlines())
    assert "dominated by" in text


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_terminal_gets_numbers_names_and_the_verdict(selection):
    styled = printed(print_selection, selection, terminal=True, width=80)
    assert "\x1b[1m" in styled
    text = plain(styled)
    assert row(text, "1 ") == ["1", "PTQ, bits 800", "97.50", "0.50", "800 bits", "4.0x", "0.9500"]
    assert row(text, "2 ") == ["2", "32-bit", "98.00", "0.00", "400 B", "1.0x", "0.8800"]
    assert "... and 1 dominated, 1 that miss the target (show=all lists all)" in text
    assert text.count("outputs/") == 1
    assert "Winner: outputs/a\n" in text
    assert text.splitlines()[-1] == (
        "PTQ, 8 bits, nearest, bits 800: 4.0x smaller, 0.50 points below 32-bit."
    )
    everything = plain(printed(print_selection, selection, terminal=True, width=80, show=SHOW_ALL))
    assert row(everything, "3 ")[-2:] == ["0.9459", "#1"]
    assert row(everything, "4 ")[:4] == ["4", "PTQ, bits 400", "90.00", "8.00"]
    assert "show=all" not in everything


@pytest.fixture
def mixed_precision(make_record):
    """Long names, long paths, standard deviations: the widest rows there are."""
    runs = []
    for index in range(40):
        for seed in (0, 1):
            record = make_record(
                bits=800_000 + 1000 * index,
                baseline_bits=3_200_000,
                accuracy=0.9 + index / 1000 + seed / 100,
                baseline_accuracy=0.97,
                samples=500,
                seed=seed,
                scheme=("ptq", "itq")[index % 2],
                rounding=("nearest", "stochastic")[index // 2 % 2],
                word_lengths={"weight": 2 + index, "membrane": 3 + index, "theta": 4 + index},
                setting_key=f"{index:064}",
                flash_bits=700_000 + 1000 * index,
                ram_bits=100_000,
                fidelity={"agreement": 0.9},
                work={"energy_nj": 1234.5},
            )
            runs.append(Run(f"outputs/{'long' * 30}/{index}/{seed}/record.json", record))
    return runs


@pytest.mark.parametrize("width", [80, 100, 140, 200])
@pytest.mark.parametrize("show", [None, 3, SHOW_ALL])
@pytest.mark.parametrize("target", [{}, {"max_drop": "1%"}, {"ram": "1MiB", "energy": "2uJ"}])
def test_nothing_is_wider_than_the_terminal(mixed_precision, width, show, target):
    selection = select(mixed_precision, Target.of(target))
    text = plain(printed(print_selection, selection, terminal=True, width=width, show=show))
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    if show is SHOW_ALL:
        joined = " ".join(text.split())
        numbers = [n for n in range(1, 41) if f" {n} " in joined]
        assert numbers == list(range(1, 41))


def test_more_room_shows_more_columns(mixed_precision):
    def heading(width, **target):
        selection = select(mixed_precision, Target.of(target))
        text = plain(printed(print_selection, selection, terminal=True, width=width))
        return next(line.split() for line in text.splitlines() if line.split()[:1] == ["#"])

    assert heading(80)[2:] == ["test", "%", "drop", "size", "smaller"]
    assert heading(80, ram="1MiB")[2:] == ["test", "%", "drop", "flash", "RAM", "smaller"]
    wide = ["reward", "alike", "energy", "flash", "RAM"]
    assert heading(140)[2:] == ["test", "%", "drop", "size", "smaller", *wide]


def test_a_long_front_is_cut_and_says_so(mixed_precision):
    selection = select(mixed_precision, Target.of({}))
    text = plain(printed(print_selection, selection, terminal=True, width=80))
    assert "... and 20 on the front (show=all lists all)" in text


def test_where_nothing_meets_the_target_the_nearest_are_shown(selection, mixed_precision):
    missed = select(mixed_precision, Target.of({"flash": "1KiB"}))
    text = plain(printed(print_selection, missed, terminal=True, width=80))
    assert "... and 35 that miss the target (show=all lists all)" in text
    assert "No candidate meets the target (flash at most 1.00 KiB)." in text.splitlines()[-1]


def test_long_lists_are_shortened_and_say_so(make_record):
    points_of = [(800 + i, 0.97) for i in range(30)] + [(100, 0.1)] * 25
    runs = [
        Run(
            f"run{i:02}",
            make_record(bits=b, accuracy=a, baseline_accuracy=0.97, setting_key=f"{i:064}"),
        )
        for i, (b, a) in enumerate(points_of)
    ]
    text = printed(print_selection, select(runs), show=10)
    assert "Dominated: 29\n" in text
    assert "... and 19 more (show=all shows all)" in text
    assert "Dropped: 25\n" in text
    assert "... and 15 more (show=all shows all)" in text
    few = printed(print_selection, select(runs))
    assert "... and 9 more (show=all shows all)" in few
    whole = printed(print_selection, select(runs), show=SHOW_ALL)
    assert "more (show=all" not in whole
    assert len(re.findall(r"^\s+run\d\d ", whole, re.MULTILINE)) == 55 + 1  # and the choice


def test_mixed_runs_show_data_and_network(make_record):
    runs = [
        Run("a", make_record(baseline_accuracy=0.97)),
        Run("b", make_record(baseline_accuracy=0.97, bits=400, network="other")),
    ]
    text = printed(print_selection, select(runs, allow_mixed=True))
    assert row(text, "b ")[:3] == ["b", "mnist_subset", "other"]
    assert "network" not in printed(print_selection, select(runs[:1]))


def test_notes_are_printed(make_record):
    runs = [
        Run("itq", make_record(scheme="itq")),
        Run("x", make_record(scheme="none", bits=3200, accuracy=0.97)),
        Run("y", make_record(scheme="none", bits=3200, accuracy=0.98)),
    ]
    assert "Note: 2 twins measured different" in printed(print_selection, select(runs))
