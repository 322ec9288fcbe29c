"""How one tensor is quantised: word length or format, rounding, overflow, calibration."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from qspinn.fixed_point import OVERFLOWS, ROUNDINGS, Format, parse_format

FLOAT32: Final = "float32"
# Parts that are used only for training, such as a teacher, are not on the device.
EXCLUDED: Final = "excluded"
UNQUANTIZED: Final = (FLOAT32, EXCLUDED)
CALIBRATIONS: Final = ("max", "percentile", "mse", "spikes")
GRANULARITIES: Final = ("tensor", "channel")
SCALES: Final = ("power_of_two", "free")
LEVELS: Final = ("all", "symmetric")
# Codes of at most 24 bits are exact in the float32 that the simulation computes in.
MAX_WORD_LENGTH: Final = 24


@dataclass(frozen=True)
class TensorSettings:
    """What the rules of a plan say about one tensor.

    Attributes:
        word_length: Bits per value, 1 to 24; ``None`` where ``format`` says it.
        format: A fixed-point format as text (``"Q1.6"``); ``"float32"`` to leave the
            tensor as it is; or ``"excluded"`` to leave out what the device does not
            hold, such as a teacher. ``None``: calibration splits ``word_length`` into
            integer and fraction bits.
        rounding: One of :data:`qspinn.fixed_point.ROUNDINGS`.
        overflow: ``"saturate"`` or ``"wrap"``.
        calibration: ``"max"``, ``"percentile"``, ``"mse"``, or for the membrane of a layer
            that fires ``"spikes"`` (elsewhere that is ``"mse"``).
        granularity: ``"tensor"``, or ``"channel"`` for one split per output
            channel (weights and biases; other roles have one per tensor).
        scale: ``"power_of_two"``: steps are powers of two; ``"free"``: a layer of neurons
            counts in a unit of its own, or each channel in one (``granularity``), which its
            thresholds absorb. See docs/few_bits.md.
        levels: Of weights: ``"all"`` numbers of a word; or ``"symmetric"``: those whose
            negatives are numbers of it, too, so that 2 bits are ternary. 1 bit is -1 and +1
            steps in any case.
    """

    word_length: int | None = None
    format: str | None = None
    rounding: str | None = None
    overflow: str | None = None
    calibration: str | None = None
    granularity: str | None = None
    scale: str | None = None
    levels: str | None = None

    def check(self, place: str) -> None:
        """Raises ``ValueError`` for an invalid value, naming ``place``."""
        _check_word_length(self.word_length, place)
        _check_choice(self.rounding, ROUNDINGS, f"{place}: rounding")
        _check_choice(self.overflow, OVERFLOWS, f"{place}: overflow")
        _check_choice(self.calibration, CALIBRATIONS, f"{place}: calibration")
        _check_choice(self.granularity, GRANULARITIES, f"{place}: granularity")
        _check_choice(self.scale, SCALES, f"{place}: scale")
        _check_choice(self.levels, LEVELS, f"{place}: levels")
        if self.format in UNQUANTIZED and self.word_length is not None:
            raise ValueError(
                f"{place}: word_length={self.word_length} and format={self.format!r} disagree; "
                "write one of the two"
            )
        parsed = self.parsed_format(place)
        if parsed is None:
            return
        if self.word_length not in (None, parsed.word_length):
            raise ValueError(
                f"{place}: word_length={self.word_length} and format={self.format!r} "
                f"({parsed.word_length} bits) disagree; write one of the two"
            )
        if self.levels == "symmetric" and not parsed.symmetric:
            raise ValueError(
                f"{place}: levels='symmetric' and format={self.format!r} disagree; write one of "
                f"the two, or format='SQ...'"
            )
        if parsed.word_length > MAX_WORD_LENGTH:
            raise ValueError(
                f"{place}: format={self.format!r} has {parsed.word_length} bits; write a format "
                f"of at most {MAX_WORD_LENGTH} bits, or 'float32' to leave the tensor as it is"
            )

    def parsed_format(self, place: str) -> Format | None:
        """The format, where one is given and it is a fixed-point format."""
        if self.format is None or self.format in UNQUANTIZED:
            return None
        try:
            return parse_format(self.format)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{place}: format: {error} (or write 'float32', or 'excluded')"
            ) from None

    @property
    def is_float(self) -> bool:
        """Whether the tensor stays in 32-bit floating point, or is left out."""
        return self.format in UNQUANTIZED or (self.format is None and self.word_length is None)

    @property
    def has_free_scale(self) -> bool:
        """Whether steps need be no powers of two."""
        return self.scale == "free"

    def overridden_by(self, other: TensorSettings) -> TensorSettings:
        """These settings, with everything that ``other`` states in their place.

        A word length and a format say the same thing, so stating either one
        takes back an earlier statement of the other.
        """
        stated = {name: value for name, value in asdict(other).items() if value is not None}
        merged = replace(self, **stated)
        if "word_length" in stated and "format" not in stated:
            merged = replace(merged, format=None)
        elif "format" in stated and "word_length" not in stated:
            merged = replace(merged, word_length=None)
        return merged

    def to_dict(self) -> dict[str, Any]:
        """What is stated, as plain types."""
        return {name: value for name, value in asdict(self).items() if value is not None}


DEFAULT_SETTINGS: Final = TensorSettings(
    rounding="nearest",
    overflow="saturate",
    calibration="mse",
    granularity="tensor",
    scale="power_of_two",
    levels="all",
)


def _check_word_length(word_length: object, place: str) -> None:
    if word_length is None:
        return
    if isinstance(word_length, bool) or not isinstance(word_length, int):
        raise ValueError(f"{place}: word_length={word_length!r}; write a whole number of bits")
    if not 1 <= word_length <= MAX_WORD_LENGTH:
        raise ValueError(
            f"{place}: word_length={word_length}; write 1 to {MAX_WORD_LENGTH} bits, "
            "or format=float32 to leave the tensor in 32-bit floating point"
        )


def _check_choice(value: object, choices: tuple[str, ...], place: str) -> None:
    if value is not None and value not in choices:
        raise ValueError(f"{place}={value!r}; write one of {', '.join(choices)}")
