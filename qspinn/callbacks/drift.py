"""Runs a quantised network and its 32-bit twin on the same samples, and compares them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning import LightningModule
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from qspinn.callbacks.isolation import (
    Forward,
    forward_once,
    own_batch,
    preserved_globals,
    silenced,
)
from qspinn.metrics import Drift, DriftMeter, Firing, record_firing
from qspinn.metrics.drift import one_line
from qspinn.plan import ResolvedPlan, reset_states
from qspinn.plan.neurons import evaluation_mode

PROBE = 2
"""Samples that are run first; the memory of their spikes decides how many are run at a time."""

HELD_VALUES = 2**24
"""Spikes and silences of all layers that are held at a time, of each network: 80 MiB with the
potentials."""

# Of equal word lengths a longer one is recommended for the first.
ADVISED = ("membrane", "weight", "threshold", "bias", "theta", "decay", "input")

Way = Callable[[Any, Any], Any]


def measure_drift(
    reference: nn.Module,
    quantized: nn.Module,
    batches: Iterable[Any],
    run: Way | Sequence[Way],
    samples: int,
    roles: Mapping[str, str] | None = None,
) -> Drift:
    """How far ``quantized`` behaves differently from ``reference`` on the same samples.

    Both are run without gradients and in evaluation mode. Random generators are restored; the state
    of the modules is not, so give copies where that matters. Memory is bounded:
    batches are split where the spikes of all layers would take too much, unless their tensors
    do not all begin with one sample axis.

    Args:
        reference: In 32-bit.
        quantized: With quantizers.
        batches: As ``run`` takes them; no more are taken than needed.
        run: Gives the class scores of a batch, as ``run(module, batch)``: ``[N, classes]``, or
            ``[T, N, classes]``, of which the mean over T is taken; anything else counts as unknown.
            Of several ways the first one that does not fail is used.
        samples: At most so many.
        roles: See :class:`qspinn.metrics.DriftMeter`.

    Raises:
        ValueError: There is no sample.
        Exception: Whatever running them raises.
    """
    runner = _Runner(run if isinstance(run, Sequence) else [run])
    meter, size, left = DriftMeter(roles), PROBE, samples
    with preserved_globals():
        for batch in batches:
            if left <= 0:
                break
            count, start, splits = sample_count(batch), 0, is_splittable(batch)
            while start < count and left > 0:
                stop = min(start + size, start + left, count) if splits else count
                part = sliced(batch, start, stop) if splits else batch
                size = _compare(runner, (reference, quantized), part, stop - start, meter)
                left -= stop - start
                start = stop
    found = meter.compute()
    return replace(found, notes=(*found.notes, *runner.notes))


def _compare(
    runner: _Runner, both: tuple[nn.Module, nn.Module], part: Any, samples: int, meter: DriftMeter
) -> int:
    """Runs both on a part of a batch, and returns how many samples may be run next."""
    with preserved_globals():  # a random input coding draws the same spikes for both
        expected, twin = runner.run(both[0], part)
    firing, scores = runner.run(both[1], part)
    outputs = class_scores(scores, samples), class_scores(twin, samples)
    meter.update(firing, expected, *outputs, samples=samples)
    values = sum(one.values for one in expected.values())
    return max(1, HELD_VALUES * samples // max(1, values))


class _Runner:
    """Runs modules on batches, in the first way that works."""

    def __init__(self, ways: Sequence[Way]) -> None:
        self.ways = list(ways)
        self.notes: list[str] = []

    def run(self, module: nn.Module, batch: Any) -> tuple[dict[str, Firing], Any]:
        """Which neurons fired, by layer, and what came out."""
        while True:
            try:
                return self._run(module, batch)
            except Exception as error:
                if len(self.ways) == 1:
                    raise
                del self.ways[0]
                self.notes.append(
                    "calling the module on a batch fails, so its own step was run "
                    f"({type(error).__name__}: {one_line(str(error))})"
                )

    def _run(self, module: nn.Module, batch: Any) -> tuple[dict[str, Firing], Any]:
        reset_states(module)
        with evaluation_mode(module), record_firing(module) as firing:
            out = self.ways[0](module, own_batch(batch))
        reset_states(module)
        return dict(firing), out


def ways_to_run(forward: Forward | None) -> list[Way]:
    """How a LightningModule may be run on a batch: for its scores first, else for its spikes."""
    if forward is not None:
        return [forward]
    return [_called, _stepped]


def _called(module: LightningModule, batch: Any) -> Any:
    first = batch[0] if isinstance(batch, list | tuple) and batch else batch
    if not isinstance(first, Tensor):
        raise TypeError(f"a batch that begins with a {type(first).__name__}")
    with silenced(module):
        return module(first)


def _stepped(module: LightningModule, batch: Any) -> None:
    forward_once(module, batch, None)


def class_scores(out: Any, samples: int) -> Tensor | None:
    """Class scores ``[N, classes]`` in the output of a network; None: there are none."""
    if not isinstance(out, Tensor) or out.ndim not in (2, 3):
        return None
    scores = out.float().mean(0) if out.ndim == 3 else out
    return scores if scores.shape[0] == samples and scores.shape[1] > 1 else None


def _tensors(batch: Any) -> Iterator[Tensor]:
    found: list[Tensor] = []
    apply_to_collection(batch, Tensor, found.append)
    return (tensor for tensor in found if tensor.ndim)


def sample_count(batch: Any) -> int:
    """Samples of a batch: the number of its labels, since inputs may begin with a time axis.

    A batch without tensors, such as an object that keeps them, counts as one.
    """
    labels = batch[1] if isinstance(batch, list | tuple) and len(batch) == 2 else None
    if isinstance(labels, Tensor) and labels.ndim == 1:
        return len(labels)
    return next((len(tensor) for tensor in _tensors(batch)), 1)


def is_splittable(batch: Any) -> bool:
    """Whether all tensors of a batch begin with one sample axis."""
    return len({len(tensor) for tensor in _tensors(batch)}) == 1


def sliced(batch: Any, start: int, stop: int) -> Any:
    """Samples ``start`` to ``stop - 1`` of a batch."""
    return apply_to_collection(
        batch, Tensor, lambda tensor: tensor[start:stop] if tensor.ndim else tensor
    )


def roles_to_widen(plan: ResolvedPlan) -> dict[str, str]:
    """Layer path -> the role with the shortest word length among those that decide when it fires.

    That is what the layer itself holds, and the synapses whose sums reach it.
    """
    found = {}
    for layer in plan.inventory.layers:
        paths = {layer.path, *layer.sources}
        lengths: dict[str, float] = {}
        for tensor in plan.tensors:
            if tensor.info.layer in paths:
                shortest = min(lengths.get(tensor.role, math.inf), tensor.word_length)
                lengths[tensor.role] = shortest
        known = [role for role in ADVISED if role in lengths]
        if known:
            found[layer.path] = min(known, key=lengths.__getitem__)
    return found
