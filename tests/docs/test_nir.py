"""The example of docs/nir.md."""

import re
from pathlib import Path
from typing import Any


def test_the_example_runs(repository: Path) -> None:
    text = (repository / "docs" / "nir.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.S)
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["changed"] < 0.05
    assert names["network"](names["spikes"]).any()
