"""All steps of the neurons in one GPU kernel: a program per presentation, its states in registers.

The arithmetic is that of `torch_arithmetic`, operation by operation, with the same draws, so spikes
equal those of the steps on torch bit for bit: in float as well, given the same currents, since
multiplications and additions are not fused.
"""

from __future__ import annotations

import torch
import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
from torch import Tensor

from qspinn.networks.diehl_cook import batched, number_types
from qspinn.networks.diehl_cook import random_bits as bits
from qspinn.networks.diehl_cook.number_types import Numbers
from qspinn.networks.diehl_cook.plasticity import Plasticity
from qspinn.networks.diehl_cook.torch_arithmetic import FixedArithmetic

MOST_NEURONS = 8192
"""Whose states the registers of one program hold."""

NAMES = ("keep", "inhibition", "reset", "threshold", "theta_plus")
FIXED_NAMES = ("potential_shift", "charge_shift", "fire_shift", "theta_shift")
KEEP, INHIBITION, RESET, THRESHOLD, THETA_PLUS = (tl.constexpr(k) for k in range(5))
POTENTIAL_SHIFT, CHARGE_SHIFT, FIRE_SHIFT, THETA_SHIFT = (tl.constexpr(k) for k in range(5, 9))
V_LOW, V_HIGH, THETA_LOW, THETA_HIGH = (tl.constexpr(k) for k in range(9, 13))
THETA_BITS = tl.constexpr(number_types.THETA_BITS)
NEAREST = tl.constexpr(number_types.NEAREST)
STOCHASTIC = tl.constexpr(number_types.STOCHASTIC)
TOWARD_ZERO = tl.constexpr(number_types.TOWARD_ZERO)
NEAREST_EVEN = tl.constexpr(number_types.NEAREST_EVEN)
GOLDEN, MIX_1, MIX_2 = (tl.constexpr(x) for x in (bits.GOLDEN, bits.MIX_1, bits.MIX_2))


@triton.jit
def _mix(z):  # type: ignore[no-untyped-def]
    """`random_bits.mix`, of uint64."""
    z = (z ^ (z >> 30)) * MIX_1
    z = (z ^ (z >> 27)) * MIX_2
    return z ^ (z >> 31)


@triton.jit
def _draw(key, counter):  # type: ignore[no-untyped-def]
    """`random_bits.draw`, of uint64."""
    return _mix(key + (counter.to(tl.uint64) + 1) * GOLDEN)


@triton.jit
def _spread(key, counter, turn):  # type: ignore[no-untyped-def]
    """`random_bits.spread`, of uint64."""
    return _draw(key, counter) + turn.to(tl.uint64) * GOLDEN


@triton.jit
def _fitted(x, low, high, WRAP: tl.constexpr):  # type: ignore[no-untyped-def]
    """A code brought into its range."""
    if WRAP:  # noqa: SIM108 - decided while compiling
        x = ((x - low) & (high - low)) + low
    else:
        x = tl.minimum(tl.maximum(x, low), high)
    return x


@triton.jit
def _shifted(x, shift, random, MODE: tl.constexpr):  # type: ignore[no-untyped-def]
    """``x / 2^shift`` rounded to whole numbers; for a shift of 0, x itself."""
    one = tl.full([], 1, tl.int64)
    rest = (one << shift) - 1
    if MODE == STOCHASTIC:
        highest = (random >> 1) >> (63 - shift).to(tl.uint64)
        x += highest.to(tl.int64)
    elif MODE == NEAREST:
        x += (one << shift) >> 1
    elif MODE == TOWARD_ZERO:
        x = tl.where(x < 0, x + rest, x)
    elif MODE == NEAREST_EVEN:
        x += (rest >> 1) + ((x >> shift) & tl.minimum(rest, 1))
    return x >> shift


