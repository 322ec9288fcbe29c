"""A multirun whose jobs are all known in advance, run by persistent processes."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from qspinn.app.compose.completing import complete, to_plain
from qspinn.app.compose.gate_settings import gate_settings
from qspinn.app.compose.limits import check_known_keys
from qspinn.app.errors import ConfigurationError, print_error
from qspinn.app.explore.exploring import Candidate, Evaluation, check_workers, explore, report
from qspinn.app.explore.launched import split
from qspinn.app.explore.workers import WorkersCannotStart
from qspinn.app.hydra_internals import (
    BasicSweeper,
    ConfigLoaderImpl,
    apply_overrides,
    get_overrides_dirname,
    sets_a_value,
)


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
        SystemExit: 1 if a job failed, 2 for an invalid value.
    """
    started = time.monotonic()
    try:
        count = check_workers(workers)
    except ConfigurationError as error:
        print_error(error)
        raise SystemExit(2) from None
    composer = Composer(context, config)
    (jobs,) = BasicSweeper.split_arguments(composer.parser.parse_overrides(arguments), None)
    try:
        candidates = [composer.candidate(number, list(job)) for number, job in enumerate(jobs)]
        candidates = in_order(candidates)
    except (OmegaConfBaseException, ConfigurationError) as error:
        # A job that refers to what another override has deleted.
        print_error(error)
        raise SystemExit(2) from None
    folder = Path(config.hydra.sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, folder / "multirun.yaml")
    where = "in this process" if count == 1 else f"in {count} processes"
    print(f"{len(candidates)} jobs {where}, in {folder}", flush=True)
    try:
        done = report(explore(candidates, count), len(candidates))
    except WorkersCannotStart as error:
        print_error(error)
        raise SystemExit(1) from None
    failed = [one for one in done if one.record is None and one.stopped is None]
    stopped = sum(one.stopped is not None for one in done)
    seconds = time.monotonic() - started
    counts = f"{len(done) - len(failed) - stopped} done, {len(failed)} failed"
    counts += f", {stopped} stopped early" if stopped else ""
    print(f"{counts}, {seconds:.0f} s", flush=True)
    if failed:
        for evaluation in failed:
            print_error(evaluation)
        raise SystemExit(1)
    return done


def in_order(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return candidates in the order in which a gate learns most from the first ones.

    PTQ, which trains nothing, before ITQ; few bits before many; and stochastic rounding, with which
    networks of few bits learn best (Gupta et al., ICML 2015), before the others. The first seed
    goes ahead, for the settings that it stops are not tried with the others. Without a gate the
    order stays.
    """
    settings = [gate_settings(to_plain(complete(one.config))["exploration"]) for one in candidates]
    if not any(settings):
        return list(candidates)

    def place(candidate: Candidate) -> tuple[int, bool, int, bool]:
        quantization = candidate.config.quantization
        seed, length = candidate.config.seed, quantization.word_length
        return (
            seed if isinstance(seed, int) else 0,  # the job itself refuses an invalid one
            quantization.scheme == "itq",
            length if isinstance(length, int) else 0,
            quantization.rounding != "stochastic",
        )

    return sorted(candidates, key=place)


class Composer:
    """Composes the jobs of a multirun.

    Composing takes a tenth of a second. Jobs that differ only in values from
    one that is composed already are copies of it with these values; Hydra itself sets values last.

    Args:
        context: Of the launch.
        config: Of the launch, with its node ``hydra``.
    """

    def __init__(self, context: HydraContext, config: DictConfig) -> None:
        setup_globals()
        assert isinstance(context.config_loader, ConfigLoaderImpl)
        self.loader = context.config_loader
        self.parser = OverridesParser.create(config_loader=self.loader)
        self.config = config
        self.composed: dict[tuple[str, ...], DictConfig] = {}

    def candidate(self, number: int, job: list[str]) -> Candidate:
        """Return the job with a number in the multirun, with its configuration and its folder."""
        overrides = self.parser.parse_overrides(job)
        values = [o for o in overrides if sets_a_value(self.loader, o)]
        others = [o for o in overrides if o not in values]
        key = tuple(str(override.input_line) for override in others)
        key += tuple(str(override.key_or_group) for override in values)
        if key not in self.composed:
            self.composed[key] = self.loader.load_sweep_config(self.config, job)
            check_known_keys(self.composed[key])
        made = copy.deepcopy(self.composed[key])
        _set(made, values, overrides, number)
        return Candidate(*split(made))


def _set(
    config: DictConfig, values: list[Override], all_of_them: list[Override], number: int
) -> None:
    """Set the values of a job, and what Hydra says of it."""
    apply_overrides(values, config)
    settings = config.hydra.job.config.override_dirname
    with open_dict(config.hydra):
        config.hydra.job.num = number
        config.hydra.job.id = number
        config.hydra.overrides.task = [o.input_line for o in all_of_them]
        config.hydra.job.override_dirname = get_overrides_dirname(
            all_of_them, list(settings.exclude_keys), settings.item_sep, settings.kv_sep
        )
