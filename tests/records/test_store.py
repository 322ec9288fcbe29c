"""Record files: all or nothing, deterministic, and every way they can be broken."""

import json
import os
import stat
import threading

import pytest

from qspinn.records import (
    RECORD_NAME,
    RecordError,
    comparable,
    find_records,
    read_record,
    write_json,
    write_record,
)


@pytest.fixture
def path(tmp_path, make_record):
    return write_record(make_record(), tmp_path / "run" / RECORD_NAME)


def broken(path, **changes):
    """Change fields of a record file, past all checks."""
    values = json.loads(path.read_text())
    values.update(changes)
    path.write_text(json.dumps(values))


def test_it_reads_what_was_written(tmp_path, make_record):
    record = make_record(seconds={"fit": 1.5}, metrics={"a": 1 / 3})
    assert write_record(record, tmp_path) == tmp_path / RECORD_NAME
    assert read_record(tmp_path / RECORD_NAME) == record


def test_the_file_is_deterministic(path, make_record):
    text = path.read_text()
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=2) + "\n"
    first = path.read_bytes()
    write_record(make_record(), path)
    assert path.read_bytes() == first


def test_equal_runs_compare_equal_apart_from_their_times(make_record):
    one = make_record(seconds={"fit": 1.0}, created="2026-01-01T00:00:00+00:00")
    two = make_record(seconds={"fit": 2.0}, created="2026-01-02T00:00:00+00:00")
    assert one != two
    assert comparable(one) == comparable(two)
    assert comparable(one) != comparable(make_record(accuracy=0.971))
    assert set(one.to_dict()) - set(comparable(one)) == {"seconds", "created"}


def test_no_temporary_file_is_left_and_rights_follow_the_umask(path):
    assert os.listdir(path.parent) == [RECORD_NAME]
    plain = path.parent / "plain"
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_record(path, make_record, monkeypatch, fails):
    def disk_full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"qspinn.records.store.os.{fails}", disk_full)
    with pytest.raises(OSError, match="No space left"):
        write_record(make_record(accuracy=0.5), path)
    assert os.listdir(path.parent) == [RECORD_NAME]
    assert read_record(path).accuracy == 0.97


def test_it_is_on_the_disk_before_it_is_renamed(tmp_path, make_record, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        "qspinn.records.store.os.fsync", lambda fd: calls.append("fsync") or fsync(fd)
    )
    monkeypatch.setattr(
        "qspinn.records.store.os.replace", lambda a, b: calls.append("replace") or replace(a, b)
    )
    write_record(make_record(), tmp_path)
    assert calls == ["fsync", "replace"]


def test_a_reader_never_sees_half_a_record(path, make_record):
    records = [make_record(metrics={f"m{i}": 0.5 for i in range(n)}) for n in (1, 2000)]
    failures, done = [], threading.Event()

    def read():
        while not done.is_set():
            try:
                read_record(path)
            except RecordError as error:
                failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(100):
        write_record(records[turn % 2], path)
    done.set()
    reader.join()
    assert failures == []


def test_json_without_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json({"a": float("nan")}, tmp_path / "a.json")
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_a_half_written_file_at_every_length(path):
    whole = path.read_bytes()
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(RecordError) as caught:
            read_record(path)
        assert str(path) in str(caught.value)
        assert "half-written" in str(caught.value) or "empty" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b"\x00" * 100, "corrupt or half-written JSON"),
        (b"\xff\xfe\xfa", "corrupt or half-written JSON"),
        (b"[" * 100_000, "corrupt or half-written JSON"),
        (b'{"accuracy": NaN}', "NaN is not JSON"),
        (b'{"accuracy": Infinity}', "Infinity is not JSON"),
        (b"[]", "expected a mapping of fields, got list"),
        (b"null", "expected a mapping of fields, got NoneType"),
        (b"{}", "'schema_version' is missing: this is no run record"),
    ],
)
def test_a_file_that_is_no_record(path, content, says):
    path.write_bytes(content)
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(RecordError, match=r"absent\.json: no such file"):
        read_record(tmp_path / "absent.json")
    with pytest.raises(RecordError, match="cannot be read"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schema_version": 99}, "field 'schema_version': got 99 (int), expected 1"),
        ({"schema_version": "1"}, "field 'schema_version': got '1' (str), expected 1"),
        ({"accuracy": "high"}, "field 'accuracy': got 'high' (str), expected a number"),
        ({"metrics": {"loss": 10**400}}, "field 'metrics.loss'"),
        ({"acuracy": 1}, "unknown field 'acuracy'"),
    ],
)
def test_a_wrong_value_names_file_and_field(path, changes, says):
    broken(path, **changes)
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)
    assert caught.value.field is not None


