"""`select.py` among files that are damaged or made to harm: named, passed over, nothing ended."""

import json
import os

from qspinn.records import write_record


def damaged(folder, make_record):
    """Put what can go wrong beside good runs; the names of what has to be told."""
    good = json.dumps(make_record(baseline_accuracy=0.98).to_dict())
    texts = {
        "enormous": good.replace('"footprint_bits": 800', f'"footprint_bits": {10**400}'),
        "digits": good.replace('"seed": 0', f'"seed": {"9" * 6000}'),
        "nested": "[" * 100_000,
        "escape": good.replace("conv_snn", "\\u001b[2Jconv"),
        "half": good[: len(good) // 2],
        "utf16": good,
    }
    for name, text in texts.items():
        (folder / name).mkdir(parents=True)
        encoding = "utf-16" if name == "utf16" else "utf-8"
        (folder / name / "record.json").write_text(text, encoding=encoding)
    (folder / "pipe").mkdir()
    os.mkfifo(folder / "pipe" / "record.json")
    (folder / "sparse").mkdir()
    (folder / "sparse" / "record.json").touch()
    os.truncate(folder / "sparse" / "record.json", 3 << 30)
    return [*texts, "pipe", "sparse"]


def test_the_others_are_selected_from(run_select, tmp_path, make_record):
    runs = tmp_path / "runs"
    for bits in (800, 400):
        record = make_record(bits=bits, baseline_accuracy=0.98)
        write_record(record, runs / f"good{bits}" / "record.json")
    alone = run_select(f"runs={runs}", "output.json=alone.json")
    names = damaged(runs, make_record)
    strange = os.path.join(os.fsencode(runs), b"\x1b[31m\xff")
    os.mkdir(strange)
    with open(os.path.join(strange, b"record.json"), "w") as file:
        file.write("{")
    code, out, err = run_select(f"runs={runs}", "output.dir=chosen")
    assert code == alone[0] == 0
    assert out.startswith(f"Records: 2 read, {len(names) + 1} skipped")
    assert out.partition("\n")[2].startswith(alone[1].partition("\n")[2].partition("Written")[0])
    for name in names:
        assert f"skipped: {runs / name / 'record.json'}: " in err
    assert "\\x1b[31m\\xff" in err
    assert "\x1b" not in out + err
    assert "Traceback" not in err
    values = [
        json.loads((tmp_path / n).read_text()) for n in ("alone.json", "chosen/selection.json")
    ]
    assert values[0]["winner"] == values[1]["winner"]
    again = run_select("runs=chosen/selection.csv")
    assert again[1].startswith("Records: 2 read, 0 skipped")


def test_errors_are_one_harmless_line(run_select, tmp_path):
    """What ends a selection is shown as harmlessly as what is passed over."""
    table = tmp_path / "table.csv"
    table.write_text("a\x1b[2J\u202e" + "b" * 100_000 + ",c\n1,2\n")
    code, out, err = run_select(f"runs={table}")
    assert (code, out) == (1, "")
    assert err.startswith(f"select.py: {table}: no table of runs.")
    assert "a\\x1b[2J\\u202eb" in err
    assert len(err.splitlines()) == 1
    assert len(err) < 2000


def test_a_reward_runs_no_command(run_select, tmp_path, make_record):
    write_record(make_record(baseline_accuracy=0.98), tmp_path / "runs" / "record.json")
    mark = tmp_path / "executed"
    override = f"reward={{_target_:os.system,command:'touch {mark}'}}"
    code, _, err = run_select("runs=runs", override)
    assert code == 1
    assert "os.system" in err
    assert "Traceback" not in err
    assert not mark.exists()
