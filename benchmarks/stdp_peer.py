"""Talks to the process of the peer of the speed comparison, BindsNET."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from peers import PeerError, tail
from torch import Tensor

WORKER = Path(__file__).with_name("peer_bindsnet.py")
FILES = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")


def write_idx(images: Tensor, path: Path) -> None:
    """Images, uint8 ``[M, 1, 28, 28]``, as the IDX file that the worker reads."""
    count, _, rows, columns = images.shape
    header = np.array([0x803, count, rows, columns], ">i4")
    path.write_bytes(header.tobytes() + images.numpy().tobytes())


class Peer:
    """A worker process with one network.

    Args:
        folder: Where BindsNET lies.
        **setup: What the worker's ``setup`` takes.

    Attributes:
        about: What it answered: versions and threads.
    """

    def __init__(self, folder: Path, **setup: Any) -> None:
        path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed by close()
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        try:
            self.about = self._ask(cmd="setup", **setup)
        except PeerError:
            self.close()
            raise

    def run(self, images: int) -> dict[str, Any]:
        """Shows the next images; seconds and spikes, see the worker."""
        return self._ask(cmd="run", images=images)

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        try:
            self._process.communicate('{"cmd": "quit"}\n', timeout=60)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _ask(self, **command: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise PeerError(f"the worker of BindsNET stopped:\n{tail(self._errors.read())}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(f"the worker of BindsNET: {answer['error']}")
        return answer
