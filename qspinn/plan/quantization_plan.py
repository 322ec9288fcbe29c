"""The plan: rules in order, and their application to a module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from qspinn.plan.calling import Inputs, Run
from qspinn.plan.dry_run import inspect
from qspinn.plan.inventory import Inventory
from qspinn.plan.resolved import ResolvedPlan, apply_rules
from qspinn.plan.roles import check_role
from qspinn.plan.rules import Rule, as_rules
from qspinn.plan.settings import TensorSettings


@dataclass(frozen=True)
class QuantizationPlan:
    """Rules in order; each one overrides what earlier ones said of the same tensor.

    A tensor that no rule gives a word length or a format stays in 32-bit
    floating point, and the footprint counts it so.

    Attributes:
        rules: The rules.
        allow_no_neurons: Whether a network without any spiking neuron is accepted.
    """

    rules: tuple[Rule, ...]
    allow_no_neurons: bool = False

    def __post_init__(self) -> None:
        """Refuses an empty plan, and values that are no booleans."""
        if not isinstance(self.allow_no_neurons, bool):
            raise ValueError(f"allow_no_neurons={self.allow_no_neurons!r}; write true or false")
        if not self.rules:
            raise ValueError(
                "QuantizationPlan: no rules; write QuantizationPlan.uniform(word_length=8)"
            )

    @classmethod
    def uniform(
        cls,
        word_length: int = 8,
        rounding: str = "nearest",
        overflow: str = "saturate",
        *,
        calibration: str = "mse",
        granularity: str = "tensor",
        scale: str = "power_of_two",
        roles: Mapping[str, Mapping[str, Any] | None] | None = None,
        rules: Iterable[Rule | Mapping[str, Any]] | None = None,
        allow_no_neurons: bool = False,
    ) -> QuantizationPlan:
        """Every tensor at one word length, with exceptions per role and per layer.

        Args:
            word_length: Bits per value, 1 to 24.
            rounding: One of :data:`qspinn.fixed_point.ROUNDINGS`.
            overflow: ``"saturate"`` or ``"wrap"``.
            calibration: How a word length is split: ``"max"``, ``"percentile"``, ``"mse"``,
                ``"spikes"``.
            granularity: ``"tensor"`` or ``"channel"``.
            scale: ``"power_of_two"`` or ``"free"``.
            roles: Role -> settings that differ for it, e.g.
                ``{"membrane": {"word_length": 10}}``; null settings are no exception.
            rules: Further rules, applied last; None for no more.
            allow_no_neurons: Whether a network without any spiking neuron is accepted.

        Raises:
            ValueError: An invalid value; the error names it.
        """
        settings = TensorSettings(
            word_length=word_length,
            rounding=rounding,
            overflow=overflow,
            calibration=calibration,
            granularity=granularity,
            scale=scale,
        )
        settings.check("QuantizationPlan.uniform")
        built = [Rule(settings=settings)]
        if not isinstance(roles, Mapping | None):
            raise ValueError(
                f"QuantizationPlan.uniform: roles={roles!r}; write a dictionary such as "
                "{'membrane': {'word_length': 10}}"
            )
        for role, stated in (roles or {}).items():
            check_role(role, "QuantizationPlan.uniform: roles")
            if stated is not None and not isinstance(stated, Mapping):
                raise ValueError(
                    f"QuantizationPlan.uniform: roles: {role}={stated!r}; write settings such as "
                    f"{{'word_length': 8}}"
                )
            changed = {name: value for name, value in (stated or {}).items() if value is not None}
            if changed:
                built.append(Rule.from_dict({"layers": "*", "role": role, **changed}))
        built.extend(() if rules is None else as_rules(rules))
        return cls(tuple(built), allow_no_neurons)

    @classmethod
    def from_rules(
        cls, rules: Sequence[Rule | Mapping[str, Any]], allow_no_neurons: bool = False
    ) -> QuantizationPlan:
        """A plan of exactly these rules."""
        return cls(as_rules(rules), allow_no_neurons)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> QuantizationPlan:
        """The inverse of :meth:`to_dict`."""
        given: object = data
        if not isinstance(given, Mapping):
            raise TypeError(
                f"plan is a {type(data).__name__}; write a dictionary such as {{'rules': [...]}}, "
                "or QuantizationPlan.uniform(word_length=8)"
            )
        if "rules" not in data or not set(data) <= {"rules", "allow_no_neurons"}:
            raise ValueError(
                f"plan: keys {sorted(data)}; write {{'rules': [...]}}, and allow_no_neurons where "
                "a network without spiking neurons is meant"
            )
        return cls.from_rules(data["rules"], data.get("allow_no_neurons", False))

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for a config or a record."""
        plan: dict[str, Any] = {"rules": [rule.to_dict() for rule in self.rules]}
        return plan | ({"allow_no_neurons": True} if self.allow_no_neurons else {})

    def resolve(
        self, module: nn.Module, example_input: Inputs | None = None, run: Run | None = None
    ) -> ResolvedPlan:
        """Applies the rules to the tensors of ``module``.

        Args:
            module: Any module with SpikingJelly neurons and torch layers.
            example_input: A batch as ``module`` takes it: a tensor, a tuple of positional
                arguments, or a dictionary of keyword arguments. With it, a dry run finds
                the number of neurons, batch norms to fold and binary inputs;
                without it, only the rules are checked.
            run: Instead of ``example_input``: does one forward pass of ``module``.

        Raises:
            ValueError: A rule that matches nothing, with what there is to match.
        """
        return resolve(self, inspect(module, example_input, run))


def resolve(plan: QuantizationPlan, inventory: Inventory) -> ResolvedPlan:
    """Applies the rules of ``plan`` to the tensors of ``inventory``.

    Raises:
        ValueError: A rule that matches no tensor, saying what there is to match.
    """
    given: object = plan
    if not isinstance(given, QuantizationPlan) or not isinstance(inventory, Inventory):
        raise TypeError(
            f"resolve: plan is a {type(plan).__name__} and inventory a {type(inventory).__name__}; "
            "write resolve(QuantizationPlan, Inventory), or plan.resolve(module, example_input)"
        )
    return apply_rules(plan.rules, inventory, plan.allow_no_neurons)
