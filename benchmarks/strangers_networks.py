"""Three trained spiking networks of other people, rebuilt of SpikingJelly's and torch's own layers.

No class of qspinn takes part, and no neuron is subclassed: what is quantised is what a user would
build. Where a network's equation is not SpikingJelly's, the two are made equal by a change of
variables (see :func:`leaky_neuron` and :class:`ECGNetwork`); `strangers_reference.py` computes the
equations as their authors wrote them. Everything is in torch's default type.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import torch
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, nn

ECG_THRESHOLD = 0.1


def nmnist_network(graph: Path, v_reset: float | None) -> nn.Sequential:
    """The N-MNIST network of a NIR file: input ``[T, N, 2, 34, 34]``, spikes ``[T, N, 10]``.

    A sum pool of 2x2 is an average pool and a factor of 4, which goes into the next layer's weight:
    both are exact, and the averages lie on a grid of quarters.

    Args:
        graph: ``cnn_sinabs.nir``.
        v_reset: Potential after a spike; ``None``: the threshold is subtracted.
    """
    with h5py.File(graph) as file:
        weights = {}
        for name, node in file["node/nodes"].items():
            if "weight" in node:
                weights[int(name)] = torch.from_numpy(node["weight"][()])
                if node["bias"][()].any():
                    raise ValueError(f"{graph}: node {name} has a bias; none was expected")
            elif "v_threshold" in node and (node["v_threshold"][()] != 1.0).any():
                raise ValueError(f"{graph}: node {name} has a threshold other than 1")

    def fire() -> nn.Module:
        return neuron.IFNode(v_threshold=1.0, v_reset=v_reset, step_mode="m")

    def pool() -> nn.Module:
        return layer.AvgPool2d(2, step_mode="m")

    return nn.Sequential(
        *(_convolution(weights[0], stride=2, padding=1), fire()),
        *(_convolution(weights[2], padding=1), fire(), pool()),
        *(_convolution(4.0 * weights[5], padding=1), fire(), pool()),
        layer.Flatten(step_mode="m"),
        *(_linear(4.0 * weights[9]), fire()),
        *(_linear(weights[11]), fire()),
    ).eval()


def gesture_network(state: Path) -> nn.Sequential:
    """The DVS128 Gesture network: input ``[T, N, 2, 32, 32]``, spikes ``[T, N, 11]``.

    Args:
        state: ``dvs_gesture_snn``, a state dictionary.
    """
    held = state_of(state)
    layers: list[nn.Module] = []
    for number in (1, 2, 3, 4):
        name = "linear1" if number == 4 else f"conv{number}"
        beta, threshold = (float(held[f"lif{number}.{key}"]) for key in ("beta", "threshold"))
        node, extra = leaky_neuron(beta, threshold)
        weight, bias = held[f"{name}.weight"], held[f"{name}.bias"] + extra
        if number < 4:
            pool = layer.MaxPool2d(2, step_mode="m")
            layers += [_convolution(weight, bias, padding=2), pool, node]
        else:
            layers += [layer.Flatten(step_mode="m"), _linear(weight, bias), node]
    return nn.Sequential(*layers).eval()


def leaky_neuron(beta: float, threshold: float) -> tuple[neuron.LIFNode, float]:
    """A neuron that subtracts its threshold after the leak, as one that subtracts before it.

    The author's ``m[t] = beta m[t-1] + x[t] - threshold s[t-1]`` fires where ``m > threshold``.
    SpikingJelly's ``h[t] = beta (h[t-1] - theta s[t-1]) + x'[t]`` fires where ``h >= theta``. With
    ``theta = threshold / beta`` and ``h = m + theta - threshold`` they are the same, if the current
    has ``(1 - beta) (theta - threshold)`` more and ``h`` begins at ``theta - threshold``. (That a
    potential equals the threshold does not occur.)

    Returns:
        The neuron, and what the bias before it must have more.
    """
    theta = threshold / beta
    node = neuron.LIFNode(
        tau=1.0 / (1.0 - beta),
        decay_input=False,
        v_threshold=theta,
        v_reset=None,
        step_mode="m",
    )
    node.set_reset_value("v", theta - threshold)
    node.reset()
    return node, (1.0 - beta) * (theta - threshold)


class ECGNetwork(nn.Module):
    """36 recurrent neurons and 6 leaky outputs: ``[T, N, 4]`` to potentials ``[T, N, 6]``.

    The author's ``m = a m + (1 - a) i - 0.1 s`` (``i``: all currents; ``s``: the spikes of the step
    before; ``a`` differs per neuron) fires where ``m > 0.1``. In units of ``0.1 / a`` per neuron,
    and counted from ``0.1 - 0.1 / a``, it is SpikingJelly's neuron with input decay, the threshold
    1 for all, and the leak ``1 - a``: weights and biases into a neuron are multiplied by
    ``a / 0.1``, and its bias has ``1 - a`` more. Where the potential begins is not given by the
    author (he draws it at random); here it begins at 0 in these units.

    Args:
        state: ``ecg_srnn.pth``, a state dictionary.
    """

    def __init__(self, state: Path) -> None:
        super().__init__()
        held = state_of(state)
        keep = torch.exp(-1.0 / held["tau_m_h"])
        unit = keep / ECG_THRESHOLD
        into, among, out = (
            (held[f"{name}.weight"], held[f"{name}.bias"]) for name in ("i2h", "h2h", "h2o")
        )
        self.i2h = _linear(unit[:, None] * into[0], unit * into[1] + (1.0 - keep))
        self.h2h = _linear(unit[:, None] * among[0], unit * among[1], step_mode="s")
        self.hidden = neuron.ParametricLIFNode(decay_input=True, v_threshold=1.0, v_reset=None)
        self.hidden.w = _parameter(torch.logit(1.0 - keep))
        self.h2o = _linear(*out)
        tau = 1.0 / (1.0 - torch.exp(-1.0 / held["tau_m_o"]))
        self.readout = neuron.NonSpikingLIFNode(tau=tau.to(torch.get_default_dtype()))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """The potentials of all steps."""
        spikes = x.new_zeros(x.shape[1], self.hidden.w.shape[0])
        every = []
        for current in self.i2h(x):
            spikes = self.hidden(current + self.h2h(spikes))
            every.append(spikes)
        return torch.stack(self.readout(self.h2o(torch.stack(every))))


def state_of(path: Path) -> dict[str, Tensor]:
    """A state dictionary, in float64 so that what is computed of it is rounded once."""
    held = torch.load(path, map_location="cpu")
    return {name: value.double() for name, value in held.items()}


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.to(torch.get_default_dtype()))


def _convolution(
    weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0
) -> layer.Conv2d:
    out, channels, size = weight.shape[:3]
    made = layer.Conv2d(channels, out, size, stride, padding, bias=bias is not None, step_mode="m")
    return _filled(made, weight, bias)


def _linear(weight: Tensor, bias: Tensor | None = None, step_mode: str = "m") -> layer.Linear:
    made = layer.Linear(*reversed(weight.shape), bias=bias is not None, step_mode=step_mode)
    return _filled(made, weight, bias)


def _filled(made: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    with torch.no_grad():
        made.weight.copy_(weight)
        if bias is not None:
            made.bias.copy_(bias)
    return made
