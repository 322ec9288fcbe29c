"""The rules of a plan, which give tensors their fixed-point settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from qspinn.plan.roles import check_role
from qspinn.plan.settings import TensorSettings

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
        """Checks the rule, so that every plan is valid."""
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


def as_rules(rules: object) -> tuple[Rule, ...]:
    """Rules, or what describes them.

    Raises:
        TypeError: Something else than a list of them.
        ValueError: One that is no rule.
    """
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
