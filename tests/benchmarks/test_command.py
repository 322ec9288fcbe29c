"""`python -m benchmarks`: what it lists, runs and installs."""

import ast
import os
import subprocess
import sys

import pytest


@pytest.fixture
def benchmark(monkeypatch, repository):
    """Return a function that imports a file of the folder."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))

    def load(name):
        import importlib

        return importlib.import_module(name)

    return load


@pytest.fixture
def command(benchmark, monkeypatch, repository, tmp_path):
    """Return the function behind the command; there is neither data nor a peer."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("QSPINN_DATA", str(tmp_path / "data"))
    monkeypatch.syspath_prepend(str(repository))
    return benchmark("benchmarks.__main__").main


@pytest.fixture
def started(monkeypatch):
    """Return the arguments of each process that is started; none is."""
    calls = []

    class Process:
        def __init__(self, arguments, env):
            calls.append(arguments[1:])
            assert env["PYTHONPATH"]

        def wait(self):
            return 3

    monkeypatch.setattr(subprocess, "Popen", Process)
    return calls


def test_every_script_is_listed(benchmark, command, capsys):
    catalog = benchmark("catalog")
    assert sorted(catalog.ENTRIES) == catalog.names(), "benchmarks/catalog.py lists the scripts"
    assert command([]) == 0
    listed = capsys.readouterr().out
    for name, entry in catalog.ENTRIES.items():
        assert f"\n{name} " in listed
        assert catalog.about(name) in listed
        assert catalog.duration(entry.minutes) in listed
    assert "BindsNET 0.3.4: missing. Install it:\n  python -m benchmarks --install-peers" in listed


def test_arguments_that_make_all_of_a_page_are_known_to_the_script(benchmark):
    catalog = benchmark("catalog")
    for name, entry in catalog.ENTRIES.items():
        texts = ast.walk(ast.parse((catalog.FOLDER / f"{name}.py").read_text("utf-8")))
        known = {node.value for node in texts if isinstance(node, ast.Constant)}
        options = [one for one in entry.arguments or () if one.startswith("--")]
        assert known.issuperset(options), name


def test_one_is_run_with_its_arguments(command, started):
    assert command(["few_bits", "--case", "subset"]) == 3
    ((script, *arguments),) = started
    assert script.endswith("few_bits.py")
    assert arguments == ["--case", "subset"]


def test_a_name_that_is_none(command, capsys):
    assert command(["few_bit"]) == 2
    assert "no benchmark 'few_bit'; python -m benchmarks lists them" in capsys.readouterr().err


def test_all_that_is_short_and_has_what_it_needs_is_run(command, started, capsys):
    assert command(["--all", "--within", "10"]) == 1
    said = capsys.readouterr()
    names = [os.path.basename(script) for script, *_ in started]
    assert "quantize.py" in names
    assert "few_bits.py" not in names
    assert "integer_engine: left out (no MNIST/raw: not in" in said.out
    assert "few_bits: left out (10 h; --within 600)" in said.out
    assert "chance: left out (it compares what somebody has to make first)" in said.out
    assert said.err.startswith("failed: check, aedat, ")


def test_data_are_handed_on(command, started, tmp_path):
    for folder in ("MNIST/raw", "N-MNIST-small"):
        (tmp_path / "here" / folder).mkdir(parents=True)
    command(["--all", "--within", "1000", "--data", str(tmp_path / "here")])
    arguments = {os.path.basename(script): rest for script, *rest in started}
    assert arguments["integer_engine.py"] == ["--data-root", str(tmp_path / "here")]
    assert arguments["nmnist.py"] == [f"data.root={tmp_path / 'here' / 'N-MNIST-small'}"]


def test_peers_are_installed_only_when_asked_for(benchmark, command, monkeypatch, tmp_path, capsys):
    peers = benchmark("peers")
    with pytest.raises(
        peers.PeerError, match=r"no BindsNET 0\.3\.4 in .*cache.*\n.*--install-peers"
    ):
        peers.require("bindsnet")
    asked = []

    def pip(arguments, **_):
        asked.append(arguments)
        target = arguments[arguments.index("--target") + 1]
        os.makedirs(os.path.join(target, "bindsnet"))
        return subprocess.CompletedProcess(arguments, 0, stderr="")

    monkeypatch.setattr(subprocess, "run", pip)
    assert command(["--install-peers", "bindsnet"]) == 0
    assert "bindsnet==0.3.4" in asked[0]
    peers.require("bindsnet")
    assert command(["--install-peers", "bindsnet"]) == 0
    assert len(asked) == 1  # it is there
    assert command(["--install-peers", "nothing"]) == 2
    assert "no peer nothing; write bindsnet, snntorch, brevitas" in capsys.readouterr().err


def test_a_peer_that_cannot_be_installed_leaves_nothing(
    benchmark, command, monkeypatch, tmp_path, capsys
):
    failed = subprocess.CompletedProcess([], 1, stderr="no network")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    assert command(["--install-peers", "bindsnet"]) == 1
    assert "pip said:\n  no network" in capsys.readouterr().err
    assert not any((tmp_path / "cache" / "qspinn").iterdir())


@pytest.mark.parametrize("start", [["-m", "benchmarks"], ["benchmarks"]])
def test_it_runs_from_a_clone(repository, start):
    command = [sys.executable, *start, "nothing"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no benchmark 'nothing'" in done.stderr
