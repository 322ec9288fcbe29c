"""The noise of stochastic rounding: uniform numbers that a key and a counter decide.

Each element takes the next draw of a key (see :mod:`qspinn.fixed_point.random_bits`), in the
logical order of the elements, on every device, and in whole numbers as well: there
``floor((x + r) / 2^bits)`` takes the highest `bits` bits of the same draw.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qspinn.fixed_point.random_bits import draw, right

__all__ = ["Chance", "Draws", "noise_like"]

_BITS = {torch.float32: 24, torch.float64: 53}
_LARGEST_SEED = 2**62


@dataclass
class Draws:
    """The draws of a key, one after the other.

    Attributes:
        key: 64 bits, as an int64.
        drawn: How many were taken.
    """

    key: int
    drawn: int = 0

    @classmethod
    def seeded(cls) -> Draws:
        """Those of a key that comes from torch's generator, as ``seed_everything`` decides."""
        return cls(int(torch.randint(_LARGEST_SEED, ())))

    def take(self, count: int) -> tuple[Tensor, int]:
        """The key, int64 ``[]``, and the number of the first of `count` draws."""
        self.drawn += count
        return torch.tensor(self.key), self.drawn - count


Chance = torch.Generator | Draws | None
"""Draws, or a generator that a key comes from; None: torch's global one."""


def noise_like(x: Tensor, chance: Chance) -> Tensor:
    """Uniform numbers in [0, 1), of the shape, type and device of `x` (float32 or float64).

    Args:
        x: As above.
        chance: Draws; or what gives a key for this call alone.
    """
    if isinstance(chance, Draws):
        key, first = chance.take(x.numel())
    else:
        device = torch.device("cpu") if chance is None else chance.device
        key, first = torch.randint(_LARGEST_SEED, (), generator=chance, device=device), 0
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return _hashed(key.to(x.device), first, x)
    noise = torch.empty(x.numel(), dtype=x.dtype)
    _fill(int(key), first, noise)
    return noise.view(x.shape)


def _hashed(key: Tensor, first: int, x: Tensor) -> Tensor:
    counters = first + torch.arange(x.numel(), device=x.device).view(x.shape)
    bits = _BITS[x.dtype]
    return right(draw(key, counters), 64 - bits).to(x.dtype) * 2.0**-bits


def _fill(key: int, first: int, noise: Tensor) -> None:
    # Imported at the first draw: most roundings take none, and compiling takes a second.
    from qspinn.fixed_point import compiled_bits

    is_single = noise.dtype == torch.float32
    fill = compiled_bits.fill_float32 if is_single else compiled_bits.fill_float64
    fill(compiled_bits.U64(key & compiled_bits.WORD), first, noise.numpy())