@triton.jit
def _charged(  # type: ignore[no-untyped-def]
    v, current, shift, others, ready, constants, random,
    FIXED: tl.constexpr, MODE: tl.constexpr, WRAP: tl.constexpr,
):  # fmt: skip
    """Potentials after leak, current and spikes of other neurons."""
    keep, inhibition = tl.load(constants + KEEP), tl.load(constants + INHIBITION)
    if FIXED:
        drive = (current.to(tl.int64) << shift) - others.to(tl.int64) * inhibition
        exact = ((v * keep) << tl.load(constants + POTENTIAL_SHIFT)) + tl.where(ready, drive, 0)
        v = _shifted(exact, tl.load(constants + CHARGE_SHIFT), random, MODE)
        v = _fitted(v, tl.load(constants + V_LOW), tl.load(constants + V_HIGH), WRAP)
    else:
        drive = current - others.to(tl.float32) * inhibition
        v = v * keep + tl.where(ready, drive, 0.0)
    return v


@triton.jit
def _reaches(v, theta, constants, FIXED: tl.constexpr):  # type: ignore[no-untyped-def]
    """Where neurons fire."""
    threshold = tl.load(constants + THRESHOLD)
    if FIXED:
        theta = theta << tl.load(constants + THETA_SHIFT)
        v = v << tl.load(constants + FIRE_SHIFT)
    return v >= threshold + theta


@triton.jit
def _raised(  # type: ignore[no-untyped-def]
    theta, constants, random,
    FIXED: tl.constexpr, MODE: tl.constexpr, WRAP: tl.constexpr,
):  # fmt: skip
    """Theta of neurons that reached their threshold."""
    plus = tl.load(constants + THETA_PLUS)
    if FIXED:
        shift = tl.full([], THETA_BITS, tl.int64)
        theta = _shifted((theta << THETA_BITS) + plus, shift, random, MODE)
        theta = _fitted(
            theta, tl.load(constants + THETA_LOW), tl.load(constants + THETA_HIGH), WRAP
        )
    else:
        theta += plus
    return theta


@triton.jit
def _winner(crossed, key, t):  # type: ignore[no-untyped-def]
    """One of the neurons that reached their threshold."""
    count = tl.sum(crossed.to(tl.int32), 0)
    random = _draw(key, t) >> 32
    chosen = ((random * count.to(tl.uint64)) >> 32).to(tl.int32)
    return crossed & (tl.cumsum(crossed.to(tl.int32), 0) - 1 == chosen)


