"""The one error that the application shows as a message instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import InstantiationException

__all__ = ["ConfigurationError", "naming"]


class ConfigurationError(ValueError):
    """A value of the configuration, or the output folder, cannot be used.

    The message says what was given, where, and what to write instead.
    """


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Turn what is raised inside into a :class:`ConfigurationError` that names the place.

    Args:
        place: The group or key of the configuration that is being used, such as ``data``.
    """
    try:
        yield
    except ConfigurationError:
        raise
    except InstantiationException as error:  # Hydra's words around those of the class
        cause = error.__cause__ or error
        raise ConfigurationError(f"{place}: {cause}") from error
    except Exception as error:
        raise ConfigurationError(f"{place}: {error}") from error
