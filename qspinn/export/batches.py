"""What engines are given with a model: the codes of a batch, and keys of random bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qspinn.export.model import Codes, DeviceModel
from qspinn.fixed_point.random_bits import root

__all__ = ["checked_codes", "keys_of"]


def checked_codes(model: DeviceModel, codes: NDArray[Any]) -> Codes:
    """Codes of a batch as an engine takes them.

    Raises:
        ValueError: Codes of another shape, or no whole numbers.
    """
    values = model.operations[0].size
    dimensions = 3 if model.frame_stride else 2
    if codes.ndim != dimensions or codes.shape[-1] != values or codes.dtype.kind not in "iub":
        wanted = f"[T, N, {values}]" if dimensions == 3 else f"[N, {values}]"
        raise ValueError(
            f"codes {list(codes.shape)} of {codes.dtype}: write whole numbers {wanted}, such "
            "as qspinn.export.encode gives"
        )
    return codes.astype(np.int64, copy=False)


def keys_of(model: DeviceModel, keys: Mapping[str, int] | None, seed: int) -> dict[int, int]:
    """Operation -> key of its random bits."""
    device = torch.device("cpu")
    found = {}
    for number, one in enumerate(model.operations):
        known = None if keys is None else keys.get(one.path)
        found[number] = int(root(seed, number, device)) if known is None else known
    return found
