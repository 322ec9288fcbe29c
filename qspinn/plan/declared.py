"""Modules that say by themselves what a device would hold of them.

A module whose synapses change outside an optimizer, or that computes in fixed
point by itself, cannot be understood by watching its layers. It says what it
holds by two methods, and imports nothing of qspinn for that.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from qspinn.plan.float_class import shown
from qspinn.plan.inventory import TensorInfo
from qspinn.plan.kind_check import a_kind
from qspinn.plan.roles import Role, check_role

_METHODS = ("device_tensors", "use_fixed_point")
_NEEDED = ("name", "role", "shape")
_KEYS = (
    *_NEEDED,
    *("channel_axis", "training_only", "word_length", "value", "low", "high", "constant", "state"),
    "powers_of_two",
)


@runtime_checkable
class DeclaresTensors(Protocol):
    """What a module implements that computes in fixed point by itself.

    A plan sees such a module as one layer, whatever it consists of. It may also
    have ``accumulator_word_lengths() -> Mapping[str, int]``, which says how many
    bits its exact sums need, by names of its choice, and ``report_work(report)``,
    which says how much it computes (:class:`~qspinn.plan.activity.ReportsWork`):
    without that, the work and energy of its network are not known.

    A module whose neurons absorb a unit, together or each its own, so that the scale of its weights
    may be free, has ``free_format(word_length, rounding, overflow, granularity)``, which gives the
    format of their codes. The quantizer of such weights has the attribute ``scale == "free"``; what
    the module then declares is in these units.
    """

    def device_tensors(self) -> Sequence[Mapping[str, Any]]:
        """What a device would hold of this module; nothing, for an empty sequence.

        Returns:
            One mapping per tensor, with the keys

            * ``name`` (str);
            * ``role``: a role, or ``None`` for what is no fixed-point number;
            * ``shape`` (whole numbers): on the device, without a batch dimension;

            and, where they apply,

            * ``channel_axis`` (int, from 0): the axis of a format per channel;
            * ``training_only`` (bool): held only by a device that learns; where it
              is missing, only traces are;
            * ``word_length`` (int): bits per value of a tensor without a role, such
              as counters, the same in the baseline; where it is missing, 32;
            * ``value`` (tensor or number): what it holds now, in fixed point the
              value on its grid;
            * ``low`` and ``high`` (numbers): the bounds of what it may ever hold,
              while it learns too;
            * ``constant`` (bool): ``value`` is a single number that never changes,
              such as a threshold or a leak;
            * ``state`` (bool): changes from time step to time step, so that a device
              holds it in RAM; where it is missing, membrane potentials and traces do,
              unless they are constant;
            * ``powers_of_two`` (str): why the steps of these weights are powers of two even
              where the plan says ``scale=free``.

            After training a format is chosen on ``value``, or else to cover the
            bounds; in training to cover the bounds, or else on ``value``; for a
            constant it is the one in which the number loses least. It has a sign
            bit where ``low`` or a value is negative.
        """
        ...

    def use_fixed_point(self, quantizers: Mapping[str, Any] | None) -> None:
        """Computes in fixed point from now on, or in float again.

        Parameters and buffers hold numbers, not codes, in fixed point too: a state
        may be saved and loaded in either.

        Args:
            quantizers: Name of a tensor -> its quantizer, whose attributes
                ``path``, ``format``, ``rounding`` and ``overflow`` say how it is
                held. A name that is missing stays in 32-bit. ``None``: everything
                in float; what was rounded to a grid may stay on it.

        Raises:
            ValueError: Invalid formats; nothing has changed then.
        """
        ...


@dataclass(frozen=True, eq=False)
class DeclaredTensor:
    """One tensor as a module declares it.

    Attributes:
        info: What a plan knows of it.
        value: What it holds now, in its shape and as a float; ``None`` where
            the module does not say.
        low: The smallest number that it may ever hold.
        high: The largest.
        constant: Whether ``value`` is a single number that never changes.
    """

    info: TensorInfo
    value: Tensor | None = None
    low: float | None = None
    high: float | None = None
    constant: bool = False

    @property
    def signed(self) -> bool:
        """Whether it may hold negative numbers."""
        if self.low is not None and self.low < 0.0:
            return True
        return self.value is not None and bool((self.value < 0).any())


def declares_tensors(module: nn.Module) -> bool:
    """Whether ``module`` says by itself what a device would hold.

    Raises:
        ValueError: It has one of the two methods only.
    """
    # As isinstance(module, DeclaresTensors) does, which takes ten times as long in Python 3.11.
    if all(getattr(module, name, None) is not None for name in _METHODS):
        return True
    held = [name for name in _METHODS if callable(getattr(module, name, None))]
    if held:
        missing = next(name for name in _METHODS if name not in held)
        raise ValueError(
            f"{shown('', module)}: has {held[0]}() but no {missing}(); write both, as in "
            "qspinn.plan.DeclaresTensors, or give the method another name"
        )
    return False


def layers_of(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """``named_modules()`` without what lies inside of a module that declares its tensors."""
    covered: set[int] = set()
    for path, child in module.named_modules():
        if id(child) in covered:
            continue
        yield path, child
        if declares_tensors(child):
            covered.update(id(inner) for inner in child.modules())


def declared_tensors(path: str, module: nn.Module) -> tuple[DeclaredTensor, ...]:
    """What the module at ``path`` declares.

    Raises:
        ValueError: An invalid declaration, naming module, tensor and value.
    """
    assert isinstance(module, DeclaresTensors)
    place, given = f"{shown(path, module)}: device_tensors()", module.device_tensors()
    entries: object = given
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise ValueError(
            f"{place} gave {a_kind(entries)}; return a list of mappings, one per tensor"
        )
    tensors = tuple(_declared(path, f"{place}[{n}]", one) for n, one in enumerate(entries))
    names: set[str] = set()
    for tensor in tensors:
        if tensor.info.name in names:
            raise ValueError(f"{place}: two tensors named {tensor.info.name!r}; write other names")
        names.add(tensor.info.name)
    return tensors


def _declared(path: str, place: str, given: object) -> DeclaredTensor:
    if not isinstance(given, Mapping):
        raise ValueError(f"{place} is {a_kind(given)}; write a mapping with {', '.join(_NEEDED)}")
    for key in given:
        if key not in _KEYS:
            raise ValueError(f"{place}: unknown key {key!r}; write any of {', '.join(_KEYS)}")
    name = given.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{place}: name={name!r}; write the tensor's name, such as 'weight'")
    place = f"{place} {name!r}"
    for key in _NEEDED:
        if key not in given:
            raise ValueError(f"{place}: has no {key}; add the key {key!r}")
    info = _info(path, name, place, given)
    low, high = _bounds(place, given)
    value = _value(place, given.get("value"), info.shape or ())
    constant = _flag(place, "constant", given) or False
    if constant and (value is None or value.numel() != 1):
        raise ValueError(
            f"{place}: constant=True, but value={a_kind(given.get('value'))} with shape "
            f"{info.shape}; give the number as value, and shape ()"
        )
    return DeclaredTensor(info, value, low, high, constant)


def _info(path: str, name: str, place: str, given: Mapping[str, Any]) -> TensorInfo:
    role: Role | None = None
    if given["role"] is not None:
        role = check_role(given["role"], f"{place}: role (None for what is no fixed-point number)")
    shape = _shape(place, given["shape"])
    axis = _whole(place, "channel_axis", given, 0, len(shape) - 1)
    word_length = _whole(place, "word_length", given, 1, 64)
    if word_length is not None and role is not None:
        raise ValueError(
            f"{place}: word_length={word_length} with role={role!r}: the plan says how long it is; "
            "leave word_length out, or write role=None for what is no fixed-point number"
        )
    training_only = _flag(place, "training_only", given)
    is_constant, is_state = (_flag(place, key, given) for key in ("constant", "state"))
    if is_constant and is_state:
        raise ValueError(f"{place}: constant=True and state=True; write one of them")
    reason = given.get("powers_of_two")
    if reason is not None and (not isinstance(reason, str) or not reason or role != "weight"):
        raise ValueError(
            f"{place}: powers_of_two={reason!r} with role={role!r}; write in words why these "
            "weights have no free scale, or leave it out"
        )
    return TensorInfo(
        *(path, name, role, shape, axis, training_only, word_length),
        is_state=False if is_constant else is_state,
        is_constant=is_constant or None,
        powers_of_two=reason,
    )


def _shape(place: str, given: object) -> tuple[int, ...]:
    remedy = "write the sizes on the device, such as (784, 400), or () for a single number"
    try:
        shape = tuple(operator.index(size) for size in given)  # type: ignore[attr-defined]
    except TypeError:
        raise ValueError(f"{place}: shape={given!r}; {remedy}") from None
    if any(size < 1 for size in shape):
        raise ValueError(f"{place}: shape={shape} holds no number; {remedy}")
    return shape


def _whole(place: str, key: str, given: Mapping[str, Any], lowest: int, highest: int) -> int | None:
    value = given.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        wanted = f"a whole number from {lowest} to {highest}" if lowest <= highest else "none"
        raise ValueError(f"{place}: {key}={value!r}; write {wanted}")
    return value


def _flag(place: str, key: str, given: Mapping[str, Any]) -> bool | None:
    value = given.get(key)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{place}: {key}={value!r}; write True or False")
    return value


def _bounds(place: str, given: Mapping[str, Any]) -> tuple[float | None, float | None]:
    low, high = (_number(place, key, given.get(key)) for key in ("low", "high"))
    if (low is None) != (high is None):
        raise ValueError(f"{place}: low={low} and high={high}; write both or neither")
    if low is not None and high is not None and low > high:
        raise ValueError(f"{place}: low={low} and high={high}; write low <= high")
    return low, high


def _number(place: str, key: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if isinstance(value, str | bool) or not math.isfinite(number):
        raise ValueError(f"{place}: {key}={value!r}; write a finite number")
    return number


def _value(place: str, given: Any, shape: tuple[int, ...]) -> Tensor | None:
    if given is None:
        return None
    try:
        value = torch.as_tensor(given).detach()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{place}: value is {a_kind(given)}; give a tensor or a number") from None
    if value.is_complex():
        raise ValueError(f"{place}: value is complex; give real numbers")
    if value.numel() != 1 and value.shape != shape:
        raise ValueError(
            f"{place}: value has shape {tuple(value.shape)}, declared is shape={shape}; give what "
            "the device holds, or one number for all"
        )
    return (
        (value if value.is_floating_point() else value.double())
        .reshape(shape if value.shape == shape else [1] * len(shape))
        .expand(shape)
    )
