"""Lightning has two packages, ``lightning`` and ``pytorch_lightning``, each with its own classes.

A trainer of one of them refuses modules of the other, so objects for a project are
created from the package of the project's own trainer.
"""

from __future__ import annotations

import importlib
from typing import Any

PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def package_of(thing: object) -> str:
    """The package that the class of a trainer, module or datamodule derives from.

    Raises:
        TypeError: It derives from neither.
    """
    for kind in type(thing).__mro__:
        for package in PACKAGES:
            if f"{kind.__module__}.".startswith(f"{package}."):
                return package
    raise TypeError(
        f"{type(thing).__name__} derives neither from lightning nor from pytorch_lightning"
    )


def part_of(package: str, name: str) -> Any:
    """What ``package`` has under a dotted name, such as ``utilities.CombinedLoader``."""
    module, _, attribute = f"{package}.{name}".rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def counterpart(thing: object, name: str) -> Any:
    """What the package of ``thing`` has under a dotted name."""
    return part_of(package_of(thing), name)


def is_lightning_module(thing: object) -> bool:
    """Whether ``thing`` is a LightningModule, under either name."""
    return any(
        kind.__name__ == "LightningModule" and f"{kind.__module__}.".startswith(f"{package}.")
        for kind in type(thing).__mro__
        for package in PACKAGES
    )


def overrides(name: str, thing: object) -> bool:
    """Whether a module or datamodule defines the hook ``name`` itself."""
    parent = "LightningModule" if is_lightning_module(thing) else "LightningDataModule"
    package = package_of(thing)
    is_overridden = part_of(package, "utilities.model_helpers.is_overridden")
    return bool(is_overridden(name, thing, parent=part_of(package, parent)))
