"""What one run leaves behind: its measured accuracy, its footprint, and how it came about."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import PurePath
from typing import Any

from qspinn.records.validation import RecordError, fail, integer, mapping, number, plain, text

__all__ = ["SCHEMA_VERSION", "SCHEMES", "STATUSES", "RunRecord", "finite_or_none"]

SCHEMA_VERSION = 1
SCHEMES = ("none", "ptq", "itq")
STATUSES = ("completed", "interrupted")

_FORMAT_KEYS = ("role", "format", "rounding", "overflow")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run. Values are checked and copied when the record is made; all are plain types.

    Accuracies are fractions in [0, 1]. Footprints are bits, exact.

    Attributes:
        accuracy: Of the network that the run hands over (for `scheme="none"` the 32-bit one).
        baseline_accuracy: Of its 32-bit twin, measured; None where this run did not measure it.
            For `scheme="none"` it is `accuracy` or None.
        footprint_bits: What a device holds to classify.
        baseline_footprint_bits: The same network in 32-bit.
        training_footprint_bits: What on-device learning holds (at least `footprint_bits`).
        footprint_bits_by_role: Role to bits; the values add up to `footprint_bits`.
        baseline_footprint_bits_by_role: Role to bits; add up to `baseline_footprint_bits`.
        scheme: `none`, `ptq` or `itq`.
        rounding: The plan's rounding; None exactly when the scheme is `none`.
        word_lengths: Role to the word lengths in use, ascending; a single int is accepted.
        formats: Tensor path to `{role, format, rounding, overflow}`; empty for scheme `none`.
        network: Name of the network.
        data: Name of the data.
        seed: Of every random generator.
        config: The resolved configuration.
        config_hash: See `qspinn.records.config_hash`.
        accumulator_word_lengths: Layer path to the bits that its exact sums need, sign included.
        checkpoint: Relative to the record's folder, with forward slashes; None without one.
        versions: Library to version.
        seconds: Phase to wall-clock seconds.
        metrics: Name to value; None stands for a value that was not finite.
        status: `completed`, or `interrupted` where training ended before its planned end.
        created: ISO 8601 date and time, or None.
        schema_version: Of this layout; only the current one is accepted.

    Raises:
        RecordError: A value is of the wrong type or breaks a rule; the message names the field.
    """

    accuracy: float
    footprint_bits: int
    baseline_footprint_bits: int
    training_footprint_bits: int
    footprint_bits_by_role: dict[str, int]
    baseline_footprint_bits_by_role: dict[str, int]
    scheme: str
    network: str
    data: str
    seed: int
    config: dict[str, Any]
    config_hash: str
    baseline_accuracy: float | None = None
    rounding: str | None = None
    word_lengths: dict[str, list[int]] = field(default_factory=dict)
    formats: dict[str, dict[str, str]] = field(default_factory=dict)
    accumulator_word_lengths: dict[str, int] = field(default_factory=dict)
    checkpoint: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float | None] = field(default_factory=dict)
    status: str = "completed"
    created: str | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if type(self.schema_version) is not int or self.schema_version != SCHEMA_VERSION:
            raise fail("schema_version", self.schema_version, str(SCHEMA_VERSION))
        self._check_identity()
        self._check_scheme()
        self._check_accuracy()
        self._check_footprints()
        self._check_word_lengths_and_formats()
        self._check_tables()

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_identity(self) -> None:
        text("network", self.network)
        text("data", self.data)
        text("status", self.status, STATUSES)
        integer("seed", self.seed)
        self._set("config", plain("config", mapping("config", self.config)))
        if not _HASH.fullmatch(text("config_hash", self.config_hash)):
            raise fail("config_hash", self.config_hash, "64 hexadecimal digits (config_hash())")
        if self.checkpoint is not None:
            parts = PurePath(text("checkpoint", self.checkpoint))
            if parts.is_absolute() or "\\" in self.checkpoint:
                expected = "a path relative to the record's folder, with forward slashes"
                raise fail("checkpoint", self.checkpoint, expected)
        if self.created is not None:
            try:
                datetime.fromisoformat(text("created", self.created))
            except ValueError as error:
                raise fail("created", self.created, "an ISO 8601 date and time") from error

    def _check_scheme(self) -> None:
        text("scheme", self.scheme, SCHEMES)
        if self.scheme == "none":
            if self.rounding is not None:
                raise fail("rounding", self.rounding, "null, because the scheme is none")
            if self.formats:
                raise fail("formats", self.formats, "an empty mapping, because the scheme is none")
        elif self.rounding is None:
            raise fail("rounding", None, f"a rounding, because the scheme is {self.scheme}")
        else:
            text("rounding", self.rounding)

    def _check_accuracy(self) -> None:
        self._set("accuracy", number("accuracy", self.accuracy, 0.0, 1.0))
        if self.baseline_accuracy is None:
            return
        baseline = number("baseline_accuracy", self.baseline_accuracy, 0.0, 1.0)
        self._set("baseline_accuracy", baseline)
        if self.scheme == "none" and baseline != self.accuracy:
            expected = f"null or the accuracy {self.accuracy!r}, because the scheme is none"
            raise fail("baseline_accuracy", baseline, expected)

    def _check_footprints(self) -> None:
        for total in ("footprint_bits", "baseline_footprint_bits"):
            integer(total, getattr(self, total), 1)
            name = f"{total}_by_role"
            by_role = mapping(name, getattr(self, name))
            bits = {role: integer(f"{name}.{role}", value, 0) for role, value in by_role.items()}
            self._set(name, bits)
            if sum(bits.values()) != getattr(self, total):
                expected = f"values that add up to {total} = {getattr(self, total)}"
                raise fail(name, bits, f"{expected} (their sum is {sum(bits.values())})")
        integer("training_footprint_bits", self.training_footprint_bits, self.footprint_bits)

    def _check_word_lengths_and_formats(self) -> None:
        lengths = {}
        for role, given in mapping("word_lengths", self.word_lengths).items():
            name = f"word_lengths.{role}"
            values = given if isinstance(given, (list, tuple)) else [given]
            lengths[role] = sorted({integer(name, value, 1) for value in values})
        self._set("word_lengths", lengths)
        formats = {}
        for path, entry in mapping("formats", self.formats).items():
            name = f"formats.{path}"
            if set(mapping(name, entry)) != set(_FORMAT_KEYS):
                raise fail(name, entry, "exactly the keys " + ", ".join(_FORMAT_KEYS))
            formats[path] = {key: text(f"{name}.{key}", entry[key]) for key in _FORMAT_KEYS}
        self._set("formats", formats)
        name = "accumulator_word_lengths"
        sums = mapping(name, getattr(self, name))
        self._set(name, {path: integer(f"{name}.{path}", sums[path], 1) for path in sums})

    def _check_tables(self) -> None:
        versions = mapping("versions", self.versions)
        self._set("versions", {key: text(f"versions.{key}", versions[key]) for key in versions})
        seconds = mapping("seconds", self.seconds)
        self._set("seconds", {k: number(f"seconds.{k}", seconds[k], 0.0) for k in seconds})
        metrics = mapping("metrics", self.metrics)
        checked = {
            key: None if value is None else number(f"metrics.{key}", value)
            for key, value in metrics.items()
        }
        self._set("metrics", checked)

    @property
    def reduction(self) -> float:
        """How many times smaller than the 32-bit network: baseline bits over bits."""
        return self.baseline_footprint_bits / self.footprint_bits

    @property
    def drop(self) -> float | None:
        """Accuracy lost against the 32-bit twin (negative: gained); None without a baseline."""
        return None if self.baseline_accuracy is None else self.baseline_accuracy - self.accuracy

    def to_dict(self) -> dict[str, Any]:
        """Plain types, as they are written to the file. The containers are copies."""
        return {item.name: plain(item.name, getattr(self, item.name)) for item in fields(self)}

    @classmethod
    def from_dict(cls, values: object) -> RunRecord:
        """The inverse of `to_dict`. Every field must be there, and no other.

        Raises:
            RecordError: Unknown schema version, missing or unknown field, or an invalid value.
        """
        if not isinstance(values, Mapping):
            message = f"expected a mapping of fields, got {type(values).__name__}"
            raise RecordError(message)
        if "schema_version" not in values:
            message = "field 'schema_version' is missing: this is no run record"
            raise RecordError(message, "schema_version")
        version = values["schema_version"]
        if type(version) is not int or version != SCHEMA_VERSION:
            expected = f"{SCHEMA_VERSION}, the schema version that this qspinn reads"
            raise fail("schema_version", version, expected)
        names = [item.name for item in fields(cls)]
        for name in names:
            if name not in values:
                raise RecordError(f"field {name!r} is missing", name)
        for name in values:
            if name not in names:
                raise RecordError(f"unknown field {name!r}; known: {', '.join(names)}", str(name))
        return cls(**values)


def finite_or_none(values: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics for a record: numbers as floats, what is not finite (a diverged loss) as None."""
    return {key: float(value) if math.isfinite(value) else None for key, value in values.items()}
