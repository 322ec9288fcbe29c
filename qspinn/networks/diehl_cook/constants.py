"""From settings and formats to the numbers that the backends compute with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from qspinn.fixed_point import (
    FixedPointFormat,
    Format,
    PerChannelFormat,
    Quantizer,
    covering_integer_bits,
    quantize,
)
from qspinn.networks.diehl_cook.number_types import (
    GAIN_BITS,
    ROUNDING_MODES,
    THETA_BITS,
    WIDEST,
    FixedNumbers,
    FloatNumbers,
    Rounding,
)
from qspinn.networks.diehl_cook.settings import STDP, DiehlCookSettings

RATE_BITS = 32  # fraction bits that a learning rate has at least, where 64 bits suffice
MOST_FINE_BITS = 16
INTEGER_BITS = 62  # of the int64 that sums are computed in, sign and a spare bit apart


@dataclass(frozen=True)
class Quantized:
    """How one tensor is held: a format, a rounding, an overflow."""

    path: str
    format: Format
    rounding: str = "nearest"
    overflow: str = "saturate"


def float_numbers(settings: DiehlCookSettings, stdp: STDP, time_steps: int) -> FloatNumbers:
    """The constants in float32; potentials relative to rest."""
    return FloatNumbers(
        keep=np.float32(settings.keep),
        reset=np.float32(settings.reset - settings.rest),
        threshold=np.float32(settings.threshold - settings.rest),
        inhibition=np.float32(settings.inhibition),
        theta_plus=np.float32(settings.theta_plus),
        theta_keep=np.float32(math.exp(-time_steps / settings.theta_tau)),
        weight_max=np.float32(stdp.weight_max),
        weight_sum=np.float32(stdp.weight_sum or 0.0),
        rate_pre=np.float32(stdp.rate_pre),
        rate_post=np.float32(stdp.rate_post),
        trace_target=np.float32(stdp.trace_target),
        keep_pre=np.float32(math.exp(-1.0 / stdp.tau_pre)),
        keep_post=np.float32(math.exp(-1.0 / stdp.tau_post)),
    )


def constants(settings: DiehlCookSettings, stdp: STDP) -> dict[str, float]:
    """Name -> value of every single number that has a format of its own."""
    return {
        "threshold": settings.threshold - settings.rest,
        "reset": settings.reset - settings.rest,
        "inhibition": settings.inhibition,
        "leak": -math.expm1(-1.0 / settings.tau),
        "leak_pre": -math.expm1(-1.0 / stdp.tau_pre),
        "leak_post": -math.expm1(-1.0 / stdp.tau_post),
    }


def bounds(settings: DiehlCookSettings, stdp: STDP) -> dict[str, tuple[float, float]]:
    """Name -> the bounds of every state and of what is learned.

    A potential below ``-inhibition`` saturates there: the neuron is out of the running either way.
    """
    highest = settings.threshold - settings.rest + settings.theta_max
    return {
        "weight": (0.0, stdp.weight_max),
        "theta": (0.0, settings.theta_max),
        "v": (-max(settings.inhibition, 1.0), highest),
        "trace_pre": (0.0, 1.0),
        "trace_post": (0.0, 1.0),
    }


def wide(name: str, settings: DiehlCookSettings, stdp: STDP) -> Quantized:
    """How a tensor that the plan leaves at 32 bits is held beside quantised ones."""
    values = constants(settings, stdp)
    if name in values:
        value = values[name]
        low, high = min(value, 0.0), abs(value)
    else:
        low, high = bounds(settings, stdp)[name]
    bits = covering_integer_bits(max(-low, high))
    signed = low < 0
    return Quantized(name, FixedPointFormat(bits, WIDEST - int(signed) - bits, signed))


def fixed_numbers(
    settings: DiehlCookSettings,
    stdp: STDP,
    time_steps: int,
    neurons: int,
    inputs: int,
    quantizers: Mapping[str, Quantizer],
) -> FixedNumbers:
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
    compared = max(bits["v"], bits["threshold"], bits["theta"])
    spare = _spare_bits(stdp, time_steps, held["weight"], weight_bits, bits)
    fine = _fine_bits(stdp, held["weight"], int(weight_bits.max()), spare)
    numbers = FixedNumbers(
        keep=(1 << bits["leak"]) - code["leak"],
        charge_shift=total - bits["v"],
        potential_shift=total - bits["v"] - bits["leak"],
        current_shift=total - weight_bits,
        inhibition=code["inhibition"] << (total - bits["inhibition"]),
        reset=_reset_code(held["v"], code["reset"] * 2.0 ** -bits["reset"]),
        fire_shift=compared - bits["v"],
        theta_shift=compared - bits["theta"],
        threshold=code["threshold"] << (compared - bits["threshold"]),
        theta_plus=_nearest(settings.theta_plus, bits["theta"] + THETA_BITS),
        theta_keep=_nearest(math.exp(-time_steps / settings.theta_tau), THETA_BITS),
        spare=spare,
        fine=fine,
        weight_max=_codes(stdp.weight_max, weight_bits, down=True),
        weight_sum=_codes(stdp.weight_sum or 0.0, weight_bits + fine + GAIN_BITS),
        rate_pre=_codes(stdp.rate_pre, weight_bits - bits["trace_post"] + spare),
        rate_post=_codes(stdp.rate_post, weight_bits - bits["trace_pre"] + spare),
        trace_target=_nearest(stdp.trace_target, bits["trace_pre"]),
        keep_pre=(1 << bits["leak_pre"]) - code["leak_pre"],
        keep_post=(1 << bits["leak_post"]) - code["leak_post"],
        leak_bits_pre=bits["leak_pre"],
        leak_bits_post=bits["leak_post"],
        one_pre=_code(held["trace_pre"], 1.0),
        one_post=_code(held["trace_post"], 1.0),
        v=_rounding(held["v"]),
        theta=_rounding(held["theta"]),
        weight=_rounding(held["weight"]),
        pre=_rounding(held["trace_pre"]),
        post=_rounding(held["trace_post"]),
    )
    _check(numbers, held, settings, inputs, neurons, total)
    return numbers


def _check(
    numbers: FixedNumbers,
    held: Mapping[str, Quantizer],
    settings: DiehlCookSettings,
    inputs: int,
    neurons: int,
    total: int,
) -> None:
    membrane, path = held["v"].format, held["v"].path
    compared = max(abs(numbers.v.low), numbers.v.high) << numbers.fire_shift
    raised = (numbers.theta.high << THETA_BITS) + numbers.theta_plus
    reached = numbers.threshold + (numbers.theta.high << numbers.theta_shift)
    if max(compared, raised, reached) >= 1 << INTEGER_BITS:
        raise ValueError(
            f"{held['theta'].path}: {held['theta'].format} beside {membrane} needs sums of more "
            "than 64 bits; write fewer fraction bits for theta"
        )
    if numbers.v.high << numbers.fire_shift < numbers.threshold:
        raise ValueError(
            f"{path}: format {membrane} ends at {membrane.max}, below the threshold "  # type: ignore[union-attr]
            f"{settings.threshold - settings.rest} above rest: no neuron could fire; write more "
            "integer bits"
        )
    if numbers.reset << numbers.fire_shift >= numbers.threshold:
        raise ValueError(
            f"{path}: in {membrane} a spike resets to the threshold or above: write more fraction "
            "bits for membrane and threshold"
        )
    kept = {"leak": numbers.keep, "leak_pre": numbers.keep_pre, "leak_post": numbers.keep_post}
    for name, keep in kept.items():
        if keep >= 1 << _bits(held[name]):
            raise ValueError(f"{held[name].path}: the leak becomes 0 in {held[name].format}")
    spikes = 1 if settings.one_winner else neurons
    largest = max(abs(numbers.v.low), numbers.v.high) * 2.0**numbers.charge_shift
    largest += inputs * held["weight"].format.code_max * 2.0 ** int(numbers.current_shift.max())
    largest += spikes * numbers.inhibition
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
    fmt = quantizer.format
    wrap = quantizer.overflow == "wrap"
    return Rounding(ROUNDING_MODES[quantizer.rounding], fmt.code_min, fmt.code_max, wrap)


def _code(quantizer: Quantizer, value: float) -> int:
    """The code of one stored number: rounded once, so stochastic rounding takes the nearest."""
    fmt = quantizer.format
    rounding = "nearest" if quantizer.rounding == "stochastic" else quantizer.rounding
    single = torch.tensor([value], dtype=torch.float64)
    on_grid = quantize(single, fmt, rounding, "saturate")
    return round(float(on_grid) * 2.0 ** _bits(quantizer))


def _reset_code(quantizer: Quantizer, value: float) -> int:
    return _code(Quantized(quantizer.path, quantizer.format), value)


def _nearest(value: float, bits: int) -> int:
    """The nearest code; halves go up, and not to even as Python's `round` takes them."""
    return math.floor(Fraction(value) * Fraction(2) ** bits + Fraction(1, 2))


def _codes(value: float, bits: np.ndarray, down: bool = False) -> np.ndarray:
    scaled = np.ldexp(np.float64(value), bits)
    return (np.floor(scaled) if down else np.floor(scaled + 0.5)).astype(np.int64)
