"""Refuses arguments of the trainer that would be ignored silently or fail after an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qspinn.app.refusing import is_number, is_whole, refused

# qspinn passes these itself: values from the configuration would be ignored.
_GIVEN = {
    "callbacks": "the group callbacks instead: +callbacks.NAME._target_=CLASS",
    "logger": "the group logger instead: +logger.NAME._target_=CLASS, or logger=null",
    "plugins": "none: qspinn's own plugin writes the checkpoints",
    "default_root_dir": "hydra.run.dir=FOLDER instead",
    "enable_progress_bar": "progress=auto, bar, lines or none instead",
}
_TRIALS = {
    "barebones": "false: without loggers and checkpoints there is no record",
    "overfit_batches": "trainer.limit_train_batches instead: with overfit_batches the accuracy "
    "that candidates are chosen by is that of training data",
}


def check_trainer_arguments(config: Mapping[str, Any]) -> None:
    """Refuse what a trainer would ignore, what cannot be reproduced, and metrics that do not exist.

    Args:
        config: The resolved configuration, plain types.

    Raises:
        ConfigurationError: Names the key, the value and what to write.
    """
    trainer = config["trainer"]
    for name, instead in {**_GIVEN, **_TRIALS}.items():
        if name in trainer and (name in _GIVEN or trainer[name]):
            raise refused(f"trainer.{name}", trainer[name], instead)
    if trainer.get("max_time") is not None:
        raise refused(
            "trainer.max_time",
            trainer["max_time"],
            "trainer.max_epochs or trainer.max_steps instead: a training that a clock ends "
            "cannot be repeated",
        )
    _check_steps(trainer)
    _check_monitors(config)
    _check_rates(config["learning"], trainer.get("max_epochs"))


def _check_steps(trainer: Mapping[str, Any]) -> None:
    least, most = trainer.get("min_steps"), trainer.get("max_steps", -1)
    if least is not None and not (is_whole(least) and least >= 0):
        raise refused("trainer.min_steps", least, "0 or more, or null")
    if least is not None and is_whole(most) and -1 != most < least:
        raise refused("trainer.min_steps", least, f"0 to trainer.max_steps={most}, or null")
    sanity = trainer.get("num_sanity_val_steps")
    if sanity is not None and not (is_whole(sanity) and sanity >= -1):
        raise refused("trainer.num_sanity_val_steps", sanity, "0 (none) or more, or -1 for all")
    interval = trainer.get("val_check_interval")
    if is_number(interval) and interval <= 0:
        raise refused(
            "trainer.val_check_interval",
            interval,
            "1 or more batches, a part of an epoch such as 0.5, or null",
        )


def _check_monitors(config: Mapping[str, Any]) -> None:
    """Refuse to wait for a metric of a validation that does not take place."""
    if config["trainer"].get("limit_val_batches") != 0:
        return
    for place, name in _monitors(config):
        if isinstance(name, str) and name.startswith("val"):
            raise refused(
                place,
                name,
                "a metric of the training, such as train/loss, or trainer.limit_val_batches=null: "
                "with trainer.limit_val_batches=0 no validation measures it",
            )


def _monitors(config: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """The place and the name of each metric that something watches."""
    for name, node in config["callbacks"].items():
        if isinstance(node, Mapping):
            yield f"callbacks.{name}.monitor", node.get("monitor")
    if _scheduler_of(config["learning"])[0] == "ReduceLROnPlateau":
        yield "learning.monitor", config["learning"].get("monitor")


def _check_rates(learning: Mapping[str, Any], epochs: object) -> None:
    name, scheduler = _scheduler_of(learning)
    optimizer = learning.get("optimizer")
    places = {"learning.optimizer.lr": optimizer if isinstance(optimizer, Mapping) else {}}
    places |= {f"learning.scheduler.{key}": scheduler for key in ("max_lr", "base_lr")}
    rates = {place: node.get(place.rpartition(".")[2]) for place, node in places.items()}
    given = {place: rate for place, rate in rates.items() if is_number(rate)}
    for place, rate in given.items():
        if rate < 0:
            raise refused(place, rate, "a learning rate above 0")
    if name == "OneCycleLR":  # it sets the rate of the optimizer
        given.pop("learning.optimizer.lr", None)
    if given and not any(given.values()):
        raise refused(*next(iter(given.items())), "a learning rate above 0")
    # Given its number of steps, this one is stepped once per epoch, and fails beyond them.
    steps = scheduler.get("total_steps")
    if name == "OneCycleLR" and is_whole(steps) and is_whole(epochs) and steps < epochs:
        raise refused(
            "learning.scheduler.total_steps",
            steps,
            f"null for the whole training, or trainer.max_epochs={epochs} or more: it is stepped "
            "after each epoch",
        )


def _scheduler_of(learning: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The name of the class and the arguments of the scheduler; empty where there is none."""
    node = learning.get("scheduler")
    if not isinstance(node, Mapping):
        return "", {}
    return str(node.get("_target_")).rpartition(".")[2], node
