"""The house rules: who may import whom, without circles, and how long a file may be."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "qspinn"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TESTS = ROOT / "tests"

# Package -> what it may import of qspinn, besides itself.
ALLOWED = {
    "fixed_point": set(),
    "data": set(),
    "steps": {"fixed_point"},
    "stdp": {"fixed_point", "steps"},
    "networks": {"fixed_point", "steps", "stdp"},
    "metrics": set(),
    "records": set(),
    "plan": {"fixed_point", "steps"},
    "quantizers": {"fixed_point", "steps", "plan"},
    "learning": {"networks", "metrics"},
    "callbacks": {"fixed_point", "plan", "quantizers", "metrics", "records", "export"},
    "selection": {"records"},
    "report": {"records", "selection"},
    "export": {"fixed_point", "steps", "plan", "quantizers"},
}
ANYTHING = {"app"}
# What is run as `python -m qspinn.NAME`.
PROGRAMS = {("explain.py",), ("export", "__main__.py")}
LONGEST_FILE = 330
LONGEST_FUNCTION = 60
# In parts, its learning takes 1.2 to 2 times as long: numba counts references to the arrays that
# each part is handed.
LONG_FUNCTIONS = {("stdp", "kernel.py")}
# The application from the bottom to the top: a file imports from its own wing and those before it.
WINGS = (
    *("errors", "examples", "hydra_internals", "orphans", "outputs", "paths"),
    *("signals", "console"),
    *("compose", "folder", "show", "tracking", "run", "explore", "choose", "launch", "plugins"),
)


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


@functools.cache
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
    elif len(parts) == 1:  # importing qspinn must cost nothing; atomic.py all may import
        assert used == set()
    elif parts[0] not in ANYTHING:
        assert parts[0] in ALLOWED, f"{parts[0]} is not in the table of packages"
        assert used <= ALLOWED[parts[0]] | {parts[0]}


def test_every_package_of_the_house_is_known():
    packages = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert packages <= ALLOWED.keys() | ANYTHING


@functools.cache
def import_graph() -> dict[str, set[str]]:
    """Return each module of qspinn with those that it imports, wherever in its code."""
    modules = {module_name(path): path for path in SOURCES}
    return {
        module: modules_among(imports_of(path), modules.keys()) - {module}
        for module, path in modules.items()
    }


def modules_among(imported: set[str], modules: Collection[str]) -> set[str]:
    """Return the modules that are imported; a package only where more is taken of it."""
    found = set()
    for name in imported & set(modules):
        inside = {other for other in imported if other.rpartition(".")[0] == name}
        if not inside or not inside <= set(modules):
            found.add(name)
    return found


def circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """Return the sets of modules that reach each other."""
    reach = {module: set(imported) for module, imported in graph.items()}
    for middle in graph:
        for reached in reach.values():
            if middle in reached:
                reached |= reach[middle]
    found = {m: frozenset(o for o in reach[m] if m in reach[o]) for m in graph if m in reach[m]}
    return set(found.values())


# Where the application uses private names of Hydra, and callbacks those of Lightning.
INTERNALS = {"qspinn.app.hydra_internals", "qspinn.callbacks.lightning_internals"}
# Functions of the standard library that have such names, and what wandb's only user asks of it.
PRIVATE_ELSEWHERE = {"os._exit", "sys._getframe", "wandb.setup()._connection"}


def private_names(path: Path) -> set[str]:
    """Return names with an underscore that belong neither to the file's own classes nor to it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if node.attr.startswith("_") and not node.attr.startswith("__") and not is_own:
                found.add(ast.unparse(node))
    libraries = {name for name in imports_of(path) if name.startswith(("hydra", "lightning"))}
    return found | {name for name in libraries if "._" in name}


@pytest.mark.parametrize("package", ["app", "callbacks"])
def test_private_names_of_libraries_are_used_in_one_place(package):
    for path in sorted((PACKAGE / package).rglob("*.py")):
        if module_name(path) not in INTERNALS:
            assert private_names(path) <= PRIVATE_ELSEWHERE, path


# Private names that qspinn has as well, but which tests take from elsewhere.
NOT_OURS = {
    "_exit",  # of os
    "_replace",  # of named tuples
    "_memories",  # of SpikingJelly's modules
}
# Where a test uses a private name of qspinn, and why it has to.
PRIVATE_IN_TESTS = {
    # A stranger's module has an attribute of this very name, which has to stay its own.
    ("quantizers/test_declared.py", "_quantizer"),
}
PRIVATE = re.compile(r"_[A-Za-z]\w*(?<!_)")  # _target_ and the like are keys of configurations


