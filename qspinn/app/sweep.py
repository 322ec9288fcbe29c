"""A multirun in one go: all jobs known beforehand, run by processes that stay."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from qspinn.app.errors import ConfigurationError
from qspinn.app.exploring import Candidate, Evaluation, check_workers, explore, report

__all__ = ["sweep"]


def sweep(
    context: HydraContext, config: DictConfig, arguments: list[str], workers: object
) -> list[Evaluation]:
    """Run every combination of the values that the arguments list, as Hydra's own sweeper does.

    Folders, configurations and records are those of ``python train.py -m`` with any launcher.

    Args:
        context: Of the launch.
        config: Of the launch, with its node ``hydra``.
        arguments: Overrides; a later one replaces an earlier one of the same key.
        workers: Processes.

    Raises:
        SystemExit: 1 if a job failed, 2 for a value that cannot be.
    """
    started = time.monotonic()
    try:
        count = check_workers(workers)
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    parser = OverridesParser.create(config_loader=context.config_loader)
    (jobs,) = BasicSweeper.split_arguments(parser.parse_overrides(arguments), None)
    try:
        candidates = list(_candidates(context, config, jobs, parser))
    except OmegaConfBaseException as error:
        # A job that refers to what another override has deleted.
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    folder = Path(config.hydra.sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, folder / "multirun.yaml")
    where = "in this process" if count == 1 else f"in {count} processes"
    print(f"{len(candidates)} jobs {where}, in {folder}", flush=True)
    done = report(explore(candidates, count), len(candidates))
    failed = [evaluation for evaluation in done if evaluation.record is None]
    seconds = time.monotonic() - started
    print(f"{len(done) - len(failed)} done, {len(failed)} failed, {seconds:.0f} s", flush=True)
    if failed:
        for evaluation in failed:
            print(f"error: {evaluation}", file=sys.stderr)
        raise SystemExit(1)
    return done


def _candidates(
    context: HydraContext, config: DictConfig, jobs: Sequence[list[str]], parser: OverridesParser
) -> Iterator[Candidate]:
    """Compose each job.

    Composing takes a tenth of a second. Jobs that differ from one that is composed in nothing but
    values are copies of it with these values; Hydra itself sets values last.
    """
    setup_globals()
    composed: dict[tuple[str, ...], DictConfig] = {}
    loader = context.config_loader
    assert isinstance(loader, ConfigLoaderImpl)
    for number, job in enumerate(jobs):
        overrides = parser.parse_overrides(list(job))
        values = [o for o in overrides if _sets_a_value(loader, o)]
        others = [o for o in overrides if o not in values]
        key = tuple(str(override.input_line) for override in others)
        keys = tuple(str(override.key_or_group) for override in values)
        if key + keys not in composed:
            composed[key + keys] = loader.load_sweep_config(config, list(job))
        made = copy.deepcopy(composed[key + keys])
        _set(made, values, overrides, number)
        yield Candidate(*_split(made))


def _sets_a_value(loader: ConfigLoaderImpl, override: Override) -> bool:
    """Whether an override does nothing but to change the value of a key that is there."""
    is_plain = not (override.is_add() or override.is_force_add() or override.is_delete())
    return is_plain and not loader.repository.group_exists(override.key_or_group)


def _set(
    config: DictConfig, values: list[Override], all_of_them: list[Override], number: int
) -> None:
    """Set the values of a job, and what Hydra says of it."""
    ConfigLoaderImpl._apply_overrides_to_config(values, config)
    settings = config.hydra.job.config.override_dirname
    with open_dict(config.hydra):
        config.hydra.job.num = number
        config.hydra.job.id = number
        config.hydra.overrides.task = [o.input_line for o in all_of_them]
        config.hydra.job.override_dirname = get_overrides_dirname(
            all_of_them, list(settings.exclude_keys), settings.item_sep, settings.kv_sep
        )


def _split(config: DictConfig) -> tuple[DictConfig, Path]:
    """The configuration of a job without the node ``hydra``, and its folder.

    Whatever refers to the job's own node ``hydra`` is resolved before that is gone.
    """
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        folder = Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
        with open_dict(config):
            del config["hydra"]
        OmegaConf.resolve(config)
    finally:
        HydraConfig.instance().cfg = before
    return config, folder.absolute()
