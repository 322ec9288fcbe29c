"""Names of the folders of a sweep's jobs."""

import pytest

from qspinn.app.folder import job_folder

LONG = ",".join(f"network.option_{index}={index}" for index in range(20))


@pytest.mark.parametrize("overrides", ["seed=1", "quantization.word_length=4,seed=1", "+a.b=1e-3"])
def test_short_overrides_are_the_name(overrides):
    assert job_folder(overrides) == overrides


def test_no_overrides_have_a_name():
    assert job_folder("") == "defaults"


@pytest.mark.parametrize("overrides", ["data.root=/a/b,seed=1", "a=[1,2]", "a=ü b", LONG])
def test_other_names_are_short_safe_and_their_own(overrides):
    name = job_folder(overrides)
    assert len(name) <= 110
    assert "/" not in name
    assert " " not in name
    assert name != job_folder(overrides + ",seed=2")
    assert name == job_folder(overrides)


def test_keys_lose_their_groups_first():
    assert job_folder("data.root=/a,quantization.roles.membrane.word_length=4").startswith(
        "root=-a,word_length=4-"
    )
