"""Side computations that leave a running trainer as it was."""

from __future__ import annotations

import copy
import inspect
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities.model_helpers import is_overridden

from qspinn.callbacks.random_state import capture_random_states, restore_random_states
from qspinn.plan import needs_forward_pass, reset_states
from qspinn.quantizers.class_swap import substituted

Forward = Callable[[LightningModule, Any], Any]


@contextmanager
def preserved_globals() -> Iterator[None]:
    """Puts random states and determinism flags back afterwards."""
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
def quiet_lightning() -> Iterator[None]:
    """Keeps a second trainer from repeating the first one's announcements."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    children = [logging.getLogger("lightning.pytorch.utilities.rank_zero")]
    levels += [logger.level for logger in children]
    for logger in (*loggers, *children):
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Hints about dataloaders and the like: the user's own trainer gave them.
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        for logger, level in zip((*loggers, *children), levels, strict=True):
            logger.setLevel(level)


def independent_copy(module: LightningModule) -> LightningModule:
    """A deep copy without a trainer; SpikingJelly's states are reset in both.

    Tensors that the module keeps from its last steps (a loss, outputs of a batch)
    are copied without their graphs.

    Raises:
        TypeError: The module holds something that cannot be copied.
    """
    reset_states(module)
    memo: dict[int, Any] = {}
    for child in module.modules():
        _detach_kept(vars(child), memo)
    try:
        copied = copy.deepcopy(module, memo)
    except Exception as error:
        raise TypeError(
            f"{type(module).__name__} cannot be copied, which quantising it needs: {error}. Keep "
            "what cannot be copied (files, locks, clients) out of the module"
        ) from error
    for child in copied.modules():
        if isinstance(child, LightningModule):
            # Lightning's cache of which metric is whose is by identity: the
            # originals' here.
            child._metric_attributes = None
    return copied


def onlooker(trainer: Trainer) -> Trainer:
    """A view of ``trainer`` for copies of its module, with loggers that log nothing."""
    view = copy.copy(trainer)
    view.loggers = [DummyLogger() for _ in trainer.loggers]
    return view


def check_runnable(module: LightningModule, forward: Forward | None, owner: str) -> None:
    """Refuses a module that cannot be watched on a batch without being trained.

    Raises:
        ValueError: A compiled module, or, without ``forward``, a module whose only step
            optimises by itself; unless it declares its tensors, so that it need not
            be watched.
    """
    compiled = getattr(module, "_compiler_ctx", None) is not None
    if compiled or any(hasattr(child, "_orig_mod") for child in module.modules()):
        raise ValueError(
            f"{owner}: {type(module).__name__} is compiled (torch.compile), so that its layers "
            "cannot be watched; give the trainer the module as it was before"
        )
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
    """
    reset_states(module)
    with substituted(module, log=_log_nothing, log_dict=_log_nothing):
        if forward is not None:
            forward(module, batch)
            return
        step = getattr(module, step_name(module))
        step(*_step_arguments(step, batch))


def step_name(module: LightningModule) -> str:
    """The step that shows how the module is run on a batch."""
    for name in ("validation_step", "test_step", "predict_step"):
        if is_overridden(name, module, parent=LightningModule):
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
    return Trainer(
        accelerator=kind,
        devices=devices,
        precision=trainer.precision,
        deterministic=deterministic,
        # Not False: a module may write to self.logger.experiment.
        logger=[DummyLogger() for _ in trainer.loggers] or False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
        **arguments,
    )


def _detach_kept(value: Any, memo: dict[int, Any]) -> None:
    """Notes for ``copy.deepcopy`` what stands for the tensors in ``value`` that have a graph."""
    if isinstance(value, torch.Tensor):
        if not value.is_leaf:
            memo[id(value)] = value.detach().clone()
    elif isinstance(value, dict):
        for item in value.values():
            _detach_kept(item, memo)
    elif isinstance(value, list | tuple):
        for item in value:
            _detach_kept(item, memo)


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
    """Stands in for ``LightningModule.log``."""