@triton.jit
def _run(  # type: ignore[no-untyped-def]
    currents, shifts, theta_in, keys, constants, spikes, theta_out, batch, neurons, delay, period,
    FIXED: tl.constexpr, MODE: tl.constexpr, WRAP: tl.constexpr,
    THETA_MODE: tl.constexpr, THETA_WRAP: tl.constexpr,
    ONE_WINNER: tl.constexpr, LEARNING: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """All steps of one presentation.

    Args:
        currents: ``[T, B, N]``: floats.
        shifts: Of currents, int64 ``[N]``; in float, any ``[N]``.
        theta_in: ``[N]``: int64 or float32.
        keys: Of membranes, winners and theta, int64 ``[3, B]``.
        constants: In the order of the names above, int64 or float32.
        spikes: uint8 ``[T, B, N]``, filled.
        theta_out: ``[N]``, filled where learning.
        batch: B.
        neurons: N, at most BLOCK.
        delay: Steps until inhibition arrives.
        period: Refractory steps.
        FIXED: Whether in fixed point.
        MODE: How potentials are rounded.
        WRAP: Whether they wrap around.
        THETA_MODE: How theta is rounded.
        THETA_WRAP: Whether it wraps around.
        ONE_WINNER: Whether only one neuron spikes in a step.
        LEARNING: Whether theta rises.
        STEPS: T.
        BLOCK: N or more, a power of two.
    """
    b = tl.program_id(0).to(tl.int64)
    j = tl.arange(0, BLOCK)
    real = j < neurons
    membrane_key = tl.load(keys + b).to(tl.uint64)
    winner_key = tl.load(keys + batch + b).to(tl.uint64)
    theta_key = tl.load(keys + 2 * batch + b).to(tl.uint64)
    theta = tl.load(theta_in + j, mask=real, other=0)
    shift = tl.load(shifts + j, mask=real, other=0)
    v = tl.zeros_like(theta)
    refractory = tl.zeros([BLOCK], tl.int32)
    for step in range(STEPS):
        t = b * 0 + step  # of 64 bits
        row = (t * batch + b) * neurons
        sent = row - delay * batch * neurons
        arrived = tl.load(spikes + sent + j, mask=real & (t >= delay), other=0).to(tl.int32)
        others = tl.sum(arrived, 0) - arrived
        current = tl.load(currents + row + j, mask=real, other=0.0)
        v = _charged(
            v, current, shift, others, refractory == 0, constants, _spread(membrane_key, t, j),
            FIXED, MODE, WRAP,
        )  # fmt: skip
        crossed = real & _reaches(v, theta, constants, FIXED)
        v = tl.where(crossed, tl.load(constants + RESET), v)
        refractory = tl.where(crossed, period, tl.maximum(refractory - 1, 0))
        fired = crossed
        if ONE_WINNER:
            fired = _winner(crossed, winner_key, t)
        tl.store(spikes + row + j, fired.to(tl.uint8), mask=real)
        if LEARNING:
            random = _draw(theta_key, t * neurons + j)
            higher = _raised(theta, constants, random, FIXED, THETA_MODE, THETA_WRAP)
            theta = tl.where(crossed, higher, theta)
        tl.debug_barrier()  # other threads may read these spikes when they arrive
    if LEARNING:
        tl.store(theta_out + j, theta, mask=real)


def warps(block: int) -> int:
    """Warps of 32 threads that share the neurons of a program."""
    return min(16, max(1, block // 256))


def triton_steps(network: Plasticity, inputs: Tensor, keys: Tensor) -> Tensor:
    """As :func:`batched.torch_steps`, in one kernel.

    Where the network learns, theta rises with every crossing for all presentations of a group,
    which programs beside each other cannot follow: groups of more than one presentation, and
    networks of more than `MOST_NEURONS`, take the steps on torch.

    Args:
        network: Its theta rises where it learns.
        inputs: Spikes of inputs, float32 0 or 1, ``[T, B, I]``.
        keys: int64 ``[B]``.

    Returns:
        Spikes of neurons, bool ``[T, B, N]``.
    """
    job, batch = network.job, len(keys)
    neurons = len(job.theta)
    if neurons > MOST_NEURONS or (job.learning and batch > 1):
        return batched.torch_steps(network, inputs, keys)
    streams = [bits.stream(keys, purpose) for purpose in (bits.MEMBRANE, bits.WINNER, bits.THETA)]
    spikes = torch.empty(job.steps, batch, neurons, dtype=torch.uint8, device=keys.device)
    rules = network.rules
    shifts = rules.of_neurons["current_shift"] if isinstance(rules, FixedArithmetic) else job.theta
    block = max(16, triton.next_power_of_2(neurons))
    _run[(batch,)](
        network.currents(inputs),
        shifts,
        job.theta,
        torch.stack(streams),
        _constants(job.numbers, job.theta),
        spikes,
        job.theta,
        batch,
        neurons,
        job.settings.inhibition_delay,
        job.settings.refractory,
        *_modes(job.numbers),
        job.settings.one_winner,
        job.learning,
        job.steps,
        block,
        num_warps=warps(block),
        enable_fp_fusion=False,
    )
    return spikes.bool()


def _modes(numbers: Numbers) -> tuple[bool, int, bool, int, bool]:
    """Whether in fixed point, and how potentials and theta are rounded and brought into range."""
    if isinstance(numbers, number_types.FixedNumbers):
        return True, numbers.v.mode, numbers.v.wrap, numbers.theta.mode, numbers.theta.wrap
    return False, 0, False, 0, False


def _constants(numbers: Numbers, like: Tensor) -> Tensor:
    """What the kernel reads by the places above; of the type and on the device of ``like``."""
    values = [getattr(numbers, name) for name in NAMES]
    if isinstance(numbers, number_types.FixedNumbers):
        values += [getattr(numbers, name) for name in FIXED_NAMES]
        values += [numbers.v.low, numbers.v.high, numbers.theta.low, numbers.theta.high]
    return torch.tensor(values, dtype=like.dtype, device=like.device)
