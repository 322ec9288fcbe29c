"""Modules that stay in float and get exact sums in their own floating-point type."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from qspinn.quantizers.class_swap import Swapped


class Narrowed(Swapped):
    """Mixin over a module whose operations refuse a float64 beside its own parameters."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the module's own forward, on inputs in its own type."""
        held: Any = self
        own = (p.dtype for p in (*held.parameters(), *held.buffers()) if p.is_floating_point())
        dtype = next(own, torch.get_default_dtype())

        def narrowed(value: object) -> object:
            wide = isinstance(value, Tensor) and value.dtype == torch.float64
            return value.to(dtype) if wide else value  # type: ignore[attr-defined]

        args, kwargs = tree_map(narrowed, (args, kwargs))
        return super().forward(*args, **kwargs)  # type: ignore[misc]
