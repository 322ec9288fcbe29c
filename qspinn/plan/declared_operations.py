"""Modules that say by themselves what a device would compute of them.

The graph of a network is found by watching its layers. A module that is no sequence of layers, or
whose layers compute in fixed point by themselves, says it by one method, in plain data, and imports
nothing of qspinn for that: formats are those of the quantizers that it was given. So `networks` and
`export` need not know each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

__all__ = ["DeclaresLearning", "DeclaresOperations", "ReportsKeys", "declares_operations"]


@runtime_checkable
class DeclaresOperations(Protocol):
    """What a module implements of which a device model is wanted, and no graph can be found.

    It is a network, or what holds one: a module that is exported by itself.
    """

    def device_operations(self, example: Tensor) -> Mapping[str, Any]:
        """What a device would compute, in fixed point as the module is now.

        Args:
            example: An input of one sample, with a batch dimension.

        Returns:
            A mapping with the keys

            * ``steps`` (int): time steps of a sample;
            * ``frame_stride`` (int): from a value of a sample to the same one in the next time
              step; 0 for what stays the same. Frames are in order;
            * ``tensors``: name -> pair of codes (int64 tensor) and format: all that the device
              stores, weights with their outputs first;
            * ``operations``: mappings, in the order in which a time step computes them, beginning
              with the input. Each has

              * ``name`` (str);
              * ``what`` (str): the name, in small letters, of a kind of operation in
                :mod:`qspinn.export.model`, such as ``synapse`` or ``trace``;
              * ``takes``: names of operations; a pair of a name and 1 means its output in the
                step before;
              * ``shape``: of its output, of one sample;
              * ``path`` (str), where it is another than the name: of what it comes from, by which
                random draws are told apart;
              * ``taken``, of a synapse with a kernel: shape of what it takes;
              * ``is_final`` (bool): computed once, after the last time step;

              and the attributes of its kind by their names. A tensor is given by its name;

            * ``answers`` (str): the operation whose outputs after the last step are the answers;
            * ``scale`` (:class:`~fractions.Fraction`), where there is one: what the module
              multiplies them by;
            * ``divisors`` (whole numbers), where there are any: what it divides each of them by.

        Raises:
            ValueError: An example of another shape, or a module that cannot be exported as it is;
                the message says what to write instead.
        """
        ...


@runtime_checkable
class DeclaresLearning(Protocol):
    """What such a module implements as well, where a device can go on training it."""

    def device_learning(self) -> Mapping[str, Any]:
        """How a device would go on learning, in fixed point as the module is now.

        Returns:
            The attributes of :class:`qspinn.export.learning.DeviceLearning` by their names, with a
            mapping for each of its rules.

        Raises:
            ValueError: It learns in a way that a device does not; the message says what to write
                instead.
        """
        ...


@runtime_checkable
class ReportsKeys(Protocol):
    """What such a module implements as well, where its roundings draw from keys of their own."""

    def device_keys(self) -> Mapping[str, int]:
        """Path of an operation -> key that the sequence that was shown last was rounded with."""
        ...


def declares_operations(module: object) -> bool:
    """Whether a module says by itself what a device would compute."""
    return isinstance(module, DeclaresOperations)
