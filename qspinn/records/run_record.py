"""What one run leaves behind: its measured accuracy, its footprint, and how it came about."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from qspinn.records.fields import FIELD_CHECKS, SCHEMA_VERSION
from qspinn.records.unread import Late
from qspinn.records.validation import RecordError, fail, plain

# Fields that records did not have from the start; files without them are read all the same.
LATER_FIELDS = (
    "baseline_key",
    "setting_key",
    "summary",
    "data_fingerprint",
    "samples",
    "validation_accuracy",
    "validation_baseline_accuracy",
    "validation_samples",
    "flash_bits",
    "ram_bits",
    "learning_ram_bits",
    "fidelity",
    "work",
    "device_model",
)

MEASURED_ON = ("validation", "test")
"""What a network is measured on: what chooses among runs, and what tells of what was chosen."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run. Values are checked and copied when the record is made; all are plain types.

    Accuracies are fractions in [0, 1]. Footprints are bits, exact.

    There are two accuracies: that on validation data, which were held out of the training data, is
    for choosing among runs; that on test data is for reporting what was chosen. The best of many
    test accuracies is too high an estimate of what the chosen network does on other data.

    Attributes:
        accuracy: On test data, of the network that the run hands over (for `scheme="none"` the
            32-bit one).
        baseline_accuracy: Of its 32-bit twin, measured; None where this run did not measure it.
            For `scheme="none"` it is `accuracy` or None.
        footprint_bits: What a device holds to classify; for `scheme="none"` the baseline's.
        baseline_footprint_bits: The same network in 32-bit.
        training_footprint_bits: What on-device learning holds (at least `footprint_bits`).
        footprint_bits_by_role: Role to bits; the values add up to `footprint_bits`.
        baseline_footprint_bits_by_role: Role to bits; add up to `baseline_footprint_bits`.
        scheme: `none`, `ptq` or `itq`.
        rounding: The plan's rounding; None exactly when the scheme is `none`.
        word_lengths: Role to the word lengths in use, ascending; a single int is accepted.
        formats: Tensor path to `{role, format, rounding, overflow}`, and `unit` for weights of
            neurons that count in a unit of their own; empty for scheme `none`.
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
        baseline_key: See `qspinn.records.baseline_key`; None in records of qspinn before it was
            stored, and computed from the configuration then.
        setting_key: See `qspinn.records.setting_key`; None likewise.
        summary: What is quantised and what is not: `parameters` and `states`, each
            `{"quantized", "total"}` numbers of values, and `lines` that say what stays in 32-bit
            and why; perhaps more. None in records of qspinn before it was stored.
        data_fingerprint: Changes when the data change, wherever they lie; None where it is not
            known, and in records of qspinn before it was stored.
        samples: Test samples that `accuracy` is the share of; None where it is not known.
        validation_accuracy: On validation data; None where there are none, and in records of
            qspinn before it was stored.
        validation_baseline_accuracy: Of the 32-bit twin on validation data; for `scheme="none"` it
            is `validation_accuracy` or None.
        validation_samples: Validation samples; None where it is not known.
        flash_bits: What a device that classifies holds in flash: what does not change from step to
            step; None in records of qspinn before it was stored.
        ram_bits: What it holds in RAM: states; with `flash_bits` it adds up to `footprint_bits`.
        learning_ram_bits: What a device that learns holds in RAM: all that learning changes, too.
            The rest of `training_footprint_bits` is in flash.
        fidelity: How far the network behaves as its 32-bit twin; see `docs/fidelity.md`. None where
            it was not measured.
        work: Operations and energy per sample; see `docs/energy.md`. None where it was not
            measured.
        device_model: Its file, sizes and check, or why there is none; see `docs/export.md`.
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
    baseline_key: str | None = None
    setting_key: str | None = None
    summary: dict[str, Any] | None = None
    data_fingerprint: str | None = None
    samples: int | None = None
    validation_accuracy: float | None = None
    validation_baseline_accuracy: float | None = None
    validation_samples: int | None = None
    flash_bits: int | None = None
    ram_bits: int | None = None
    learning_ram_bits: int | None = None
    fidelity: Late = Late()  # noqa: RUF009 - one for each field
    work: Late = Late()  # noqa: RUF009
    device_model: dict[str, Any] | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        for name, check in FIELD_CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))
        self._check_together()

    @classmethod
    def of_checked(cls, values: dict[str, Any]) -> RunRecord:
        """Make a record of values that `FIELD_CHECKS` has returned; what relates them is checked.

        Raises:
            RecordError: Two fields contradict each other.
        """
        record = object.__new__(cls)
        record.__dict__.update(_DEFAULTS)
        record.__dict__.update(values)
        record._check_together()
        return record

    def _check_together(self) -> None:
        """The rules that relate one field to another."""
        if self.scheme == "none":
            if self.rounding is not None:
                raise fail("rounding", self.rounding, "null, because the scheme is none")
            if self.formats:
                raise fail("formats", self.formats, "an empty mapping, because the scheme is none")
            for prefix in ("", "validation_"):
                own = getattr(self, f"{prefix}accuracy")
                baseline = getattr(self, f"{prefix}baseline_accuracy")
                if baseline not in (None, own):
                    expected = f"null or the accuracy {own!r}, because the scheme is none"
                    raise fail(f"{prefix}baseline_accuracy", baseline, expected)
            if self.footprint_bits != self.baseline_footprint_bits:
                expected = f"{self.baseline_footprint_bits}, because the scheme is none"
                raise fail("footprint_bits", self.footprint_bits, expected)
        elif self.rounding is None:
            raise fail("rounding", None, f"a rounding, because the scheme is {self.scheme}")
        for total in ("footprint_bits", "baseline_footprint_bits"):
            name = f"{total}_by_role"
            by_role, bits = getattr(self, name), getattr(self, total)
            if sum(by_role.values()) != bits:
                expected = f"values that add up to {total} = {bits}"
                raise fail(name, by_role, f"{expected} (their sum is {sum(by_role.values())})")
        if self.training_footprint_bits < self.footprint_bits:
            expected = f"an integer of at least {self.footprint_bits}"
            raise fail("training_footprint_bits", self.training_footprint_bits, expected)
        self._check_memories()

    def _check_memories(self) -> None:
        """Flash and RAM are the parts of a footprint."""
        flash, ram, learning = self.flash_bits, self.ram_bits, self.learning_ram_bits
        if (flash is None) is not (ram is None):
            raise fail("ram_bits", ram, "an integer exactly where flash_bits is one")
        if flash is not None and ram is not None and flash + ram != self.footprint_bits:
            expected = f"what adds up with flash_bits to footprint_bits = {self.footprint_bits}"
            raise fail("ram_bits", ram, expected)
        if learning is not None and not (ram or 0) <= learning <= self.training_footprint_bits:
            expected = f"an integer from ram_bits to {self.training_footprint_bits}"
            raise fail("learning_ram_bits", learning, expected)

    def measured_on(self, data: str) -> RunRecord | None:
        """Return the record with the accuracies on validation data in the places of the others.

        Args:
            data: `validation`, or `test` for the record as it is.

        Returns:
            A record whose `accuracy`, `baseline_accuracy` and `samples` are those on that data;
            None where the validation accuracy is not known.
        """
        if data == "test":
            return self
        if self.validation_accuracy is None:
            return None
        measured = {
            "accuracy": self.validation_accuracy,
            "baseline_accuracy": self.validation_baseline_accuracy,
            "samples": self.validation_samples,
        }
        return RunRecord.of_checked(vars(self) | measured)

    @property
    def share(self) -> float:
        """Footprint over that of the 32-bit network."""
        return self.footprint_bits / self.baseline_footprint_bits

    @property
    def reduction(self) -> float:
        """How many times smaller than the 32-bit network: baseline bits over bits."""
        return self.baseline_footprint_bits / self.footprint_bits

    @property
    def drop(self) -> float | None:
        """Accuracy lost against the 32-bit twin (negative: gained); None without a baseline."""
        return None if self.baseline_accuracy is None else self.baseline_accuracy - self.accuracy

    @property
    def agreement(self) -> float | None:
        """Share of samples that the 32-bit twin classifies alike; None where it is not known."""
        return None if self.fidelity is None else self.fidelity["agreement"]

    @property
    def energy_nj(self) -> float | None:
        """Nanojoules per sample, estimated from its operations; None where it is not known."""
        return None if self.work is None else self.work["energy_nj"]

    @property
    def parameters_share(self) -> float | None:
        """Share of the parameters that is quantised, by numbers of values; None: not known."""
        return self._share("parameters")

    @property
    def states_share(self) -> float | None:
        """The same of the states of a sample."""
        return self._share("states")

    def _share(self, kind: str) -> float | None:
        if self.summary is None:
            return None
        counts = self.summary[kind]
        return counts["quantized"] / counts["total"] if counts["total"] else 1.0

    @property
    def summary_lines(self) -> list[str]:
        """What is quantised and what is not, for people; empty where it is not known."""
        return [] if self.summary is None else list(self.summary["lines"])

    def to_dict(self) -> dict[str, Any]:
        """Plain types, as they are written to the file. The containers are copies."""
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        return {
            name: plain(name, value)
            for name, value in given.items()
            if value is not None or name not in LATER_FIELDS
        }

    @classmethod
    def from_dict(cls, values: object) -> RunRecord:
        """The inverse of `to_dict`. Every field must be there, and no other.

        Raises:
            RecordError: Unknown schema version, missing or unknown field, or an invalid value.
        """
        if not isinstance(values, Mapping):
            message = f"expected a mapping of fields, got {type(values).__name__}"
            raise RecordError(message)
        check_names(values)
        return cls(**values)


