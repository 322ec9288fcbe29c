"""Measures how much a network computes when a fit has ended, without side effects."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.data import extract_batch_size
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader, default_collate

from qspinn.callbacks.isolation import (
    Forward,
    copy_for,
    forward_once,
    quiet_lightning,
    seeded_globals,
)
from qspinn.callbacks.trainer_data import (
    converted_batches,
    evaluation_loaders,
    preserved_generators,
    repeatable,
)
from qspinn.plan import (
    EnergyModel,
    ResolvedPlan,
    Work,
    WorkUnknownError,
    check_countable,
    count_activity,
    inspect,
    work_of,
)
from qspinn.quantizers.compiling import step_uncompiled
from qspinn.records import work_metrics

log = logging.getLogger(__name__)

SAMPLES = 64
"""Samples on which the activity is measured."""


class MeasuresWork(Callback):
    """Measures what the 32-bit network computes, when the fit ends.

    Attributes:
        work: Of the module after the fit; ``None`` before, and where it is not known.
        energy: What operations cost.
    """

    def __init__(self, forward: Forward | None = None, energy: EnergyModel | None = None) -> None:
        """Prepares for the end of the fit.

        Args:
            forward: How to run the module on a batch, as ``forward(module, batch)``; ``None`` runs
                its ``validation_step``.
            energy: What operations cost; ``None``: the default.
        """
        super().__init__()
        self.forward, self.energy = forward, energy
        self.work: Work | None = None

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Counts the operations of a copy of the module on some validation data, and logs them."""
        self.work = measured_work(trainer, pl_module, None, self.forward, self.energy)
        log_work(trainer, self.work)


def log_work(trainer: Trainer, work: Work | None) -> None:
    """Logs the numbers of ``work`` to all loggers, as ``work/energy_nj`` and so on."""
    metrics = work_metrics(None if work is None else work.to_dict())
    for logger in trainer.loggers if metrics else ():
        logger.log_metrics(metrics, step=trainer.global_step)


def measured_work(
    trainer: Trainer,
    module: LightningModule,
    plan: ResolvedPlan | None,
    forward: Forward | None,
    energy: EnergyModel | None = None,
    others: Sequence[Any] = (),
    seen: Callable[[LightningModule, Any], None] | None = None,
) -> Work | None:
    """What a network computes for one sample of the trainer's data; ``None`` if unknown.

    It is counted on a copy, which is discarded. Random generators are left as they are. If it
    cannot be counted, the reason is logged as a warning.

    Args:
        trainer: Whose validation data are taken, or else its training data.
        module: With the quantizers of ``plan`` attached.
        plan: ``None`` for the 32-bit network.
        forward: How to run the module on a batch; ``None``: its own step.
        energy: What operations cost; ``None``: the default.
        others: Batches to take where the trainer's data can be iterated only once.
        seen: Is given the copy and the first batch, before the copy is run on it.
    """
    loaders = evaluation_loaders(trainer)
    with seeded_globals(), quiet_lightning(), preserved_generators(*loaders):
        try:
            copied = copy_for(trainer, module)
            if plan is not None:
                check_countable(copied, plan.inventory)
            step_uncompiled(copied)  # the same numbers, without waiting for a compiler
            batches = _batches(trainer, copied, loaders, others, SAMPLES)
            if seen is not None and batches:
                seen(copied, batches[0])
            # A few samples suffice to find out what the network is made of.
            few = batches if plan is not None else _batches(trainer, copied, loaders, others, 2)

            def run_one(batch: Any) -> None:
                with trainer.precision_plugin.forward_context():
                    forward_once(copied, batch, forward)

            counted, first = ([partial(run_one, batch) for batch in one] for one in (batches, few))
            inventory = plan.inventory if plan else inspect(copied, run=first[0] if first else None)
            activity = count_activity(copied, inventory, plan, counted)
            return work_of(inventory, plan, activity, energy)
        except Exception as error:
            known = isinstance(error, WorkUnknownError)
            why = str(error) if known else f"{type(error).__name__}: {error}"
            log.warning("the work and energy of %s are not known: %s", type(module).__name__, why)
            return None


def _batches(
    trainer: Trainer,
    module: LightningModule,
    loaders: Iterable[CombinedLoader | None],
    others: Sequence[Any],
    samples: int,
) -> Sequence[Any]:
    """Batches of so many samples, as a step takes them; of more if their number is unknown."""
    for loader in repeatable(loaders):
        few = list(_few_samples(loader, samples))
        if few:
            return converted_batches(trainer, module, few, len(few))
    return others


def _few_samples(loader: CombinedLoader, missing: int) -> Iterator[Any]:
    """The first batches; the last one is cut if its samples surely lie along the first axis.

    That is so if torch itself stacked them.
    """
    stacked = all(
        isinstance(one, DataLoader) and one.collate_fn is default_collate
        for one in loader.flattened
    )
    for batch, _, _ in loader:
        leaves = tree_leaves(batch)
        sizes = {len(one) if isinstance(one, Tensor) and one.ndim else 0 for one in leaves}
        if stacked and len(sizes) == 1 and 0 not in sizes:
            (size,) = sizes
            batch = tree_map(partial(_first, count=missing), batch)
        else:
            size = size_of(batch) or missing
        yield batch
        missing -= size
        if missing <= 0:
            return


def _first(values: Tensor, count: int) -> Tensor:
    return values[:count]


def size_of(batch: Any) -> int:
    """The samples of a batch; 0 if unknown."""
    try:
        return int(extract_batch_size(batch))
    except Exception:
        return 0