def test_a_number_too_large_for_a_float(path):
    path.write_text(path.read_text().replace('"accuracy": 0.97', '"accuracy": 1e999'))
    with pytest.raises(RecordError, match=r"'accuracy': got inf"):
        read_record(path)


@pytest.fixture
def tree(tmp_path):
    for name in ("b/1", "b/0", "a/deep/er", "c"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / RECORD_NAME).touch()
        (folder / f".{RECORD_NAME}.123.tmp").touch()
        (folder / "other.json").touch()
    return tmp_path


def relative(paths, root):
    return [path.relative_to(root).as_posix() for path in paths]


def test_records_are_found_at_any_depth_in_order(tree):
    expected = [f"{name}/record.json" for name in ("a/deep/er", "b/0", "b/1", "c")]
    assert relative(find_records(tree), tree) == expected
    assert relative(find_records(str(tree)), tree) == expected


def test_globs_files_and_lists_without_repetition(tree):
    assert relative(find_records(f"{tree}/[ac]"), tree) == [
        "a/deep/er/record.json",
        "c/record.json",
    ]
    assert relative(find_records(f"{tree}/**/0/record.json"), tree) == ["b/0/record.json"]
    roots = [tree / "c", tree / "c" / RECORD_NAME, f"{tree}/*", tree / "b" / ".." / "c"]
    found = relative(find_records(roots), tree)
    assert [path for path in found if path.startswith("c")] == ["c/record.json"]
    assert len(found) == 4


def test_two_stars_stand_for_any_depth(tree, monkeypatch):
    everything = [f"{name}/record.json" for name in ("a/deep/er", "b/0", "b/1", "c")]
    link = tree / "z"
    link.symlink_to("b")
    (tree / ".hidden" / "0").mkdir(parents=True)
    (tree / ".hidden" / "0" / RECORD_NAME).touch()
    (tree / "[x]" / "0").mkdir(parents=True)
    (tree / "[x]" / "0" / RECORD_NAME).touch()
    monkeypatch.chdir(tree)
    for start in (f"{tree}/", "", "./"):
        found = [os.path.relpath(path, tree) for path in find_records(f"{start}**/record.json")]
        assert found == ["[x]/0/record.json", *everything], start
    assert relative(find_records(f"{tree}/a/**"), tree) == everything[:1]
    assert relative(find_records(f"{tree}/**/*"), tree)[0] == "[x]/0/record.json"
    found = relative(find_records(f"{tree}/**/0/**/record.json"), tree)
    assert found == ["[x]/0/record.json", "b/0/record.json"]
    assert relative(find_records(f"{tree}/**/deep/e?"), tree) == everything[:1]
    assert relative(find_records(f"{tree}/**/**/c"), tree) == everything[3:]


def test_a_folder_whose_name_looks_like_a_glob(tree):
    (tree / "c").rename(tree / "[x]")
    assert relative(find_records(f"{tree}/[x]"), tree) == ["[x]/record.json"]


@pytest.mark.parametrize("root", ["absent", "absent*", ""])
def test_a_root_that_matches_nothing_is_an_error(tree, root, monkeypatch):
    monkeypatch.chdir(tree)
    with pytest.raises(FileNotFoundError, match="matches nothing as a glob"):
        list(find_records([tree, root]))


def test_an_empty_folder_has_no_records(tmp_path):
    assert list(find_records(tmp_path)) == []
