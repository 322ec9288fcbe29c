"""Random states in checkpoints, so that a resumed training equals an uninterrupted one."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer


class RandomState(Callback):
    """Saves the states of all global random generators with each checkpoint, and restores them.

    Covered are Python's ``random``, NumPy's global generator, torch's CPU generator and torch's
    generator of each CUDA device. Without this callback a training that resumes from a checkpoint
    draws other numbers (shuffling, dropout, stochastic rounding) than one that was never stopped.

    The states must be restored before Lightning makes the iterator of the training data, which
    draws from torch's generator. It does so after ``on_fit_start``, unless
    ``configure_optimizers`` asks for ``trainer.estimated_stepping_batches``: then before. So the
    states are restored as soon as the checkpoint is read for a fit, and again in ``on_fit_start``
    if there is no iterator yet, in case something drew numbers in between.

    Where the checkpoint says that training was already complete, Lightning makes the iterator and
    trains nothing; the states are then restored once more when the fit ends, for callbacks that
    work there. Put this callback before those, and behind callbacks that draw numbers when a fit
    starts.

    The saved states are plain types and tensors: the checkpoint loads with ``weights_only=True``.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Any] | None = None
        self._is_fitting = False
        self._has_trained = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note whether the checkpoint that may follow is read for a fit."""
        self._is_fitting = stage == "fit"
        self._has_trained = False

    def state_dict(self) -> dict[str, Any]:
        """Return the current states of all generators."""
        return capture_random_states()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the states, if a fit resumes from them."""
        if self._is_fitting:
            self._loaded = state_dict
            restore_random_states(state_dict)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the states again, while no iterator has drawn from them."""
        if self._loaded is not None and trainer.train_dataloader is None:
            restore_random_states(self._loaded)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that this fit trains."""
        self._has_trained = True

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the states where the resumed training was already complete."""
        if self._loaded is not None and not self._has_trained:
            restore_random_states(self._loaded)
        self._loaded = None


def capture_random_states() -> dict[str, Any]:
    """Return the states of the global generators as plain types and tensors.

    Returns:
        ``python`` (version, words, next Gaussian), ``numpy`` (the parts of the MT19937 state),
        ``torch`` (a byte tensor) and ``cuda`` (a list of byte tensors, one per device).
    """
    version, words, gaussian = random.getstate()
    numpy_state: dict[str, Any] = dict(np.random.get_state(legacy=False))  # noqa: NPY002
    return {
        "python": [version, list(words), gaussian],
        "numpy": {
            "bit_generator": numpy_state["bit_generator"],
            "key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
            "pos": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Set the global generators to states from :func:`capture_random_states`.

    CUDA states are restored for as many devices as there are both saved states and devices: a
    checkpoint from a machine with a GPU can be continued without one, on other numbers.
    """
    version, words, gaussian = states["python"]
    random.setstate((version, tuple(words), gaussian))
    saved = states["numpy"]
    np.random.set_state(  # noqa: NPY002
        {
            "bit_generator": saved["bit_generator"],
            "state": {
                "key": saved["key"].cpu().numpy().astype(np.uint32),
                "pos": saved["pos"],
            },
            "has_gauss": saved["has_gauss"],
            "gauss": saved["gauss"],
        }
    )
    torch.set_rng_state(states["torch"].cpu())
    for index, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state.cpu(), index)
