"""The equations of the three networks as their authors wrote them, in NumPy and float64.

Shares nothing with qspinn, SpikingJelly or torch's layers; what `strangers_networks.py` builds must
do the same, spike by spike.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

Array = npt.NDArray[np.float64]


def convolve(x: Array, weight: Array, padding: int, stride: int = 1) -> Array:
    """``[N, C, H, W]`` and ``[O, C, K, K]`` to ``[N, O, H', W']``."""
    size = weight.shape[-1]
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = sliding_window_view(padded, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]
    return np.tensordot(windows, weight, ((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)


def pooled(x: Array) -> Array:
    """``[N, C, H, W]`` as blocks of 2x2: ``[N, C, H / 2, W / 2, 4]``."""
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5)
    return blocks.reshape(n, c, h // 2, w // 2, 4)


def nmnist_spikes(graph: Path, frames: Array, subtract: bool) -> list[Array]:
    """The spikes ``[T, N, *]`` of the five layers, for ``[T, N, 2, 34, 34]``."""
    with h5py.File(graph) as file:
        w = {
            name: node["weight"][()].astype(np.float64)
            for name, node in file["node/nodes"].items()
            if "weight" in node
        }
    v: list[Any] = [0.0] * 5
    every: list[list[Array]] = [[] for _ in v]

    def fire(number: int, current: Array) -> Array:
        potential = v[number] + current
        spikes = (potential >= 1.0).astype(np.float64)
        v[number] = potential - spikes if subtract else potential * (1.0 - spikes)
        every[number].append(spikes)
        return spikes

    for frame in frames:
        s = fire(0, convolve(frame, w["0"], 1, 2))
        s = pooled(fire(1, convolve(s, w["2"], 1))).sum(-1)
        s = pooled(fire(2, convolve(s, w["5"], 1))).sum(-1)
        s = fire(3, s.reshape(len(s), -1) @ w["9"].T)
        fire(4, s @ w["11"].T)
    return [np.stack(one) for one in every]


def gesture_spikes(held: Mapping[str, Array], frames: Array) -> list[Array]:
    """The spikes ``[T, N, *]`` of the four layers, for ``[T, N, 2, 32, 32]``."""
    m: list[Any] = [0.0] * 4
    every: list[list[Array]] = [[] for _ in m]
    for frame in frames:
        s = frame
        for number in range(4):
            if number < 3:
                bias = held[f"conv{number + 1}.bias"][:, None, None]
                x = pooled(convolve(s, held[f"conv{number + 1}.weight"], 2) + bias).max(-1)
            else:
                x = s.reshape(len(s), -1) @ held["linear1.weight"].T + held["linear1.bias"]
            beta, threshold = (held[f"lif{number + 1}.{key}"] for key in ("beta", "threshold"))
            m[number] = beta * m[number] + x - threshold * (m[number] > threshold)
            s = (m[number] > threshold).astype(np.float64)
            every[number].append(s)
    return [np.stack(one) for one in every]


def ecg_network(held: Mapping[str, Array], x: Array) -> tuple[Array, Array]:
    """Spikes ``[T, N, 36]`` and output potentials ``[T, N, 6]``, for ``[T, N, 4]``.

    Its potentials begin where :class:`strangers_networks.ECGNetwork` has them begin.
    """
    a, out_a = (np.exp(-1.0 / held[name]) for name in ("tau_m_h", "tau_m_o"))
    m = np.broadcast_to(0.1 - 0.1 / a, (x.shape[1], len(a)))
    out = np.zeros((x.shape[1], len(out_a)))
    s = np.zeros_like(m)
    spikes, potentials = [], []
    for step in x:
        current = step @ held["i2h.weight"].T + held["i2h.bias"]
        current = current + s @ held["h2h.weight"].T + held["h2h.bias"]
        m = a * m + (1.0 - a) * current - 0.1 * s
        s = (m > 0.1).astype(np.float64)
        out = out_a * out + (1.0 - out_a) * (s @ held["h2o.weight"].T + held["h2o.bias"])
        spikes.append(s)
        potentials.append(out)
    return np.stack(spikes), np.stack(potentials)
