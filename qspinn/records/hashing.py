"""Hashes of a configuration: the same work has the same hash, wherever and whenever it runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from qspinn.records.validation import mapping, plain

# Keys that say where a run happens and what it reports, and change nothing that is measured.
WHERE_KEYS = (
    *("hydra", "launcher", "logger", "paths", "data.root", "data.download"),
    *("quantization.fidelity_samples", "quantization.save_model"),
)
QUANTIZATION_KEYS = ("quantization", "energy")


def config_hash(config: Mapping[str, Any], exclude: Iterable[str] = WHERE_KEYS) -> str:
    """SHA-256 of the configuration as canonical JSON (sorted keys), 64 hexadecimal digits.

    Args:
        config: A resolved configuration of plain types.
        exclude: Keys to leave out, dotted for nested ones (`"data.root"`); absent ones are fine.

    Raises:
        RecordError: The configuration holds something that is not a plain type, or not finite.
    """
    return _digest(plain("config", mapping("config", config)), exclude)


def baseline_key(config: Mapping[str, Any], exclude: Iterable[str] = WHERE_KEYS) -> str:
    """Hash of the configuration with everything about quantisation removed.

    Runs with the same key (seed, data, network, learning and trainer alike) share their 32-bit
    baseline, so an ITQ run finds the accuracy of its float twin by it. Removed are the groups
    `quantization` and `energy`, and any object whose `_target_` is one of the quantisation
    callbacks.
    """
    kept = _without_callbacks(plain("config", mapping("config", config)))
    return _digest(kept, exclude, *QUANTIZATION_KEYS)


def setting_key(config: Mapping[str, Any]) -> str:
    """Hash of the configuration without its seed: runs that share it are repetitions."""
    return config_hash(config, (*WHERE_KEYS, "seed"))


def _digest(config: dict[str, Any], exclude: Iterable[str], *more: str) -> str:
    """Hash plain types after removing the keys in place."""
    if isinstance(exclude, str):
        raise TypeError(f"exclude must be a list of keys, got the string {exclude!r}")
    for key in (*exclude, *more):
        _remove(config, key)
    canonical = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _remove(config: dict[str, Any], dotted: str) -> None:
    *parents, last = dotted.split(".")
    node: Any = config
    for name in parents:
        node = node.get(name) if isinstance(node, dict) else None
    if isinstance(node, dict):
        node.pop(last, None)


def _is_quantization_callback(value: Any) -> bool:
    target = value.get("_target_") if isinstance(value, dict) else None
    return isinstance(target, str) and target.startswith("qspinn.") and "Quantization" in target


def _without_callbacks(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_callbacks(item)
            for key, item in value.items()
            if not _is_quantization_callback(item)
        }
    if isinstance(value, list):
        return [_without_callbacks(item) for item in value if not _is_quantization_callback(item)]
    return value
