"""Names of candidates: what differs among them, in words."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qspinn.records import RunRecord
from qspinn.selection.groups import Group
from qspinn.selection.runs import Run

MOST_COMPARED = 5000
"""Candidates whose whole configurations are compared where their names are the same."""
MOST_KEYS = 3
"""Keys of the configuration that a name holds, at most."""

_SCHEMES = {"none": "32-bit", "ptq": "PTQ", "itq": "ITQ"}
_PLURAL = {"bias": "biases"}
_ORDER = ("weight", "bias", "membrane", "threshold", "theta", "trace", "decay")
# Keys that a name expresses in words, or on which no result depends.
_NAMED = ("seed", "quantization.scheme", "quantization.rounding", "quantization.word_length")
_NAMED_RULES, _ROLES = "quantization.rules", "quantization.roles."
_NAMED_OF_ROLES = ("word_length", "format")

Lengths = tuple[int, ...]


@dataclass(frozen=True)
class CandidateNames:
    """Names of candidates by which a reader can distinguish them.

    Attributes:
        names: Path of a candidate to its name, which says what not all have in common:
            `PTQ, 3-bit weights, nearest`. Names may agree; numbers do not.
        titles: The same with scheme and rounding, whether or not they differ.
        numbers: Path to number, from 1, in the order in which they were given.
        common: What all quantised candidates have in common, in words; may be empty.
    """

    names: Mapping[str, str]
    titles: Mapping[str, str]
    numbers: Mapping[str, int]
    common: str

    @classmethod
    def of(cls, groups: Sequence[Group]) -> CandidateNames:
        """Name candidates.

        Args:
            groups: All that are compared, best first.
        """
        varying = _Varying.among(groups)
        names = {group.path: varying.name(group) for group in groups}
        titles = {group.path: varying.title(group) for group in groups}
        added = _told_apart(groups, names) if len(groups) <= MOST_COMPARED else {}
        for path, more in added.items():
            names[path] = ", ".join(filter(None, [names[path], more]))
            titles[path] = f"{titles[path]}, {more}"
        numbers = {group.path: number for number, group in enumerate(groups, 1)}
        return cls(names, titles, numbers, varying.common)

    def numbered(self, path: str) -> str:
        """Number and name: `#3 PTQ, 4-bit weights`."""
        return f"#{self.numbers[path]} {self.names[path]}".rstrip()


@dataclass(frozen=True)
class _Varying:
    """What differs among quantised candidates.

    Attributes:
        data: Whether data or networks differ.
        scheme: Whether schemes do.
        rounding: Whether roundings do.
        roles: Roles whose word lengths differ, in the order of the vocabulary.
        constant_lengths: The word lengths of the others.
        always: Role to word lengths that every candidate has, those of a readout perhaps.
        common: All that they have in common, in words.
    """

    data: bool
    scheme: bool
    rounding: bool
    roles: tuple[str, ...]
    constant_lengths: Mapping[str, Lengths]
    always: Mapping[str, frozenset[int]]
    common: str

    @classmethod
    def among(cls, groups: Sequence[Group]) -> _Varying:
        quantized = [group.record for group in groups if not group.is_reference]
        about = {(group.record.data, group.record.network) for group in groups}
        schemes = {record.scheme for record in quantized}
        roundings = {record.rounding for record in quantized}
        found: dict[str, set[Lengths]] = defaultdict(set)
        holders: Counter[str] = Counter()
        for record in quantized:
            for role, given in record.word_lengths.items():
                found[role].add(tuple(given))
                holders[role] += 1
        roles = sorted_roles(
            role
            for role, lengths in found.items()
            if len(lengths) > 1 or holders[role] < len(quantized)
        )
        constant = {r: next(iter(found[r])) for r in sorted_roles(found) if r not in roles}
        parts = [_SCHEMES[next(iter(schemes))]] if len(schemes) == 1 else []
        parts += _lengths_in_words(constant, together=not roles)
        parts += [next(iter(roundings)) or ""] if len(roundings) == 1 else []
        return cls(
            data=len(about) > 1,
            scheme=len(schemes) > 1 or len(quantized) < len(groups),
            rounding=len(roundings) > 1,
            roles=tuple(roles),
            constant_lengths=constant,
            always={role: frozenset.intersection(*map(frozenset, found[role])) for role in roles},
            common=", ".join(filter(None, parts)),
        )

    def name(self, group: Group) -> str:
        """What not all have in common."""
        return self._name(group, self.scheme, bool(self.roles), self.rounding)

    def title(self, group: Group) -> str:
        """The same with what all have in common of scheme, word lengths and rounding."""
        return self._name(group, True, True, True)

    def _name(self, group: Group, scheme: bool, lengths: bool, rounding: bool) -> str:
        record = group.record
        parts = [record.data, record.network] if self.data else []
        if group.is_reference:
            return ", ".join([*parts, "32-bit"])
        if scheme:
            parts.append(_SCHEMES[record.scheme])
        if lengths:
            parts += self._lengths(record)
        if rounding:
            parts.append(record.rounding or "")
        return ", ".join(parts)

    def _lengths(self, record: RunRecord) -> list[str]:
        """The word lengths that differ; where none do, those that all have."""
        if not self.roles:
            return _lengths_in_words(self.constant_lengths, together=True)
        own, given = {}, record.word_lengths
        for role in self.roles:
            if role in given:
                special = tuple(n for n in given[role] if n not in self.always[role])
                own[role] = special or tuple(given[role])
        is_all = len(own) == len(given) and own.keys() >= record.footprint_bits_by_role.keys()
        return _lengths_in_words(own, together=is_all)


def title_of(record: RunRecord) -> str:
    """The name of a single run: `PTQ, 3-bit weights, 16-bit membranes, nearest`."""
    return CandidateNames.of([Group((Run("", record),))]).titles[""]


def in_words(word_lengths: Mapping[str, int]) -> str:
    """Word lengths of a mixture: `4-bit weights and biases, 8-bit membranes`."""
    return ", ".join(_lengths_in_words({name: (n,) for name, n in word_lengths.items()}, False))


def sorted_roles(roles: Iterable[str]) -> list[str]:
    """Roles in the order of the vocabulary, unknown ones at the end by name."""
    order = {role: index for index, role in enumerate(_ORDER)}
    return sorted(roles, key=lambda role: (order.get(role, len(order)), role))


def _lengths_in_words(lengths: Mapping[str, Lengths], together: bool) -> list[str]:
    """Word lengths: `4-bit weights and biases`, `16-bit membranes`; `4 bits` for all.

    Args:
        lengths: Of each role.
        together: Whether these are all roles that there are.
    """
    by_lengths: dict[Lengths, list[str]] = defaultdict(list)
    for role, given in lengths.items():
        if given:
            by_lengths[given].append(_PLURAL.get(role, f"{role}s"))
    if together and len(by_lengths) == 1:
        only = "/".join(map(str, next(iter(by_lengths))))
        return [f"{only} bit{'' if only == '1' else 's'}"]
    parts = []
    for given, roles in by_lengths.items():
        names = roles[0] if len(roles) == 1 else f"{', '.join(roles[:-1])} and {roles[-1]}"
        parts.append(f"{'/'.join(map(str, given))}-bit {names}")
    return parts


def _told_apart(groups: Sequence[Group], names: Mapping[str, str]) -> dict[str, str]:
    """What to add to names that are the same: keys of the configuration that differ."""
    same: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        same[names[group.path]].append(group)
    added = {}
    for members in same.values():
        if len(members) == 1:
            continue
        settings = [dict(_leaves(member.record.config)) for member in members]
        keys = list(dict.fromkeys(key for one in settings for key in one))
        differing = [k for k in keys if len({repr(one.get(k)) for one in settings}) > 1]
        shown = _short([key for key in differing if not _is_named(key)][:MOST_KEYS])
        for member, one in zip(members, settings, strict=True):
            more = [f"{short} {_shown(one.get(key))}" for key, short in shown.items()]
            if more:
                added[member.path] = ", ".join(more)
    return added


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _is_named(key: str) -> bool:
    if key.startswith(_ROLES):
        return key.rpartition(".")[2] in _NAMED_OF_ROLES
    return key in _NAMED or key.startswith(_NAMED_RULES)


def _short(keys: Sequence[str]) -> dict[str, str]:
    """Key to its last part, or to all of it where two keys end alike."""
    ends = Counter(key.rpartition(".")[2] for key in keys)
    return {key: key if ends[last := key.rpartition(".")[2]] > 1 else last for key in keys}


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:21]}..."
