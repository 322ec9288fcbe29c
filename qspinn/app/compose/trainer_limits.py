"""Refuses arguments of the trainer that would be ignored silently or fail after an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qspinn.app.errors import is_number, is_whole, refused, require

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
    """Refuse what a trainer would ignore or nobody could repeat, and metrics that do not exist."""
    trainer = config["trainer"]
    for name, instead in {**_GIVEN, **_TRIALS}.items():
        if name in trainer and (name in _GIVEN or trainer[name]):
            raise refused(f"trainer.{name}", trainer[name], instead)
    limit, instead = trainer.get("max_time"), "trainer.max_epochs or trainer.max_steps instead"
    wanted = f"{instead}: a training that a clock ends cannot be repeated"
    require(limit is None, "trainer.max_time", limit, wanted)
    _check_steps(trainer)
    _check_monitors(config)
    _check_rates(config["learning"], trainer.get("max_epochs"))


def _check_steps(trainer: Mapping[str, Any]) -> None:
    least, most = trainer.get("min_steps"), trainer.get("max_steps", -1)
    if least is not None:
        is_fine = is_whole(least) and least >= 0
        require(is_fine, "trainer.min_steps", least, "0 or more, or null")
        is_fine = not is_whole(most) or most == -1 or most >= least
        require(is_fine, "trainer.min_steps", least, f"0 to trainer.max_steps={most}, or null")
    sanity = trainer.get("num_sanity_val_steps")
    is_fine = sanity is None or (is_whole(sanity) and sanity >= -1)
    wanted = "0 (none) or more, or -1 for all"
    require(is_fine, "trainer.num_sanity_val_steps", sanity, wanted)
    interval = trainer.get("val_check_interval")
    is_fine = not is_number(interval) or not interval <= 0
    wanted = "1 or more batches, a part of an epoch such as 0.5, or null"
    require(is_fine, "trainer.val_check_interval", interval, wanted)


def _check_monitors(config: Mapping[str, Any]) -> None:
    """Refuse to wait for a metric of a validation that does not take place."""
    if config["trainer"].get("limit_val_batches") != 0:
        return
    wanted = (
        "a metric of the training, such as train/loss, or trainer.limit_val_batches=null: with "
        "trainer.limit_val_batches=0 no validation measures it"
    )
    for place, name in _monitors(config):
        require(not str(name).startswith("val"), place, name, wanted)


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
        require(not rate < 0, place, rate, "a learning rate above 0")
    if name == "OneCycleLR":  # it sets the rate of the optimizer
        given.pop("learning.optimizer.lr", None)
    if given and not any(given.values()):
        raise refused(*next(iter(given.items())), "a learning rate above 0")
    # Given its number of steps, this one is stepped once per epoch, and fails beyond them.
    steps = scheduler.get("total_steps")
    if name == "OneCycleLR" and is_whole(steps) and is_whole(epochs):
        wanted = (
            f"null for the whole training, or trainer.max_epochs={epochs} or more: it is stepped "
            "after each epoch"
        )
        require(steps >= epochs, "learning.scheduler.total_steps", steps, wanted)


def _scheduler_of(learning: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The name of the class and the arguments of the scheduler; empty where there is none."""
    node = learning.get("scheduler")
    if not isinstance(node, Mapping):
        return "", {}
    return str(node.get("_target_")).rpartition(".")[2], node
