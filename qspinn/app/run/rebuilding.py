"""The quantised network of a finished run, and its data, made anew from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import OmegaConf

from qspinn.app.compose.completing import complete, to_plain
from qspinn.app.examples import example_input
from qspinn.app.folder.files import CHECKPOINTS, LAST_CHECKPOINT
from qspinn.app.folder.saved_config import read_saved_config
from qspinn.app.run.building import Parts, build_parts, load_data
from qspinn.app.run.data_fingerprint import data_state
from qspinn.app.run.quantization import plan_from_config
from qspinn.learning import UnsupervisedLearning
from qspinn.plan import ResolvedPlan, needs_forward_pass
from qspinn.quantizers.attach import attach_quietly
from qspinn.quantizers.repair import as_repairs
from qspinn.records import RunRecord

__all__ = ["RebuildingError", "rebuilt_run", "run_data"]


class RebuildingError(ValueError):
    """A run whose network or data cannot be had from its folder."""


def run_data(folder: Path, record: RunRecord) -> lightning.LightningDataModule:
    """Return the data of a run, set up to fit.

    Args:
        folder: Of the run.
        record: Of the run.

    Raises:
        RebuildingError: The data have changed.
    """
    with isolate_rng():
        settings = _values(folder)["data"]
        data = load_data(settings)
        _check_data(record, settings, data)
    return data


def rebuilt_run(folder: Path, record: RunRecord) -> Parts:
    """Return the data of a run, and its module with quantizers attached, to be evaluated.

    Readouts of a module that learns by itself are fitted as after its training, to the quantised
    network and on the same images.

    Args:
        folder: Of the run, with its configuration and its checkpoint.
        record: Of the run.

    Raises:
        RebuildingError: The run has no checkpoint or is not quantised, or the data have changed.
        ConfigurationError: The configuration makes nothing any more.
    """
    path = folder / CHECKPOINTS / LAST_CHECKPOINT
    if not record.formats or not path.is_file():
        why = f"there is no {path}" if record.formats else "it is not quantised"
        raise RebuildingError(f"the network of {folder} cannot be made anew: {why}")
    values = _values(folder)
    with isolate_rng():
        lightning.seed_everything(record.seed, verbose=False)
        parts = build_parts(values)
        _check_data(record, values["data"], parts.data)
        module = parts.module
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        module.on_load_checkpoint(loaded)
        module.load_state_dict(loaded["state_dict"])
        plan = _restored(loaded)
        if plan is None:
            example = example_input(parts.data) if needs_forward_pass(module) else None
            plan = plan_from_config(values["quantization"]).resolve(module, example)
        try:
            plan = plan.with_recorded(record.formats)
        except ValueError as error:
            raise RebuildingError(
                f"the network of {folder} cannot be made anew by this version of qspinn: {error}"
            ) from error
        _check_not_repaired(folder, values["quantization"])
        attach_quietly(module, plan)
        module.eval()
        if isinstance(module, UnsupervisedLearning):
            module.fit_readouts()
    return parts


def _check_not_repaired(folder: Path, quantization: Mapping[str, Any]) -> None:
    """What was repaired is in the device model, and nowhere else in the folder of a run."""
    repair = quantization.get("repair", "none")
    if as_repairs(repair, f"{folder}: quantization.repair"):
        raise RebuildingError(
            f"the network of {folder} cannot be made anew: it was repaired after training "
            f"(quantization.repair={repair}), on batches that are not kept"
        )


def _values(folder: Path) -> dict[str, Any]:
    saved = read_saved_config(folder / "config.yaml").values()
    return to_plain(complete(OmegaConf.create(saved)))


def _check_data(
    record: RunRecord, settings: Mapping[str, Any], data: lightning.LightningDataModule
) -> None:
    state = data_state(settings, data)
    known = record.data_fingerprint
    if known and state.fingerprint and known != state.fingerprint:
        raise RebuildingError("the data of the run have changed since")


def _restored(checkpoint: Mapping[str, Any]) -> ResolvedPlan | None:
    """The formats in use in training, of a checkpoint of a run that had any."""
    for name, state in checkpoint.get("callbacks", {}).items():
        if name.startswith("InTrainingQuantization") and state["resolved_plan"] is not None:
            return ResolvedPlan.from_dict(state["resolved_plan"])
    return None
