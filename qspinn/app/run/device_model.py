"""Saves the quantised network of a run as a device model, and checks it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import lightning
from torch import Tensor

from qspinn.app.examples import as_the_module, held_out_samples
from qspinn.app.folder.folder import RunFolder
from qspinn.app.folder.identity import identity
from qspinn.app.run.outcome import library_versions
from qspinn.callbacks.device import device_model_of
from qspinn.callbacks.isolation import seeded_globals
from qspinn.export import device_report, save_model, verify
from qspinn.export.container import MODEL_NAME, checksum
from qspinn.export.errors import DamagedModelError
from qspinn.export.verification import samples_to_verify
from qspinn.records import config_hash

__all__ = ["save_device_model"]

log = logging.getLogger(__name__)


def save_device_model(
    config: Mapping[str, Any],
    folder: RunFolder,
    network: lightning.LightningModule,
    data: lightning.LightningDataModule,
    example: Tensor,
    name: str,
) -> dict[str, Any]:
    """Write ``model.qspinn`` into the folder of a run, and run it beside the network.

    Nothing is raised, and neither the network nor any random state is changed. Where there is no
    device model of the network, the reason is logged and returned.

    Args:
        config: The resolved configuration.
        folder: Of the run.
        network: With quantizers attached.
        data: Set up to fit; the model is checked on validation data, or else on training data.
        example: An input of one sample.
        name: Of the network.

    Returns:
        What the record says, see :func:`qspinn.records.model_field.check_device_model`.
    """
    path = folder.path / MODEL_NAME
    origin = {"config_hash": config_hash(identity(config)), **library_versions()}
    try:
        path.unlink(missing_ok=True)  # of a run that was interrupted behind this
        with seeded_globals():  # stochastic roundings are checked with the same random bits
            sample = as_the_module(example, network)
            model, copied = device_model_of(network, sample, name=name, origin=origin)
            sizes = save_model(model, path)
            samples = held_out_samples(data, samples_to_verify(model))
            checked = verify(model, copied, as_the_module(samples, network))
    except Exception as error:
        path.unlink(missing_ok=True)
        is_said = isinstance(error, ValueError) and not isinstance(error, DamagedModelError)
        reason = str(error) if is_said else f"{type(error).__name__}: {error}"
        log.warning("no %s is written: %s", MODEL_NAME, reason)
        return {"refused": reason or type(error).__name__}
    if not checked.equal:
        log.warning(
            "%s does not compute what the network computes, do not use it: %s", MODEL_NAME, checked
        )
    report = device_report(model, sizes=sizes, verification=checked)
    refused = model.learning_refused
    return {
        "file": MODEL_NAME,
        "sha256": checksum(path),
        "verified_samples": checked.samples,
        "difference": None if checked.difference is None else str(checked.difference),
        **({} if refused is None else {"learning_refused": refused}),
        **report.to_dict(),
        "lines": [f"{name}: {value}" for name, value in report.rows()],
    }
