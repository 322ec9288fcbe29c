"""The quantised network of a finished run, made anew from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import OmegaConf
from torch import Tensor

from qspinn.app.compose.completing import complete, to_plain
from qspinn.app.examples import as_the_module, example_input, held_out_sample
from qspinn.app.folder.files import CHECKPOINTS, LAST_CHECKPOINT
from qspinn.app.folder.saved_config import read_saved_config
from qspinn.app.run.building import build_parts, load_data
from qspinn.app.run.data_fingerprint import data_state
from qspinn.app.run.quantization import plan_from_config
from qspinn.fixed_point import parse_format
from qspinn.plan import ResolvedPlan, needs_forward_pass
from qspinn.quantizers.attach import attach_quietly
from qspinn.records import RunRecord

__all__ = ["RebuildingError", "rebuilt_network", "run_sample"]


class RebuildingError(ValueError):
    """A run whose network or data cannot be had from its folder."""


def run_sample(folder: Path, record: RunRecord, number: int) -> Tensor:
    """Return a sample of the held-out data of a run, with a batch dimension of size 1.

    Args:
        folder: Of the run.
        record: Of the run.
        number: Of the sample in its validation data, or else in its training data.

    Raises:
        RebuildingError: The data have changed, or have no such sample.
    """
    with isolate_rng():
        settings = _values(folder)["data"]
        return _sample(record, settings, load_data(settings), number)


def rebuilt_network(
    folder: Path, record: RunRecord, number: int
) -> tuple[lightning.LightningModule, Tensor]:
    """Return the quantised network of a run, and a sample as :func:`run_sample` does.

    Args:
        folder: Of the run, with its configuration and its checkpoint.
        record: Of the run.
        number: Of the sample.

    Raises:
        RebuildingError: The run has no checkpoint, is not quantised, or its network learns by
            itself.
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
        if not needs_forward_pass(parts.module):
            raise RebuildingError(
                f"the network of {folder} cannot be made anew: it learns by itself, and its labels "
                "are assigned after the last checkpoint; write compare=FILE with a trace, or use "
                "qspinn.export.first_difference where the network was trained"
            )
        sample = _sample(record, values["data"], parts.data, number)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        parts.module.load_state_dict(loaded["state_dict"])
        plan = _restored(loaded)
        if plan is None:
            example = example_input(parts.data)
            plan = plan_from_config(values["quantization"]).resolve(parts.module, example)
        known = {name: parse_format(one["format"]) for name, one in record.formats.items()}
        missing = {tensor.path for tensor in plan.tensors} ^ known.keys()
        if missing:
            raise RebuildingError(
                f"the network of {folder} cannot be made anew: this version of qspinn quantises "
                f"other tensors, such as {sorted(missing)[0]}"
            )
        attach_quietly(parts.module, plan.with_formats(known))
    return parts.module.eval(), as_the_module(sample, parts.module)


def _values(folder: Path) -> dict[str, Any]:
    saved = read_saved_config(folder / "config.yaml").values()
    return to_plain(complete(OmegaConf.create(saved)))


def _sample(
    record: RunRecord,
    settings: Mapping[str, Any],
    data: lightning.LightningDataModule,
    number: int,
) -> Tensor:
    state = data_state(settings, data)
    known = record.data_fingerprint
    if known and state.fingerprint and known != state.fingerprint:
        raise RebuildingError("the data of the run have changed since")
    return held_out_sample(data, number)


def _restored(checkpoint: Mapping[str, Any]) -> ResolvedPlan | None:
    """The formats in use in training, of a checkpoint of a run that had any."""
    for name, state in checkpoint.get("callbacks", {}).items():
        if name.startswith("InTrainingQuantization") and state["resolved_plan"] is not None:
            return ResolvedPlan.from_dict(state["resolved_plan"])
    return None
