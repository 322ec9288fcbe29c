"""Side computations that do not change a running trainer."""

from __future__ import annotations

import copy
import inspect
import logging
import os
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from torch.utils._python_dispatch import _disable_current_modes

from qspinn.callbacks.packages import counterpart, overrides
from qspinn.callbacks.random_state import capture_random_states, restore_random_states
from qspinn.plan import needs_forward_pass, reset_states
from qspinn.plan.compiled import check_not_compiled
from qspinn.quantizers import is_attached
from qspinn.quantizers.class_swap import substituted
from qspinn.quantizers.copying import WithoutGraphs, independent_module

Forward = Callable[[LightningModule, Any], Any]

LEAVE_IN_FLOAT = (
    "Leave the layers that this is about in float, with a rule such as {'layers': 'PATH', "
    "'format': 'float32'}"
)
_ANNOUNCERS = (
    "lightning.pytorch",
    "lightning.fabric",
    "lightning.pytorch.utilities.rank_zero",
    "pytorch_lightning",
    "lightning_fabric",
    "pytorch_lightning.utilities.rank_zero",
)


@contextmanager
def preserved_globals() -> Iterator[None]:
    """Restores random states and determinism flags afterwards."""
    random_states = capture_random_states()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
    try:
        yield
    finally:
        restore_random_states(random_states)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn


@contextmanager
def seeded_globals(seed: int = 0) -> Iterator[None]:
    """The same, with fixed seeds inside.

    So a training that was interrupted after its last epoch measures the same as any other.
    """
    with preserved_globals():
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 (third-party code draws from the global state)
        torch.manual_seed(seed)
        yield


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keeps a second trainer from repeating the first one's announcements."""
    loggers = [logging.getLogger(name) for name in _ANNOUNCERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Hints about dataloaders and the like: the user's own trainer has given them.
            warnings.filterwarnings("ignore", module=r"(pytorch_)?lightning")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def independent_copy(module: LightningModule) -> LightningModule:
    """A deep copy without a trainer, see :func:`qspinn.quantizers.copying.independent_module`.

    Raises:
        TypeError: The module holds something that cannot be copied.
    """
    return independent_module(module)  # type: ignore[return-value]


def copy_for(trainer: Trainer, module: LightningModule) -> LightningModule:
    """A copy that can be run beside the trainer's module: on its device, logging nothing."""
    copied = independent_copy(module)
    copied.to(trainer.strategy.root_device)
    copied.trainer = onlooker(trainer)
    return copied


def onlooker(trainer: Trainer) -> Trainer:
    """A view of ``trainer`` for copies of its module, with loggers that log nothing."""
    view = copy.copy(trainer)
    silent = counterpart(trainer, "loggers.logger.DummyLogger")
    view.loggers = [silent() for _ in trainer.loggers]
    return view


def check_runnable(module: LightningModule, forward: Forward | None, owner: str) -> None:
    """Refuses a module that cannot be watched on a batch without being trained.

    Raises:
        ValueError: A compiled module, or, without ``forward``, a module whose only step
            optimises by itself; unless it declares its tensors, so that it need not
            be watched.
    """
    check_not_compiled(module, owner)
    if forward is not None or step_name(module) != "training_step":
        return
    if not needs_forward_pass(module):
        return
    iterates = "dataloader_iter" in inspect.signature(module.training_step).parameters
    if iterates or not module.automatic_optimization:
        raise ValueError(
            f"{owner}: {type(module).__name__} has no validation_step, and its training_step does "
            "more than one forward pass; say how to run it on a batch, e.g. "
            "forward=lambda module, batch: module(batch[0])"
        )


def check_single_device(trainer: Trainer, owner: str) -> None:
    """Refuses to choose formats on several devices, which would choose different ones."""
    if trainer.world_size != 1:
        raise ValueError(
            f"{owner}: the trainer has {trainer.world_size} processes, of which each would choose "
            "formats of its own; write Trainer(devices=1)"
        )


def forward_once(module: LightningModule, batch: Any, forward: Forward | None) -> None:
    """One forward pass on a batch, on a copy that logs nothing.

    Args:
        module: An independent copy; its metrics may change.
        batch: A batch as the trainer handed it out.
        forward: How to run it; ``None`` runs the first of ``validation_step``,
            ``test_step``, ``predict_step`` and ``training_step`` that the module has.

    Raises:
        RuntimeError: The module's code failed; the error says what to change.
    """
    reset_states(module)
    batch = own_batch(batch)
    with silenced(module):
        try:
            if forward is not None:
                forward(module, batch)
                return
            step = getattr(module, step_name(module))
            step(*_step_arguments(step, batch))
        except Exception as error:
            raise RuntimeError(_why_it_failed(module, forward, error)) from error


def _why_it_failed(module: LightningModule, forward: Forward | None, error: Exception) -> str:
    what = f"{type(module).__name__}.{step_name(module)}" if forward is None else "forward="
    told = f"{type(error).__name__}: {error}"
    if type(error).__module__.startswith("torch._dynamo"):
        return (
            f"{what} runs something that torch.compile has compiled, so that its layers can "
            f"neither be watched nor quantised: {told}; run what it was compiled from"
        )
    if is_attached(module):
        return (
            f"{what} cannot compute with quantised layers on a training batch: {told}. "
            f"{LEAVE_IN_FLOAT}"
        )
    return (
        f"{what} fails on a training batch, on which formats are chosen: {told}. Say how the "
        "module is run on such a batch, e.g. forward=lambda module, batch: module(batch[0])"
    )


def own_batch(batch: Any) -> Any:
    """A copy of a batch, for steps that change it in place.

    What cannot be copied is returned itself. A dry run that watches all operations does
    not see this one: it takes the batch for external input.
    """
    try:
        with _disable_current_modes(), torch.inference_mode(False), WithoutGraphs():
            return copy.deepcopy(batch)
    except Exception:
        return batch


@contextmanager
def silenced(module: LightningModule) -> Iterator[None]:
    """Makes a copy log nothing."""
    with substituted(module, log=_log_nothing, log_dict=_log_nothing):
        yield


def step_name(module: LightningModule) -> str:
    """The step that shows how the module is run on a batch."""
    for name in ("validation_step", "test_step", "predict_step"):
        if overrides(name, module):
            return name
    return "training_step"


def side_trainer(trainer: Trainer, **arguments: Any) -> Trainer:
    """A trainer on the same device that logs, saves and shows nothing."""
    device = trainer.strategy.root_device
    kind = {"cuda": "gpu"}.get(device.type, device.type)
    devices: Any = [device.index or 0] if kind == "gpu" else 1
    deterministic: Any = torch.are_deterministic_algorithms_enabled()
    if deterministic and torch.is_deterministic_algorithms_warn_only_enabled():
        deterministic = "warn"
    made: type[Trainer] = counterpart(trainer, "Trainer")
    silent = counterpart(trainer, "loggers.logger.DummyLogger")
    alone = counterpart(trainer, "plugins.environments.LightningEnvironment")
    side = made(
        accelerator=kind,
        devices=devices,
        precision=trainer.precision,
        deterministic=deterministic,
        # Not False: a module may write to self.logger.experiment.
        logger=[silent() for _ in trainer.loggers] or False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
        max_epochs=trainer.max_epochs,
        # It uses this process only: Lightning would count the tasks of a Slurm allocation.
        plugins=[alone()] if "SLURM_NTASKS" in os.environ else None,
        **arguments,
    )
    # Modules read the epoch, for annealing for example, and it is passed to samplers.
    progress: Any = side.fit_loop.epoch_progress.current
    shown: Any = trainer.fit_loop.epoch_progress.current
    progress.processed, progress.completed = shown.processed, shown.completed
    return side


def _step_arguments(step: Callable[..., Any], batch: Any) -> tuple[Any, ...]:
    """Batch, batch index and dataloader index, as many as ``step`` takes."""
    positional = [
        parameter
        for parameter in inspect.signature(step).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(positional) < 2:
        takes_more = inspect.getfullargspec(step).varargs is not None
        return (batch, 0) if takes_more else (batch,)
    required = sum(parameter.default is parameter.empty for parameter in positional)
    return (batch, 0, 0)[: max(2, required)]


def _log_nothing(*args: Any, **kwargs: Any) -> None:
    """Replaces ``LightningModule.log``."""