_NAMES = frozenset(item.name for item in fields(RunRecord))
_REQUIRED = _NAMES.difference(LATER_FIELDS)
_DEFAULTS = dict.fromkeys(LATER_FIELDS)


def check_names(values: Mapping[str, Any]) -> None:
    """See that a mapping holds the fields of a record of the current schema version.

    Raises:
        RecordError: Unknown schema version, missing or unknown field.
    """
    if "schema_version" not in values:
        message = "field 'schema_version' is missing: this is no run record"
        raise RecordError(message, "schema_version")
    version = values["schema_version"]
    if type(version) is not int or version != SCHEMA_VERSION:
        expected = f"{SCHEMA_VERSION}, the schema version that this qspinn reads"
        raise fail("schema_version", version, expected)
    given = values.keys()
    if given >= _REQUIRED and given <= _NAMES:
        return
    for item in fields(RunRecord):
        if item.name in _REQUIRED and item.name not in given:
            raise RecordError(f"field {item.name!r} is missing", item.name)
    for name in values:
        if name not in _NAMES:
            known = ", ".join(item.name for item in fields(RunRecord))
            raise RecordError(f"unknown field {name!r}; known: {known}", str(name))


def finite_or_none(values: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics for a record: numbers as floats, what is not finite (a diverged loss) as None."""
    return {key: float(value) if math.isfinite(value) else None for key, value in values.items()}
