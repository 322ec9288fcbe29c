"""Quantizers: make a live module compute with fixed-point values, and undo it."""

from qspinn.quantizers.attach import (
    attach,
    detach,
    is_attached,
    quantized_parameters,
    synapse_bits,
)
from qspinn.quantizers.calibration import calibrate
from qspinn.quantizers.choose_format import choose_channel_format, choose_format

__all__ = [
    "attach",
    "calibrate",
    "choose_channel_format",
    "choose_format",
    "detach",
    "is_attached",
    "quantized_parameters",
    "synapse_bits",
]
