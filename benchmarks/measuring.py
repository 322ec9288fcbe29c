"""What all benchmarks share: the package on the path, one thread, and how times are measured.

A benchmark imports this before anything that loads torch or NumPy, which read the number of
threads once.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

try:
    import resource
except ImportError:  # not on Windows
    resource = None

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
LEAST_ROUNDS = 9

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


@dataclass(frozen=True)
class Laps:
    """What one of several ways of doing the same work took, in seconds, round by round.

    Attributes:
        wall: Time that passed.
        processor: Processor time of this process and of those that it waited for: what other
            programs on the machine take is not in it.
    """

    wall: tuple[float, ...]
    processor: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the time that passed."""
        return statistics.median(self.wall)

    @property
    def median_processor(self) -> float:
        """Of the processor time."""
        return statistics.median(self.processor)


@dataclass(frozen=True)
class Ratio:
    """How many times as long one way takes as another.

    Attributes:
        median: Of the medians over all rounds.
        lowest: Of the rounds.
        highest: Of the rounds.
    """

    median: float
    lowest: float
    highest: float

    def text(self, digits: int = 2) -> str:
        """For a table."""
        shown = (f"{one:.{digits}f}" for one in (self.lowest, self.highest))
        return f"**{self.median:.{digits}f}** ({' to '.join(shown)})"


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation (of the sample); of one value, there is none."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def interleaved(
    ways: Mapping[str, Callable[[], object]], rounds: int = LEAST_ROUNDS
) -> dict[str, Laps]:
    """Times several ways of doing the same work, all of them in turn within each round.

    A slow moment of the machine hits all of them. One more round comes first and does not count:
    it fills caches and compiles.

    Args:
        ways: Name -> what is timed; what it returns is freed outside of the timing.
        rounds: At least 9, so that a median stands on something.

    Raises:
        ValueError: Fewer rounds.
    """
    if rounds < LEAST_ROUNDS:
        raise ValueError(f"rounds={rounds}: a median needs at least {LEAST_ROUNDS}")
    laps: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, run in ways.items():
            started, used = time.perf_counter(), processor_time()
            result = run()
            taken = time.perf_counter() - started, processor_time() - used
            del result
            if number:
                laps[name].append(taken)
    return {name: Laps(*zip(*taken, strict=True)) for name, taken in laps.items()}


def ratio(laps: Sequence[float], other: Sequence[float]) -> Ratio:
    """Of the times of one way to those of another in the same rounds.

    Args:
        laps: Seconds of each round: :attr:`Laps.wall` or :attr:`Laps.processor`.
        other: Those of the way that counts as 1.
    """
    each = [one / two for one, two in zip(laps, other, strict=True)]
    return Ratio(statistics.median(laps) / statistics.median(other), min(each), max(each))


def processor_time() -> float:
    """Seconds that this process has computed, with those that it started and waited for."""
    own = time.process_time()
    if resource is None:
        return own
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own + children.ru_utime + children.ru_stime


def processor() -> str:
    """Its name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions(*packages: str) -> dict[str, str]:
    """Python's version, and those of packages; ``not installed`` where there is none."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine(*packages: str) -> dict[str, str | int | None]:
    """What figures depend on beyond the code, for a file of results."""
    cores = os.cpu_count()
    about = {"processor": processor(), "cores": cores, "architecture": platform.machine()}
    return {**about, **versions(*packages)}


def circumstances(about: Mapping[str, object], command: str, data: str = "") -> str:
    """The line of a page that says on what its figures were measured, and by which command.

    Args:
        about: As :func:`machine` returns it.
        command: That makes the page.
        data: What it was measured on, where it is data.
    """
    fixed = ("processor", "cores", "architecture")
    packages = ", ".join(f"{name} {value}" for name, value in about.items() if name not in fixed)
    said = f" Data: {data}." if data else ""
    return (
        f"Machine: {about['processor']}, {about['cores']} cores ({about['architecture']}), one "
        f"thread. Versions: {packages}.{said} Made by `{command}`."
    )
