"""Which jobs go into which array of Slurm."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence

from omegaconf import DictConfig

from qspinn.app.compose.completing import complete, to_plain
from qspinn.app.explore.launched import Job
from qspinn.app.folder.identity import identity
from qspinn.app.run.baselines import float_config
from qspinn.records import config_hash

MAX_ARRAY_SIZE = 1001
"""Jobs in an array where Slurm reports no limit: its own default."""


def max_array_size() -> int:
    """Return the largest array that this Slurm installation allows."""
    if shutil.which("scontrol") is None:
        return MAX_ARRAY_SIZE
    shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True)
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", shown.stdout, re.MULTILINE)
    return max(1, int(found[1])) if found else MAX_ARRAY_SIZE


def parts(jobs: Sequence[Job], size: int) -> Iterator[Sequence[Job]]:
    """Cut jobs into arrays of at most so many."""
    for start in range(0, len(jobs), size):
        yield jobs[start : start + size]


def baseline_of(config: DictConfig) -> str | None:
    """The key of the 32-bit training that a job starts from; None: it starts from none."""
    values = to_plain(complete(config))
    settings, scheme = values["baselines"], values["quantization"]["scheme"]
    is_alone = settings["dir"] is None or values["exploration"]["strategy"] is not None
    if is_alone or (scheme == "itq" and not settings["train_for_itq"]):
        return None
    return config_hash({"store": settings["dir"], "training": identity(float_config(values))})


def in_order(jobs: Sequence[Job], baselines: Sequence[str | None]) -> tuple[list[Job], list[Job]]:
    """Return the jobs that train the baselines from which others start, and all others."""
    counts = Counter(baselines)
    ahead: dict[str, Job] = {}
    for job, baseline in zip(jobs, baselines, strict=True):
        if baseline is not None and counts[baseline] > 1:
            ahead.setdefault(baseline, job)
    first = list(ahead.values())
    return first, [job for job in jobs if job not in first]
