"""Roles: what a tensor of a spiking network is for."""

from __future__ import annotations

from typing import Final, Literal, get_args

Role = Literal["weight", "bias", "membrane", "threshold", "theta", "trace", "decay", "input"]

ROLES: Final[tuple[Role, ...]] = get_args(Role)

ROLE_MEANINGS: Final[dict[Role, str]] = {
    "weight": "synaptic weights of a linear or convolutional layer (batch norm folded in)",
    "bias": "biases of a linear or convolutional layer (batch norm folded in)",
    "membrane": "membrane potentials and other neuron states, at every time step",
    "threshold": "firing thresholds",
    "theta": "adaptive part of the threshold, learned without labels",
    "trace": "synaptic traces of a plasticity rule",
    "decay": "leak factors, 1/tau",
    "input": "layer inputs that are not binary (pixels, averaged spikes)",
}

# A trace is needed only where the device learns; an input is a value that
# passes through and is not held.
TRAINING_ONLY_ROLES: Final[frozenset[Role]] = frozenset({"trace"})
UNSTORED_ROLES: Final[frozenset[Role]] = frozenset({"input"})
CONSTANT_ROLES: Final[frozenset[Role]] = frozenset({"threshold", "decay"})
STATE_ROLES: Final[frozenset[Role]] = frozenset({"membrane", "trace"})


def check_role(role: str, place: str) -> Role:
    """Returns ``role``, or raises a ``ValueError`` that lists the roles there are."""
    if role not in ROLES:
        raise ValueError(f"{place}: unknown role {role!r}; write one of {', '.join(ROLES)}")
    return role
