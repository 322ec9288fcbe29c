"""A quantised module in a file: parameters, plan, formats, and what they were made for."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from spikingjelly.activation_based import base
from torch import Tensor, nn

from qspinn.atomic import atomic_file
from qspinn.plan import ResolvedPlan
from qspinn.plan.expected import check_module
from qspinn.plan.float_class import float_class, shown
from qspinn.quantizers.attach import attach, check_detached, plan_of
from qspinn.quantizers.repaired import repaired_values

KIND = "qspinn quantised module"
# Version 2 holds what was repaired; a file without anything repaired is of version 1.
VERSION = 2

# Of a layer, what does not change what it computes.
_IRRELEVANT = ("training", "backend", "detach_reset", "store_v_seq", "inplace")


def save_quantized(module: nn.Module, path: str | Path) -> None:
    """Writes a quantised module into one file, for :func:`load_quantized`.

    The file holds the parameters in float, as they are underneath the quantizers, and
    the plan with its formats, and what was repaired; as plain types and tensors. It is
    replaced as a whole or not at all.

    Args:
        module: With quantizers attached.
        path: The file; folders are made.

    Raises:
        TypeError: Not a module.
        ValueError: A module without quantizers.
    """
    plan, repaired = plan_of(module), repaired_values(module)
    content = {
        "kind": KIND,
        "version": VERSION if repaired else 1,
        "plan": plan.to_dict(),
        "constants": _constants_of(module),
        "state": dict(module.state_dict()),
        **({"repaired": repaired} if repaired else {}),
    }
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)


def load_quantized(module: nn.Module, path: str | Path) -> nn.Module:
    """Makes ``module`` the quantised module that :func:`save_quantized` wrote.

    Args:
        module: Built as the one that was quantised, without quantizers; its
            parameters are replaced.
        path: The file.

    Returns:
        ``module`` itself, with quantizers attached.

    Raises:
        TypeError: Not a module.
        ValueError: A file of something else, a damaged one, or one that does not fit
            the module; the error names the first difference.
    """
    check_module(module, "load_quantized")
    check_detached(module, "load_quantized")
    content = _read(Path(path))
    plan = ResolvedPlan.from_dict(content["plan"])
    difference = (
        _layer_difference(module, plan)
        or _state_difference(module, content["state"])
        or _constant_difference(module, content["constants"])
    )
    if difference is not None:
        raise ValueError(f"{path}: does not fit this {type(module).__name__}: {difference}")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.load_state_dict(content["state"])
    try:
        return attach(module, plan, repaired=content.get("repaired"))
    except Exception:
        module.load_state_dict(before)
        raise


def _read(path: Path) -> dict[str, Any]:
    """The content of a file, every byte of it checked: torch's own reader checks none."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: is no file of save_quantized, or is cut off: {error}") from None
    if damaged is not None:
        raise ValueError(f"{path}: is damaged (in its part {damaged}); save it anew")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path}: is no file of save_quantized: {error}") from None
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise ValueError(
            f"{path}: is no file of save_quantized (a checkpoint of Lightning?); load those with "
            "load_from_checkpoint or ckpt_path="
        )
    if content["version"] not in range(1, VERSION + 1):
        raise ValueError(
            f"{path}: has version {content['version']}, but this qspinn reads versions 1 to "
            f"{VERSION}; save it anew"
        )
    return content


def _layer_difference(module: nn.Module, plan: ResolvedPlan) -> str | None:
    children = dict(module.named_modules())
    for layer in plan.inventory.layers:
        child = children.get(layer.path)
        if child is None:
            return f"it has no layer {layer.path!r}"
        if float_class(child).__name__ != layer.type_name:
            return f"{shown(layer.path, child)} was a {layer.type_name}"
    return None


def _state_difference(module: nn.Module, state: dict[str, Tensor]) -> str | None:
    own = module.state_dict()
    for name, value in state.items():
        if name not in own:
            return f"it has no {name}, which the file has"
        if own[name].shape != value.shape:
            return f"{name} has the shape {tuple(own[name].shape)}, not {tuple(value.shape)}"
    missing = next((name for name in own if name not in state), None)
    return None if missing is None else f"the file has no {missing}"


def _constant_difference(module: nn.Module, saved: dict[str, dict[str, Any]]) -> str | None:
    """Such as another ``tau``, or another stride: with it, the network is another one."""
    for path, constants in _constants_of(module).items():
        then = saved.get(path, {})
        for name in constants.keys() & then.keys():
            now, before = constants[name], then[name]
            if not _same(now, before):
                return f"{path or 'the module'}: {name} is {now}, not {before}"
    return None


def _constants_of(module: nn.Module) -> dict[str, dict[str, Any]]:
    """Layer path -> the plain numbers and texts that its class computes with."""
    found = {}
    for path, child in module.named_modules():
        kind = float_class(child)
        package = kind.__module__.partition(".")[0]
        if package in ("torch", "spikingjelly") or isinstance(child, base.MemoryModule):
            constants = {name: value for name, value in vars(child).items() if _is_constant(value)}
            kept = {
                name: value.detach().cpu() if isinstance(value, Tensor) else value
                for name, value in constants.items()
                if not name.startswith("_") and name not in _IRRELEVANT
            }
            if kept:
                found[path] = kept
    return found


def _is_constant(value: object) -> bool:
    if isinstance(value, tuple):
        return all(isinstance(one, int | float) for one in value)
    return value is None or isinstance(value, bool | int | float | str | Tensor)


def _same(now: Any, before: Any) -> bool:
    if isinstance(now, Tensor) and isinstance(before, Tensor):
        return now.shape == before.shape and torch.equal(now.detach().cpu(), before)
    return type(now) is type(before) and bool(now == before)
