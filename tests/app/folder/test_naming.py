"""Names of the folders of a sweep's jobs, of runs and of groups."""

import copy
import os

import pytest

from qspinn.app.folder.naming import group_name, job_folder, named_loggers, run_name

LONG = ",".join(f"network.option_{index}={index}" for index in range(20))


@pytest.mark.parametrize("overrides", ["seed=1", "quantization.word_length=4,seed=1", "+a.b=1e-3"])
def test_short_overrides_are_the_name(overrides):
    assert job_folder(overrides) == overrides


def test_no_overrides_have_a_name():
    assert job_folder("") == "defaults"


NESTED = "quantization.rules=[{layers:*out*,role:weight,word_length:4},{role:bias,format:Q1.6}]"
QUOTED = "data.root='/a,b.c=d',seed=1"


@pytest.mark.parametrize(
    "overrides",
    ["data.root=/a/b,seed=1", "a=[1,2]", "a=ü b", LONG, NESTED, QUOTED, "a.b=" + "\u3042" * 100],
)
def test_other_names_are_short_safe_and_their_own(overrides, tmp_path):
    name = job_folder(overrides)
    assert len(name) <= 110
    assert len(name.encode()) <= 255
    assert "/" not in name
    assert " " not in name
    assert name != job_folder(overrides + ",seed=2")
    assert name == job_folder(overrides)
    os.mkdir(tmp_path / name)


def test_keys_lose_their_groups_first():
    assert job_folder("data.root=/a,quantization.roles.membrane.word_length=4").startswith(
        "root=-a,word_length=4-"
    )


def test_names_of_earlier_sweeps_are_found_again():
    """The second part was printed by the function before it kept any groups of keys."""
    assert job_folder("data.root=/a/b,seed=1") == "root=-a-b,seed=1-60d85380"


ROLES = tuple(
    f"quantization.roles.{role}.word_length={length}"
    for role, length in (("weight", 2), ("membrane", 12), ("threshold", 7))
)


def test_keys_keep_what_tells_them_apart():
    name = job_folder(",".join(ROLES))
    assert name.startswith("weight.word_length=2,membrane.word_length=12,threshold.word_length=7-")
    plain = job_folder("word_length=1,a.b.word_length=2,a.c.word_length=3,x.y=" + "1" * 100)
    assert plain.startswith("word_length=1,b.word_length=2,c.word_length=3,y=1")


def test_commas_in_values_split_nothing():
    assert job_folder(QUOTED).startswith("root=--a,b.c=d-,seed=1-")
    assert job_folder(NESTED).startswith("rules=--layers--out-,role-weight,word_length-4-")


CONFIG = {
    "seed": 0,
    "fresh": False,
    "logger": {},
    "network": {"tau": 2.0},
    "quantization": {
        "scheme": "ptq",
        "rounding": "nearest",
        "word_length": 8,
        "roles": {"weight": {"word_length": None, "format": None}, "bias": None},
        "rules": [],
    },
}


def changed(dotted, value):
    config = copy.deepcopy(CONFIG)
    *parents, last = dotted.split(".")
    node = config
    for name in parents:
        node = node[name]
    node[last] = value
    return config


def test_groups_are_shared_by_seeds_and_by_nothing_else():
    first = group_name(CONFIG)
    assert first.startswith("ptq-nearest-8-")
    assert group_name(changed("seed", 5)) == first
    assert group_name(changed("fresh", True)) == first
    others = {
        group_name(changed(dotted, value))
        for dotted, value in (
            ("network.tau", 3.0),
            ("quantization.roles.weight.word_length", 2),
            ("quantization.roles.weight.word_length", 3),
            ("quantization.rules", [{"role": "weight", "word_length": 3}]),
            ("quantization.word_length", 4),
        )
    }
    assert len(others) == 5
    assert first not in others
    mixed = group_name(changed("quantization.roles.weight.word_length", 2))
    assert mixed.startswith("ptq-nearest-mixed-")
    assert group_name(changed("quantization.scheme", "none")).startswith("32-bit-")


def test_runs_are_named_by_what_differs():
    assert run_name(CONFIG) == "defaults,seed=0"
    assert run_name(CONFIG, "network.tau=3,seed=0") == "tau=3,seed=0"
    assert run_name(CONFIG, ",".join(ROLES)) == "weight=2,membrane=12,threshold=7,seed=0"
    found = [{"layers": "*", "role": "*", "format": "float32"}]
    found += [{"layers": "conv.0", "role": "weight", "word_length": 3}]
    searched = run_name(changed("quantization.rules", found), "experiment=significance")
    assert searched == "experiment=significance,*=float32,weight@conv.0=3,seed=0"
    assert len(run_name(CONFIG, LONG)) <= 128  # W&B takes no longer ones
    assert run_name(CONFIG, LONG + ",z=7,seed=3").split("-")[0].endswith("option_19=19,z=7")
    assert run_name(CONFIG, LONG) != run_name(CONFIG, LONG + ",a=1")


def test_only_what_was_not_given_is_named():
    target = "qspinn.app.tracking.logger.start_wandb"
    node = {"_target_": target, "name": "mine", "group": None, "changes": "network.tau=3"}
    loggers = {"wandb": node, "other": {"_target_": "a.B", "name": None}, "none": None}
    named = named_loggers({**CONFIG, "logger": loggers})
    assert named["wandb"] == {"_target_": target, "name": "mine", "group": group_name(CONFIG)}
    assert (named["other"], named["none"]) == (loggers["other"], None)
    named = named_loggers({**CONFIG, "logger": {"wandb": {**node, "name": None}}})
    assert named["wandb"]["name"] == "tau=3,seed=0"
    assert named_loggers({**CONFIG, "logger": None}) == {}