def bound_names(tree: ast.Module) -> set[str]:
    """Return the private names of functions, classes, variables and own attributes in a text."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own(node):
            found.add(node.attr)
    return {name for name in found if PRIVATE.fullmatch(name)}


def is_own(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def used_names(source: str) -> Iterator[str]:
    """Yield the names that a text takes from elsewhere: attributes, imports, and in strings.

    Strings count where they end with a name, as those for monkeypatch, getattr and processes that
    kill themselves do, and where they hold a program.
    """
    tree = ast.parse(source)
    own = bound_names(tree)
    parts = {id(v) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for v in n.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not (is_own(node) and node.attr in own):
            yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            start = r"[.:]" if id(node) in parts else r"(?:^|[.:])"  # not f"{network}_step"
            yield from re.findall(rf"{start}(_\w+)$", node.value)
            yield from re.findall(r"\.(_\w+)", node.value) if "\n" in node.value else ()


@functools.cache
def private_to_the_package() -> set[str]:
    names = (bound_names(ast.parse(path.read_text(encoding="utf-8"))) for path in SOURCES)
    return set().union(*names) - NOT_OURS


def test_finds_every_use_of_a_private_name():
    source = '''
from qspinn.plan import _a
thing._b(thing._b2)
monkeypatch.setattr(thing, "_c", None)
getattr(thing, "_d")
where = "qspinn.plan.rules:Rule:_e", "qspinn.plan._f", f"{RULE}:_g", f"{name}_step"
program = """
print(thing._h)
"""
class Sub(Thing):
    def of_base(self):
        self._own = self._i + self._own
'''
    found = {name for name in used_names(source) if PRIVATE.fullmatch(name)}
    assert found == {"_a", "_b", "_b2", "_c", "_d", "_e", "_f", "_g", "_h", "_i"}
    source = "_x: int = 1\ndef _y(): ...\nclass _Z:\n  def m(self): self._w = __v"
    held = bound_names(ast.parse(source))
    assert held == {"_x", "_y", "_Z", "_w"}


def test_tests_use_what_others_can_use():
    found = {
        (path.relative_to(TESTS).as_posix(), name)
        for path in TESTS.rglob("*.py")
        if path != Path(__file__)  # which names the exceptions
        for name in used_names(path.read_text(encoding="utf-8"))
        if name in private_to_the_package()
    }
    assert found == PRIVATE_IN_TESTS


def test_the_tests_have_the_folders_of_the_package():
    folders = {path.parent.relative_to(TESTS) for path in TESTS.rglob("test_*.py")}
    of_package = {folder for folder in folders if (PACKAGE / folder).is_dir()}
    # Of what lies beside the package.
    assert {str(folder) for folder in folders - of_package} == {"benchmarks", "conf", "docs"}


def test_finds_circles():
    modules = {"p", "p.a", "p.b"}
    assert modules_among({"p", "p.a"}, modules) == {"p.a"}  # from p import a
    assert modules_among({"p", "p.a", "p.f"}, modules) == {"p", "p.a"}  # from p import a, f
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"e2"}, "e2": {"e"}}
    assert circles(graph) == {frozenset("abc"), frozenset({"e", "e2"})}


def test_no_files_import_each_other():
    assert circles(import_graph()) == set()


def test_the_wings_of_the_application_import_one_way():
    def wing(module: str) -> int:
        return WINGS.index(module.split(".")[2])

    upward = {
        (module, other)
        for module, imported in import_graph().items()
        for other in imported
        if module.startswith("qspinn.app.") and other.startswith("qspinn.app.")
        if wing(other) > wing(module)
    }
    assert not upward


def test_the_key_of_a_stored_training_covers_the_sources_that_it_runs():
    from qspinn.app.run.baselines import SOURCES

    graph = import_graph()
    waiting = [m for m in graph if m.startswith(("qspinn.networks", "qspinn.learning"))]
    seen = set()
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += graph[module]
    assert siblings_of(seen) <= set(SOURCES)


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


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function's body, its docstring left out."""
    body = function.body[ast.get_docstring(function) is not None :]
    return function.end_lineno - body[0].lineno + 1 if body else 0


def test_no_function_is_longer_than_one_can_follow():
    found = {
        (path.relative_to(PACKAGE).parts, node.name): lines_of(node)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    long = {place: lines for place, lines in found.items() if lines > LONGEST_FUNCTION}
    assert {path for path, _ in long} <= LONG_FUNCTIONS, long


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
