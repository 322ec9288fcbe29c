"""Values of environment variables."""

from __future__ import annotations

import os
from typing import Any


def from_environment(name: str, default: Any = None) -> Any:
    """The value of an environment variable; the default where it is not set, or empty."""
    return os.environ.get(name) or default
