"""Reading what is shared once gives what reading every file by itself gives."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qspinn.records import (
    RecordError,
    RecordReader,
    RunRecord,
    baseline_key,
    baseline_key_of,
    find_outcomes,
    setting_key,
    setting_key_of,
    write_record,
)


def parsed_as_a_whole(text):
    """The independent way: the JSON parser on the whole text."""

    def refuse(name):
        raise ValueError(name)

    def once(pairs):
        if len({name for name, _ in pairs}) < len(pairs):
            raise ValueError(pairs)
        return dict(pairs)

    return RunRecord.from_dict(json.loads(text, parse_constant=refuse, object_pairs_hook=once))


@pytest.fixture
def text(make_record):
    return json.dumps(make_record(metrics={"loss": 0.5}).to_dict(), sort_keys=True, indent=2) + "\n"


# Values of members, among them such that look like the cuts between members.
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(
    changes=st.lists(
        st.tuples(
            st.sampled_from(["config", "metrics", "word_lengths", "network", "versions", "seed"]),
            json_values,
        ),
        max_size=3,
    ),
    indent=st.sampled_from([2, None, 1, 4]),
    cut=st.none() | st.integers(0, 2000),
    put=st.sampled_from(["", ",", "}", '",\n  "', "{", "\n", '"seed": 1,\n  ', "NaN"]),
)
def test_one_reader_for_many_agrees_with_the_parser(text, tmp_path, changes, indent, cut, put):
    reader, path = RecordReader(), tmp_path / "record.json"
    path.write_text(text)
    assert reader.read(path) == parsed_as_a_whole(text)
    changed = json.dumps(json.loads(text) | dict(changes), indent=indent, sort_keys=True) + "\n"
    if cut is not None:
        changed = changed[:cut] + put + changed[cut:]
    path.write_text(changed)
    try:
        expected = parsed_as_a_whole(changed)
    except (ValueError, RecursionError):
        expected = None
    if expected is None:
        with pytest.raises(RecordError, match=r"record\.json: "):
            reader.read(path)
    else:
        assert reader.read(path).to_dict() == expected.to_dict()


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ('  "seed": 0,', '  "seed": 0,\n  "seed": 7,'),
        ('    "loss": 0.5', '    "loss": 0.5,\n    "loss": 0.25'),
        ('"network": {', '"seed": 7,\n    "network": {'),
    ],
)
@pytest.mark.parametrize("indent", ["\n  ", "\n"])
def test_a_name_that_occurs_twice_is_refused(text, tmp_path, one, two, indent):
    """Parsers take one or the other, and who reads the file sees both."""
    doubled = text.replace(one, two).replace("\n  ", indent)
    assert doubled != text.replace("\n  ", indent)
    (tmp_path / "record.json").write_text(doubled)
    with pytest.raises(RecordError, match="occurs twice"):
        RecordReader().read(tmp_path / "record.json")


def test_what_contradicts_is_refused_although_each_part_was_seen(text, tmp_path, make_record):
    reader, path = RecordReader(), tmp_path / "record.json"
    for record in (make_record(bits=800), make_record(bits=700)):
        write_record(record, path)
        reader.read(path)
    other = json.dumps(make_record(bits=700).to_dict(), sort_keys=True, indent=2) + "\n"
    path.write_text(other.replace('"footprint_bits": 700,', '"footprint_bits": 800,'))
    with pytest.raises(RecordError, match="add up to footprint_bits = 800"):
        reader.read(path)


def test_a_number_that_is_not_finite_in_the_settings(text, tmp_path):
    path = tmp_path / "record.json"
    path.write_text(text.replace('"bits": 800', '"bits": 1e999'))
    with pytest.raises(RecordError, match=r"config\.quantization\.bits': got inf"):
        RecordReader().read(path)


def test_keys_are_taken_from_the_record_or_computed(make_record):
    record = make_record()
    assert baseline_key_of(record) == baseline_key(record.config)
    assert setting_key_of(record) == setting_key(record.config)
    stored = make_record(baseline_key="1" * 64, setting_key="2" * 64)
    assert (baseline_key_of(stored), setting_key_of(stored)) == ("1" * 64, "2" * 64)


def test_the_setting_is_the_configuration_without_the_seed(make_record):
    first, second = (make_record(seed=seed) for seed in (0, 1))
    assert setting_key(first.config) == setting_key(second.config)
    assert setting_key(first.config) != setting_key(make_record(bits=700).config)


def test_outcomes_are_records_and_failures_without_one(tmp_path, make_record):
    for name in ("good", "both"):
        write_record(make_record(), tmp_path / name / "record.json")
    (tmp_path / "bad").mkdir()
    for name in ("bad", "both"):
        (tmp_path / name / "failure.json").write_text("{}")
    inside = tmp_path / "good" / "checkpoints" / "record.json"
    write_record(make_record(), inside)
    below = tmp_path / "good" / "more" / "record.json"
    write_record(make_record(), below)
    (tmp_path / "good" / "link.json").symlink_to(below)
    expected = ["bad/failure.json", "both/record.json", "good/record.json", "good/more/record.json"]
    assert list(find_outcomes(tmp_path)) == [f"{tmp_path}/{name}" for name in expected]
    assert len(list(find_outcomes([tmp_path, f"{tmp_path}/", f"{tmp_path}/good"]))) == 4
    assert len(list(find_outcomes([tmp_path, tmp_path / "good" / "link.json"]))) == 4


@pytest.mark.parametrize("old", ['"network": "conv_snn"', '"weight": 800'])
def test_half_a_surrogate_pair_is_no_text(text, tmp_path, old):
    assert old in text
    half = old.replace("conv_snn", "\\ud800") if "conv" in old else old.replace("w", "\\ud800", 1)
    (tmp_path / "record.json").write_text(text.replace(old, half))
    with pytest.raises(RecordError, match="non-empty string"):
        RecordReader().read(tmp_path / "record.json")
    (tmp_path / "record.json").write_text(text.replace("conv_snn", "\\ud83d\\ude00"))
    assert RecordReader().read(tmp_path / "record.json").network == "\U0001f600"
