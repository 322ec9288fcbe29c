"""Quantizers: make a live module compute with fixed-point values, and undo it."""

from qspinn.quantizers.attach import (
    attach,
    detach,
    is_attached,
    plan_of,
    quantized_parameters,
)
from qspinn.quantizers.calibration import calibrate
from qspinn.quantizers.choose_format import choose_channel_format, choose_format
from qspinn.quantizers.integer_codes import IntegerCodes, integer_codes
from qspinn.quantizers.learned_steps import LearnedSteps
from qspinn.quantizers.precision import accumulator_word_lengths
from qspinn.quantizers.quantize import quantize_module
from qspinn.quantizers.saving import load_quantized, save_quantized

__all__ = [
    "IntegerCodes",
    "LearnedSteps",
    "accumulator_word_lengths",
    "attach",
    "calibrate",
    "choose_channel_format",
    "choose_format",
    "detach",
    "integer_codes",
    "is_attached",
    "load_quantized",
    "plan_of",
    "quantize_module",
    "quantized_parameters",
    "save_quantized",
]
