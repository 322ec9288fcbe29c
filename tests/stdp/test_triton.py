"""The GPU kernel: its numbers in Triton's interpreter on the CPU, and that it compiles for a GPU.

The interpreter is chosen by an environment variable before triton is imported, so what needs it
runs in a process of its own.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

from tests.stdp.cases import ROUNDINGS, quantizers
from tests.stdp.test_batched import check_same, network

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed: its kernel is not tested", allow_module_level=True)

CASES = ("inference", "learning", "groups", "wrap")
# The interpreter takes 20 ms for each step of each image: few, and a network that spikes often.
IMAGES, STEPS = 2, 20
LIVELY: dict[str, Any] = {"max_rate": 300.0, "inhibition": 3.0, "refractory": 3}


def interpret(case: str) -> None:
    """What the process of its own checks."""
    from qspinn.stdp import triton_kernel

    runs, kernel = [], triton_kernel.presentation
    run_of = kernel.run
    with pytest.MonkeyPatch.context() as patch:
        counted = lambda *given, **named: (runs.append(1), run_of(*given, **named))  # noqa: E731
        patch.setattr(kernel, "run", counted)
        for one, learning in networks(case):
            exact = not one.numbers().is_float or not learning
            check_same(one, learning, "triton", exact, IMAGES)
    assert bool(runs) == (case != "groups")


def networks(case: str) -> Any:
    """Networks, and whether they learn."""
    roundings = ("nearest",) if case in ("groups", "wrap") else (None, *ROUNDINGS)
    for rounding, one_winner in itertools.product(roundings, (True, False)):
        if not one_winner and rounding not in (None, "stochastic", "nearest"):
            continue  # rounding has nothing to do with who wins
        changes: dict[str, Any] = {"one_winner": one_winner, "inhibition_delay": 1 + one_winner}
        if case != "inference":
            parallel = IMAGES if case == "groups" else 1
            changes |= {"update": "deferred", "rate_pre": 1e-2, "parallel": parallel}
        one = network(STEPS, **LIVELY, **changes)
        if rounding is not None:
            small = {"v": "Q4.4"} if case == "wrap" else {}
            overflow = "wrap" if case == "wrap" else "saturate"
            one.use_fixed_point(quantizers(one, 10, rounding, overflow, **small))
        yield one, case != "inference"


@pytest.fixture(scope="module")
def errors() -> dict[str, str]:
    """What went wrong in each case, in one process for all: its imports cost as much as a case."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    arguments = [sys.executable, "-m", "tests.stdp.test_triton"]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(arguments, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_same_as_the_reference(errors: dict[str, str], case: str) -> None:
    assert errors[case] == ""


@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "float"])
@pytest.mark.parametrize("block", [16, 8192])
def test_compiles_for_a_gpu(fixed: bool, block: int) -> None:
    """No GPU is needed for that; nor does it multiply and add in one rounding."""
    from triton import compile as compiled
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from qspinn.stdp import triton_kernel

    state = "*i64" if fixed else "*fp32"
    types = {"currents": "*fp32", "shifts": "*i64", "keys": "*i64", "spikes": "*u8"}
    types |= dict.fromkeys(("theta_in", "theta_out", "constants"), state)
    types |= dict.fromkeys(("batch", "neurons", "delay", "period"), "i32")
    chosen = {"MODE": 2, "WRAP": False, "THETA_MODE": 1, "THETA_WRAP": True}
    chosen |= {"ONE_WINNER": True, "LEARNING": True, "STEPS": 250, "BLOCK": block}
    types |= dict.fromkeys(chosen, "constexpr")
    names = triton_kernel.presentation.arg_names
    source = ASTSource(triton_kernel.presentation, {name: types[name] for name in names}, chosen)
    options = {"num_warps": triton_kernel.warps(block), "enable_fp_fusion": False}
    kernel = compiled(source, target=GPUTarget("cuda", 80, 32), options=options)
    assert kernel.asm["cubin"]
    assert "fma" not in kernel.asm["ptx"]


def error_of(case: str) -> str:
    try:
        interpret(case)
    except Exception:
        return traceback.format_exc()
    return ""


if __name__ == "__main__":
    print(json.dumps({case: error_of(case) for case in CASES}))
