"""The three networks with their data: what is run, and what counts as a right answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import strangers_data as data
import strangers_networks as networks
import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from qspinn.plan import QuantizationPlan, ResolvedPlan
from qspinn.quantizers import attach, calibrate, detach

NIR = Path("strangers", "nmnist_cnn_nir", "cnn_sinabs.nir")
GESTURE = Path("strangers", "dvs_gesture_cnn", "dvs_gesture_snn")
ECG = Path("strangers", "ecg_qtdb", "ecg_srnn.pth")
CALIBRATION = 32
"""Samples."""


@dataclass(frozen=True)
class Case:
    """A network and its data.

    Attributes:
        title: What a table calls it.
        network: As trained, in float.
        calibration: Samples ``[T, N, *]`` on which formats are chosen.
        test: Samples and labels on which accuracy is reported.
        answers: Output ``[T, N, classes]`` -> answers, of the shape of the labels.
        batch: Samples that are run together.
    """

    title: str
    network: nn.Module
    calibration: Tensor
    test: data.Part
    answers: Callable[[Tensor], Tensor]
    batch: int = 20


def most_spikes(output: Tensor) -> Tensor:
    """One answer per sample."""
    return output.sum(0).argmax(-1)


def highest_now(output: Tensor) -> Tensor:
    """One answer per sample and step."""
    return output.argmax(-1)


def nmnist_case(root: Path, v_reset: float | None) -> Case:
    """Calibrated on training recordings of all digits."""
    files = data.nmnist_files(root, "Train")
    chosen = files[:: len(files) // CALIBRATION][:CALIBRATION]
    title = "reset by subtraction" if v_reset is None else "reset to zero"
    return Case(
        f"N-MNIST CNN, {title}",
        networks.nmnist_network(root / NIR, v_reset),
        data.nmnist(chosen).frames,
        data.nmnist(data.nmnist_files(root, "Test")),
        most_spikes,
    )


def gesture_case(root: Path) -> Case:
    """Calibrated on what it is tested on: there are only ten clips."""
    clips = data.gestures(root)
    network = networks.gesture_network(root / GESTURE)
    return Case("DVS128 Gesture CNN", network, clips.frames, clips, most_spikes)


def ecg_case(root: Path) -> Case:
    """Calibrated on training leads."""
    frames = data.ecg(root, "train").frames
    return Case(
        "ECG recurrent network",
        networks.ECGNetwork(root / ECG),
        frames[:, :: frames.shape[1] // CALIBRATION][:, :CALIBRATION],
        data.ecg(root, "test"),
        highest_now,
        batch=141,
    )


CASES: dict[str, Callable[[Path], Case]] = {
    "nmnist_zero": lambda root: nmnist_case(root, 0.0),
    "nmnist_subtract": lambda root: nmnist_case(root, None),
    "gesture": gesture_case,
    "ecg": ecg_case,
}


def outputs(case: Case, frames: Tensor) -> Iterator[Tensor]:
    """The network's output ``[T, N, classes]`` of each batch, from fresh states."""
    for first in range(0, frames.shape[1], case.batch):
        functional.reset_net(case.network)
        with torch.no_grad():
            yield case.network(frames[:, first : first + case.batch])
    functional.reset_net(case.network)


def answers(case: Case) -> Tensor:
    """What the network, as it is, says of the test samples."""
    found = [case.answers(output) for output in outputs(case, case.test.frames)]
    return torch.cat(found, dim=-1)


def accuracy(case: Case, given: Tensor) -> float:
    """The share of right answers."""
    return (given == case.test.labels).double().mean().item()


def quantised(case: Case, plan: QuantizationPlan) -> tuple[Tensor, ResolvedPlan]:
    """The quantised network's answers, and the plan with its formats; the network stays float."""
    network, example = case.network, case.calibration[:, :2]
    resolved = plan.resolve(network, example)
    chosen = calibrate(network, resolved, lambda: list(outputs(case, case.calibration)))
    attach(network, chosen)
    try:
        return answers(case), chosen
    finally:
        detach(network)
