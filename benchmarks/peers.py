"""Other packages that benchmarks compare with: where they are, and how they are installed.

Each has a folder of its own outside of the environment, so that it cannot change the versions that
are measured; torch is the environment's. Nothing is installed unless somebody asks for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path


class PeerError(Exception):
    """A peer cannot be had, or has stopped; the text is meant for the user."""


@dataclass(frozen=True)
class Package:
    """A peer.

    Attributes:
        title: As pages call it.
        module: Which ``import`` finds it.
        size: Of the download, roughly.
        pins: The release that is compared with comes first, then what importing it needs beyond
            the packages of ``requirements.txt``; none of those takes part in what is timed.
    """

    title: str
    module: str
    size: str
    pins: tuple[str, ...]

    @property
    def version(self) -> str:
        """Of the release that is compared with."""
        return self.pins[0].rpartition("=")[2]

    @property
    def folder(self) -> Path:
        """A folder of its own in the user's cache."""
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(cache) / "qspinn" / f"{self.module}-{self.version}"

    def command(self, folder: Path | None = None) -> list[str]:
        """That installs it into ``folder``; None: its own."""
        pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--target"]
        return [*pip, str(folder or self.folder), *self.pins]

    def is_missing(self, folder: Path | None = None) -> bool:
        """Whether it is not in ``folder``; None: its own."""
        return not ((folder or self.folder) / self.module).is_dir()


PEERS = {
    "bindsnet": Package(
        "BindsNET",
        "bindsnet",
        "170 MB",
        (
            "bindsnet==0.3.4",
            "tensorboardX==2.6.5",
            "gymnasium==1.4.0",
            "farama-notifications==0.0.6",
            "ale-py==0.12.1",
            "opencv-python-headless==5.0.0.93",
        ),
    ),
    "snntorch": Package("snnTorch", "snntorch", "1 MB", ("snntorch==1.0.0",)),
    "brevitas": Package(
        "Brevitas",
        "brevitas",
        "2 MB",
        ("brevitas==0.13.4", "dependencies==2.0.1", "unfoldNd==0.2.3"),
    ),
}


def how_to_install(name: str, folder: Path | None = None) -> str:
    """What to write, as lines of a message."""
    peer = PEERS[name]
    lines = [f"  {' '.join(peer.command(folder))}"]
    if folder in (None, peer.folder):
        lines = [f"  python -m benchmarks --install-peers {name}   # {peer.size}; or", *lines]
    return "\n".join(lines)


def require(name: str, folder: Path | None = None) -> None:
    """Stops where a peer is missing.

    Raises:
        PeerError: With what to write.
    """
    peer = PEERS[name]
    if peer.is_missing(folder):
        raise PeerError(
            f"no {peer.title} {peer.version} in {folder or peer.folder}. Install it:\n"
            f"{how_to_install(name, folder)}"
        )


def install(name: str, folder: Path | None = None) -> None:
    """Puts a peer into a folder, all of it or nothing, unless it is there.

    Raises:
        PeerError: pip could not.
    """
    peer = PEERS[name]
    folder = folder or peer.folder
    if not peer.is_missing(folder):
        print(f"{peer.title} {peer.version} is in {folder}", flush=True)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".installing-") as temporary:
        target = Path(temporary) / "site"
        print(f"installing {peer.title} {peer.version} into {folder}", flush=True)
        command = [*peer.command(target), "--quiet", "--disable-pip-version-check"]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise PeerError(
                f"{peer.title} could not be installed into {folder}; is there a network, and pip "
                f"in this environment? pip said:\n{tail(done.stderr)}\nWith a network:\n"
                f"  {' '.join(peer.command(folder))}\nthen copy the folder to this machine"
            )
        target.rename(folder)


def tail(text: str, lines: int = 6) -> str:
    """The last lines of what a process said, indented."""
    return "\n".join("  " + line for line in text.strip().splitlines()[-lines:])
