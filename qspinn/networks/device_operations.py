"""What a device computes of networks here, put together: by the protocol of `qspinn.plan`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qspinn.fixed_point import FixedPointFormat, Format, to_integers
from qspinn.networks.readouts import MaximumResponse, Proportion, Readout, Ridge

__all__ = ["prefixed", "with_readout"]

Stored = dict[str, tuple[Tensor, Format]]
"""Name of a tensor -> its codes and its format."""


def prefixed(said: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """What a child of a module computes, by the names that the module knows it by."""
    tensors = said["tensors"]

    def renamed(key: str, value: Any) -> Any:
        if key == "takes":
            pairs = [(one, 0) if isinstance(one, str) else one for one in value]
            return [(f"{prefix}{name}", delay) for name, delay in pairs]
        is_name = key in ("name", "path") or (isinstance(value, str) and value in tensors)
        return f"{prefix}{value}" if is_name and key != "what" else value

    return {
        **said,
        "tensors": {f"{prefix}{name}": one for name, one in tensors.items()},
        "operations": [
            {key: renamed(key, value) for key, value in one.items()} for one in said["operations"]
        ],
        "answers": f"{prefix}{said['answers']}",
    }


def with_readout(said: Mapping[str, Any], readout: Readout, path: str) -> dict[str, Any]:
    """The same network, whose answers, spike counts of neurons, are read out in the end.

    Args:
        said: What the network computes.
        readout: Fitted, in fixed point.
        path: Of the readout.
    """
    held = _codes(readout)
    operation: dict[str, Any] = {
        "name": path,
        "takes": [said["answers"]],
        "shape": (readout.num_classes,),
        "is_final": True,
    }
    divisors: tuple[int, ...] = ()
    if isinstance(readout, MaximumResponse):
        operation |= {"what": "labelsums", "labels": f"{path}.labels"}
        members = torch.bincount(held["labels"][0], minlength=readout.num_classes)
        divisors = tuple(members[: readout.num_classes].clamp_min(1).tolist())
    elif isinstance(readout, Proportion):
        operation |= {"what": "synapse", "weight": f"{path}.shares"}
    else:
        assert isinstance(readout, Ridge)
        operation |= {"what": "synapse", "weight": f"{path}.weight", "bias": f"{path}.bias"}
    return {
        **said,
        "tensors": {**said["tensors"], **{f"{path}.{name}": one for name, one in held.items()}},
        "operations": [*said["operations"], operation],
        "answers": path,
        "divisors": divisors,
    }


def _codes(readout: Readout) -> Stored:
    """What a device stores of a readout."""
    if isinstance(readout, MaximumResponse):
        labels, classes = readout.labels, readout.num_classes
        fmt = FixedPointFormat(math.ceil(math.log2(classes + 1)), 0, signed=False)
        return {"labels": (labels.where(labels >= 0, classes), fmt)}
    found: Stored = {}
    for name in ("shares",) if isinstance(readout, Proportion) else ("weight", "bias"):
        held = readout._quantizers[name].format
        found[name] = (to_integers(readout.held(name), held), held)
    return found
