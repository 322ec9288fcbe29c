"""Compares the rebuilt networks with the equations of their authors, spike by spike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import strangers_data as data
import strangers_networks as networks
import strangers_reference as reference
import torch
from spikingjelly.activation_based import functional, neuron
from strangers_cases import ECG, GESTURE, NIR
from torch import Tensor, nn


@contextmanager
def computed_in(dtype: torch.dtype) -> Iterator[None]:
    """Modules that are built meanwhile have parameters of this type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def rebuilt(name: str, root: Path) -> nn.Module:
    """The network in torch's default type."""
    if name == "gesture":
        return networks.gesture_network(root / GESTURE)
    if name == "ecg":
        return networks.ECGNetwork(root / ECG)
    return networks.nmnist_network(root / NIR, 0.0 if name == "nmnist_zero" else None)


def samples(name: str, root: Path, every: int = 5) -> Tensor:
    """Test samples ``[T, N, *]``; of N-MNIST each ``every``-th."""
    if name == "gesture":
        return data.gestures(root).frames
    if name == "ecg":
        return data.ecg(root, "test").frames
    return data.nmnist(data.nmnist_files(root, "Test")[::every]).frames


def spikes_of(network: nn.Module, frames: Tensor) -> list[Tensor]:
    """The spikes ``[T, N, *]`` of each spiking layer, in order."""
    heard: dict[nn.Module, list[Tensor]] = {}

    def hear(node: nn.Module, _: object, output: Tensor) -> None:
        heard.setdefault(node, []).append(output)

    nodes = [one for one in network.modules() if isinstance(one, neuron.BaseNode)]
    handles = [node.register_forward_hook(hear) for node in nodes]
    functional.reset_net(network)
    with torch.no_grad():
        network(frames)
    functional.reset_net(network)
    for handle in handles:
        handle.remove()
    # A neuron in single-step mode was heard at every step.
    return [torch.stack(heard[node]) if node.step_mode == "s" else heard[node][0] for node in nodes]


def expected_spikes(name: str, root: Path, frames: Tensor) -> list[reference.Array]:
    """The same by the authors' equations."""
    x = frames.double().numpy()
    if name.startswith("nmnist"):
        return reference.nmnist_spikes(root / NIR, x, subtract=name == "nmnist_subtract")
    path = root / (ECG if name == "ecg" else GESTURE)
    held = {key: value.numpy() for key, value in networks.state_of(path).items()}
    if name == "ecg":
        return [reference.ecg_network(held, x)[0]]
    return reference.gesture_spikes(held, x)


def different_spikes(name: str, root: Path) -> dict[str, int]:
    """How many there are, and how many differ with the network in float64 and in float32."""
    frames = samples(name, root)
    expected = expected_spikes(name, root, frames)
    result = {"steps": sum(one.size for one in expected)}
    result["spikes"] = int(sum(one.sum() for one in expected))
    for dtype in (torch.float64, torch.float32):
        with computed_in(dtype):
            found = spikes_of(rebuilt(name, root), frames.to(dtype))
        pairs = zip(found, expected, strict=True)
        different = sum(np.count_nonzero(one.numpy() != other) for one, other in pairs)
        result[f"different_{str(dtype).removeprefix('torch.')}"] = int(different)
    return result
