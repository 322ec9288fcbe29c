"""Groups of tensors whose precision is explored together, and the rules that set it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning import seed_everything
from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import DictConfig

from qspinn.app.compose.completing import to_plain
from qspinn.app.errors import ConfigurationError, naming, refused
from qspinn.app.examples import example_input
from qspinn.app.explore.exploring import Candidate
from qspinn.app.folder.naming import job_folder
from qspinn.app.run.building import build_parts, has_validation
from qspinn.plan import QuantizationPlan
from qspinn.plan.roles import TRAINING_ONLY_ROLES

UNITS = ("role", "layer")
IN_FLOAT = {"layers": "*", "role": "*", "format": "float32"}


@dataclass(frozen=True)
class Group:
    """Tensors that share a word length.

    Attributes:
        name: For folders and tables.
        layers: Glob over layer paths.
        role: Their role.
    """

    name: str
    layers: str
    role: str

    def rule(self, word_length: int) -> dict[str, Any]:
        """The rule of a plan that gives it a word length."""
        return {"layers": self.layers, "role": self.role, "word_length": word_length}


def find_groups(
    config: DictConfig, unit: str, roles: Sequence[str] | None = None, chosen_by: str = "test"
) -> tuple[Group, ...]:
    """Return the groups of the network that a configuration names.

    Args:
        config: What ``conf/train.yaml`` composes.
        unit: ``role``: one group per role; ``layer``: one per role and layer.
        roles: Roles to take; None: all that the network has.
        chosen_by: The data that will choose among candidates, ``validation`` or ``test``.

    Raises:
        ConfigurationError: An invalid value.
    """
    if unit not in UNITS:
        raise refused("exploration.unit", unit, f"one of {', '.join(UNITS)}")
    values = to_plain(config)
    with isolate_rng():
        seed_everything(values["seed"], workers=True, verbose=False)
        parts = build_parts(values)
        if chosen_by == "validation" and not has_validation(values, parts.data):
            raise ConfigurationError(
                "exploration.by='validation': nothing is held out of the training data; write "
                "data.val_size=N or the like, trainer.limit_val_batches=null, or "
                "exploration.by=test, which finds what is best on just these test data"
            )
        with naming("quantization"):
            plan = QuantizationPlan.uniform(8).resolve(parts.module, example_input(parts.data))
    unused = TRAINING_ONLY_ROLES if values["quantization"]["scheme"] == "ptq" else frozenset()
    found = {}
    for tensor in plan.tensors:
        role, layer = str(tensor.role), tensor.info.layer
        if role not in unused:
            name = role if unit == "role" else f"{role}@{layer}"
            found[name] = Group(name, "*" if unit == "role" else layer, role)
    known = {group.role for group in found.values()}
    if roles is None:
        return tuple(found.values())
    if isinstance(roles, str) or not roles or not known.issuperset(roles):
        given = roles if isinstance(roles, str) else list(roles)
        raise refused("exploration.roles", given, f"null, or a list of {', '.join(sorted(known))}")
    return tuple(group for group in found.values() if group.role in roles)


def alone(config: DictConfig, folder: Path, group: Group, word_length: int) -> Candidate:
    """The candidate that has one group in fixed point, and all the rest in 32-bit."""
    rules = [IN_FLOAT, group.rule(word_length)]
    return _candidate(config, folder / job_folder(f"{group.name}={word_length}"), rules)


def jointly(
    config: DictConfig, folder: Path, groups: Sequence[Group], word_lengths: Mapping[str, int]
) -> Candidate:
    """The candidate with a word length per group, and the configured settings for the rest."""
    rules = list(config.quantization.rules)
    rules += [group.rule(word_lengths[group.name]) for group in groups]
    name = ",".join(f"{group.name}={word_lengths[group.name]}" for group in groups)
    return _candidate(config, folder / job_folder(name), rules)


def _candidate(config: DictConfig, folder: Path, rules: list[Any]) -> Candidate:
    made = copy.deepcopy(config)
    made.exploration.strategy = None
    made.quantization.rules = rules
    return Candidate(made, folder)
