"""Resets SpikingJelly's states before every batch."""

from __future__ import annotations

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from qspinn.plan import reset_states


class ResetStates(Callback):
    """Resets the neuron states before every batch, in case the module does not.

    Only SpikingJelly's modules are reset; metrics are left alone.
    """

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Resets."""
        reset_states(pl_module)

    on_validation_batch_start = on_test_batch_start = on_predict_batch_start = on_train_batch_start
