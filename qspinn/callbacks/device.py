"""From the network of a fit to its device model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lightning import LightningModule
from torch import Tensor, nn

from qspinn.callbacks.isolation import independent_copy, own_batch, preserved_globals
from qspinn.callbacks.measuring import size_of
from qspinn.export import DeviceModel, NotExportableError, device_model
from qspinn.plan import ResolvedPlan
from qspinn.plan.operations import tensors_in
from qspinn.quantizers.compiling import step_uncompiled

__all__ = ["Example", "ExampleSeeker", "device_model_of", "no_example"]


@dataclass(frozen=True, eq=False)
class Example:
    """What a network was given for one sample.

    Attributes:
        input: With a batch dimension of size 1; None where it is not known.
        entry: Path of the part of the module that was given it; empty: the module itself.
        reason: Why it is not known.
    """

    input: Tensor | None = None
    entry: str = ""
    reason: str = "the network was never run on a sample; fit first"


def device_model_of(
    module: nn.Module, example: Tensor, entry: str = "", **described: Any
) -> tuple[DeviceModel, nn.Module]:
    """The device model of a quantised module, and the copy of the module that it was built from.

    Neither the module nor any random state is changed; SpikingJelly's states are reset.

    Args:
        module: With quantizers attached.
        example: An input of one sample.
        entry: Path of the part that takes it; empty: the module itself.
        **described: See :func:`qspinn.export.device_model`.

    Raises:
        NotExportableError: The network holds something that no device model says.
        TypeError: The module cannot be copied.
    """
    with preserved_globals():
        copied: nn.Module = independent_copy(module).cpu().eval()  # type: ignore[arg-type]
        step_uncompiled(copied)
        network = copied.get_submodule(entry)
        if entry:
            copied.forward = network.__call__
        described.setdefault("name", type(network).__name__)
        return device_model(copied, example.detach().cpu(), **described), copied


class ExampleSeeker:
    """Sees what the network of a module is given when a copy of the module is run on a batch.

    Args:
        plan: Of the module's quantizers.
    """

    def __init__(self, plan: ResolvedPlan) -> None:
        self._entries = _entries(plan)
        self._seen: dict[str, list[Tensor]] = {}
        self._samples = 0

    def __call__(self, module: LightningModule, batch: Any) -> None:
        """Watches a copy that is about to be run on a batch, and discarded then."""
        self._samples = size_of(batch)
        for entry in self._entries:

            def note(child: nn.Module, args: Any, kwargs: Any, entry: str = entry) -> None:
                if entry not in self._seen:
                    self._seen[entry] = own_batch(tensors_in((args, kwargs)))

            module.get_submodule(entry).register_forward_pre_hook(note, with_kwargs=True)

    def found(self) -> Example:
        """What the outermost part that holds all layers was given, if that is one tensor."""
        if not self._samples:
            return Example(reason="the network was not run on samples that can be counted")
        for entry in self._entries:
            given = self._seen.get(entry, ())
            if len(given) == 1:
                return self.one_sample(given[0], entry, self._samples)
        return Example(
            reason="no part of the module that holds all of its layers is called with one tensor"
        )

    @staticmethod
    def one_sample(given: Tensor, entry: str, count: int) -> Example:
        """The first of so many samples, which lie along the first or the second axis."""
        axes = [axis for axis, size in enumerate(given.shape[:2]) if size == count]
        if count > 1 and len(axes) != 1:
            shape = list(given.shape)
            return Example(reason=f"which axis of {shape} counts {count} samples cannot be told")
        one = given if count == 1 else given.narrow(axes[0], 0, 1)
        return Example(one.detach().cpu().clone(), entry)


def _entries(plan: ResolvedPlan) -> list[str]:
    """Paths of the module and of its parts that hold all layers, from the outside to the inside."""
    paths = [one.path.split(".") for one in plan.inventory.layers]
    common = []
    for parts in zip(*(path[:-1] for path in paths), strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return [".".join(common[:length]) for length in range(len(common) + 1)]


def no_example(owner: str, example: Example) -> NotExportableError:
    """The error where no input is known."""
    return NotExportableError(
        f"{owner}: an input of one sample is needed to find out how the layers are connected, and "
        f"none is known ({example.reason}); write save(path, example=...)"
    )
