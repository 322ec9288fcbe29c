"""The noise of stochastic rounding: uniform numbers that a key and a counter decide.

Element n of a call has draw n of the call's key (see :mod:`qspinn.fixed_point.random_bits`), in the
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
    """A source of noise that starts from a key: each call of it has draws of its own.

    Attributes:
        key: 64 bits, as an int64.
        calls: How many calls have drawn from it.
    """

    key: int
    calls: int = 0

    @classmethod
    def seeded(cls) -> Draws:
        """A source whose key comes from torch's generator, as ``seed_everything`` decides."""
        return cls(int(torch.randint(_LARGEST_SEED, ())))

    def next_key(self) -> Tensor:
        """The key of the next call, int64 ``[]``."""
        self.calls += 1
        key: Tensor = draw(torch.tensor(self.key), self.calls - 1)
        return key


Chance = torch.Generator | Draws | None
"""Where a key comes from; None: torch's global generator."""


def noise_like(x: Tensor, chance: Chance) -> Tensor:
    """Uniform numbers in [0, 1), of the shape, type and device of `x` (float32 or float64).

    Args:
        x: As above.
        chance: Source of the key. A generator gives one number for each call.
    """
    if isinstance(chance, Draws):
        key = chance.next_key()
    else:
        device = torch.device("cpu") if chance is None else chance.device
        key = torch.randint(_LARGEST_SEED, (), generator=chance, device=device)
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return _hashed(key.to(x.device), x)
    noise = torch.empty(x.numel(), dtype=x.dtype)
    _fill(int(key), noise)
    return noise.view(x.shape)


def _hashed(key: Tensor, x: Tensor) -> Tensor:
    counters = torch.arange(x.numel(), device=x.device).view(x.shape)
    bits = _BITS[x.dtype]
    return right(draw(key, counters), 64 - bits).to(x.dtype) * 2.0**-bits


def _fill(key: int, noise: Tensor) -> None:
    # Imported at the first draw: most roundings take none, and compiling takes a second.
    from qspinn.fixed_point import compiled_bits

    fill = (
        compiled_bits.fill_float32 if noise.dtype == torch.float32 else compiled_bits.fill_float64
    )
    fill(compiled_bits.U64(key & compiled_bits.WORD), noise.numpy())
