"""Fixtures that every test may use."""

import gc
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from qspinn.records import RunRecord, config_hash
from tests.forking import ForkServer

# One thread per test process: more threads than cores slow each other down. Set before torch is
# imported, which reads it once; processes that tests start inherit it. Nothing here imports torch
# at once: the process that hands out tests does without it, and the others start the sooner.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is no failure: how long things take is for benchmarks/ to say.
settings.register_profile("qspinn", deadline=None)
settings.load_profile("qspinn")

# A shell starts what runs in the background with SIGINT ignored, and children inherit that: tests
# that send one to a process of their own would wait for ever.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parents[1]

# They compile most kinds of the kernel of the plastic network, 5 to 10 s each, for the cache on
# disk. They come first, one after the other in one process, before others need the same kinds:
# where two processes need one at the same time, both compile it.
COMPILING = ("tests/stdp/", "tests/networks/diehl_cook/", "tests/learning/", "tests/export/")

MOST_WORKERS = 8  # a test process needs up to 2.5 GB
FEW_FILES = 3


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many test processes ``-n auto`` starts: one per core.

    It starts none for a few test files, which have run before workers are up, and none with
    ``-s``, whose output workers do not pass on.
    """
    if config.option.capture == "no":
        return 0
    if len(config.args) <= FEW_FILES and all(".py" in argument for argument in config.args):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, MOST_WORKERS)


GOLDEN_RATIO = (5**0.5 - 1) / 2


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests first that compile for others, and mark most variants of some tests.

    They are slow, and of a campaign where ``@pytest.mark.few(share, "campaign")`` says so. What
    stays is the first one, and others at distances that fall into step with no product of
    parameters.
    """
    items.sort(key=lambda item: not item.nodeid.startswith(COMPILING))
    numbers = Counter[str]()
    for item in items:
        few = item.get_closest_marker("few")
        if few is not None:
            name = item.nodeid.partition("[")[0]
            if numbers[name] * GOLDEN_RATIO % 1 >= few.args[0]:
                for mark in ("slow", *few.args[1:]):
                    item.add_marker(mark)
            numbers[name] += 1


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Keep what was imported from garbage collection.

    It stays until the end, and to look through it each time takes a fifth of the tests' time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # what tests make is looked through less often, too
    # Not before a test: fixtures of a whole module may have run something by then.
    SETTINGS.append(global_settings())


def global_settings() -> tuple[bool, bool, bool, int]:
    """What a run sets for the whole process."""
    import torch

    cudnn = torch.backends.cudnn
    deterministic = torch.are_deterministic_algorithms_enabled()
    return deterministic, cudnn.deterministic, cudnn.benchmark, torch.get_num_threads()


SETTINGS: list[tuple[bool, bool, bool, int]] = []


@pytest.fixture(autouse=True)
def global_settings_are_put_back() -> Iterator[None]:
    """Other tests expect what is there at the start."""
    environment = dict(os.environ)
    yield
    if global_settings() != SETTINGS[0]:
        import torch

        deterministic, cudnn_deterministic, benchmark, threads = SETTINGS[0]
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.deterministic = cudnn_deterministic
        torch.backends.cudnn.benchmark = benchmark
        torch.set_num_threads(threads)
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def forked(repository: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Return a function that runs a program with Python; it need not import torch first.

    It takes what follows ``python``, ``cwd``, and ``env`` where that is not this process's.
    """
    with ForkServer(repository, "hydra.main", "matplotlib.pyplot", "qspinn.app.launch") as server:
        yield server.run


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder with the full data sets, or skip with the reason.

    It is ``../shared/data`` beside the repository; the environment variable ``QSPINN_DATA``
    names another.
    """
    folder = Path(os.environ.get("QSPINN_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "MNIST" / "raw").is_dir():
        pytest.skip(f"no folder MNIST/raw in {folder}; set QSPINN_DATA to the folder that has it")
    return folder


@pytest.fixture(scope="session")
def make_record() -> Callable[..., RunRecord]:
    """Return a function that makes a valid record of a PTQ run; keywords replace its fields.

    ``bits`` and ``baseline_bits`` are the footprints, all of them weights; 800 and 3200 where
    nothing else is said, and 3200 both for scheme ``none``.
    """

    def make(bits: int | None = None, baseline_bits: int = 3200, **values: Any) -> RunRecord:
        scheme = values.get("scheme", "ptq")
        if bits is None:
            bits = baseline_bits if scheme == "none" else 800
        seed = values.get("seed", 0)
        config = {
            "seed": seed,
            "network": {"channels": [8, 16]},
            "quantization": {"scheme": scheme, "bits": bits},
        }
        config = values.get("config", config)
        fields: dict[str, Any] = {
            "accuracy": 0.97,
            "footprint_bits": bits,
            "baseline_footprint_bits": baseline_bits,
            "training_footprint_bits": bits,
            "footprint_bits_by_role": {"weight": bits},
            "baseline_footprint_bits_by_role": {"weight": baseline_bits},
            "scheme": scheme,
            "rounding": None if scheme == "none" else "nearest",
            "word_lengths": {} if scheme == "none" else {"weight": 8},
            "network": "conv_snn",
            "data": "mnist_subset",
            "seed": seed,
            "config": config,
            "config_hash": config_hash(config),
        }
        return RunRecord(**{**fields, **values})

    return make
