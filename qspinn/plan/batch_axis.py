"""What a device holds for one sample, from forward passes on batches of two sizes.

A state has one value per neuron and sample. Which of its axes counts samples, and how many of its
entries belong to one sample (tokens or windows may be merged into the batch), shows when the batch
changes: what grows with it belongs to the samples, what does not is held once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from spikingjelly.activation_based import base
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from qspinn.plan.inventory import Shapes
from qspinn.plan.operations import tensors_in

States = Mapping[str, Shapes]
Named = Callable[[str], bool]


@dataclass
class Resize:
    """Changes the size of the batch where a network is called.

    Attributes:
        axis: The axis that is tried as the batch axis.
        before: Size of the batch as it was given; ``None`` until a network was called.
        after: Size of the batch that the network got.
        dimensions: Of the input.
    """

    axis: int
    before: int | None = None
    after: int | None = None
    dimensions: int = field(default=0)

    def __call__(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], is_new: Callable[[Tensor], bool]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the outermost call, with half of the batch, or twice a single sample.

        Args:
            args: Positional arguments.
            kwargs: Keyword arguments.
            is_new: Whether a tensor comes from outside, and was not computed in this pass.
        """
        fresh = [one for one in tensors_in((args, kwargs)) if is_new(one) and one.dim() > self.axis]
        if self.before is None:
            if not fresh:
                return args, kwargs
            self.before = fresh[0].shape[self.axis]
            self.after = self.before // 2 if self.before > 1 else 2
            self.dimensions = fresh[0].dim()
        chosen = {id(one) for one in fresh if one.shape[self.axis] == self.before}
        changed: tuple[tuple[Any, ...], dict[str, Any]] = tree_map(
            lambda value: self._resized(value) if id(value) in chosen else value, (args, kwargs)
        )
        return changed

    def _resized(self, value: Tensor) -> Tensor:
        assert self.after is not None
        if self.before == 1:
            return torch.cat([value, value], self.axis)
        return value.narrow(self.axis, 0, self.after)


def shapes_per_sample(
    module: nn.Module,
    seen: States,
    probe: Callable[[Resize], tuple[States, bool]],
    named: Named,
    has_batch: bool = False,
) -> dict[str, Shapes]:
    """The shapes of states as a device holds them for one sample.

    Args:
        module: The module.
        seen: Layer -> shapes of its states in the forward pass as given.
        probe: Repeats the forward pass with another batch; returns the shapes of the states, and
            whether the network ran to its end.
        named: Whether the layer at a path says itself what its states are.
        has_batch: Whether there is known to be a batch axis, the first one of a state, for
            networks that run with no other batch.

    Returns:
        Layer -> shapes without a batch dimension.
    """
    if not seen:
        return {}
    multi_step = any(
        isinstance(one, base.MultiStepModule) or getattr(one, "step_mode", "s") == "m"
        for one in module.modules()
    )
    for axis in (0, 1):
        resize = Resize(axis)
        other, ran = probe(resize)
        if resize.before is None:
            break  # nothing from outside goes into the network
        if ran and _grows(seen, other):
            return _per_sample(seen, other, resize, named)
        # Where the first axis cannot change, the second is a batch only behind time steps.
        if not ran and not multi_step:
            break
    return {
        path: {name: shape[1:] if has_batch else shape for name, shape in shapes.items()}
        for path, shapes in seen.items()
    }


def _grows(seen: States, other: States) -> bool:
    return any(
        other.get(path, {}).get(name, shape) != shape
        for path, shapes in seen.items()
        for name, shape in shapes.items()
    )


def _per_sample(seen: States, other: States, resize: Resize, named: Named) -> dict[str, Shapes]:
    found: dict[str, Shapes] = {}
    for path, shapes in seen.items():
        for name, shape in shapes.items():
            changed = other.get(path, {}).get(name)
            # An undeclared value is a state only if there is one for each sample.
            if shape != changed or named(path):
                found.setdefault(path, {})[name] = _one_sample(shape, changed, resize)
    return found


def _one_sample(
    shape: tuple[int, ...], other: tuple[int, ...] | None, resize: Resize
) -> tuple[int, ...]:
    assert resize.before is not None
    assert resize.after is not None
    if other is None or len(other) != len(shape):
        # The second pass did not come here: the batch is the first axis of nearly all states.
        whole = bool(shape) and shape[0] % resize.before == 0
        return _without(shape, 0, shape[0] // resize.before) if whole else shape
    for axis, (one, two) in enumerate(zip(shape, other, strict=True)):
        if one != two:
            return _without(shape, axis, max(1, (one - two) // (resize.before - resize.after)))
    return shape


def _without(shape: tuple[int, ...], axis: int, per_sample: int) -> tuple[int, ...]:
    kept = () if per_sample == 1 else (per_sample,)
    return (*shape[:axis], *kept, *shape[axis + 1 :])
