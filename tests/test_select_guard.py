"""The file select.py at the root must not take the standard library's `select` from anybody."""

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qspinn.records import write_record

NAMES = [sys.executable, "python3.11", "python3.12", "python3.13"]
HIDDEN = "select" not in sys.builtin_module_names

# Run first by every program below: the file does hide the module from this interpreter's path.
PROOF = """
import os, sys
from importlib.machinery import PathFinder
assert "select" not in sys.modules, "something imported select before the test"
assert os.path.samefile(PathFinder.find_spec("select").origin, "select.py")
"""
REAL = """
import select
assert callable(select.select) and select.error is OSError, select
assert type(select.__spec__.loader).__name__ == "ExtensionFileLoader" or (
    "select" in sys.builtin_module_names), select
assert sys.modules["select"] is select
print("fine")
"""


def run(command, cwd, **environment):
    """Run a command without the settings that would change the path; its output."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def interpreter(name):
    """The path of an interpreter, or None."""
    # pyenv's shims run what PYENV_VERSION says; to all others it means nothing.
    settings = os.environ | {"PYENV_VERSION": name.removeprefix("python")}
    command = [name, "-c", "import sys; print(sys.executable)"]
    if shutil.which(name) is None:
        return None
    done = subprocess.run(command, env=settings, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


@pytest.fixture(params=NAMES, ids=["this", *NAMES[1:]])
def python(request):
    """An interpreter; only the one that runs the tests has the packages that qspinn needs."""
    path = request.param if request.param == sys.executable else interpreter(request.param)
    if path is None:
        pytest.skip(f"no working {request.param} on PATH: the guard is not checked with it")
    return path


@pytest.mark.parametrize("module", ["select", "selectors", "subprocess", "socket", "asyncio"])
def test_modules_that_need_select(python, repository, module):
    out = run([python, "-c", f"{PROOF}\nimport {module}\n{REAL}"], repository)
    assert out == "fine\n"


@pytest.mark.skipif(not HIDDEN, reason="select is built into this Python: nothing can hide it")
def test_without_the_guard_these_tests_would_fail(tmp_path):
    (tmp_path / "select.py").write_text("")
    code = f"{PROOF}\nimport subprocess\n{REAL}"
    with pytest.raises(AssertionError, match="select"):
        run([sys.executable, "-c", code], tmp_path)


def test_several_checkouts_on_the_path(python, repository, tmp_path):
    copies = [tmp_path / "a", tmp_path / "b"]
    for folder in copies:
        folder.mkdir()
        shutil.copy(repository / "select.py", folder)
    path = os.pathsep.join(map(str, [*copies, repository]))
    code = f"{PROOF}\nimport subprocess\n{REAL}"
    assert run([python, "-c", code], repository, PYTHONPATH=path) == "fine\n"


@pytest.mark.skipif(not HIDDEN, reason="select is built into this Python: nothing can hide it")
def test_a_path_without_the_standard_library(repository):
    code = (
        "import sys, importlib.util\n"
        "sys.path[:] = [sys.path[0]]\n"
        "try:\n    import select\n"
        "except ImportError as error:\n    print(error.name, error)"
    )
    out = run([sys.executable, "-c", code], repository)
    assert out == "select the standard library's module select is not on sys.path\n"


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_worker_processes(python, repository, method):
    code = (
        f"{PROOF}\n"
        "import multiprocessing\n"
        f"with multiprocessing.get_context({method!r}).Pool(2) as pool:\n"
        "    assert pool.map(abs, [-1, -2]) == [1, 2]\n"
        "    assert pool.apply(eval, ('callable(__import__(\"select\").select)',))\n"
        f"{REAL}"
    )
    assert run([python, "-c", code], repository) == "fine\n"


@pytest.mark.few(0.5)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_data_loader_workers(repository, method):
    code = (
        f"{PROOF}\n"
        "import torch\n"
        "from torch.utils.data import DataLoader, TensorDataset\n"
        "data = TensorDataset(torch.arange(4))\n"
        f"loader = DataLoader(data, 2, num_workers=2, multiprocessing_context={method!r})\n"
        "assert [batch[0].tolist() for batch in loader] == [[0, 1], [2, 3]]\n"
        f"{REAL}"
    )
    assert run([sys.executable, "-c", code], repository) == "fine\n"


def test_joblib_workers(repository):
    pytest.importorskip("joblib")
    code = (
        f"{PROOF}\n"
        "from joblib import Parallel, delayed\n"
        "jobs = Parallel(n_jobs=2, backend='loky')(delayed(abs)(-i) for i in range(4))\n"
        "assert jobs == [0, 1, 2, 3]\n"
        f"{REAL}"
    )
    assert run([sys.executable, "-c", code], repository) == "fine\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["select.py", "--help"], "powered by Hydra"),
        (["train.py", "--help"], "powered by Hydra"),
        (["-m", "pytest", "--version"], "pytest"),
    ],
)
def test_programs_at_the_root(repository, arguments, says):
    assert says in run([sys.executable, *arguments], repository)


REWARD = """
import multiprocessing

class Pooled:
    def __call__(self, record):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(float, (record.footprint_bits,))
"""


@pytest.mark.parametrize("program", [["select.py"], ["-m", "select"]])
def test_select_itself_may_start_workers(repository, tmp_path, make_record, program):
    if program == ["-m", "select"] and not HIDDEN:
        pytest.skip("select is built into this Python: python -m select cannot mean the file")
    (tmp_path / "pooled.py").write_text(REWARD)
    write_record(make_record(baseline_accuracy=0.97), tmp_path / "run" / "record.json")
    settings = [f"runs={tmp_path}/run", "reward={_target_: pooled.Pooled}", "~reward.mu"]
    out = run([sys.executable, *program, *settings], repository, PYTHONPATH=str(tmp_path))
    assert "Reward: pooled.Pooled" in out
    assert "has the best reward (800.0000)" in out


def test_the_file_does_nothing_under_any_other_name(repository):
    # Spawned workers run the main module again as __mp_main__.
    code = (
        "import runpy, sys\n"
        "names = set(runpy.run_path('select.py', run_name='__mp_main__'))\n"
        "assert 'select' not in sys.modules and 'qspinn' not in sys.modules\n"
        "print(sorted(name for name in names if not name.startswith('__')))"
    )
    assert run([sys.executable, "-c", code], repository) == "['sys']\n"


def test_nothing_imports_the_file_for_its_contents(repository):
    """The application lies in qspinn.app.choose.select; the file holds the guard and a call."""
    lines = Path(repository / "select.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 40
