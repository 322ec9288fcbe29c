"""A network that has diverged is no result: noticed, said in one sentence, and never recorded."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import nn

from qspinn.app.errors import RunError

__all__ = ["DivergenceGuard", "check_finite", "is_finite"]


def check_finite(module: nn.Module, when: str, in_fixed_point: bool) -> None:
    """Refuse a network that holds values that are not finite.

    Args:
        module: The network.
        when: For the message, such as ``in epoch 3``.
        in_fixed_point: Whether it has learned in fixed point.

    Raises:
        RunError: It names a tensor, and says what to change.
    """
    for path, tensor in _tensors(module):
        if not is_finite(tensor):
            more = ", more bits (quantization.word_length), or a later quantization.start_epoch"
            raise RunError(
                f"the network has diverged {when}: {path} holds values that are not finite. Write "
                "a lower learning rate (learning.optimizer.lr), limit the gradient "
                f"(trainer.gradient_clip_val=1){more if in_fixed_point else ''}"
            )


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether all values are; whole numbers and truth values are in any case."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.is_meta:
        return True
    return bool(torch.isfinite(tensor).all())


def _tensors(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Parameters, and the buffers that a checkpoint holds."""
    kept = {name for name, value in module.state_dict().items() if torch.is_tensor(value)}
    found = [*module.named_parameters(), *module.named_buffers()]
    return [(name, one) for name, one in found if name in kept and not nn.parameter.is_lazy(one)]


class DivergenceGuard(lightning.Callback):
    """Ends a training in the epoch in which the network diverges, before its checkpoint is written.

    Args:
        in_fixed_point: Whether it learns in fixed point.
    """

    def __init__(self, in_fixed_point: bool = False) -> None:
        self.in_fixed_point = in_fixed_point
        self.has_learned = False

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Note that something was learned."""
        self.has_learned = True

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Look at all values."""
        check_finite(pl_module, f"in epoch {trainer.current_epoch + 1}", self.in_fixed_point)
