"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder with the full data sets, or skip with the reason.

    It is ``../shared/data`` beside the repository; the environment variable ``QSPINN_DATA``
    names another.
    """
    folder = Path(os.environ.get("QSPINN_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "MNIST" / "raw").is_dir():
        pytest.skip(f"no folder MNIST/raw in {folder}; set QSPINN_DATA to the folder that has it")
    return folder
