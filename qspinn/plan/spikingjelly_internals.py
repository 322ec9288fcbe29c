"""What is used of SpikingJelly beside its public interface, in one place: it may change."""

from __future__ import annotations

from typing import Any

from spikingjelly.activation_based import base

STEP, SEQUENCE = "single_step_functional_forward", "multi_step_functional_forward"
"""The methods in which a node computes a step and a sequence, from inputs and states."""
FUNCTIONAL = ("functional_forward", "single_step_forward", "multi_step_forward", SEQUENCE)
"""The methods by which a call comes to a step."""
REPLACED = (STEP, "materialize_states")
"""The methods that are replaced when a node is quantised."""

step_by_step = base.MemoryModule.multi_step_functional_forward
"""A sequence as single steps."""


def memories(module: Any) -> dict[str, Any]:
    """Name -> value of the states of a ``MemoryModule``, which are no buffers."""
    held: dict[str, Any] = module._memories
    return held


def reset_values(module: Any) -> dict[str, Any]:
    """Name -> what a state of a ``MemoryModule`` is reset to."""
    values: dict[str, Any] = module._memories_rv
    return values
