"""The same work has the same hash, other work another one."""

import hashlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qspinn.records import RecordError, baseline_key, config_hash, setting_key

CONFIG = {
    "seed": 0,
    "data": {"_target_": "qspinn.data.MNIST", "root": "/here", "batch_size": 64},
    "logger": {"csv": {"folder": "a"}},
    "quantization": {"scheme": "itq", "word_length": 8},
    "callbacks": {"checkpoint": {"every": 1}},
}

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def reverse_keys(value):
    if isinstance(value, dict):
        return {key: reverse_keys(value[key]) for key in reversed(value)}
    return [reverse_keys(item) for item in value] if isinstance(value, list) else value


@given(st.dictionaries(st.text(min_size=1), plain, max_size=4))
def test_the_order_of_keys_does_not_matter(config):
    assert config_hash(config, ()) == config_hash(reverse_keys(config), ())


def test_it_is_the_sha256_of_canonical_json():
    text = '{"a":[1,2.5,null,true],"b":{"c":"d"}}'
    assert config_hash({"b": {"c": "d"}, "a": (1, 2.5, None, True)}) == (
        hashlib.sha256(text.encode()).hexdigest()
    )


def test_where_it_runs_does_not_matter():
    other = CONFIG | {"logger": {"wandb": {}}, "paths": {"output": "b"}}
    other["data"] = CONFIG["data"] | {"root": "/there"}
    assert config_hash(other) == config_hash(CONFIG)
    assert config_hash(other, exclude=()) != config_hash(CONFIG, exclude=())


def test_what_a_run_reports_besides_does_not_matter():
    measured = CONFIG["quantization"] | {"fidelity_samples": 64, "save_model": False}
    assert config_hash(CONFIG | {"quantization": measured}) == config_hash(CONFIG)
    assert setting_key(CONFIG | {"quantization": measured}) == setting_key(CONFIG)


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"data": {"batch_size": 64}}, {"quantization": {"scheme": "ptq"}}, {"x": None}],
)
def test_other_work_has_another_hash(change):
    assert config_hash(CONFIG | change) != config_hash(CONFIG)


def test_keys_are_left_out_at_any_depth():
    left_out = ["seed", "data.batch_size", "data.absent.deeper", "logger.csv.folder"]
    expected = {**CONFIG, "data": dict(CONFIG["data"]), "logger": {"csv": {}}}
    del expected["seed"], expected["data"]["batch_size"]
    assert config_hash(CONFIG, left_out) == config_hash(expected, ())


def test_hashing_changes_nothing():
    before = json.dumps(CONFIG)
    config_hash(CONFIG)
    baseline_key(CONFIG)
    assert json.dumps(CONFIG) == before


def test_twins_share_the_key_of_their_baseline():
    twin = CONFIG | {"quantization": {"scheme": "none"}}
    assert baseline_key(twin) == baseline_key(CONFIG)
    without = {key: value for key, value in CONFIG.items() if key != "quantization"}
    assert baseline_key(without) == baseline_key(CONFIG)
    hook = {"_target_": "qspinn.callbacks.InTrainingQuantization", "plan": {"word_length": 4}}
    hooked = CONFIG | {"callbacks": CONFIG["callbacks"] | {"itq": hook}}
    assert baseline_key(hooked) == baseline_key(CONFIG)
    listed = baseline_key(CONFIG | {"callbacks": [hook, {"a": 1}]})
    assert listed == baseline_key(CONFIG | {"callbacks": [{"a": 1}]})


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"data": {"batch_size": 1}}, {"callbacks": {"checkpoint": None}}]
)
def test_runs_that_differ_elsewhere_are_no_twins(change):
    assert baseline_key(CONFIG | change) != baseline_key(CONFIG)


@pytest.mark.parametrize("function", [config_hash, baseline_key])
def test_what_cannot_be_hashed_is_named(function):
    with pytest.raises(RecordError, match=r"config\.trainer\.lr.*nan.*finite"):
        function({"trainer": {"lr": math.nan}})
    with pytest.raises(TypeError, match="list of keys, got the string 'logger'"):
        function({}, "logger")
