"""Lets the optimizers of a trainer learn the steps of a quantised network beside its weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn

from qspinn.plan import ResolvedPlan
from qspinn.quantizers import LearnedSteps, plan_of
from qspinn.quantizers.learned_steps import as_kinds

# What learning-rate schedulers keep for each group of parameters, besides what groups hold.
_PER_GROUP = (
    *("base_lrs", "lr_lambdas", "min_lrs", "max_lrs"),
    *("base_momentums", "max_momentums", "_last_lr"),
)
_MARK = "qspinn_steps"


class StepLearning:
    """The steps that are learned during a fit, from the first quantised batch on.

    Each optimizer that learns weights whose steps are to be learned gets a group of parameters for
    them: with the settings of the group that the first of these weights is in, no weight decay, and
    its learning rate, at every batch, times `rate`.

    Args:
        kinds: ``"none"``, ``"weight"``, ``"membrane"`` or ``"weight+membrane"``.
        rate: See above.
        owner: Of these settings, for errors.

    Attributes:
        kinds: A tuple.
        steps: What is learned; None until quantisation begins, and where nothing is.

    Raises:
        ValueError: Invalid settings.
    """

    def __init__(self, kinds: str | Sequence[str], rate: float, owner: str) -> None:
        self.owner = owner
        self.kinds = as_kinds(kinds, f"{owner}: learned_steps")
        given: object = rate
        is_number = isinstance(given, int | float) and not isinstance(given, bool)
        if not is_number or not 0.0 < rate < math.inf:
            raise ValueError(
                f"{owner}: step_rate={rate!r}; write a positive number, such as 1.0, by which the "
                "learning rate of the weights is multiplied"
            )
        self.rate = float(rate)
        self.steps: LearnedSteps | None = None

    def attached(self, module: LightningModule) -> None:
        """Lets a module that quantizers were attached to compute gradients of the steps."""
        if not self.kinds:
            return
        if self.steps is None:
            self.steps = LearnedSteps(module, self.kinds)
        else:
            self.steps.give(module)

    def join_optimizers(self, trainer: Trainer, module: LightningModule) -> None:
        """Adds the groups of parameters, where they are not there yet.

        Raises:
            ValueError: No optimizer, or one that takes no second group.
        """
        if self.steps is None:
            return
        known = {id(one) for each in trainer.optimizers for one in _learned_by(each)}
        wanted: dict[int, dict[str, nn.Parameter]] = {}
        for path, log2 in self.steps.named_parameters():
            if id(log2) not in known:
                number = _learner(trainer.optimizers, module, self.steps.layer_of(path))
                wanted.setdefault(number, {})[path] = log2
        learners = [one for one in trainer.optimizers if one.param_groups]  # Lightning has a mock
        if wanted and not learners:
            raise ValueError(
                f"{self.owner}: learned_steps={'+'.join(self.kinds)}, but the module configures no "
                "optimizer that could learn them; write learned_steps=none"
            )
        for number, parameters in wanted.items():
            optimizer = trainer.optimizers[number]
            reference = _group_of(optimizer, module, self.steps.layer_of(next(iter(parameters))))
            self._join(optimizer, parameters, reference)
            for config in trainer.lr_scheduler_configs:
                for scheduler in _schedulers(config.scheduler):
                    if getattr(scheduler, "optimizer", None) is optimizer:
                        _extend(scheduler, reference)

    def begin_batch(self, trainer: Trainer, learns: bool) -> None:
        """Takes over the learning rates that schedulers have given the weights.

        Args:
            trainer: Of the fit.
            learns: Whether steps go on learning; else the formats stay from now on.
        """
        for log2 in self.steps.parameters() if self.steps is not None else ():
            log2.requires_grad_(learns)
            log2.grad = log2.grad if learns else None
        for optimizer in trainer.optimizers if self.steps is not None else ():
            for group in optimizer.param_groups:
                if _MARK in group:
                    rate = optimizer.param_groups[group[_MARK]]["lr"] * self.rate
                    group["lr"] = rate.clone() if isinstance(rate, Tensor) else rate

    def followed(self, module: LightningModule, plan: ResolvedPlan) -> ResolvedPlan:
        """The plan with the formats that are nearest to the steps as they are now."""
        return plan if self.steps is None else self.steps.followed(module, plan)

    def state_dict(self) -> dict[str, Any]:
        """What was learned, as plain types."""
        steps = None if self.steps is None else self.steps.state_dict()
        return {"kinds": list(self.kinds), "steps": steps}

    def restore(self, module: LightningModule, state: dict[str, Any] | None) -> None:
        """Goes on with what :meth:`state_dict` has said, on a module with quantizers attached."""
        self.steps = None
        if self.kinds and state is not None and state["steps"] is not None:
            self.steps = LearnedSteps(module, self.kinds)
            self.steps.load_state_dict(state["steps"])
        else:
            self.attached(module)

    def check(self, state: dict[str, Any] | None) -> None:
        """Refuses the state of a training in which other steps were learned.

        Raises:
            ValueError: It learned others.
        """
        then = () if state is None else tuple(state["kinds"])
        if then != self.kinds:
            shown = "+".join(then) or "none"
            raise ValueError(
                f"{self.owner}: the checkpoint was trained with learned_steps={shown}, not "
                f"{'+'.join(self.kinds) or 'none'}; give the callback learned_steps={shown!r}, or "
                "load only the weights (load_from_checkpoint)"
            )

    def _join(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: dict[str, nn.Parameter],
        reference: int,
    ) -> None:
        if isinstance(optimizer, torch.optim.LBFGS):
            raise ValueError(
                f"{self.owner}: LBFGS takes one group of parameters, so that it cannot learn steps "
                "at a rate of their own; take another optimizer, or write learned_steps=none"
            )
        like = optimizer.param_groups[reference]
        group = {key: copy.deepcopy(value) for key, value in like.items() if key != "params"}
        named = group.pop("param_names", None) is not None
        given = [(f"{path}.step", one) for path, one in parameters.items()]
        group["params"] = given if named else list(parameters.values())
        group[_MARK] = reference
        if "weight_decay" in group:
            group["weight_decay"] = 0.0
        optimizer.add_param_group(group)


def _learned_by(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _weights(module: nn.Module, path: str) -> set[int]:
    """The parameters of a layer of synapses, or of the one before a layer of neurons."""
    layer = plan_of(module).inventory.layer(path)
    before = layer.sources[0] if layer.kind == "neuron" and layer.sources else path
    return {id(one) for one in module.get_submodule(before).parameters()}


def _learner(optimizers: Sequence[Any], module: nn.Module, layer: str) -> int:
    """The number of the optimizer that learns a layer, or else the first."""
    own = _weights(module, layer)
    for number, optimizer in enumerate(optimizers):
        if any(id(one) in own for one in _learned_by(optimizer)):
            return number
    return 0


def _group_of(optimizer: torch.optim.Optimizer, module: nn.Module, layer: str) -> int:
    """The number of the group that a layer is in, or else the first."""
    own = _weights(module, layer)
    for number, group in enumerate(optimizer.param_groups):
        if any(id(one) in own for one in group["params"]):
            return number
    return 0


def _schedulers(scheduler: Any) -> Iterator[Any]:
    """A scheduler, and those that it is made of."""
    yield scheduler
    for one in getattr(scheduler, "_schedulers", ()):
        yield from _schedulers(one)


def _extend(scheduler: Any, reference: int) -> None:
    """Lets a scheduler treat a group that was added as it treats the one it was made from."""
    for name in _PER_GROUP:
        held = getattr(scheduler, name, None)
        if isinstance(held, list) and len(held) == len(scheduler.optimizer.param_groups) - 1:
            held.append(copy.deepcopy(held[reference]))
