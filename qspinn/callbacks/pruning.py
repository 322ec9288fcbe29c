"""Stops trainings early that are not promising."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from qspinn.callbacks.arguments import check_whole
from qspinn.callbacks.isolation import independent_copy, preserved_globals, quiet_lightning
from qspinn.callbacks.side_evaluation import evaluated
from qspinn.callbacks.trainer_data import drawn, preserved_generators, validation_loader

log = logging.getLogger(__name__)

Judge = Callable[[float, float], str | None]
"""Takes how much of the training is done, in (0, 1], and the monitored value at that point.

It returns why the training is to be stopped, or ``None``.
"""


class Pruning(Callback):
    """Reports the progress of a training to a judge, and stops it if the judge says so.

    The judge is asked after each validation, and at ``fractions`` of the training, where
    a copy of the module is validated by a trainer of its own: neither the module nor the
    trainer, its random numbers and its metrics change. A training that is not stopped
    gives the same result as without this callback.

    Attributes:
        curve: Progress to the monitored value, up to now.
        stopped: The reason of the judge; ``None`` if the training was not stopped.

    Example:
        >>> judge = lambda done, accuracy: "hopeless" if accuracy < 0.2 else None
        >>> trainer = Trainer(callbacks=[Pruning(judge, "val_accuracy")])  # doctest: +SKIP
    """

    def __init__(
        self,
        judge: Judge,
        monitor: str = "val_accuracy",
        fractions: Sequence[float] = (),
        samples: int | None = None,
    ) -> None:
        """Prepares for training.

        Args:
            judge: Decides; see :data:`Judge`, and :func:`optuna_judge`.
            monitor: What the module logs in its ``validation_step``.
            fractions: Points of the training, in (0, 1), at which to validate a copy.
            samples: Validation samples, drawn at random, that a copy is shown at
                ``fractions``; ``None``: all.

        Raises:
            TypeError: A judge that cannot be called.
            ValueError: An invalid fraction or number of samples.
        """
        if not callable(judge):
            raise TypeError(
                f"Pruning: judge is a {type(judge).__name__}; write a function of progress and "
                "value that returns a reason to stop, or None"
            )
        given: object = fractions
        if not isinstance(given, Sequence) or not all(_is_fraction(one) for one in given):
            raise ValueError(
                f"Pruning: fractions={fractions!r}; write numbers between 0 and 1, such as [0.1]"
            )
        if samples is not None:
            check_whole(samples, 1, "Pruning: samples", "1 or more, or None for all")
        self.judge = judge
        self.monitor = monitor
        self.fractions = tuple(sorted(float(one) for one in fractions))
        self.samples = samples
        self.curve: dict[float, float] = {}
        self.stopped: str | None = None
        self._done = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts again.

        Raises:
            ValueError: The length of the training is unknown.
        """
        if trainer.max_epochs is None or trainer.max_epochs < 1:
            raise ValueError(
                f"Pruning: max_epochs={trainer.max_epochs} does not say when the training ends; "
                "write Trainer(max_epochs=...)"
            )
        self.curve, self.stopped, self._done = {}, None, 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes the progress of a training that resumes from a checkpoint."""
        self._done = self._progress(trainer, 0)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Validates a copy when that is due."""
        before, self._done = self._done, self._progress(trainer, batch_idx + 1)
        due = [one for one in self.fractions if before < one <= self._done]
        if due and not trainer.should_stop:
            value = self._validated(trainer, pl_module)
            if value is not None:
                self._ask(trainer, due[-1], value)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reports the measured value to the judge.

        Raises:
            ValueError: The module logs no such value.
        """
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        value = self._monitored(trainer.callback_metrics, pl_module)
        self._ask(trainer, round(self._done, 6), value)

    def stop(self, trainer: Trainer) -> None:
        """Stops the training; called once, when ``stopped`` says why."""
        log.warning("Pruning: the training is stopped: %s", self.stopped)
        trainer.should_stop = True

    def _ask(self, trainer: Trainer, progress: float, value: float) -> None:
        self.curve[progress] = value
        if self.stopped is None and progress < 1:
            self.stopped = self.judge(progress, value)
            if self.stopped is not None:
                self.stop(trainer)

    def _progress(self, trainer: Trainer, batches: int) -> float:
        assert trainer.max_epochs is not None  # seen when the fit began
        count = float(trainer.num_training_batches)
        of_epoch = min(1.0, batches / count) if count > 0 else 0.0
        return (trainer.current_epoch + of_epoch) / trainer.max_epochs

    def _validated(self, trainer: Trainer, pl_module: LightningModule) -> float | None:
        validation = validation_loader(trainer)
        if validation is None:
            return None
        with preserved_globals(), quiet_lightning(), preserved_generators(validation):
            copied = independent_copy(pl_module)
            copied.eval()
            few = None if self.samples is None else drawn(trainer, validation, self.samples)
            metrics = evaluated(trainer, copied, validation if few is None else few, ("validate",))
        return self._monitored(metrics, pl_module)

    def _monitored(self, metrics: Mapping[str, Any], pl_module: LightningModule) -> float:
        if self.monitor not in metrics:
            raise ValueError(
                f"Pruning: monitor={self.monitor!r} is not logged by the validation_step of "
                f"{type(pl_module).__name__} (logged: {', '.join(sorted(metrics)) or 'nothing'}); "
                "write one of these"
            )
        return float(metrics[self.monitor])


def optuna_judge(trial: Any, steps: int = 100) -> Judge:
    """A judge that asks a pruner of Optuna: median, successive halving, Hyperband.

    Args:
        trial: An ``optuna.trial.Trial``; its study has the pruner, and the trials to
            compare with.
        steps: Whole steps that a training has for the pruner.

    Example:
        >>> trainer = Trainer(callbacks=[Pruning(optuna_judge(trial))])  # doctest: +SKIP

    Raises:
        TypeError: Something else than a trial.
    """
    if not callable(getattr(trial, "report", None)) or not hasattr(trial, "should_prune"):
        raise TypeError(
            f"optuna_judge: trial is a {type(trial).__name__}; give the trial that Optuna hands to "
            "the objective, or study.ask()"
        )

    def judge(progress: float, value: float) -> str | None:
        trial.report(value, step=round(progress * steps))
        if not trial.should_prune():
            return None
        return f"Optuna's {type(trial.study.pruner).__name__} prunes it at {value:.4f}"

    return judge


def _is_fraction(value: object) -> bool:
    return isinstance(value, (int, float)) and type(value) is not bool and 0 < value < 1
