"""The precisions of a device model in the notation of hls4ml.

hls4ml writes ``ap_fixed<W,I>`` as AMD's tools do: W bits in all, of which I stand before the binary
point, the sign included. A signed ``Qi.f`` has ``I = i + 1``, an unsigned ``UQi.f`` is
``ap_ufixed<i + f, i>``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from qspinn.atomic import write_bytes
from qspinn.export.lowering import program_of
from qspinn.export.model import DeviceModel, Input, Neuron, NotExportableError, Round, Synapse
from qspinn.export.program import Instruction
from qspinn.fixed_point import FixedPointFormat, Format, PerChannelFormat

__all__ = ["ap_fixed", "hls4ml_config", "write_hls4ml"]

CONFIG_NAME = "hls4ml_config.json"
_QUANTIZATIONS = {
    "truncate": "TRN",
    "nearest": "RND",
    "nearest_away": "RND_INF",
    "nearest_even": "RND_CONV",
    "toward_zero": "TRN_ZERO",
}
_OVERFLOWS = {"saturate": "SAT", "wrap": "WRAP"}


def ap_fixed(fmt: Format, rounding: str | None = None, overflow: str = "saturate") -> str:
    """A format in the notation of hls4ml.

    Args:
        fmt: One format; of one per channel, the shortest that holds all of their numbers. Signs
            take 2 bits: no type of 1 bit is -1 and +1.
        rounding: How values get there; None for stored values, which do not change.
        overflow: ``saturate`` or ``wrap``.

    Raises:
        NotExportableError: Stochastic rounding, which hardware made by hls4ml does not have.
    """
    formats = fmt.formats if isinstance(fmt, PerChannelFormat) else (fmt,)
    integer = max(one.integer_bits for one in formats) + int(fmt.is_sign)
    fraction = max(one.fraction_bits for one in formats)
    fmt = FixedPointFormat(integer, fraction, fmt.signed)
    before = fmt.integer_bits + int(fmt.signed)
    name = "ap_fixed" if fmt.signed else "ap_ufixed"
    if rounding is None:
        return f"{name}<{fmt.word_length},{before}>"
    if rounding not in _QUANTIZATIONS:
        raise NotExportableError(
            f"rounding={rounding!r}: ap_fixed has no such rounding; write one of "
            f"{', '.join(_QUANTIZATIONS)}"
        )
    modes = f"AP_{_QUANTIZATIONS[rounding]},AP_{_OVERFLOWS[overflow]}"
    return f"{name}<{fmt.word_length},{before},{modes}>"


def hls4ml_config(model: DeviceModel) -> dict[str, Any]:
    """The part of an hls4ml configuration that says how long words are.

    Returns:
        ``{"LayerName": {layer: {"Precision": {tensor: type}}}}``, with the names that hls4ml gives
        the layers of a PyTorch module. Sums are as long as the weights of the model can need.

    Raises:
        NotExportableError: See :func:`ap_fixed`.
    """
    layers: dict[str, dict[str, Any]] = {}
    for one in program_of(model).instructions:
        found = _precisions(model, one)
        if found:
            path = one.operation.path or "input"
            layers.setdefault(path.replace(".", "_"), {}).setdefault("Precision", {}).update(found)
    return {"LayerName": layers}


def _precisions(model: DeviceModel, one: Instruction) -> dict[str, str]:
    what = one.what
    if isinstance(what, Input):
        return {"result": ap_fixed(what.format, what.rounding, what.overflow)}
    if isinstance(what, Round):
        return {"input": ap_fixed(what.format, what.rounding, what.overflow)}
    if isinstance(what, Synapse):
        found = {"weight": ap_fixed(model.tensors[what.weight].format)}
        if what.bias is not None:
            found["bias"] = ap_fixed(model.tensors[what.bias].format)
        exact = f"ap_fixed<{one.word_length},{one.word_length - one.fraction_bits}>"
        return found | {"accum": exact, "result": exact}
    if isinstance(what, Neuron):
        found = {"membrane": ap_fixed(what.state, what.rounding, what.overflow)}
        for role, name in (("threshold", what.threshold), ("decay", what.decay)):
            if name is not None:
                found[role] = ap_fixed(model.tensors[name].format)
        return found | {
            "result": f"ap_ufixed<{max(what.most, 1).bit_length()},"
            + (f"{max(what.most, 1).bit_length()}>")
        }
    return {}


def write_hls4ml(model: DeviceModel, folder: str | os.PathLike[str]) -> Path:
    """Writes ``hls4ml_config.json``; hls4ml takes the dictionary in it as ``hls_config``.

    Returns:
        The path of what was written.

    Raises:
        NotExportableError: See :func:`ap_fixed`.
    """
    path = Path(folder) / CONFIG_NAME
    write_bytes((json.dumps(hls4ml_config(model), indent=2) + "\n").encode(), path)
    return path
