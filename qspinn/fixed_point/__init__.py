"""Fixed-point numerics: formats, roundings, codes and fake quantisation.

Pure functions on tensors; nothing here knows about networks. A format is written ``Qi.f`` (signed,
``1 + i + f`` bits: the sign bit is counted separately) or ``UQi.f`` (unsigned, ``i + f`` bits).

Example:
    >>> import torch
    >>> from qspinn.fixed_point import FixedPointFormat, quantize, to_integers
    >>> fmt = FixedPointFormat.parse("Q1.2")
    >>> y = quantize(torch.tensor([0.3, -0.9, 7.0]), fmt)
    >>> y.tolist(), to_integers(y, fmt).tolist()
    ([0.25, -1.0, 1.75], [1, -4, 7])
"""

from qspinn.fixed_point.codes import from_integers, to_integers
from qspinn.fixed_point.fake_quantize import fake_quantize
from qspinn.fixed_point.format import (
    MAX_BITS,
    MAX_WORD_LENGTH,
    FixedPointFormat,
    Format,
    PerChannelFormat,
    covering_integer_bits,
    parse_format,
)
from qspinn.fixed_point.held import (
    SATURATED,
    Quantizer,
    TensorQuantizer,
    stored,
    stored_constant,
    stored_draws,
)
from qspinn.fixed_point.learned_step import LearnedStep, learned_quantize
from qspinn.fixed_point.noise import Draws
from qspinn.fixed_point.quantize import OVERFLOWS, quantize
from qspinn.fixed_point.rounding import ROUNDINGS

__all__ = [
    "MAX_BITS",
    "MAX_WORD_LENGTH",
    "OVERFLOWS",
    "ROUNDINGS",
    "SATURATED",
    "Draws",
    "FixedPointFormat",
    "Format",
    "LearnedStep",
    "PerChannelFormat",
    "Quantizer",
    "TensorQuantizer",
    "covering_integer_bits",
    "fake_quantize",
    "from_integers",
    "learned_quantize",
    "parse_format",
    "quantize",
    "stored",
    "stored_constant",
    "stored_draws",
    "to_integers",
]
