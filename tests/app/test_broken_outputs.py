"""Outputs that cannot be written: what only prints goes on, what stores says it in one sentence."""

import contextlib
import errno
import os
import subprocess
import sys

import pytest

from qspinn.app.errors import storage_trouble
from qspinn.app.launch import short
from qspinn.atomic import atomic_file, write_text

PROGRAM = """
import sys
from qspinn.app.outputs import protect_outputs
protect_outputs()
for line in range(2000):
    print("a line that is as long as the lines of a table are", line, flush=line % 2 == 0)
print("also here", file=sys.stderr)
with open(sys.argv[1], "w") as file:
    file.write("done")
"""


def run(program, *arguments, repository, **options):
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=repository, timeout=60, **options)


@pytest.mark.parametrize("kind", ["closed pipe", "full disk", "closed"])
def test_what_cannot_be_printed_ends_nothing(repository, tmp_path, kind):
    done = tmp_path / "done"
    if kind == "closed pipe":
        reading, writing = os.pipe()
        os.close(reading)
        streams = [writing]
    elif kind == "full disk":
        streams = [os.open("/dev/full", os.O_WRONLY)]
    else:
        streams = []

    def close():
        os.closerange(0, 3)

    options = {"stdout": streams[0], "stderr": streams[0]} if streams else {"preexec_fn": close}
    code = run(PROGRAM, str(done), repository=repository, **options).returncode
    with contextlib.suppress(IndexError):
        os.close(streams[0])
    assert code == 0
    assert done.read_text() == "done"  # and nothing that was printed is in it


LOGGINGS = """
import sys
from hydra import compose, initialize_config_dir
from hydra.core.utils import configure_log
with initialize_config_dir(sys.argv[1], version_base="1.3"):
    for name in ("none", "stdout", "disabled", "default", "forgiving"):
        config = compose("train", [f"hydra/job_logging={name}"], return_hydra_config=True)
        config.hydra.runtime.output_dir = sys.argv[2]
        configure_log(config.hydra.job_logging, False)
"""


def test_the_ways_of_hydra_to_log_are_there_to_choose(repository, tmp_path):
    folders = str(repository / "conf"), str(tmp_path)
    assert run(LOGGINGS, *folders, repository=repository, stdout=subprocess.DEVNULL).returncode == 0


def test_characters_that_a_terminal_does_not_have(repository):
    program = (
        "from qspinn.app.outputs import protect_outputs; protect_outputs(); "
        f"print({'4.0× ±0.5 − ─┼│ … ✓'!a})"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    ran = run(program, repository=repository, env=environment, capture_output=True)
    assert ran.returncode == 0
    assert ran.stdout.decode("ascii").strip() == "4.0x +-0.5 - -+| ... ?"


@pytest.mark.few(0.5)
@pytest.mark.parametrize("reader", ["closed", "ascii"])
def test_select_writes_its_files_whatever_the_terminal(repository, tmp_path, reader, records):
    environment = {**os.environ}
    if reader == "ascii":
        environment |= {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    command = [sys.executable, "select.py", f"runs={records}", f"output.dir={tmp_path / 'out'}"]
    process = subprocess.Popen(
        command,
        cwd=repository,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    if reader == "closed":
        process.stdout.close()
        err = process.stderr.read().decode()
        process.wait(120)
    else:
        err = process.communicate(timeout=120)[1].decode("ascii")
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert (tmp_path / "out" / "selection.html").exists()


@pytest.fixture
def records(tmp_path, composed):
    """Return a folder with the record of a tiny run."""
    from qspinn.app.run.train import train

    train(composed("trainer.max_epochs=1", "quantization.scheme=ptq"), tmp_path / "runs")
    return tmp_path / "runs"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_the_first_error_of_a_disk_is_the_one_that_is_said(number):
    try:
        try:
            try:
                raise OSError(number, os.strerror(number), "outputs/metrics.csv")
            finally:
                raise RuntimeError("a hook that failed in consequence")
        finally:
            raise OSError(number, os.strerror(number), "outputs/failure.json")
    except OSError as error:
        told = str(short(error))
    assert told.startswith(f"outputs/metrics.csv cannot be written ({os.strerror(number)}); make")
    assert storage_trouble(FileNotFoundError(errno.ENOENT, "no such file")) is None
    assert short(ValueError("another error")) is None


@pytest.mark.parametrize("write", ["text", "checkpoint", "table", "file"])
def test_a_full_disk_is_named_with_its_file(tmp_path, write):
    """The limit on the size of files is as a full disk to whoever writes."""
    import resource

    import torch

    from qspinn.app.run.checkpoints import AtomicCheckpointIO
    from qspinn.app.run.metrics_table import MetricsTable

    target = tmp_path / "target"
    table = MetricsTable(tmp_path, "target")
    for step in range(500):
        table.log_metrics({"loss": 0.5}, step)

    def write_file():
        with atomic_file(target) as temporary, open(temporary, "wb") as file:
            file.write(b"x" * 10_000)

    tensors = {"a": torch.zeros(10_000)}
    writers = {
        "text": lambda: write_text("x" * 10_000, target),
        "checkpoint": lambda: AtomicCheckpointIO().save_checkpoint(tensors, target),
        "table": table.save,
        "file": write_file,
    }
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            writers[write]()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert storage_trouble(raised.value) == f"{target} cannot be written (File too large)"
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_code_that_exits_in_a_run_is_no_success(composed, tmp_path, monkeypatch):
    from qspinn.app.errors import RunError
    from qspinn.app.launch import run as run_job
    from qspinn.learning import SupervisedLearning

    def leaving(self, batch, batch_idx):
        sys.exit(0)

    monkeypatch.setattr(SupervisedLearning, "training_step", leaving)
    with pytest.raises(RunError, match=r"sys.exit\(0\) before it was done: there is no record"):
        run_job(composed(), tmp_path)


def test_the_log_of_a_run_says_nothing_of_a_full_disk(capfd):
    import logging

    from qspinn.app.outputs import LogFile

    def lines_of(place):
        logger = logging.Logger("of a run")
        logger.addHandler(LogFile(place))
        logger.warning("a line")
        logger.warning("a line with %d", "no number")
        return capfd.readouterr().err

    assert lines_of("/dev/null/cannot be opened") == ""
    said = lines_of("/dev/full")
    assert "TypeError" in said  # a fault of whoever logs
    assert "OSError" not in said


def test_a_folder_without_room_is_refused_before_hydra_writes_there(tmp_path):
    import resource

    from qspinn.app.errors import ConfigurationError
    from qspinn.app.folder.new_folder import check_output

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(ConfigurationError, match=r"\(File too large\); make room") as raised:
            check_output("hydra.run.dir", str(tmp_path / "run"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(raised.value).startswith(f"{tmp_path}: nothing can be written there")
    assert list(tmp_path.iterdir()) == []
