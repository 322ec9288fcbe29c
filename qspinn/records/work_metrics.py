"""The work of a network as numbers by name, for loggers and summaries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def work_metrics(work: Mapping[str, Any] | None) -> dict[str, float]:
    """Return the numbers of a record's `work`, as `work/energy_nj` and so on; nothing for None.

    Those of single layers are left out.
    """
    numbers = (
        (name, value) for name, value in (work or {}).items() if isinstance(value, (int, float))
    )
    return {f"work/{name}": float(value) for name, value in numbers}
