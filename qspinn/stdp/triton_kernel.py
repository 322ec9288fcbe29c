"""All steps of the neurons in one GPU kernel: a program per presentation, its states in registers.

The steps are those of every engine, with the same draws, so spikes equal those of the steps on
torch bit for bit: in float as well, given the same currents, since multiplications and additions
are not fused.
"""

from __future__ import annotations

import torch
import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
from torch import Tensor

from qspinn.fixed_point.random_bits import stream
from qspinn.stdp import batched
from qspinn.stdp.numbers import MEMBRANE, THETA, WINNER, NeuronNumbers, Numbers, ThetaNumbers
from qspinn.stdp.plasticity import Plasticity
from qspinn.steps.targets.triton import neurons as steps
from qspinn.steps.targets.triton import random_bits
from qspinn.steps.words import Rounding

MOST_NEURONS = 8192
"""Whose states the registers of one program hold."""

_charge, _threshold, _reaches = steps.adaptive_charge, steps.adaptive_threshold, steps.reaches
_raised, _draw, _spread = steps.raised, random_bits.draw, random_bits.spread


@triton.jit
def _winner(crossed, key, t):  # type: ignore[no-untyped-def]
    """One of the neurons that reached their threshold."""
    count = tl.sum(crossed.to(tl.int32), 0)
    random = _draw(key, t) >> 32
    chosen = ((random * count.to(tl.uint64)) >> 32).to(tl.int32)
    return crossed & (tl.cumsum(crossed.to(tl.int32), 0) - 1 == chosen)


@triton.jit
def presentation(  # type: ignore[no-untyped-def]
    currents, shifts, theta_in, keys, constants, spikes, theta_out, batch, neurons, delay, period,
    MODE: tl.constexpr, WRAP: tl.constexpr,
    THETA_MODE: tl.constexpr, THETA_WRAP: tl.constexpr,
    ONE_WINNER: tl.constexpr, LEARNING: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """All steps of one presentation.

    Args:
        currents: ``[T, B, N]``: floats.
        shifts: Of currents, int64 ``[N]``.
        theta_in: ``[N]``: int64 or float32.
        keys: Of membranes, winners and theta, int64 ``[3, B]``.
        constants: See `_constants`; int64 or float32.
        spikes: uint8 ``[T, B, N]``, filled.
        theta_out: ``[N]``, filled where learning.
        batch: B.
        neurons: N, at most BLOCK.
        delay: Steps until inhibition arrives.
        period: Refractory steps.
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
    keep, v_up, down = tl.load(constants), tl.load(constants + 1), tl.load(constants + 2)
    inhibition, reset = tl.load(constants + 3), tl.load(constants + 4)
    threshold, fire_up = tl.load(constants + 5), tl.load(constants + 6)
    theta_up = tl.load(constants + 7)
    v_low, v_high = tl.load(constants + 8), tl.load(constants + 9)
    plus, bits = tl.load(constants + 10), tl.load(constants + 11)
    theta_low, theta_high = tl.load(constants + 12), tl.load(constants + 13)
    n = NeuronNumbers(keep, v_up, down, inhibition, reset, threshold, fire_up, theta_up, 0, 0)  # type: ignore[arg-type]
    refractory = tl.zeros([BLOCK], tl.int32)
    for step in range(STEPS):
        t = b * 0 + step  # of 64 bits
        row = (t * batch + b) * neurons
        sent = row - delay * batch * neurons
        arrived = tl.load(spikes + sent + j, mask=real & (t >= delay), other=0).to(tl.int32)
        lowered = (tl.sum(arrived, 0) - arrived).to(theta.dtype) * inhibition
        current = tl.load(currents + row + j, mask=real, other=0.0).to(theta.dtype)
        random = _spread(membrane_key, t, j)
        # Put together in the call: a variable would make variables of the constants in it.
        v = _charge(
            v, current, lowered, refractory == 0, shift, random,
            NeuronNumbers(
                keep, v_up, down, inhibition, reset, threshold, fire_up, theta_up,
                Rounding(MODE, v_low, v_high, WRAP), 0,
            ),
        )  # fmt: skip
        crossed = real & _reaches(v, _threshold(theta, n), n)
        v = tl.where(crossed, reset, v)
        refractory = tl.where(crossed, period, tl.maximum(refractory - 1, 0))
        fired = crossed
        if ONE_WINNER:
            fired = _winner(crossed, winner_key, t)
        tl.store(spikes + row + j, fired.to(tl.uint8), mask=real)
        if LEARNING:
            random = _draw(theta_key, t * neurons + j)
            higher = _raised(
                theta, random,
                ThetaNumbers(
                    plus, 0, bits, Rounding(THETA_MODE, theta_low, theta_high, THETA_WRAP)
                ),
            )  # fmt: skip
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
    streams = [stream(keys, purpose) for purpose in (MEMBRANE, WINNER, THETA)]
    spikes = torch.empty(job.steps, batch, neurons, dtype=torch.uint8, device=keys.device)
    shifts = network.rules.numbers.neuron.current_up
    block = max(16, triton.next_power_of_2(neurons))
    presentation[(batch,)](
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


def _modes(numbers: Numbers) -> tuple[int, bool, int, bool]:
    """How potentials and theta are rounded and brought into range."""
    v, theta = numbers.neuron.v, numbers.theta.to
    return v.mode, v.wrap, theta.mode, theta.wrap


def _constants(numbers: Numbers, like: Tensor) -> Tensor:
    """The numbers of neurons, then of theta, in the order of their fields and without `Rounding`.

    They are followed by the smallest and largest code.
    """
    n, theta = numbers.neuron, numbers.theta
    values = [*n[:8], n.v.low, n.v.high, theta.plus, theta.bits, theta.to.low, theta.to.high]
    return torch.tensor(values, dtype=like.dtype, device=like.device)
