"""Select among run records: what `python select.py` does."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import hydra
from omegaconf import DictConfig

from qspinn.app.choose.sources import WANDB, Sources, read_sources
from qspinn.app.compose.command_line import CONFIG_FOLDER, prepare_arguments
from qspinn.app.compose.completing import to_plain
from qspinn.app.errors import refused, switch
from qspinn.app.outputs import protect_outputs
from qspinn.app.paths import from_start
from qspinn.app.signals import ending_as_stopped, say_on_stop, stop_on_signals
from qspinn.records import printable, printable_lines, shortened, write_json
from qspinn.report import SHOW_ALL, print_selection
from qspinn.report.data import selection_values, significance_curves
from qspinn.selection import Reward, Selection, Target, check_chosen_by, select

# The value of a key that was deleted.
_WITHOUT: dict[str, Any] = {
    "runs": None,
    "target": None,
    "reward": None,
    "allow_mixed": False,
    "group_seeds": True,
    "select": None,
    "show": None,
    "output": None,
    "export": None,
    "export_options": None,
}


def run_selection(config: DictConfig) -> Selection:
    """Read, select, print, and write the files that the configuration asks for.

    Raises:
        ValueError: A setting is wrong, no record is readable, or the runs cannot be compared.
        FileNotFoundError: See `read_sources`.
    """
    settings = {**_WITHOUT, **to_plain(config)}
    target, reward = _target(settings["target"]), _reward(settings["reward"])
    roots, show = _roots(settings["runs"]), _show(settings["show"])
    allow_mixed, group_seeds = (
        switch(name, settings[name]) for name in ("allow_mixed", "group_seeds")
    )
    chosen_by, output = _chosen_by(settings["select"]), _output(settings["output"])
    export = _export(settings["export"], settings["export_options"], output)
    with _without_collecting():
        found = read_sources([_root_from_start(root) for root in roots])
        for problem in found.skipped:
            print(f"skipped: {problem}", file=sys.stderr)
        for problem in found.failed:
            print(f"failed: {problem}", file=sys.stderr)
        if found.stopped:
            print(
                f"stopped: {len(found.stopped)} candidates by exploration.gate, such as "
                f"{found.stopped[0]}",
                file=sys.stderr,
            )
        counts = f"{len(found.runs)} read, {len(found.skipped)} skipped"
        if found.failed:
            counts += f", {len(found.failed)} failed"
        if found.stopped:
            counts += f", {len(found.stopped)} stopped early"
        if not found.runs:
            raise ValueError(f"no usable record.json below {', '.join(roots)} ({counts})")
        print(f"Records: {counts}")
        selection = select(found.runs, target, reward, allow_mixed, group_seeds, chosen_by)
        print_selection(selection, show=show)
        for path in _write(selection, found, output):
            print(f"Written: {printable(str(path))}")
        if export is not None and selection.winner is not None:
            _export_winner(selection, *export, Path(from_start(str(output["dir"]))))
    return selection


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Pause garbage collection, which doubles the time: records make many objects, no cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _write(selection: Selection, found: Sources, output: dict[str, str | None]) -> Iterator[Path]:
    """Write the files that were asked for; what they need is imported only then."""
    if output["json"] is not None:
        values = selection_values(selection, found.skipped, found.failed)
        yield write_json(values, from_start(output["json"]))
    if output["dir"] is None:
        return
    from qspinn.report.front import draw_front, save_figure
    from qspinn.report.page import write_page
    from qspinn.report.table import write_table

    folder = Path(from_start(output["dir"]))
    values = selection_values(selection, found.skipped, found.failed)
    yield write_json(values, folder / "selection.json")
    yield write_table(selection, folder / "selection.csv")
    figure = draw_front(selection)
    yield save_figure(figure, folder / "front.png")
    yield save_figure(figure, folder / "front.svg")
    problems = [f"skipped: {line}" for line in found.skipped]
    problems += [f"failed: {line}" for line in found.failed]
    curves = significance_curves(selection)
    yield write_page(selection, folder / "selection.html", curves, problems)


def _output(given: Any) -> dict[str, str | None]:
    """The files to write; null, or a key that is not there, means none."""
    if given is not None and (not isinstance(given, dict) or not set(given) <= {"dir", "json"}):
        raise ValueError(f"output={given!r}: the keys are dir, json")
    settings: dict[str, Any] = {"dir": None, "json": None, **({} if given is None else given)}
    for name, value in settings.items():
        if value is not None and (not isinstance(value, str) or not value):
            raise refused(f"output.{name}", value, "a path, or null for none")
    return settings


def _export(
    name: Any, options: Any, output: dict[str, str | None]
) -> tuple[str, dict[str, Any]] | None:
    """The format to export the winner in, and its options; what it needs is imported only then."""
    if options is not None and not isinstance(options, dict):
        raise refused("export_options", options, "options of the format, such as {learning: true}")
    given = {key: value for key, value in (options or {}).items() if value is not None}
    if name is None:
        if given:
            key = next(iter(given))
            raise ValueError(f"export_options.{key}: nothing is exported; write export=c, too")
        return None
    from qspinn.export.formats import FORMATS, OptionError, converted

    if name not in FORMATS:
        raise refused("export", name, f"{', '.join(FORMATS)}, or null for none")
    if output["dir"] is None:
        raise ValueError(f"export={name} writes into the output folder; write output.dir=FOLDER")
    try:
        return str(name), converted(name, given)
    except OptionError as error:
        raise ValueError(f"export_options.{error}") from error


def _export_winner(selection: Selection, name: str, options: dict[str, Any], folder: Path) -> None:
    """Export the best of the winner's runs by what has chosen it, the first seed of equal ones."""
    from qspinn.app.choose.exporting import export_run

    assert selection.winner is not None
    runs = selection.winner.group.runs
    best = min(runs, key=lambda run: (-run.record.accuracy, run.record.seed))
    record = best.record if best.reported is None else best.reported
    if not os.path.isfile(best.path):
        raise ValueError(f"export={name}: {best.path} is no record file; select among folders")
    for path in export_run(Path(best.path).parent, record, name, folder / name, options):
        print(f"Written: {printable(str(path))}")


