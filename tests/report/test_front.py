"""The selection as plain types, its curves of single roles, and the picture of the front."""

import json

import pytest

from qspinn.records import config_hash
from qspinn.report.data import selection_values, significance_curves
from qspinn.report.front import draw_front, save_figure
from qspinn.selection import Run, Target, select


def of_role(make_record, role, length, accuracy, **values):
    entry = {"role": role, "format": "Q0.7", "rounding": "nearest", "overflow": "saturate"}
    return make_record(
        bits=3200 - 10 * (32 - length),
        accuracy=accuracy,
        baseline_accuracy=0.98,
        word_lengths={role: [length]},
        formats={f"net.{role}": entry},
        setting_key=config_hash({"role": role, "length": length}),
        **values,
    )


@pytest.fixture
def selection(make_record):
    base = {"baseline_accuracy": 0.98}
    runs = [
        Run("float", make_record(scheme="none", bits=3200, accuracy=0.98)),
        Run("a", make_record(bits=800, accuracy=0.975, seed=0, **base)),
        Run("b", make_record(bits=800, accuracy=0.985, seed=1, **base)),
        Run("c", make_record(bits=400, accuracy=0.5, scheme="itq", **base)),
        Run("d", make_record(bits=900, accuracy=0.975, rounding="truncate", **base)),
    ]
    return select(runs, Target(max_drop=0.01))


def test_plain_types_that_json_holds(selection):
    values = selection_values(selection, ["x: empty"], ["y: error"])
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["winner"] == "a"
    assert values["front"] == ["a"]
    assert values["hypervolume"] == pytest.approx((1 - 800 / 3200) * 0.98)
    assert values["choices"] == [{"path": "a", "from_mu": 0.0, "to_mu": None}]
    first = values["candidates"][0]
    assert (first["paths"], first["seeds"]) == (["a", "b"], [0, 1])
    assert first["accuracy_std"] == pytest.approx(0.01 / 2**0.5)
    assert [row["dominated_by"] for row in values["candidates"]] == [None, "a", "a"]
    assert values["dropped"][0]["reasons"]
    assert (values["skipped"], values["failed"]) == (["x: empty"], ["y: error"])


def test_points_of_the_front_carry_their_numbers(make_record):
    runs = [
        Run("small", make_record(bits=400, accuracy=0.975, baseline_accuracy=0.98)),
        Run("large", make_record(bits=800, accuracy=0.985, baseline_accuracy=0.98)),
        Run("worse", make_record(bits=900, accuracy=0.98, baseline_accuracy=0.98)),
    ]
    selection = select(runs, Target())
    figure = draw_front(selection)
    written = {text.get_text(): text.xy for text in figure.axes[0].texts if hasattr(text, "xy")}
    assert written == {
        str(number): (row.group.footprint_bits, 100 * row.group.accuracy)
        for number, row in enumerate(selection.front, 1)
    }


def test_curves_of_roles_that_were_quantised_alone(make_record):
    records = [
        of_role(make_record, "weight", 8, 0.97),
        of_role(make_record, "weight", 4, 0.9),
        of_role(make_record, "membrane", 8, 0.5),
        make_record(accuracy=0.1, baseline_accuracy=0.98),  # formats of no role
        of_role(make_record, "weight", 4, 0.92, seed=1),
    ]
    chosen = select([Run(f"{i}", record) for i, record in enumerate(records)])
    curves = {curve["name"]: curve["points"] for curve in significance_curves(chosen)}
    assert set(curves) == {"weight", "membrane"}
    assert [point["word_length"] for point in curves["weight"]] == [4, 8]
    assert curves["weight"][0]["accuracy"] == pytest.approx(0.91)
    assert curves["weight"][0]["accuracy_std"] == pytest.approx(0.02 / 2**0.5)
    assert curves["weight"][1]["accuracy_std"] is None


def test_no_curves_without_such_runs_and_apart_by_rounding(selection, make_record):
    assert significance_curves(selection) == []
    records = [
        of_role(make_record, "weight", 8, 0.97),
        of_role(make_record, "weight", 8, 0.9, rounding="truncate"),
    ]
    chosen = select([Run(f"{i}", r) for i, r in enumerate(records)], group_seeds=False)
    assert [curve["name"] for curve in significance_curves(chosen)] == [
        f"weight (mnist_subset, conv_snn, ptq, {rounding})" for rounding in ("nearest", "truncate")
    ]


def test_the_picture_shows_front_winner_and_every_kind(selection, tmp_path):
    figure = draw_front(selection)
    (axes,) = figure.axes
    handles, labels = axes.get_legend_handles_labels()
    assert len(handles) == len(labels)
    wanted = {"Pareto front", "winner", "none (32-bit)", "ptq, nearest", "ptq, truncate"}
    assert set(labels) == wanted | {"itq, nearest", "32-bit", "target"}
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert lines["Pareto front"].get_xydata().tolist() == [[800.0, 98.0]]
    assert lines["32-bit"].get_ydata()[0] == pytest.approx(98.0)
    assert lines["target"].get_ydata()[0] == pytest.approx(97.0)
    for name in ("front.png", "front.svg"):
        assert save_figure(figure, tmp_path / name).stat().st_size > 5000
    with pytest.raises(ValueError, match=r"ends with \.png, \.svg or \.pdf"):
        save_figure(figure, tmp_path / "front.bmp")


def test_a_picture_without_candidates(make_record):
    figure = draw_front(select([Run("a", make_record(baseline_accuracy=0.99))]))
    assert figure.axes[0].get_legend_handles_labels()[1] == ["32-bit", "target", "ptq, nearest"]


def test_what_lies_far_below_is_counted_not_drawn(selection, make_record):
    axes = draw_front(selection).axes[0]
    assert [t.get_text() for t in axes.texts if "lie" in t.get_text()] == ["1 of 4 lie below"]
    low, high = axes.get_ylim()
    assert 50.0 < low < 97.0
    assert high > 98.0 + 0.7  # with the spread over seeds
    near = [Run(f"{i}", make_record(bits=i, accuracy=0.9 + i / 1000)) for i in (1, 2, 3)]
    texts = draw_front(select(near, Target(max_drop=None))).axes[0].texts
    assert not [text for text in texts if "lie" in text.get_text()]


def test_footprints_are_marked_where_there_are_candidates(make_record, selection):
    axes = draw_front(selection).axes[0]
    assert axes.get_xticks().tolist() == [400, 800, 3200]  # 900 is too close to 800
    (above,) = axes.child_axes
    labels = [label.get_text() for label in above.get_xticklabels()]
    assert labels == ["8.0x", "4.0x", "1.0x"]
    crowd = [Run(f"{i}", make_record(bits=800 + i, accuracy=0.9)) for i in range(400)]
    ticks = draw_front(select(crowd, Target(max_drop=None))).axes[0].get_xticks()
    assert 10 < len(ticks) < 20
    one = [Run("a", make_record(bits=800, accuracy=0.9))]
    assert draw_front(select(one, Target(max_drop=None))).axes[0].get_xticks().tolist() == [800]
