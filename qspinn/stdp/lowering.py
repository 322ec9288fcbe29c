"""From settings and formats to the numbers that the engines compute with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from qspinn.fixed_point import FixedPointFormat, PerChannelFormat, Quantizer, stored_constant
from qspinn.stdp.constants import constants
from qspinn.stdp.numbers import (
    GAIN_BITS,
    THETA_BITS,
    UNROUNDED,
    WIDEST,
    NeuronNumbers,
    Numbers,
    ThetaNumbers,
    TraceNumbers,
    WeightNumbers,
)
from qspinn.stdp.settings import STDP, DiehlCookSettings
from qspinn.steps.lowering import Constant, adaptive_numbers, rounding_of
from qspinn.steps.words import Rounding

RATE_BITS = 32  # fraction bits that a learning rate has at least, where 64 bits suffice
MOST_FINE_BITS = 16
INTEGER_BITS = 62  # of the int64 that sums are computed in, sign and a spare bit apart


def float_numbers(
    settings: DiehlCookSettings, stdp: STDP, time_steps: int, neurons: int
) -> Numbers:
    """The constants in float32; potentials relative to rest."""
    real, unrounded = np.float32, UNROUNDED

    def each(value: float) -> np.ndarray:
        return np.full(neurons, value, np.float32)

    return Numbers(
        NeuronNumbers(
            keep=real(settings.keep),
            v_up=0,
            down=0,
            inhibition=real(settings.inhibition),
            reset=real(settings.reset - settings.rest),
            threshold=real(settings.threshold - settings.rest),
            fire_up=0,
            theta_up=0,
            v=unrounded,
            current_up=np.zeros(neurons, np.int64),
        ),
        ThetaNumbers(
            plus=real(settings.theta_plus),
            keep=real(math.exp(-time_steps / settings.theta_tau)),
            bits=0,
            to=unrounded,
        ),
        TraceNumbers(real(math.exp(-1.0 / stdp.tau_pre)), 0, real(1), unrounded),
        TraceNumbers(real(math.exp(-1.0 / stdp.tau_post)), 0, real(1), unrounded),
        WeightNumbers(
            spare=0,
            fine=0,
            gain_down=0,
            trace_target=real(stdp.trace_target),
            to=unrounded,
            maximum=each(stdp.weight_max),
            sum=each(stdp.weight_sum or 0.0),
            rate_pre=each(stdp.rate_pre),
            rate_post=each(stdp.rate_post),
        ),
    )


def fixed_numbers(
    settings: DiehlCookSettings,
    stdp: STDP,
    time_steps: int,
    neurons: int,
    inputs: int,
    quantizers: Mapping[str, Quantizer],
) -> Numbers:
    """The constants as integers.

    Args:
        settings: Of the neurons.
        stdp: Of the plasticity.
        time_steps: T.
        neurons: Number of neurons.
        inputs: Number of inputs.
        quantizers: Name -> how it is held, for every name of :func:`constants` and :func:`bounds`.

    Raises:
        ValueError: Formats with which the network could not work, or whose sums exceed 64 bits.
    """
    held = quantizers
    for name in ("weight", "theta"):
        _check_parameter(held[name])
    values = constants(settings, stdp)
    bits = {name: _bits(held[name]) for name in held if name != "weight"}
    code = {name: _code(held[name], value) for name, value in values.items()}
    weight_bits = _weight_bits(held["weight"], neurons)
    total = max(bits["v"] + bits["leak"], int(weight_bits.max()), bits["inhibition"])
    membrane = held["v"].format
    assert isinstance(membrane, FixedPointFormat)
    spare = _spare_bits(stdp, time_steps, held["weight"], weight_bits, bits)
    fine = _fine_bits(stdp, held["weight"], int(weight_bits.max()), spare)
    numbers = Numbers(
        adaptive_numbers(
            membrane,
            _rounding(held["v"]),
            weight_bits,
            bits["theta"],
            {name: Constant(code[name], bits[name]) for name in values},
        ),
        ThetaNumbers(
            plus=_nearest(settings.theta_plus, bits["theta"] + THETA_BITS),
            keep=_nearest(math.exp(-time_steps / settings.theta_tau), THETA_BITS),
            bits=THETA_BITS,
            to=_rounding(held["theta"]),
        ),
        _trace(held["trace_pre"], code["leak_pre"], bits["leak_pre"]),
        _trace(held["trace_post"], code["leak_post"], bits["leak_post"]),
        WeightNumbers(
            spare=spare,
            fine=fine,
            gain_down=GAIN_BITS + fine,
            trace_target=_nearest(stdp.trace_target, bits["trace_pre"]),
            to=_rounding(held["weight"]),
            maximum=_codes(stdp.weight_max, weight_bits, down=True),
            sum=_codes(stdp.weight_sum or 0.0, weight_bits + fine + GAIN_BITS),
            rate_pre=_codes(stdp.rate_pre, weight_bits - bits["trace_post"] + spare),
            rate_post=_codes(stdp.rate_post, weight_bits - bits["trace_pre"] + spare),
        ),
    )
    _check(numbers, held, settings, inputs, neurons, total)
    return numbers


def _check(
    numbers: Numbers,
    held: Mapping[str, Quantizer],
    settings: DiehlCookSettings,
    inputs: int,
    neurons: int,
    total: int,
) -> None:
    membrane, path = held["v"].format, held["v"].path
    neuron, theta = numbers.neuron, numbers.theta
    compared = max(abs(neuron.v.low), neuron.v.high) << neuron.fire_up
    raised = (theta.to.high << THETA_BITS) + theta.plus
    reached = neuron.threshold + (theta.to.high << neuron.theta_up)
    if max(compared, raised, reached) >= 1 << INTEGER_BITS:
        raise ValueError(
            f"{held['theta'].path}: {held['theta'].format} beside {membrane} needs sums of more "
            "than 64 bits; write fewer fraction bits for theta"
        )
    if neuron.v.high << neuron.fire_up < neuron.threshold:
        raise ValueError(
            f"{path}: format {membrane} ends at {membrane.max}, below the threshold "  # type: ignore[union-attr]
            f"{settings.threshold - settings.rest} above rest: no neuron could fire; write more "
            "integer bits"
        )
    if neuron.reset << neuron.fire_up >= neuron.threshold:
        raise ValueError(
            f"{path}: in {membrane} a spike resets to the threshold or above: write more fraction "
            "bits for membrane and threshold"
        )
    kept = {
        "leak": neuron.keep,
        "leak_pre": numbers.pre.keep,
        "leak_post": numbers.post.keep,
    }
    for name, keep in kept.items():
        if keep >= 1 << _bits(held[name]):
            raise ValueError(f"{held[name].path}: the leak becomes 0 in {held[name].format}")
    spikes = 1 if settings.one_winner else neurons
    largest = max(abs(neuron.v.low), neuron.v.high) * 2.0**neuron.down
    largest += inputs * held["weight"].format.code_max * 2.0 ** int(neuron.current_up.max())
    largest += spikes * neuron.inhibition
    if largest >= 2.0**INTEGER_BITS:
        raise ValueError(
            f"{path}: {membrane}, a leak of {held['leak'].format} and weights of "
            f"{held['weight'].format} need sums of more than 64 bits (grid 2^-{total}); write "
            "fewer fraction bits for the leak"
        )


def _fine_bits(stdp: STDP, weight: Quantizer, finest: int, spare: int) -> int:
    """Bits that weights have more than stored ones while they are scaled to their sum."""
    sum_bits = math.ceil(math.log2(max(stdp.weight_sum or 1.0, 1.0)))
    fine = min(MOST_FINE_BITS, spare, INTEGER_BITS - 1 - GAIN_BITS - sum_bits - finest)
    if fine < 0:
        raise ValueError(
            f"{weight.path}: {weight.format} has too many fraction bits to be scaled to "
            f"weight_sum={stdp.weight_sum} in 64 bits; write fewer"
        )
    return fine


def _check_parameter(quantizer: Quantizer) -> None:
    fmt = quantizer.format
    if fmt.word_length - int(fmt.signed) > WIDEST:
        raise ValueError(
            f"{quantizer.path}: a float32, which keeps it between presentations, holds codes of "
            f"{WIDEST} bits, and {fmt} has more; write fewer bits"
        )


def _spare_bits(
    stdp: STDP,
    time_steps: int,
    weight: Quantizer,
    weight_bits: np.ndarray,
    bits: Mapping[str, int],
) -> int:
    """Bits that changes of weights have more than these: what the rates need, within 64 bits."""
    room = INTEGER_BITS - 1 - max(int(weight_bits.max()), weight.format.word_length)
    if stdp.update == "deferred":  # a sum of so many changes, of at most a rate each
        largest = time_steps * stdp.parallel * (stdp.rate_pre + stdp.rate_post)
        room -= max(0, math.ceil(math.log2(max(largest, 1.0))))
    traces = max(bits["trace_pre"], bits["trace_post"])
    spare = min(room, max(RATE_BITS + traces - int(weight_bits.min()), 0))
    for rate in (stdp.rate_pre, stdp.rate_post):
        if spare < 0 or 0 < rate < 2.0 ** (traces - int(weight_bits.min()) - spare):
            raise ValueError(
                f"{weight.path}: beside traces of {traces} fraction bits, the rate {rate} of "
                f"{weight.format} needs sums of more than 64 bits; write fewer fraction bits"
            )
    return spare


def _bits(quantizer: Quantizer) -> int:
    fmt = quantizer.format
    if isinstance(fmt, PerChannelFormat):
        raise ValueError(f"{quantizer.path}: write one format, such as Q8.7, not one per channel")
    if fmt.fraction_bits < 0 and quantizer.path.rpartition(".")[2].startswith("leak"):
        raise ValueError(f"{quantizer.path}: {fmt} holds no leak; write fraction bits")
    return fmt.fraction_bits


def _weight_bits(quantizer: Quantizer, neurons: int) -> np.ndarray:
    fmt = quantizer.format
    signed = fmt.signed
    if signed:
        raise ValueError(
            f"{quantizer.path}: the weights are never negative, so {fmt} wastes a bit; write an "
            "unsigned format such as UQ0.8"
        )
    if isinstance(fmt, PerChannelFormat):
        if fmt.axis not in (1, -1) or len(fmt.fraction_bits) != neurons:
            raise ValueError(
                f"{quantizer.path}: {len(fmt.fraction_bits)} formats along axis {fmt.axis}: write "
                f"one for each of the {neurons} neurons, along axis 1"
            )
        return np.array(fmt.fraction_bits, np.int64)
    return np.full(neurons, fmt.fraction_bits, np.int64)


def _rounding(quantizer: Quantizer) -> Rounding:
    return rounding_of(quantizer.format, quantizer.rounding, quantizer.overflow)


def _trace(quantizer: Quantizer, leak: int, bits: int) -> TraceNumbers:
    return TraceNumbers((1 << bits) - leak, bits, _code(quantizer, 1.0), _rounding(quantizer))


def _code(quantizer: Quantizer, value: float, rounding: str | None = None) -> int:
    """The code of one stored number."""
    kept = stored_constant(value, quantizer.format, rounding or quantizer.rounding)
    return round(kept * 2.0 ** _bits(quantizer))


def _nearest(value: float, bits: int) -> int:
    """The nearest code; halves go up, and not to even as Python's `round` takes them."""
    return math.floor(Fraction(value) * Fraction(2) ** bits + Fraction(1, 2))


def _codes(value: float, bits: np.ndarray, down: bool = False) -> np.ndarray:
    scaled = np.ldexp(np.float64(value), bits)
    return (np.floor(scaled) if down else np.floor(scaled + 0.5)).astype(np.int64)