def _chosen_by(settings: Any) -> str:
    """The data that choose; a key that was deleted leaves it at validation data."""
    given = {} if settings is None else settings
    if not isinstance(given, dict) or not set(given) <= {"by"}:
        raise ValueError(f"select={settings!r}: the only key is by, validation or test")
    chosen_by = given.get("by", "validation")
    check_chosen_by(chosen_by)
    return str(chosen_by)


def _target(settings: Any) -> Target:
    """The bounds; a key that was deleted is no bound."""
    if not isinstance(settings, dict):
        known = ", ".join(item.name for item in fields(Target))
        raise ValueError(
            f"target={settings!r}: the keys are {known}, part; each may be null, for none"
        )
    return Target.of(settings)


def _reward(config: Any) -> Reward:
    is_node = isinstance(config, dict) and "_target_" in config
    reward = hydra.utils.instantiate(config) if is_node else None
    if not callable(reward):
        raise ValueError(
            f"reward={config!r} is no callable; write reward._target_=qspinn.selection.LinearReward"
        )
    return reward


def _roots(runs: object) -> list[str]:
    roots = [runs] if isinstance(runs, str) else runs
    if not isinstance(roots, list) or not roots or not all(isinstance(r, str) for r in roots):
        wanted = (
            "a folder, a record file, a glob, a table.csv, wandb:entity/project, or a list [a,b]"
        )
        raise refused("runs", runs, wanted)
    return roots


def _root_from_start(root: str) -> str:
    return root if root.startswith(WANDB) else from_start(root)


def _show(show: object) -> int | None:
    if show == "all":
        return SHOW_ALL
    if show in (None, "few"):
        return None
    if type(show) is not int or show < 0:
        raise refused("show", show, "a number of rows, few or all")
    return show


def main() -> None:
    """Compose the configuration from the command line and select.

    Exits with 1 when no run meets the target or nothing can be selected, with the reason.
    """
    protect_outputs()
    stop_on_signals()
    say_on_stop(lambda: "nothing was selected")
    with ending_as_stopped():
        prepare_arguments()
        _select()


@hydra.main(version_base="1.3", config_path=str(CONFIG_FOLDER), config_name="select")
def _select(config: DictConfig) -> None:
    try:
        selection = run_selection(config)
    except (ValueError, OSError) as error:
        _exit(str(error))
    except hydra.errors.InstantiationException as error:
        _exit(f"the reward cannot be made: {error}")
    if selection.winner is None:
        _exit(selection.reason)


def _exit(message: str) -> NoReturn:
    sys.stdout.flush()
    print(f"select.py: {printable_lines(shortened(message))}", file=sys.stderr)
    raise SystemExit(1)
