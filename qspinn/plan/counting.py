"""Counts the operations of a network on some batches, by hooks that are removed afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from qspinn.plan.activity import (
    Activity,
    Connection,
    StateUpdates,
    WorkReport,
    WorkUnknownError,
    merged,
    merged_updates,
)
from qspinn.plan.declared import layers_of
from qspinn.plan.inventory import Inventory, LayerInfo
from qspinn.plan.neuron_info import is_recurrent
from qspinn.plan.neurons import evaluation_mode, reset_states
from qspinn.plan.preserving import preserved_attributes
from qspinn.plan.resolved import ResolvedPlan
from qspinn.plan.roles import STATE_ROLES
from qspinn.plan.synapse_calls import (
    Call,
    SeesProducts,
    first_tensor,
    is_code_of,
    is_multi_step,
    norm_call,
    synapse_call,
)
from qspinn.plan.synapses import is_foldable

__all__ = ["check_countable", "count_activity"]


def count_activity(
    module: nn.Module,
    inventory: Inventory,
    plan: ResolvedPlan | None,
    runs: Iterable[Callable[[], object]],
) -> Activity:
    """What a network computes.

    Args:
        module: With its quantizers attached, if it has any. Attributes, buffers and training flags
            are afterwards what they were, and SpikingJelly's states are reset.
        inventory: Of the module.
        plan: Its plan; ``None`` for float32.
        runs: Each does one forward pass of the module on one batch.

    Raises:
        WorkUnknownError: Something in the network computes in a way that cannot be counted.
    """
    check_countable(module, inventory)
    batches = []
    for run in runs:
        batch = _Batch(module, inventory, plan)
        with ExitStack() as stack:
            stack.enter_context(preserved_attributes(module))
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(evaluation_mode(module))
            stack.enter_context(batch.watching())
            run()
        batch.finish()
        batches.append(batch)
    samples = sum(batch.samples for batch in batches)
    if not samples:
        raise WorkUnknownError("no sample was at hand to count the operations of the network on")
    passes = sum(batch.samples * batch.steps for batch in batches)
    steps = passes / samples
    return Activity(
        samples,
        int(steps) if steps == int(steps) else float(steps),
        merged(one for batch in batches for one in batch.connections),
        merged_updates(one for batch in batches for one in batch.states),
        tuple(dict.fromkeys(note for batch in batches for note in batch.notes)),
    )


def check_countable(module: nn.Module, inventory: Inventory) -> None:
    """Refuses a network with a module that declares its tensors and does not report its work.

    Raises:
        WorkUnknownError: There is one; the message says what to write.
    """
    for layer in inventory.layers:
        works = any(info.for_state or info.role in ("weight", "bias") for info in layer.tensors)
        if layer.kind == "declared" and works and not _can_report(module.get_submodule(layer.path)):
            raise WorkUnknownError(
                f"{_named(layer)} declares its tensors but has no report_work(), as in "
                "qspinn.plan.ReportsWork, which would say how much it computes with them"
            )


@dataclass
class _Batch:
    """What was seen on one batch.

    Attributes:
        samples: How many there were; 0 until :meth:`finish`.
        steps: For how many time steps each was shown.
    """

    module: nn.Module
    inventory: Inventory
    plan: ResolvedPlan | None
    samples: int = 0
    steps: Fraction = Fraction(0)
    connections: list[Connection] = field(default_factory=list)
    states: list[StateUpdates] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _calls: list[Call] = field(default_factory=list)
    # Neuron layer -> samples, and time steps.
    _neurons: dict[str, tuple[int, int]] = field(default_factory=dict)
    _reports: dict[str, WorkReport] = field(default_factory=dict)
    _inside: list[bool] = field(default_factory=list)
    _unknown: str | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watches the calls of all layers."""
        reset_states(self.module)
        layers = {layer.path: layer for layer in self.inventory.layers}
        handles: list[Any] = []
        reporting: list[Any] = []
        try:
            for path, child in layers_of(self.module):
                layer = layers.get(path)
                if layer is not None and layer.kind == "declared":
                    reporting += self._ask(layer, child)
                handles += self._hooks(layer, child)
            with SeesProducts(self.see_product):
                yield
        finally:
            for handle in handles:
                handle.remove()
            for child in reporting:
                child.report_work(None)
            reset_states(self.module)

    def unknown(self, why: str) -> None:
        """Notes that something was seen that cannot be counted."""
        self._unknown = self._unknown or why

    def finish(self) -> None:
        """Brings all counts to samples and time steps."""
        if self._unknown is not None:
            raise WorkUnknownError(self._unknown)
        self._find_size()
        for path, (samples, steps) in self._neurons.items():
            self._add_neuron(self.inventory.layer(path), samples * steps)
        for path, report in self._reports.items():
            self.connections += report.synapse_calls
            for (state, additions, leak), passes in report.state_passes.items():
                self._add_state(path, state, passes, additions, leak)
        for layer in self.inventory.layers:
            if layer.kind == "other" or (
                layer.kind == "neuron" and layer.path not in self._neurons
            ):
                self._add_kept(layer)
        self._add_synapses()

    def _ask(self, layer: LayerInfo, child: nn.Module) -> list[nn.Module]:
        """Lets a module that declares its tensors report, where it can."""
        if not _can_report(child):
            return []
        self._reports[layer.path] = WorkReport(layer.path)
        child.report_work(self._reports[layer.path])  # type: ignore[operator]
        return [child]

    def _hooks(self, layer: LayerInfo | None, child: nn.Module) -> Iterator[Any]:
        known = layer is not None and layer.kind in ("synapse", "neuron", "declared")
        known = known or any("torchmetrics" in kind.__module__ for kind in type(child).__mro__)

        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            self._inside.append(known)
            if layer is not None and layer.kind == "neuron" and not is_recurrent(module):
                self._see_neuron(layer, module, first_tensor(args, kwargs))

        def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            self._inside.pop()
            if layer is not None and layer.kind == "synapse":
                self._see_synapse(layer, module, first_tensor(args, kwargs), output)
            elif layer is not None and layer.kind == "other":
                self._see_other(layer, module, first_tensor(args, kwargs))

        yield child.register_forward_pre_hook(before, with_kwargs=True)
        yield child.register_forward_hook(after, with_kwargs=True)

    def see_product(self, name: str) -> None:
        """Notes a product of tensors that is not one of a layer that is known."""
        if not self._inside or any(self._inside):
            return
        reporting = {id(self.module.get_submodule(path)) for path in self._reports}
        if not is_code_of(reporting):  # what it computes outside of its forward is reported, too
            self.unknown(
                f"it multiplies tensors outside of linear and convolutional layers ({name})"
            )

    def _see_neuron(self, layer: LayerInfo, module: nn.Module, x: Tensor) -> None:
        state = next((info for info in layer.tensors if info.role in STATE_ROLES), None)
        if state is None or state.shape is None or layer.charge is None:
            self.unknown(f"{_named(layer)}: the number of its neurons is not known")
            return
        steps = len(x) if is_multi_step(module) else 1
        samples, rest = divmod(x.numel(), max(1, steps * state.count))
        before = self._neurons.get(layer.path)
        if rest or (before is not None and before[0] != samples):
            self.unknown(f"{_named(layer)}: gets inputs of several sizes in one batch")
            return
        self._neurons[layer.path] = (samples, steps + (0 if before is None else before[1]))

    def _see_synapse(self, layer: LayerInfo, module: nn.Module, x: Tensor, output: Tensor) -> None:
        held = None if self.plan is None else self.plan.of_layer(layer.path).get("input")
        self._calls.append(synapse_call(layer, module, held, x, output))

    def _see_other(self, layer: LayerInfo, module: nn.Module, x: Tensor | None) -> None:
        if is_foldable(module) and x is not None:
            self._calls.append(norm_call(layer, module, x))
        elif module._parameters or any(
            info.for_state and info.word_length is None for info in layer.tensors
        ):
            self.unknown(f"{_named(layer)} {layer.reason or 'computes in a way that is not known'}")

    def _find_size(self) -> None:
        """How many samples and time steps there were: what most layers say."""
        samples = [samples for samples, _ in self._neurons.values()]
        steps = [Fraction(steps) for _, steps in self._neurons.values()]
        for report in self._reports.values():
            if report.samples:
                samples.append(report.samples)
                steps += [Fraction(one, report.samples) for one in report.state_passes.values()]
        if not samples or not steps:
            raise WorkUnknownError(
                "no neuron was called, so that the number of time steps is not known"
            )
        if len(set(samples)) > 1:
            raise WorkUnknownError(
                f"its layers were shown different numbers of samples: {sorted(set(samples))}"
            )
        self.samples = samples[0]
        self.steps = Counter(steps).most_common(1)[0][0]

    def _add_neuron(self, layer: LayerInfo, passes: int) -> None:
        assert layer.charge is not None
        additions, leak = layer.model.additions + layer.reset_word, None
        if not layer.model.is_exact:
            self.notes.append(f"counted as a leaky integrator: {_named(layer)}")
        fires = any(info.role == "threshold" for info in layer.tensors)
        for info in layer.tensors:
            if info.role in STATE_ROLES:
                if layer.model.leaks:
                    leak = "decay" if layer.model.is_exact else info.name
                self._add_state(layer.path, info.name, passes, additions + fires, leak)

    def _add_state(
        self, path: str, name: str, passes: int, additions: int, leak: str | None
    ) -> None:
        infos = {info.name: info for info in self.inventory.layer(path).tensors}
        if name not in infos:
            raise WorkUnknownError(f"{path or 'the module itself'} reports updates of {name!r}, "
                                   "which it does not declare")  # fmt: skip
        updates = infos[name].count * passes
        self.states.append(StateUpdates(path, name, updates, passes, additions, leak))

    def _add_kept(self, layer: LayerInfo) -> None:
        """States that are only kept for the next step, such as what a container feeds back."""
        for info in layer.tensors:
            kept = info.for_state and (layer.kind == "neuron" or info.word_length is not None)
            if kept and info.shape is not None:
                passes = int(self.samples * self.steps)
                self._add_state(layer.path, info.name, passes, 0, None)

    def _add_synapses(self) -> None:
        whole = int(self.steps)
        applied: Counter[str] = Counter()
        for call in self._calls:
            applied[call.path] += call.steps(self.samples, whole)
        for call in self._calls:
            steps = applied[call.path]
            # A layer that is called twice in a step works twice in it.
            once = min(Fraction(steps), self.steps)
            share = Fraction(call.steps(self.samples, whole), steps) * once
            self.connections.append(
                Connection(
                    layer=call.path,
                    weight=call.weight,
                    factor=call.factor,
                    recurrent=False,
                    operations=call.operations,
                    dense=call.dense,
                    inputs=call.inputs,
                    sums=call.sums,
                    passes=self.samples * share,
                )
            )


def _named(layer: LayerInfo) -> str:
    return f"{layer.path or 'the module itself'} ({layer.type_name})"


def _can_report(module: nn.Module) -> bool:
    return callable(getattr(module, "report_work", None))
