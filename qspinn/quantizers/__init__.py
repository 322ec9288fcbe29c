"""Quantizers: make a live module compute with fixed-point values, and undo it."""

from qspinn.quantizers.attach import (
    attach,
    detach,
    is_attached,
    quantized_parameters,
)
from qspinn.quantizers.calibration import calibrate
from qspinn.quantizers.choose_format import choose_channel_format, choose_format
from qspinn.quantizers.precision import accumulator_word_lengths

__all__ = [
    "accumulator_word_lengths",
    "attach",
    "calibrate",
    "choose_channel_format",
    "choose_format",
    "detach",
    "is_attached",
    "quantized_parameters",
]
