"""The example of docs/fixed_point.md."""

import doctest
from pathlib import Path


def test_the_example_gives_what_it_says(repository: Path) -> None:
    path = repository / "docs" / "fixed_point.md"
    failed, tried = doctest.testfile(str(path), module_relative=False)
    assert tried == 6
    assert failed == 0
