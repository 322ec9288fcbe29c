"""The script that ends runs at random moments, with a few of them."""

import os
import re
import subprocess
import sys

import pytest


@pytest.mark.campaign
@pytest.mark.slow
def test_runs_that_are_ended_at_random_moments_record_the_same(repository, tmp_path):
    only = "ITQ, stochastic"
    ran = subprocess.run(
        [sys.executable, "benchmarks/kills.py", "--only", only, "--kills", "2"],
        cwd=repository,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    row = next(line for line in ran.stdout.splitlines() if line.startswith(f"| {only} | 2 |"))
    codes = {code: int(count) for code, count in re.findall(r"(-?\d+): (\d+)", row)}
    assert codes.pop("-9") == 2  # those that were ended; others ended by themselves
    assert set(codes) <= {"0"}
    assert re.search(r"\| [1-9]\d* \| 0 \|$", row)
