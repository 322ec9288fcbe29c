"""Select among run records: what `python select.py` does."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import hydra
from omegaconf import DictConfig, OmegaConf

from qspinn.records import RecordError, find_records, read_record, write_json
from qspinn.report import print_selection
from qspinn.selection import Reward, Run, Selection, Target, select

__all__ = ["main", "read_runs", "run_selection"]

CONFIG_FOLDER = Path(__file__).resolve().parents[2] / "conf"


def read_runs(roots: str | Sequence[str]) -> tuple[list[Run], list[str]]:
    """Read every record below the roots.

    Returns:
        The runs, and for each record that cannot be used a line that names it and says why.

    Raises:
        FileNotFoundError: A root is no file, no folder and matches nothing as a glob.
    """
    runs, problems = [], []
    for path in find_records(roots):
        try:
            runs.append(Run(str(path), read_record(path)))
        except RecordError as error:
            problems.append(str(error))
    return runs, problems


def run_selection(config: DictConfig) -> Selection:
    """Read, select, print, and write the files that the configuration asks for.

    Raises:
        ValueError: A setting is wrong, no record is readable, or the runs cannot be compared.
        FileNotFoundError: See `read_runs`.
    """
    settings: Any = OmegaConf.to_container(config, resolve=True)
    target, reward = _target(settings["target"]), _reward(config.reward)
    roots, show = _roots(settings["runs"]), _show(settings["show"])
    allow_mixed = settings["allow_mixed"]
    if not isinstance(allow_mixed, bool):
        raise ValueError(f"allow_mixed={allow_mixed!r}: write true or false")
    runs, problems = read_runs(roots)
    for problem in problems:
        print(f"skipped: {problem}", file=sys.stderr)
    counts = f"{len(runs)} read, {len(problems)} skipped"
    if not runs:
        raise ValueError(f"no usable record.json below {', '.join(roots)} ({counts})")
    print(f"Records: {counts}")
    selection = select(runs, target, reward, allow_mixed)
    print_selection(selection, show=show)
    if settings["output"]["json"] is not None:
        values = selection.to_dict() | {"skipped": problems}
        print(f"Written: {write_json(values, settings['output']['json'])}")
    return selection


def _target(settings: Any) -> Target:
    try:
        return Target(**settings)
    except TypeError as error:
        known = ", ".join(item.name for item in fields(Target))
        raise ValueError(f"target={settings!r}: the keys are {known} ({error})") from error


def _reward(config: Any) -> Reward:
    reward = hydra.utils.instantiate(config)
    if not callable(reward):
        raise ValueError(
            f"reward={config!r} is no callable: write reward._target_=qspinn.selection.LinearReward"
        )
    return reward


def _roots(runs: object) -> list[str]:
    roots = [runs] if isinstance(runs, str) else runs
    if not isinstance(roots, list) or not roots or not all(isinstance(r, str) for r in roots):
        raise ValueError(f"runs={runs!r}: write a folder, a record file, a glob, or a list [a,b]")
    return roots


def _show(show: object) -> int | None:
    if show is not None and (type(show) is not int or show < 0):
        raise ValueError(f"show={show!r}: write a number of rows, or null for all")
    return show


@hydra.main(version_base="1.3", config_path=str(CONFIG_FOLDER), config_name="select")
def main(config: DictConfig) -> None:
    """Compose the configuration from the command line and select.

    Exits with 1 when no run meets the target or nothing can be selected, with the reason.
    """
    try:
        selection = run_selection(config)
    except (ValueError, FileNotFoundError) as error:
        _exit(str(error))
    except hydra.errors.InstantiationException as error:
        _exit(f"the reward cannot be made: {error}")
    if selection.winner is None:
        _exit(selection.reason)


def _exit(message: str) -> NoReturn:
    sys.stdout.flush()
    print(f"select.py: {message}", file=sys.stderr)
    raise SystemExit(1)
