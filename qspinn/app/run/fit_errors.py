"""Errors that end a fit, as one sentence where that explains them."""

from __future__ import annotations

import traceback

from lightning.fabric.utilities.exceptions import MisconfigurationException

from qspinn.app.errors import ConfigurationError, RunError, is_message

# Where Lightning checks settings. A strategy or a launcher raises errors of other code.
_CHECKING = ("lightning.pytorch.callbacks.", "lightning.pytorch.loops.")


def in_a_sentence(error: Exception, has_learned: bool) -> ConfigurationError | RunError | None:
    """Return what to raise instead of an error of the fit; None where only a traceback helps.

    Args:
        error: What ended the fit.
        has_learned: Whether anything was learned before; if not, the configuration is wrong.
    """
    if isinstance(error, (ConfigurationError, RunError)):
        return None
    if not has_learned and is_message(error):
        return ConfigurationError(str(error))
    if _is_of_lightning(error):
        return (RunError if has_learned else ConfigurationError)(f"trainer: {error}")
    return None


def _is_of_lightning(error: Exception) -> bool:
    """Whether Lightning refuses a setting."""
    if isinstance(error, MisconfigurationException):
        return True
    if not isinstance(error, (ValueError, RuntimeError)) or error.__traceback__ is None:
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", "")).startswith(_CHECKING)
