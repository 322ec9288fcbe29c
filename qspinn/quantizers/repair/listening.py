"""What passes in a network while it runs on a batch: inputs and outputs of one of its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qspinn.quantizers.synapse import input_of

RunBatch = Callable[[], object]


@contextmanager
def inputs_of(child: nn.Module) -> Iterator[list[Tensor]]:
    """Collects what ``child`` is given, call by call."""
    seen: list[Tensor] = []

    def see(_: nn.Module, args: Any, kwargs: Any) -> None:
        seen.append(input_of(args, kwargs)[0].detach())

    handle = child.register_forward_pre_hook(see, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def outputs_of(child: nn.Module) -> Iterator[list[Tensor]]:
    """Collects what ``child`` returns, call by call; what is no tensor is left out."""
    seen: list[Tensor] = []

    def see(_: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            seen.append(output.detach())

    handle = child.register_forward_hook(see)
    try:
        yield seen
    finally:
        handle.remove()


def in_time(node: Any, calls: Sequence[Tensor]) -> Tensor | None:
    """What a neuron layer was given or has sent, as one sequence ``[T, N, *]``.

    ``None`` where its calls do not make up one: there are none, or they differ in shape.
    """
    multi = getattr(node, "step_mode", "s") == "m"
    shapes = {one.shape[1:] if multi else one.shape for one in calls}
    if len(shapes) != 1:
        return None
    return torch.cat(list(calls)) if multi else torch.stack(list(calls))


def run_same(run: RunBatch, module: nn.Module) -> None:
    """Runs ``module`` on a batch, with the same random numbers each time."""
    devices = {p.device for p in module.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(sorted(devices, key=str)):
        torch.manual_seed(0)
        run()


def in_order(module: nn.Module, paths: Sequence[str], run: RunBatch) -> list[str]:
    """The layers at ``paths`` in the order in which they first compute; others are left out."""
    order: dict[str, None] = {}
    handles = []
    for path in paths:

        def see(*_: object, path: str = path) -> None:
            order.setdefault(path)

        handles.append(module.get_submodule(path).register_forward_pre_hook(see))
    try:
        run_same(run, module)
    finally:
        for handle in handles:
            handle.remove()
    return list(order)
