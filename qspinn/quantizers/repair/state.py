"""A network that is being repaired: what is known of it, and how it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from qspinn.plan import LayerInfo, ResolvedPlan, ResolvedTensor
from qspinn.quantizers.attach import detach, reattach
from qspinn.quantizers.class_swap import attached_quantizer
from qspinn.quantizers.folding import held_parameters
from qspinn.quantizers.repair.listening import (
    RunBatch,
    in_time,
    inputs_of,
    outputs_of,
    run_same,
)


@dataclass
class Repairing:
    """A network, and the values that its repair has found so far.

    Attributes:
        module: The float network; quantizers come and go.
        plan: With the formats so far.
        runs: Each runs ``module`` on one batch, from fresh states.
        values: Tensor path -> repaired value.
        notes: What was left as it was, and why.
    """

    module: nn.Module
    plan: ResolvedPlan
    runs: Sequence[RunBatch]
    values: dict[str, Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def layer(self, path: str) -> Any:
        """The layer at ``path``."""
        return self.module.get_submodule(path)

    def tensors(self, path: str) -> dict[str, ResolvedTensor]:
        """Name -> what the plan quantises of the layer at ``path``."""
        return self.plan.of_layer(path)

    @contextmanager
    def quantised(self, values: Mapping[str, Tensor] | None = None) -> Iterator[None]:
        """The module with its quantizers, and these values in place of those found so far."""
        found = self.values if values is None else {**self.values, **values}
        reattach(self.module, self.plan, repaired=found)
        try:
            yield
        finally:
            detach(self.module)

    def in_float(self, layer: LayerInfo) -> dict[str, Tensor]:
        """Weight and bias of a synapse layer before they are rounded, by name.

        With batch norm folded, and in the unit that its neurons count in.
        """
        counted = self.plan.unit_of(layer.path)
        unit = None if counted is None else counted[1].tensor
        held = held_parameters(self.module, layer, unit)
        return {name: value for name, (value, _) in held.items()}

    def held(self, path: str) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of a synapse layer as a device holds them so far, in float64."""
        with self.quantised():
            child = self.layer(path)
            weight, bias = attached_quantizer(child).parameters(child)
        return weight.double(), None if bias is None else bias.double()

    def inputs(self, path: str) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """Per batch: what a layer is given in the float network, and in the quantised one."""
        child = self.layer(path)
        for run in self.runs:
            with inputs_of(child) as floats:
                run_same(run, self.module)
            with self.quantised(), inputs_of(child) as given:
                run_same(run, self.module)
            if [one.shape for one in floats] != [one.shape for one in given]:
                raise ValueError(
                    f"repair: {path or 'the module'} is called {len(floats)} times in float and "
                    f"{len(given)} times quantised, or with other shapes; leave out the repair of "
                    "a network that computes something else then"
                )
            yield floats, given

    def answers(self, path: str) -> Iterator[tuple[Tensor, RunBatch] | None]:
        """Per batch: what a neuron layer sends in the float network, and how to run the batch.

        ``None`` for a layer whose calls do not make up one sequence.
        """
        node = self.layer(path)
        for run in self.runs:
            with outputs_of(node) as sent:
                run_same(run, self.module)
            wanted = in_time(node, sent)
            yield None if wanted is None else (wanted, run)

    def currents(self, path: str, run: RunBatch) -> Tensor:
        """What a neuron layer is given on a batch, ``[T, N, *]``, float64; quantizers attached."""
        node = self.layer(path)
        with inputs_of(node) as given:
            run_same(run, self.module)
        sequence = in_time(node, given)
        assert sequence is not None  # as in the float network
        return sequence.double()

    def leave(self, path: str, why: str) -> None:
        """Notes that something was left as it was."""
        self.notes.append(f"{path or 'the module'}: {why}")


def direct_taker(plan: ResolvedPlan, layer: LayerInfo) -> LayerInfo | None:
    """The neuron layer that alone takes the sums of a synapse layer, as they are; None: none."""
    neurons = [one for one in plan.inventory.layers if layer.path in one.sources]
    if len(neurons) != 1 or neurons[0].kind != "neuron":
        return None
    return neurons[0] if neurons[0].current_from == layer.path else None
