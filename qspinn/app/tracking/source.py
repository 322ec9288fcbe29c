"""Runs that were logged to W&B, for a selection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qspinn.app.errors import ConfigurationError
from qspinn.app.tracking.client import open_api
from qspinn.app.tracking.server import in_time
from qspinn.app.tracking.summary import RECORD_KEY
from qspinn.records import RecordError, RunRecord, parse_json
from qspinn.selection import Run

ANSWER_SECONDS = 60.0
"""How long W&B may take for the next part of its answer."""
MOST_CHARACTERS = 64 << 20
"""Of a record, as in a file."""


def read_wandb(place: str, api: Any = None, seconds: float = ANSWER_SECONDS) -> Iterator[Run | str]:
    """Read the records of the runs of a project or a sweep.

    The state of a run is not used (one that was stopped early is "finished"): what counts is
    whether it holds a record.

    Args:
        place: `entity/project` or `entity/project/sweep`.
        api: A `wandb.Api`; None: a new one.
        seconds: How long to wait for each part of the answer.

    Yields:
        A run, or a line that names a run that cannot be used and says why.

    Raises:
        ConfigurationError: The place is no such name, or W&B cannot be reached.
    """
    parts = place.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise ConfigurationError(
            f"runs=wandb:{place}; write wandb:entity/project or wandb:entity/project/sweep"
        )
    api = open_api() if api is None else api
    project = "/".join(parts[:2])
    filters = {"sweep": parts[2]} if len(parts) == 3 else {}
    for run in _in_time(place, lambda: api.runs(project, filters=filters, lazy=False), seconds):
        name = f"wandb:{project}/{run.id}"
        try:
            yield Run(name, _record(run))
        except RecordError as error:
            yield f"{name} ({run.name}): {error}"


def _record(run: Any) -> RunRecord:
    try:
        text = dict(run.summary).get(RECORD_KEY)
    except (TypeError, ValueError, AttributeError) as error:
        raise RecordError(f"its summary cannot be read ({error})") from error
    if not isinstance(text, str):
        raise RecordError(
            f"holds no record (it is {run.state}): it did not end, or is not qspinn's"
        )
    if len(text) > MOST_CHARACTERS:
        raise RecordError(
            f"its record has {len(text):,} characters, and {MOST_CHARACTERS:,} at most make sense"
        )
    try:
        values = parse_json(text)
    except ValueError as error:
        raise RecordError(f"its record is no JSON ({error})") from error
    return RunRecord.from_dict(values)


def _in_time(place: str, ask: Any, seconds: float) -> Iterator[Any]:
    """The items of `ask`, each within a time limit; W&B's own client retries for many minutes."""
    items = (item for one in (ask,) for item in one())  # nothing is asked before the first is
    end = object()
    while True:
        try:
            item = in_time(lambda: next(items, end), seconds)
        except TimeoutError:
            message = f"runs=wandb:{place}: W&B has not answered for {seconds:g} s"
            raise ConfigurationError(message) from None
        except Exception as error:
            raise ConfigurationError(f"runs=wandb:{place}: {error}") from error
        if item is end:
            return
        yield item
