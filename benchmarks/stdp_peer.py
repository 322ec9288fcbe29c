"""Installs the peer of the speed comparison, BindsNET, and talks to its process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

WORKER = Path(__file__).with_name("peer_bindsnet.py")
PINS = (
    "bindsnet==0.3.4",
    # What `import bindsnet` needs beyond what qspinn needs; none of it has a part in the timing.
    "tensorboardX==2.6.5",
    "gymnasium==1.4.0",
    "farama-notifications==0.0.6",
    "ale-py==0.12.1",
    "opencv-python-headless==5.0.0.93",
)
FILES = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")


class PeerError(Exception):
    """The peer cannot be had, or has stopped; the text is meant for the user."""


def default_folder() -> Path:
    """A folder of its own in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "qspinn" / PINS[0].replace("==", "-")


def install(folder: Path, allowed: bool) -> None:
    """Puts BindsNET into a folder of its own, where it is missing; the torch is ours.

    Raises:
        PeerError: It is missing and must not or cannot be installed.
    """
    if (folder / "bindsnet").is_dir():
        return
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--target"]
    by_hand = f"  {' '.join(command)} {folder} {' '.join(PINS)}"
    if not allowed:
        raise PeerError(
            f"no BindsNET in {folder}. Leave out --no-install, or install it:\n{by_hand}"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".installing-") as temporary:
        target = Path(temporary) / "site"
        print(f"installing {PINS[0]} into {folder}", flush=True)
        done = subprocess.run(
            [*command, str(target), "--quiet", "--disable-pip-version-check", *PINS],
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            raise PeerError(
                f"BindsNET could not be installed into {folder}; is there a network, and pip in "
                f"this environment? pip said:\n{_tail(done.stderr)}\nWith a network:\n{by_hand}\n"
                "then carry the folder over and name it: --peer FOLDER"
            )
        target.rename(folder)


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
            raise PeerError(f"the worker of BindsNET stopped:\n{_tail(self._errors.read())}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(f"the worker of BindsNET: {answer['error']}")
        return answer


def _tail(text: str, lines: int = 6) -> str:
    return "\n".join("  " + line for line in text.strip().splitlines()[-lines:])
