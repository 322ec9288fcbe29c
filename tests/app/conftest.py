"""A run small enough for a test: composed as train.py composes it."""

import copy
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from qspinn.app.hydra_internals import apply_overrides, sets_a_value
from tests.forking import ForkServer

# No test takes a training from another one, unless it says where from.
STORE = "baselines.dir="
NO_STORE = f"{STORE}null"

# Drawing takes a third of a tiny run. Tests that look at pictures write callbacks=default.
NO_PICTURES = ("callbacks.pictures=null", "callbacks.activity=null")

# A network of a few hundred synapses on a few batches of the embedded images.
TINY = (
    *NO_PICTURES,
    "network.channels=[4,4,4]",
    "network.kernel_sizes=[5,3,3]",
    "network.population=2",
    "network.time_steps=2",
    "network.neuron.v_threshold=0.3",
    "data.batch_size=16",
    "trainer.limit_train_batches=4",
    "trainer.max_epochs=3",
    "trainer.accelerator=cpu",
    "quantization.calibration_batches=2",
    "progress=lines",
)

# The same of a network that learns by STDP.
TINY_UNSUPERVISED = (
    *NO_PICTURES,
    "network.neurons=9",
    "network.time_steps=30",
    "network.settings.theta_plus=0.5",
    "data.batch_size=50",
    "learning.labelling_images=150",
    "trainer.limit_train_batches=4",
    "trainer.limit_test_batches=1",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "progress=lines",
)

# The same of a network that learns layer by layer.
TINY_LOCAL = (
    *NO_PICTURES,
    "network.channels=[3]",
    "network.kernel_sizes=3",
    "network.strides=2",
    "network.pools=2",
    "network.hidden=[8]",
    "network.time_steps=6",
    "network.burn_in=3",
    "data.batch_size=16",
    "trainer.limit_train_batches=4",
    "trainer.limit_test_batches=1",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "quantization.calibration_batches=2",
    "progress=lines",
)

# Runs train.py in a process that kills itself at the n-th call of a method, MODULE:CLASS:METHOD, or
# of a function, MODULE::FUNCTION.
KILLED = """
import importlib, os, runpy, signal, sys
where, count, *arguments = sys.argv[1:]
module, owner, name = where.split(":")
module = importlib.import_module(module)
owner = getattr(module, owner) if owner else module
original, calls = getattr(owner, name), []
def dying(*args, **kwargs):
    calls.append(1)
    if len(calls) == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)
setattr(owner, name, dying)
sys.argv = ["train.py", *arguments]
sys.path.insert(0, os.getcwd())
runpy.run_path("train.py", run_name="__main__")
"""

Compose = Callable[..., DictConfig]
Launch = Callable[..., subprocess.CompletedProcess[str]]
Select = Callable[..., tuple[int, str, str]]


def tiny_overrides(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return what makes the run that the arguments ask for tiny.

    Where they say which callbacks there are, all of these stay.
    """
    if any(text.startswith("experiment=unsupervised") for text in arguments):
        tiny = TINY_UNSUPERVISED
    else:
        tiny = TINY_LOCAL if "experiment=decolle_mnist_quick" in arguments else TINY
    if any(text.lstrip("~").partition("=")[0] == "callbacks" for text in arguments):
        return tuple(text for text in tiny if text not in NO_PICTURES)
    return tiny


@pytest.fixture(scope="session")
def composed(repository: Path) -> Compose:
    """Return a function from overrides to the configuration of a tiny run.

    Copying takes a twentieth of the time of composing. So each choice of groups is composed once,
    and values are set in a copy of it, as Hydra itself does last.
    """

    def make(*overrides: str, tiny: bool = True) -> DictConfig:
        import qspinn.app.run.train  # noqa: F401  (registers the resolver that conf/train.yaml uses)

        texts = NO_STORE, *(tiny_overrides(overrides) if tiny else ()), *overrides
        with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
        values = [text for text in texts if sets_a_value(loader, parsed(text))]
        config = copy.deepcopy(once(*(text for text in texts if text not in values)))
        apply_overrides([parsed(text) for text in values], config)
        return config

    @functools.cache
    def parsed(text: str) -> Override:
        (override,) = OverridesParser.create().parse_overrides([text])
        return override

    @functools.cache
    def once(*groups: str) -> DictConfig:
        with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
            return compose("train", list(groups))

    return make


@pytest.fixture
def tiny_arguments() -> tuple[str, ...]:
    """What makes a run of train.py tiny, for tests that start processes of their own."""
    return NO_STORE, *TINY


def launching(repository: Path, python: Launch) -> Launch:
    """Return a function that runs train.py with Python; it takes what `launch` does."""

    def run(*arguments: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
        flags = [argument for argument in arguments if argument.startswith("-")]
        overrides = [argument for argument in arguments if argument not in flags]
        variables = {**os.environ, **environment}
        return python(
            ["train.py", *flags, NO_STORE, *tiny_overrides(overrides), *overrides],
            cwd=repository,
            env={name: value for name, value in variables.items() if value is not None},
        )

    return run


@pytest.fixture
def launch(repository: Path, forked: Launch) -> Launch:
    """Return a function that runs train.py in a process of its own.

    It takes overrides, flags, and environment variables (None unsets one).
    """
    return launching(repository, forked)


@pytest.fixture
def launch_anew(repository: Path) -> Launch:
    """Return the same, where the process starts with a new interpreter, as people start it."""

    def python(arguments: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            **options,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return launching(repository, python)


@pytest.fixture
def launch_started(repository: Path) -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts train.py with overrides and flags, and does not wait for it."""

    def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "train.py", NO_STORE, *TINY, *arguments],
            cwd=repository,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    return start


@pytest.fixture
def launch_killed(repository: Path, forked: Launch) -> Launch:
    """Return a function that runs train.py and kills it at the n-th call of a method."""

    def run(where: str, count: int, *arguments: str) -> subprocess.CompletedProcess[str]:
        flags = [argument for argument in arguments if argument.startswith("-")]
        given = [argument for argument in arguments if argument not in flags]
        overrides = (*flags, NO_STORE, *tiny_overrides(given), *given)
        return forked(["-c", KILLED, where, str(count), *overrides], cwd=repository)

    return run


@pytest.fixture(scope="session")
def forked_without_torch(repository: Path) -> Iterator[Launch]:
    """Return what `forked` does, for select.py, which imports little."""
    with ForkServer(repository, "qspinn.app.choose.select") as server:
        yield server.run


def selecting(repository: Path, folder: Path, python: Launch) -> Select:
    """Return a function that runs select.py with Python in a folder: (code, out, err)."""

    def run(*overrides: str) -> tuple[int, str, str]:
        done = python([str(repository / "select.py"), *overrides], cwd=folder)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def run_select(repository: Path, tmp_path: Path, forked_without_torch: Launch) -> Select:
    """Return a function that runs select.py in a folder of its own: (code, out, err)."""
    return selecting(repository, tmp_path, forked_without_torch)


@pytest.fixture
def run_select_with_torch(repository: Path, tmp_path: Path, forked: Launch) -> Select:
    """Return the same, for what imports torch; nothing else does."""
    return selecting(repository, tmp_path, forked)
