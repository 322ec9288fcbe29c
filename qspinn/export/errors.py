"""What goes wrong when a model is built, and when its file is read."""

from __future__ import annotations

__all__ = ["COPY_AGAIN", "DamagedModelError", "FindingError", "NotExportableError"]

COPY_AGAIN = "copy the file again from where it was written, or export the model again"


class DamagedModelError(ValueError):
    """A file that is no model that can be read.

    The message names the file, what was found in it, and what to do.
    """


class NotExportableError(ValueError):
    """A network holds something that no device model says."""


class FindingError(ValueError):
    """What is wrong with contents of a file, raised where its path is not known.

    Args:
        found: What was found, and what was expected.
        advice: What to do.
    """

    def __init__(self, found: str, advice: str = COPY_AGAIN) -> None:
        super().__init__(f"{found}; {advice}")
        self.found = found
