"""Runs programs in processes of their own that need not import torch and Lightning first.

The imports take ten times as long as what a test asks of a tiny run. A server makes them once in a
test session and forks for each program; a fork takes the longer the more is loaded. It gets
arguments, environment, folder and outputs of its own, runs the file as ``__main__`` and ends as
programs end, with an exit code or a traceback. What happens before imports, or depends on how
Python is started, needs an interpreter of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

# Reads a request per line; answers with a process and its exit code. The fork leaves the loop.
SERVER = """
import gc, importlib, json, os, runpy, sys

for name in sys.argv[1:]:
    importlib.import_module(name)
gc.collect()
gc.freeze()
while line := sys.stdin.readline():
    request = json.loads(line)
    if not (process := os.fork()):
        break
    print(process, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
else:
    sys.exit()

os.chdir(request["cwd"])
os.environ.clear()
os.environ.update(request["env"])
for number, name in enumerate(request["files"]):
    opened = os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(opened, number)
    os.close(opened)
sys.argv = request["argv"]
sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
if sys.argv[0] == "-c":
    sys.path[0], code = "", sys.argv.pop(1)
    exec(compile(code, "<string>", "exec"))
else:
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


class ForkServer:
    """Runs one program at a time. It starts with the first, and anew after one that hangs.

    Args:
        repository: Where it runs.
        imports: The modules that it imports.
    """

    def __init__(self, repository: Path, *imports: str) -> None:
        self._repository = repository
        self._imports = imports
        self._server: subprocess.Popen[str] | None = None

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def run(
        self, arguments: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run what would follow ``python``: a file, or ``-c`` and code, and arguments."""
        with TemporaryDirectory() as folder:
            files = [Path(folder, name) for name in ("out", "err")]
            request = {
                "argv": list(arguments),
                "cwd": str(cwd),
                "env": dict(os.environ if env is None else env),
                "files": [os.devnull, *map(str, files)],
            }
            code = self._ask(json.dumps(request))
            texts = [file.read_text(encoding="utf-8") for file in files]
        return subprocess.CompletedProcess([sys.executable, *arguments], code, *texts)

    def _ask(self, request: str) -> int:
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, "-c", SERVER, *self._imports],
                cwd=self._repository,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        server, process = self._server, None
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            print(request, file=server.stdin, flush=True)
            process = int(server.stdout.readline())
            return int(server.stdout.readline())
        except BaseException:  # such as a time limit
            if process is not None:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            self._end()
            raise

    def _end(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.communicate()
            self._server = None
