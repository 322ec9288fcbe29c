"""Finds what ``torch.compile`` has compiled, which cannot be observed from outside."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from torch import nn

from qspinn.plan.kind_check import check_module

# What torch.compile leaves on a function that it has wrapped.
_WRAPPED = "_torchdynamo_orig_callable"
# Their classes come with the installation, so that no method of them is compiled.
_LIBRARIES = ("torch.", "spikingjelly.", "lightning.", "pytorch_lightning.", "torchmetrics.")


def check_not_compiled(module: nn.Module, owner: str) -> None:
    """Refuses a module of which any part is compiled.

    What is compiled keeps computing as it did when it was traced: its layers are
    neither seen by a dry run nor changed by quantizers, or only by chance.

    Args:
        module: Any module.
        owner: The call or callback that asks, for the error.

    Raises:
        TypeError: Not a module.
        ValueError: A module, a ``forward`` or another method that is compiled.
    """
    check_module(module, owner)
    found = next(_compiled_parts(module), None)
    if found is None:
        return
    path, how, remedy = found
    place = "" if not path else f" (its {path})"
    raise ValueError(
        f"{owner}: {type(module).__name__} is compiled{place}: {how}, so that its layers cannot be "
        f"watched; {remedy}"
    )


def _compiled_parts(module: nn.Module) -> Iterator[tuple[str, str, str]]:
    """Path, what was done there, and what to write instead."""
    whole = "give the module as it was before, and compile for deployment only"
    if getattr(module, "_compiler_ctx", None) is not None:  # Lightning's trace of torch.compile
        yield "", "torch.compile(module)", whole
    for path, child in module.named_modules():
        if hasattr(child, "_orig_mod"):
            yield path, "torch.compile(module)", whole
        if getattr(child, "_compiled_call_impl", None) is not None:
            yield path, "module.compile()", "leave that call out"
        for name in _compiled_methods(child):
            where = f"{path}.{name}" if path else name
            yield where, f"{name} comes from torch.compile", "use the method that was compiled"


def _compiled_methods(module: nn.Module) -> Iterator[str]:
    """Names of compiled methods; a compiled function of tensors alone, such as a loss, is none."""
    own = [vars(module), *(vars(kind) for kind in type(module).__mro__ if not _is_library(kind))]
    for attributes in own:
        for name, value in attributes.items():
            original = _original(value)
            if original is None:
                continue
            if name == "forward" or name.endswith("_step") or _is_method(original):
                yield name


def _original(value: Any) -> Any:
    function = getattr(value, "__func__", value)  # a bound method, or a static one
    return vars(function).get(_WRAPPED) if inspect.isfunction(function) else None


def _is_method(function: Any) -> bool:
    if inspect.ismethod(function):
        return True
    try:
        return next(iter(inspect.signature(function).parameters), None) == "self"
    except (TypeError, ValueError):
        return False


def _is_library(kind: type) -> bool:
    return kind is object or f"{kind.__module__}.".startswith(_LIBRARIES)
