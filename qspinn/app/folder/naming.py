"""Names of job folders in a sweep, and of runs and groups in W&B."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig

from qspinn.app.folder.identity import LAUNCH_KEYS, identity
from qspinn.records import config_hash, setting_key

MAX_BYTES = 255  # of a file's name
VERBATIM = 120
SHORTENED = 100
SHOWN = 90  # of the changes in a run's name
# A key that has groups, and its prefix.
_DOTTED = re.compile(r"[+~]*((?:[\w@/]+\.)+\w+)")
# The word length of a role, which says enough by the name of the role.
_ROLE = re.compile(r"^[+]*quantization\.roles\.(\w+)\.word_length=")
_UNSAFE = re.compile(r"[^\w=,.+~-]")
_NO_CHANGE = (*LAUNCH_KEYS, "logger", "launcher", "hydra")
_WANDB = "qspinn.app.tracking.logger.start_wandb"


def job_folder(overrides: str) -> str:
    """Return the name of a job's folder in a sweep, from its overrides.

    Args:
        overrides: ``key=value`` texts joined by commas.

    Returns:
        The overrides themselves, if they are a valid file name everywhere; else a shorter form (at
        most 100 characters; keys are cut to their shortest unique endings) and a hash.
    """
    if not overrides:
        return "defaults"
    if len(overrides) <= VERBATIM and not _UNSAFE.search(overrides) and _fits(overrides):
        return overrides
    suffix = f"-{config_hash({'overrides': overrides})[:8]}"
    cleaned = _UNSAFE.sub("-", _shortened(split_overrides(overrides)))[:SHORTENED]
    while not _fits(cleaned + suffix):
        cleaned = cleaned[:-1]
    return cleaned + suffix


def changes(*unused: object) -> str:
    """Return the overrides of this job that change what is computed, joined by commas.

    Hydra knows them in the process of a job; elsewhere the result is empty.
    """
    del unused
    if not HydraConfig.initialized():
        return ""
    texts = list(HydraConfig.get().overrides.task)
    return ",".join(text for text in texts if not _is_of(_key(text), _NO_CHANGE))


def run_name(config: Mapping[str, Any], changed: str = "") -> str:
    """Return a name that says what differs from the defaults, and the seed."""
    texts = [text for text in split_overrides(changed) if _key(text) != "seed"]
    parts = [_shortened([_ROLE.sub(r"\1=", text) for text in texts])]
    if "quantization.rules" not in map(_key, texts):  # a search writes rules and no override
        parts += _rules(config["quantization"].get("rules") or [])
    shown = ",".join(filter(None, parts)) or "defaults"
    if len(shown) > SHOWN:
        digits = config_hash({"changes": parts})[:8]
        shown = f"{shown[: SHOWN // 2]}...{shown[-SHOWN // 2 :]}-{digits}"
    return f"{shown},seed={config['seed']}"


def group_name(config: Mapping[str, Any]) -> str:
    """Return the common name of runs that differ only in the seed.

    It consists of scheme, rounding, word length (if all tensors share one) and eight digits of the
    hash of the setting, which distinguish settings that read the same.
    """
    quantization = config["quantization"]
    parts = ["32-bit"]
    if quantization["scheme"] != "none":
        roles = [role for role in (quantization.get("roles") or {}).values() if role]
        is_mixed = quantization.get("rules") or any(
            role.get("word_length") is not None or role.get("format") is not None for role in roles
        )
        length = "mixed" if is_mixed else str(quantization["word_length"])
        parts = [quantization["scheme"], str(quantization["rounding"]), length]
    return "-".join([*parts, setting_key(identity(config))[:8]])


def named_loggers(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the loggers of a configuration, with missing names of W&B runs filled in."""
    named = {}
    for name, node in (config["logger"] or {}).items():
        if isinstance(node, Mapping) and node.get("_target_") == _WANDB:
            node = dict(node)
            changed = node.pop("changes", None) or ""
            node["name"] = node.get("name") or run_name(config, changed)
            node["group"] = node.get("group") or group_name(config)
        named[name] = node
    return named


def split_overrides(text: str) -> list[str]:
    """Split overrides at the commas between them, not at those in brackets and quotes."""
    parts, depth, quote, start, at = [], 0, "", 0, 0
    while at < len(text):
        letter = text[at]
        if letter == "\\":
            at += 1
        elif quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "[{(":
            depth += 1
        elif letter in "]})":
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
        at += 1
    return [part for part in [*parts, text[start:]] if part]


def _fits(name: str) -> bool:
    return len(name.encode()) <= MAX_BYTES


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~").replace("/", ".")


def _is_of(key: str, groups: Sequence[str]) -> bool:
    return key.partition("@")[0].partition(".")[0] in groups


def _shortened(overrides: Sequence[str]) -> str:
    """Join overrides, with keys cut to their shortest unique endings."""
    keys = {override.partition("=")[0].lstrip("+~") for override in overrides}
    texts = []
    for override in overrides:
        key, equals, value = override.partition("=")
        found = _DOTTED.fullmatch(key)
        texts.append(_unique_end(found.group(1), keys) + equals + value if found else override)
    return ",".join(texts)


def _unique_end(key: str, keys: set[str]) -> str:
    parts = key.split(".")
    others = [other.split(".") for other in keys - {key}]
    for count in range(1, len(parts)):
        if all(other[-count:] != parts[-count:] for other in others):
            return ".".join(parts[-count:])
    return key


def _rules(rules: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rules as texts such as weight=3 or weight@hidden.0=Q1.6."""
    texts = []
    for rule in rules:
        layers, role = rule.get("layers", "*"), rule.get("role", "*")
        given = {k: v for k, v in rule.items() if k not in ("layers", "role") and v is not None}
        value = "/".join(str(v) for v in given.values())
        texts.append(f"{role if layers == '*' else f'{role}@{layers}'}={value}")
    return texts
