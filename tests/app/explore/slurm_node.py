"""A Slurm of one node, for the time of a test: no database, no cgroups, no key."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "srun", "scontrol", "sinfo")
HOW = "on Debian, as root: apt-get install -y slurm-wlm"
CONFIG = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/none
CredType=cred/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1
ReturnToService=2
MaxArraySize={max_array_size}
SlurmUser={user}
SlurmdUser={user}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdSpoolDir={folder}/slurmd
StateSaveLocation={folder}/slurmctld
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=16000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Say what a Slurm needs that is not here."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"Slurm is not installed ({', '.join(absent)}): {HOW}"
    return None


@contextmanager
def slurm_node(folder: Path, max_array_size: int, cpus: int = 2) -> Iterator[dict[str, str]]:
    """Start a Slurm; yield the environment variables that its commands need.

    Raises:
        RuntimeError: It does not start, with the last lines of its logs.
    """
    for name in ("slurmctld", "slurmd"):
        (folder / name).mkdir(parents=True)
    config = folder / "slurm.conf"
    config.write_text(
        CONFIG.format(
            host=socket.gethostname().partition(".")[0],
            controller_port=_free_port(),
            node_port=_free_port(),
            max_array_size=max_array_size,
            user=getpass.getuser(),
            folder=folder,
            cpus=cpus,
        )
    )
    environment = {"SLURM_CONF": str(config)}
    with ExitStack() as stack:
        for name in ("slurmctld", "slurmd"):
            stack.enter_context(_daemon(name, folder, environment))
        _wait_for_node(folder, environment)
        yield environment


@contextmanager
def _daemon(name: str, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    with (
        open(folder / f"{name}.log", "wb") as log,
        subprocess.Popen(
            [name, "-D"],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            yield
        finally:
            process.terminate()


def _wait_for_node(folder: Path, environment: dict[str, str], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        shown = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )
        if shown.stdout.strip() == "idle":
            return
        time.sleep(0.5)
    logs = [
        line for log in folder.glob("*.log") for line in log.read_text().splitlines()[-5:] if line
    ]
    raise RuntimeError("\n".join(["this Slurm does not start", *logs]))


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
