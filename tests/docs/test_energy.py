"""The snippet of docs/energy.md."""

import re
from pathlib import Path
from typing import Any


def test_the_snippet_runs(repository: Path) -> None:
    text = (repository / "docs" / "energy.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.S)
    names: dict[str, Any] = {}
    exec(snippet, names)
    assert names["work"].samples == 8
    assert names["work"].energy_nj > 0
