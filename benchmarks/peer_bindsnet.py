"""The peer of the speed comparison: BindsNET's network of Diehl and Cook, as a worker process.

Reads one JSON command a line on standard input and answers one JSON object a
line on standard output, so that another benchmark can take turns with it:

    {"cmd": "setup", "n": 400, "time": 250, "batch": 1, "mnist": FOLDER,
     "images": 64, "training": true, "warmup": 50}
    {"cmd": "run", "images": 8}
    {"cmd": "quit"}

FOLDER holds the raw IDX files of MNIST. `setup` reads `images` images of the
training set, or of the test set where `training` is false, and `run` goes
round them. The optional `warmup` images of the training set are learnt before
`setup` answers, whatever `training` says. Image counts are multiples of the
batch. The settings are those of BindsNET's own MNIST examples. Timed are, as in
their loops, the encoding, the run, reading the spikes of the output layer and
the reset of the state; the files are read before. `cpu_seconds` is the processor
time of the same.

Nothing of qspinn is needed here, only BindsNET 0.3.4 with torch. BindsNET may
live in a folder of its own that is put on PYTHONPATH:

    pip install --no-deps --target FOLDER bindsnet==0.3.4 tensorboardX gymnasium \\
        farama-notifications ale-py opencv-python-headless
"""

from __future__ import annotations

import os

# One thread, whatever the parent process says; these are read when torch is imported.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import argparse
import contextlib
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bindsnet.encoding import PoissonEncoder
from bindsnet.models import DiehlAndCook2015
from bindsnet.network.monitors import Monitor

SIDE = 28
IDX_HEADER_BYTES = 16  # magic number, count, rows, columns: four 32-bit integers
INTENSITY = 128.0  # firing rate in Hz of a white pixel
DT = 1.0


class Worker:
    """BindsNET's network with the images that it is measured on.

    Args:
        n: Excitatory neurons; there are as many inhibitory ones.
        steps: Time steps that each image is shown for.
        batch: Images shown at once.
        mnist: Folder of the raw IDX files.
        images: Images to measure on; `run` starts over after the last.
        training: Whether to learn while measured, on the training set.
        warmup: Images of the training set to learn beforehand.
        seed: Seed of weights and spikes.
    """

    def __init__(
        self,
        n: int,
        steps: int,
        batch: int,
        mnist: Path,
        images: int,
        training: bool,
        warmup: int,
        seed: int,
    ) -> None:
        torch.manual_seed(seed)
        self._steps = steps
        self._batch = batch
        self._cursor = 0
        self._encode = PoissonEncoder(time=steps, dt=DT)
        self._network = DiehlAndCook2015(
            n_inpt=SIDE * SIDE,
            n_neurons=n,
            exc=22.5,
            inh=120.0,
            dt=DT,
            norm=78.4,
            nu=(1e-4, 1e-2),
            theta_plus=0.05,
            inpt_shape=(1, SIDE, SIDE),
        )
        self._spikes = Monitor(self._network.layers["Ae"], state_vars=["s"], time=steps)
        self._network.add_monitor(self._spikes, name="Ae_spikes")
        if warmup:
            self._images = _intensities(mnist / "train-images-idx3-ubyte", warmup)
            self.run(warmup)
        file = "train-images-idx3-ubyte" if training else "t10k-images-idx3-ubyte"
        self._images = _intensities(mnist / file, images)
        self._cursor = 0
        self._network.train(training)

    def run(self, images: int) -> dict[str, Any]:
        """Shows the next images.

        Args:
            images: How many; a multiple of the batch.

        Returns:
            The seconds of all and of each batch, and the mean spikes per image.

        Raises:
            ValueError: If the images do not fill the last batch.
        """
        if images <= 0 or images % self._batch:
            raise ValueError(f"{images} images do not fill batches of {self._batch}")
        batch_seconds: list[float] = []
        cpu_seconds = 0.0
        input_spikes = output_spikes = 0
        for _ in range(images // self._batch):
            shown = self._next_images()
            start, cpu_start = time.perf_counter(), time.process_time()
            encoded = torch.stack([self._encode(image) for image in shown], dim=1)
            self._network.run(inputs={"X": encoded}, time=self._steps)
            recorded = self._spikes.get("s")
            self._network.reset_state_variables()
            batch_seconds.append(time.perf_counter() - start)
            cpu_seconds += time.process_time() - cpu_start
            input_spikes += int(encoded.sum())
            output_spikes += int(recorded.sum())
        return {
            "seconds": sum(batch_seconds),
            "cpu_seconds": cpu_seconds,
            "images": images,
            "output_spikes": output_spikes / images,
            "input_spikes": input_spikes / images,
            "batch_seconds": batch_seconds,
        }

    def _next_images(self) -> list[torch.Tensor]:
        count = len(self._images)
        shown = [self._images[(self._cursor + i) % count] for i in range(self._batch)]
        self._cursor = (self._cursor + self._batch) % count
        return shown


def _intensities(path: Path, count: int) -> torch.Tensor:
    """The first images of an IDX file as firing rates, [count, 1, 28, 28]."""
    pixels = np.fromfile(
        path, dtype=np.uint8, count=count * SIDE * SIDE, offset=IDX_HEADER_BYTES
    ).reshape(-1, 1, SIDE, SIDE)
    if len(pixels) < count or not count:
        raise ValueError(f"asked for {count} images, {path.name} gave {len(pixels)}")
    return torch.from_numpy(pixels).float() / 255 * INTENSITY


def _setup(command: dict[str, Any], seed: int) -> tuple[Worker, dict[str, Any]]:
    worker = Worker(
        n=command["n"],
        steps=command["time"],
        batch=command["batch"],
        mnist=Path(command["mnist"]),
        images=command["images"],
        training=command["training"],
        warmup=command.get("warmup", 0),
        seed=seed,
    )
    return worker, {
        "ready": True,
        "bindsnet": version("bindsnet"),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Answers commands until `quit` or the end of standard input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights and spikes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    answers = sys.stdout
    worker: Worker | None = None
    with contextlib.redirect_stdout(sys.stderr):  # nothing but answers on standard output
        for line in sys.stdin:
            try:
                command = json.loads(line)
                name = command["cmd"]
                if name == "quit":
                    break
                if name == "setup":
                    worker, answer = _setup(command, arguments.seed)
                elif name == "run" and worker is not None:
                    answer = worker.run(command["images"])
                else:
                    answer = {"error": f"cannot do {name!r} now"}
            except (KeyError, OSError, TypeError, ValueError) as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
