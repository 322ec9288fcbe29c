"""Restores a module after forward passes that change attributes and buffers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def preserved_attributes(module: nn.Module) -> Iterator[None]:
    """Restores what modules hold in addition to parameters: states, counters, caches, records.

    Attributes and buffers get the values that they had, lists and dictionaries among them their
    entries, and tensors that were changed in place their numbers.
    """
    held = [(child, dict(vars(child)), dict(child._buffers)) for child in module.modules()]
    values: dict[int, Any] = {
        id(one): one
        for _, attributes, buffers in held
        for one in (*attributes.values(), *buffers.values())
    }
    contents = [(one, one.copy()) for one in values.values() if _is_plain(one)]
    tensors = [one for one in values.values() if isinstance(one, Tensor)]
    numbers = [(one, one.detach().clone()) for one in tensors]
    try:
        yield
    finally:
        for child, attributes, buffers in held:
            _refill(vars(child), attributes)
            _refill(child._buffers, buffers)
        for one, entries in contents:
            _refill(one, entries)
        for tensor, before in numbers:
            _restore(tensor, before)


def _is_plain(value: object) -> bool:
    """Whether a module may have put something into it; hooks and parameters are other types."""
    return type(value) in (list, dict, set)


def _refill(container: Any, entries: Any) -> None:
    if isinstance(container, list):
        container[:] = entries
    else:
        container.clear()
        container.update(entries)


def _restore(tensor: Tensor, before: Tensor) -> None:
    if tensor.shape == before.shape and torch.equal(tensor.detach(), before):
        return
    with torch.inference_mode(tensor.is_inference()), torch.no_grad():
        if tensor.shape != before.shape:
            tensor.resize_(before.shape)
        tensor.copy_(before)
