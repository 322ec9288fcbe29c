"""The snippet of docs/local_learning.md."""

import re
from pathlib import Path
from typing import Any


def test_the_snippet_runs(repository: Path) -> None:
    text = (repository / "docs" / "local_learning.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.S)
    names: dict[str, Any] = {}
    exec(snippet, names)
    assert names["scores"].shape == (4, 11)
    assert names["scores"].any()
