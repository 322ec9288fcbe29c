"""The house rules: who may import whom, and how long a file may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "qspinn"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Package -> what it may import of qspinn, besides itself.
ALLOWED = {
    "fixed_point": set(),
    "data": set(),
    # The quantised plastic networks compute on its grids by themselves.
    "networks": {"fixed_point"},
    "metrics": set(),
    "records": set(),
    "plan": {"fixed_point"},
    "quantizers": {"fixed_point", "plan"},
    "learning": {"networks", "metrics"},
    "callbacks": {"fixed_point", "plan", "quantizers", "metrics", "records"},
    "selection": {"records"},
    "report": {"records", "selection"},
    "export": {"fixed_point", "plan", "quantizers"},
}
ANYTHING = {"app"}
# What is run as `python -m qspinn.NAME`.
PROGRAMS = {("explain.py",)}
LONGEST_FILE = 330


def imported_modules(source: str, module: str, is_package: bool) -> set[str]:
    """Return the dotted names that a module imports, at any depth of its code.

    Args:
        source: The module's text.
        module: Its dotted name.
        is_package: Whether it is an ``__init__.py``.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                kept = parts[: len(parts) - node.level + is_package]
                base = ".".join([*kept, *([base] if base else [])])
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            name = ast.unparse(node.func)
            first = node.args[0]
            if name in ("importlib.import_module", "import_module", "__import__") and (
                isinstance(first, ast.Constant)
            ):
                found.add(str(first.value))
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    is_package = path.name == "__init__.py"
    return imported_modules(path.read_text(encoding="utf-8"), module_name(path), is_package)


def siblings_of(modules: set[str]) -> set[str]:
    """Return the packages of qspinn among dotted names."""
    parts = [name.split(".") for name in modules]
    packages = {p[1] for p in parts if p[0] == "qspinn" and len(p) > 1}
    return {name for name in packages if (PACKAGE / name).is_dir()}


def test_finds_every_kind_of_import():
    source = """
import qspinn.plan
from qspinn import networks
from qspinn.data.idx import parse
from . import sibling
from .. import metrics
from ..learning import supervised
def later():
    from qspinn.records import store
    import importlib
    importlib.import_module("qspinn.app.run.train")
"""
    found = siblings_of(imported_modules(source, "qspinn.callbacks.some", False))
    assert found == {
        "plan",
        "networks",
        "data",
        "callbacks",
        "metrics",
        "learning",
        "records",
        "app",
    }
    inside = imported_modules("from .. import metrics\nfrom . import a", "qspinn.plan", True)
    assert {"qspinn.metrics", "qspinn.plan.a"} <= inside


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_only_what_the_house_allows(path):
    parts = path.relative_to(PACKAGE).parts
    used = siblings_of(imports_of(path))
    if parts in PROGRAMS:
        assert used <= {"app"}
    elif len(parts) == 1:  # qspinn/__init__.py: importing qspinn must cost nothing
        assert used == set()
    elif parts[0] not in ANYTHING:
        assert parts[0] in ALLOWED, f"{parts[0]} is not in the table of packages"
        assert used <= ALLOWED[parts[0]] | {parts[0]}


def test_every_package_of_the_house_is_known():
    packages = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert packages <= ALLOWED.keys() | ANYTHING


def users_of(library: str) -> set[str]:
    return {
        module_name(path)
        for path in SOURCES
        if any(name.split(".")[0] == library for name in imports_of(path))
    }


def test_one_file_of_the_application_imports_wandb():
    assert users_of("wandb") == {"qspinn.app.tracking.client"}


def test_only_the_application_knows_hydra():
    users = users_of("hydra") | users_of("omegaconf")
    assert users
    assert all(name.startswith("qspinn.app") for name in users)


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_files_are_of_a_length_that_one_can_read(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("name", ["train.py", "select.py"])
def test_the_programs_hold_next_to_nothing(name):
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= 60


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules in a fresh interpreter after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("package", ["records", "selection"])
def test_selecting_starts_without_torch(package):
    loaded = loaded_by(f"import qspinn.{package}")
    assert "qspinn" in loaded
    assert loaded.isdisjoint({"torch", "lightning", "spikingjelly", "hydra", "wandb"})


def test_explaining_a_run_starts_without_torch():
    loaded = loaded_by("import qspinn.app.show.explain")
    assert "qspinn" in loaded
    assert loaded.isdisjoint({"torch", "lightning", "spikingjelly", "hydra", "wandb"})


def test_the_callbacks_load_no_part_of_the_application():
    loaded = loaded_by("import qspinn.callbacks")
    assert "lightning" in loaded
    assert loaded.isdisjoint({"hydra", "omegaconf", "wandb", "mlxtend"})
