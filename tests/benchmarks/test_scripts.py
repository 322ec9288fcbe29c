"""The scripts in benchmarks/ run as their docstrings say: from a clone, with nothing installed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if "__main__" in path.read_text("utf-8"))


def imports_of(path):
    """Its statements that import something or change the path, in their order."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif "sys.path" in ast.unparse(node):
            yield "sys.path"


def finds_qspinn(path):
    """Whether the path is set before anything of qspinn is imported, here or in a helper."""
    for name in imports_of(path):
        helper = FOLDER / f"{name}.py"
        if name == "sys.path" or (helper.exists() and finds_qspinn(helper) is True):
            return True
        if name.split(".")[0] == "qspinn":
            return False
    return None


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_finds_the_package(script):
    assert finds_qspinn(script) is not False


def test_one_of_them_runs(tmp_path):
    command = [sys.executable, str(FOLDER / "chance.py"), "--help"]  # which needs no torch
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
