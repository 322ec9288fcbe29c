"""Stops a run whose network has diverged, with one sentence and without a record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from qspinn.app.errors import RunError


class DivergenceGuard(Callback):
    """Ends a training in the epoch in which the network diverges, before its checkpoint is written.

    The output of the network is checked in the test as well: the argmax of NaN is the first class,
    so that a diverged network would still have an accuracy.

    A buffer that holds infinity before anything is learned, such as a mask, may keep it.

    Args:
        network: What is tested.
        in_fixed_point: Whether it learns in fixed point.
    """

    def __init__(self, network: nn.Module, in_fixed_point: bool = False) -> None:
        self.network = network
        self.in_fixed_point = in_fixed_point
        self.has_learned = False
        self._unlimited: frozenset[str] = frozenset()
        self._hook: RemovableHandle | None = None

    def check(self, module: LightningModule, when: str) -> None:
        """Check all values of a module; `when` is for the message, such as ``in epoch 3``.

        Raises:
            RunError: It names a tensor, and says what to change.
        """
        for path, tensor in _tensors(module):
            is_fine = _has_no_nan if path in self._unlimited else _is_finite
            if not is_fine(tensor):
                raise self._diverged(when, f"{path} holds values that are not finite")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note which buffers are unlimited, before a checkpoint is restored."""
        if stage == "fit":
            names = {name for name, _ in pl_module.named_buffers()}
            found = ((path, tensor) for path, tensor in _tensors(pl_module) if path in names)
            self._unlimited = frozenset(path for path, one in found if not _is_finite(one))

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Note that the network has learned."""
        self.has_learned = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check all values."""
        self.check(pl_module, f"in epoch {trainer.current_epoch + 1}")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the output of the network from now on."""
        self._hook = self.network.register_forward_hook(self._look_at_output)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop checking the output."""
        if self._hook is not None:
            self._hook.remove()

    def _look_at_output(self, network: nn.Module, inputs: Any, output: Any) -> None:
        tensors = (leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor))
        if not all(_has_no_nan(tensor) for tensor in tensors):
            raise self._diverged("in training", "its output for the test data is NaN")

    def _diverged(self, when: str, what: str) -> RunError:
        more = ", more bits (quantization.word_length), or a later quantization.start_epoch"
        return RunError(
            f"the network has diverged {when}: {what}; write a lower learning rate "
            "(learning.optimizer.lr), limit the gradient "
            f"(trainer.gradient_clip_val=1){more if self.in_fixed_point else ''}"
        )


def _is_finite(tensor: Tensor) -> bool:
    """Whether all values are; whole numbers and booleans are in any case."""
    return not _is_inexact(tensor) or bool(torch.isfinite(tensor).all())


def _has_no_nan(tensor: Tensor) -> bool:
    return not _is_inexact(tensor) or not bool(torch.isnan(tensor).any())


def _is_inexact(tensor: Tensor) -> bool:
    return (tensor.is_floating_point() or tensor.is_complex()) and not tensor.is_meta


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, and the buffers that a checkpoint holds."""
    kept = {name for name, value in module.state_dict().items() if torch.is_tensor(value)}
    for found in (module.named_parameters(), module.named_buffers()):
        for name, one in found:
            if name in kept and not nn.parameter.is_lazy(one):
                yield name, one
