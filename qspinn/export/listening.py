"""What a torch network with quantizers computes, step by step, in the codes of a device model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

from qspinn.export.model import DeviceModel, Neuron, Synapse
from qspinn.export.tracing import names_of
from qspinn.plan import reset_states
from qspinn.plan.declared_operations import ReportsKeys
from qspinn.plan.neurons import evaluation_mode
from qspinn.plan.operations import tensors_in
from qspinn.quantizers.class_swap import attached_quantizer
from qspinn.quantizers.compiling import step_uncompiled
from qspinn.quantizers.copying import independent_module
from qspinn.quantizers.neuron_quantizer import NeuronQuantizer
from qspinn.quantizers.synapse import SynapseQuantizer

__all__ = ["Heard", "Listener"]

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Heard:
    """What a network computed for one sample.

    Attributes:
        values: Name of a value of the device model -> ``[steps, values]``, real numbers.
        output: What the network returned, flat.
        keys: Layer -> key of the random bits of its roundings.
        input_key: Key of those of the network's own input.
    """

    values: Mapping[str, Values]
    output: Values
    keys: Mapping[str, int]
    input_key: int | None


@dataclass(eq=False)
class _Calls:
    outputs: list[Tensor] = field(default_factory=list)
    potentials: list[Tensor] = field(default_factory=list)

    def __call__(self, child: Any, args: Any, output: object) -> None:
        made = tensors_in(output)
        if made:
            self.outputs.append(made[0].detach().clone())
        state = getattr(child, "v", None)
        if isinstance(state, Tensor):
            many = getattr(child, "step_mode", "s") == "m"
            held = getattr(child, "v_seq", None) if many else state
            if isinstance(held, Tensor):
                self.potentials.append(held.detach().clone())


class Listener:
    """Runs a copy of a network, one sample at a time, and notes what its layers compute.

    The network itself is not run; its SpikingJelly states are reset.

    Args:
        model: Its device model.
        module: The network, with quantizers attached.
    """

    def __init__(self, model: DeviceModel, module: nn.Module) -> None:
        self.model = model
        self.module = independent_module(module).cpu()
        step_uncompiled(self.module)

    def hear(self, sample: Tensor, inside: bool = True) -> Heard:
        """What is computed for one sample.

        Args:
            sample: With a batch dimension of size 1.
            inside: Note what layers compute, too.
        """
        calls: dict[str, _Calls] = {}
        reset_states(self.module)
        devices: list[int] = []
        with torch.random.fork_rng(devices), evaluation_mode(self.module):
            with self._hooked(calls if inside else None):
                result = self.module(sample)
            keys, input_key = self._keys()
        reset_states(self.module)
        made = tensors_in(result)
        output = np.concatenate([one.detach().double().numpy().reshape(-1) for one in made])
        return Heard(self._values(calls), output, keys, input_key)

    @contextmanager
    def _hooked(self, calls: dict[str, _Calls] | None) -> Iterator[None]:
        handles = []
        paths = {one.path for one in self.model.operations if _is_layer(one.what)}
        modules = dict(self.module.named_modules())
        for path in paths if calls is not None else ():
            assert calls is not None
            if path not in modules or isinstance(modules[path], neuron.NonSpikingBaseNode):
                continue  # computed by no module, or what it returns are not its potentials
            child: Any = modules[path]
            calls[path] = _Calls()
            handles.append(child.register_forward_hook(calls[path]))
            if hasattr(child, "store_v_seq"):
                child.store_v_seq = True
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keys(self) -> tuple[dict[str, int], int | None]:
        """Of the sequence that was run last."""
        keys: dict[str, int] = {}
        input_key = None
        first = {
            one.path
            for one in self.model.operations
            if isinstance(one.what, Synapse) and one.operands[0].source == 0
        }
        for path, child in self.module.named_modules():
            quantizer = attached_quantizer(child)
            drawing = []
            if isinstance(quantizer, NeuronQuantizer):
                drawing = list(quantizer.states.values())
            elif isinstance(quantizer, SynapseQuantizer) and quantizer.input is not None:
                drawing = [quantizer.input]
            for key in (one.key for one in drawing):
                if key is None:
                    continue
                keys[path] = key
                input_key = key if path in first and input_key is None else input_key
        if isinstance(self.module, ReportsKeys):
            keys |= self.module.device_keys()
            input_key = keys.get(self.model.operations[0].path)
        return keys, input_key

    def _values(self, calls: Mapping[str, _Calls]) -> dict[str, Values]:
        names = names_of(self.model)
        found: dict[str, Values] = {}
        for path, heard in calls.items():
            sites = [
                number
                for number, one in enumerate(self.model.operations)
                if one.path == path and _is_layer(one.what)
            ]
            sizes = [self.model.operations[number].size for number in sites]
            labels = [names[number] for number in sites]
            found |= _by_site(heard.outputs, labels, sizes)
            if len(sites) == 1:
                found |= _by_site(heard.potentials, [f"{labels[0]}.v"], sizes)
        return found


def _is_layer(what: object) -> bool:
    return isinstance(what, Synapse | Neuron)


def _by_site(calls: list[Tensor], names: list[str], sizes: list[int]) -> dict[str, Values]:
    """What each use of a layer computed: ``[steps, values]``.

    A layer is called once for all time steps, or once for each, and each time once for each use.
    """
    uses = len(names)
    if not calls or len(calls) % uses:
        return {}
    found = {}
    for use, (name, size) in enumerate(zip(names, sizes, strict=True)):
        flat = np.concatenate([one.double().numpy().reshape(-1) for one in calls[use::uses]])
        if size and len(flat) % size == 0:
            found[name] = flat.reshape(-1, size)
    return found
