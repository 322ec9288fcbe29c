"""The plan: rules that give tensors their fixed-point settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from qspinn.plan.roles import check_role
from qspinn.plan.settings import TensorSettings

if TYPE_CHECKING:
    from torch import nn

    from qspinn.plan.calling import Inputs, Run
    from qspinn.plan.resolved import ResolvedPlan

_SETTING_NAMES = tuple(one.name for one in fields(TensorSettings))


@dataclass(frozen=True)
class Rule:
    """Settings for the tensors whose layer path and role match.

    Attributes:
        layers: Glob over layer paths, as in ``named_modules()``; ``*`` crosses dots.
        role: A role, or ``"*"`` for every role.
        settings: What the rule states; the rest stays as earlier rules said.
    """

    layers: str = "*"
    role: str = "*"
    settings: TensorSettings = field(default_factory=TensorSettings)

    def __post_init__(self) -> None:
        """Checks the rule, so that a plan that exists is a plan that can be."""
        given: object = self.layers
        if not isinstance(given, str) or not given:
            raise ValueError(
                f"rule: layers={self.layers!r}; write a glob over layer paths, such as 'conv*'"
            )
        if self.role != "*":
            check_role(self.role, f"rule for layers={self.layers!r}")
        self.settings.check(str(self))
        if self.settings == TensorSettings():
            raise ValueError(
                f"{self}: states nothing; write at least one of {', '.join(_SETTING_NAMES)}"
            )

    def __str__(self) -> str:
        """The rule's address, for errors."""
        return f"rule(layers={self.layers!r}, role={self.role!r})"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Rule:
        """Builds a rule from ``{"layers":, "role":, "word_length":, ...}``; null means unstated."""
        known = ("layers", "role", *_SETTING_NAMES)
        for name in data:
            if name not in known:
                raise ValueError(f"rule {dict(data)}: unknown key {name!r}; write {_one_of(known)}")
        settings = {name: data[name] for name in _SETTING_NAMES if data.get(name) is not None}
        return cls(data.get("layers", "*"), data.get("role", "*"), TensorSettings(**settings))

    def to_dict(self) -> dict[str, Any]:
        """Plain types; the inverse of :meth:`from_dict`."""
        return {"layers": self.layers, "role": self.role, **self.settings.to_dict()}


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
        """Refuses a plan that says nothing, and what is only taken for a truth value."""
        if not isinstance(self.allow_no_neurons, bool):
            raise ValueError(f"allow_no_neurons={self.allow_no_neurons!r}: write true or false")
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
            roles: Role -> settings that differ for it, e.g.
                ``{"membrane": {"word_length": 10}}``; null settings are no exception.
            rules: Further rules, applied last; None for no more.
            allow_no_neurons: Whether a network without any spiking neuron is accepted.

        Raises:
            ValueError: A value that cannot be; the error names it.
        """
        settings = TensorSettings(
            word_length=word_length,
            rounding=rounding,
            overflow=overflow,
            calibration=calibration,
            granularity=granularity,
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
        built.extend(() if rules is None else _as_rules(rules))
        return cls(tuple(built), allow_no_neurons)

    @classmethod
    def from_rules(
        cls, rules: Sequence[Rule | Mapping[str, Any]], allow_no_neurons: bool = False
    ) -> QuantizationPlan:
        """A plan of exactly these rules."""
        return cls(_as_rules(rules), allow_no_neurons)

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
        from qspinn.plan.dry_run import inspect
        from qspinn.plan.resolved import resolve

        return resolve(self, inspect(module, example_input, run))


def _as_rules(rules: object) -> tuple[Rule, ...]:
    if isinstance(rules, str | Mapping | Rule) or not isinstance(rules, Iterable):
        raise TypeError(
            f"rules is a {type(rules).__name__}; write a list of rules, such as "
            "[{'role': 'weight', 'word_length': 4}]"
        )
    return tuple(_as_rule(rule) for rule in rules)


def _as_rule(rule: Rule | Mapping[str, Any]) -> Rule:
    if isinstance(rule, Rule):
        return rule
    if isinstance(rule, Mapping):
        return Rule.from_dict(rule)
    raise ValueError(f"rule {rule!r}; write a mapping such as {{layers: '*', role: weight, ...}}")


def _one_of(names: Iterable[str]) -> str:
    return "one of " + ", ".join(names)
