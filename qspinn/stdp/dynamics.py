"""One time step of all neurons, on torch tensors."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from qspinn.fixed_point.random_bits import draw, stream
from qspinn.stdp.arithmetic import Arithmetic
from qspinn.stdp.numbers import MEMBRANE, WINNER
from qspinn.stdp.settings import DiehlCookSettings
from qspinn.steps import neurons


@dataclass
class NeuronState:
    """States of B presentations side by side."""

    v: Tensor  # potentials relative to rest, `[B, N]`
    refractory: Tensor  # steps left, int64 `[B, N]`
    # Spikes that have not arrived as inhibition yet, bool `[B, N]` each, oldest first.
    pending: list[Tensor] = field(default_factory=list)
    t: int = 0  # steps done

    @classmethod
    def fresh(
        cls, batch: int, neurons: int, delay: int, dtype: torch.dtype, device: torch.device
    ) -> NeuronState:
        """Neurons at rest."""
        silent = torch.zeros(batch, neurons, dtype=torch.bool, device=device)
        refractory = torch.zeros(batch, neurons, dtype=torch.int64, device=device)
        v = torch.zeros(batch, neurons, dtype=dtype, device=device)
        return cls(v, refractory, [silent] * delay)


@dataclass(frozen=True)
class StepKeys:
    """Keys of the draws of a step, int64 ``[B]`` each."""

    membrane: Tensor
    winner: Tensor

    @classmethod
    def of(cls, keys: Tensor) -> StepKeys:
        """The keys of presentations, int64 ``[B]``."""
        return cls(stream(keys, MEMBRANE), stream(keys, WINNER))


def advance(
    state: NeuronState,
    current: Tensor,
    total: Tensor,
    settings: DiehlCookSettings,
    arithmetic: Arithmetic,
    keys: StepKeys,
) -> tuple[Tensor, Tensor, NeuronState]:
    """One step.

    Args:
        state: Before it.
        current: Sum of the weights of the inputs that spike, ``[B, N]``.
        total: What potentials must reach, ``[N]``.
        settings: Of the neurons.
        arithmetic: In float or in integers.
        keys: Of the presentations.

    Returns:
        The neurons that reached their threshold, those of them that spike (bool ``[B, N]`` each),
        and the state after the step.
    """
    arriving = state.pending[0]
    others = arriving.sum(1, keepdim=True) - arriving.to(torch.int64)
    v = arithmetic.charge(state.v, current, others, state.refractory == 0, keys.membrane, state.t)
    crossed = arithmetic.reaches(v, total)
    spikes = _winners(crossed, keys.winner, state.t) if settings.one_winner else crossed
    v = torch.where(crossed, torch.as_tensor(arithmetic.numbers.neuron.reset, dtype=v.dtype), v)
    refractory = neurons.counted_down(state.refractory, crossed, settings.refractory)
    after = NeuronState(v, refractory, [*state.pending[1:], spikes], state.t + 1)
    return crossed, spikes, after


def _winners(crossed: Tensor, key: Tensor, t: int) -> Tensor:
    """One of the neurons that reached their threshold in each row, drawn by its key."""
    count = crossed.sum(1)
    chosen = neurons.drawn_rank(draw(key, torch.as_tensor(t)), count)
    rank = crossed.cumsum(1) - 1
    return crossed & (rank == chosen.unsqueeze(1))
