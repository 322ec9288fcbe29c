"""The benchmarks, from one command that needs nothing but a clone and its requirements.

    python -m benchmarks                                 # what there is
    python -m benchmarks few_bits --case subset          # one of them, with its own arguments
    python -m benchmarks few_bits --help                 # what those are
    python -m benchmarks check                           # a few ratios against stored ones
    python -m benchmarks --all --within 30 --data DIR    # those that take at most 30 minutes each
    python -m benchmarks --install-peers bindsnet        # what some compare with; never by itself

Most write their tables to docs/results.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import catalog
import peers

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and not given[0].startswith("-"):
        return run(given[0], given[1:])
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--all", action="store_true", help="run all that have what they need, one after the other")
    add("--within", type=float, default=10, metavar="MINUTES", help="of --all (default: 10)")
    add("--data", type=Path, help="folder of the data (default: $QSPINN_DATA, or data)")
    add("--install-peers", nargs="*", metavar="NAME", help="install these, or all, and stop")
    options = parser.parse_args(given)
    data = (options.data or catalog.data_folder()).resolve()
    if options.install_peers is not None:
        return install(options.install_peers)
    if options.all:
        return run_all(data, options.within)
    show(data)
    return 0


def show(data: Path) -> None:
    """Lists the benchmarks, with what each lacks here."""
    width = max(map(len, catalog.ENTRIES))
    found = {name: list(catalog.needs(entry, data)) for name, entry in catalog.ENTRIES.items()}
    print("python -m benchmarks NAME [ARGUMENT ...]      (NAME --help: its arguments)")
    print("Needs are those of a whole page; without data, several measure less on embedded ones.\n")
    for name, entry in catalog.ENTRIES.items():
        print(f"{name:{width}} {catalog.duration(entry.minutes):>6}  {catalog.about(name)}")
        for verb, optional in (("needs", False), ("can use", True)):
            some = [one for one in found[name] if one.optional == optional]
            if some:
                named = (one.name if one.found else f"{one.name} (missing)" for one in some)
                print(f"{'':{width}}         {verb} {', '.join(named)}")
    missing = {one.name: one.advice for many in found.values() for one in many if not one.found}
    if missing:
        print("\nMissing here (nothing is installed unless you ask for it):")
        print("\n".join(f"  {name}: {advice}" for name, advice in missing.items()))
    print("\nWhat benchmarks compare with, each in a folder of its own:")
    for name, peer in peers.PEERS.items():
        where = f"missing. Install it:\n{peers.how_to_install(name)}"
        print(f"  {peer.title} {peer.version}: {where if peer.is_missing() else peer.folder}")


def run(name: str, arguments: Sequence[str]) -> int:
    """Runs one in a process of its own, and returns its exit code."""
    if name not in catalog.ENTRIES:
        print(f"error: no benchmark {name!r}; python -m benchmarks lists them", file=sys.stderr)
        return 2
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, str(catalog.FOLDER / f"{name}.py"), *arguments]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the process gets it as well, and ends as it wants to
            continue


def run_all(data: Path, within: float) -> int:
    """Runs what is short enough and lacks nothing; 1 if one of them failed."""
    failed = []
    for name, entry in catalog.ENTRIES.items():
        needs = catalog.needs(entry, data)
        reasons = [f"no {one.name}: {one.advice}" for one in needs if not one.found | one.optional]
        if entry.arguments is None:
            reasons = ["it compares what somebody has to make first"]
        if entry.minutes > within:
            reasons = [f"{catalog.duration(entry.minutes)}; --within {entry.minutes:g}"]
        if reasons:
            print(f"== {name}: left out ({'; '.join(reasons)})", flush=True)
            continue
        given = [argument.format(data=data) for argument in entry.arguments or ()]
        print(f"== {shlex.join([name, *given])}", flush=True)
        if run(name, given):
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def install(names: Sequence[str]) -> int:
    """Installs peers, all of them where none is named."""
    unknown = set(names) - peers.PEERS.keys()
    if unknown:
        known = ", ".join(peers.PEERS)
        print(f"error: no peer {', '.join(sorted(unknown))}; write {known}", file=sys.stderr)
        return 2
    try:
        for name in names or peers.PEERS:
            peers.install(name)
    except peers.PeerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
