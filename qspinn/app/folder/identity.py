"""The identity of a run: its configuration, without how it is launched, and its data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from qspinn.app.errors import naming, refused
from qspinn.app.folder.ownership import Owner
from qspinn.app.folder.saved_config import SavedConfig
from qspinn.app.paths import from_start
from qspinn.records import config_hash

# Keys of the launch, on which no result depends: neither recorded nor hashed.
LAUNCH_KEYS = ("fresh", "progress", "baselines", "exploration", "objective")


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the configuration that is recorded."""
    kept = {key: value for key, value in config.items() if key not in LAUNCH_KEYS}
    if kept.get("energy", kept) is None:  # as in configurations of qspinn before there was the key
        del kept["energy"]
    return kept


def now() -> str:
    """The date and time that is written into files, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def check_fresh(fresh: object) -> None:
    """Check that the switch that deletes an earlier run is a boolean.

    Raises:
        ConfigurationError: It is not; ``no`` and ``off`` are strings on a command line.
    """
    if not isinstance(fresh, bool):
        wanted = "true to delete what an earlier run left in the output folder, or false"
        raise refused("fresh", fresh, f"{wanted}; nothing was deleted")


def owner_of(config: Mapping[str, Any], fingerprint: str | None) -> Owner:
    """Return the owner that is written into the files of a run; its fingerprint is of the data."""
    with naming("configuration"):
        return Owner.of(config_hash(identity(config)), fingerprint)


def hash_of(saved: SavedConfig) -> str:
    """Return the hash of the configuration that lies in a folder.

    Raises:
        FolderError: It is none.
    """
    return config_hash(identity(saved.values())) if saved.owner is None else saved.owner.config


def root_of(config: Mapping[str, Any]) -> str | None:
    """Where the data lie, if the configuration says so."""
    data = config.get("data")
    root = data.get("root") if isinstance(data, Mapping) else None
    return os.path.realpath(from_start(root)) if isinstance(root, str) else None


def shown(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> str:
    """Return the first places where two configurations differ, in a line."""
    found = differences(earlier, later)
    return ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")


def differences(earlier: Any, later: Any, place: str = "") -> list[str]:
    """Return one text per place where two configurations differ."""
    if isinstance(earlier, Mapping) and isinstance(later, Mapping):
        keys = dict.fromkeys([*earlier, *later])
        return [
            text
            for key in keys
            for text in differences(
                earlier.get(key), later.get(key), f"{place}.{key}" if place else key
            )
        ]
    return [] if earlier == later else [f"{place}: {earlier!r} there, {later!r} now"]
