"""Operations between layers that a graph holds: sums, products, poolings, by number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from qspinn.plan.graph.events import NOTHING, ZERO, Event
from qspinn.plan.graph.graph import Indices, Window

__all__ = ["ARITHMETIC"]

Shape = tuple[int, ...]
Events = list[Event] | Indices | None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _pair(a: Any, b: Any, shape: Shape) -> tuple[Indices, Indices]:
    return np.broadcast_to(a, shape).copy(), np.broadcast_to(b, shape).copy()


def _scaled(x: Indices, factor: Fraction, shape: Shape) -> Events:
    if factor == 1:
        return np.broadcast_to(x, shape)
    return [Event("scale", "", (np.broadcast_to(x, shape).copy(),), shape, factor=factor)]


def _offset(x: Any, sign: int, number: float, shape: Shape) -> Events:
    if number == 0:
        return _scaled(x, Fraction(sign), shape)
    moved = Event("offset", "", (x,), shape, factor=Fraction(number))
    if sign > 0:
        return [moved]
    return [Event("scale", "", (x,), shape, factor=Fraction(-1)), moved]


def _add(args: Any, kwargs: Any, shape: Shape, sign: int = 1, swap: bool = False) -> Events:
    a, b = (args[1], args[0]) if swap else (args[0], args[1])
    alpha = args[2] if len(args) > 2 else kwargs.get("alpha", 1)
    if alpha not in (1, -1):
        return None
    sign *= alpha
    if _is_number(b):
        return _offset(a, 1, sign * b, shape)
    if _is_number(a):
        return _offset(b, sign, a, shape)
    return [Event("add", "", _pair(a, b, shape), shape, signs=(1, sign))]


def _multiply(args: Any, kwargs: Any, shape: Shape) -> Events:
    a, b = args[0], args[1]
    for x, factor in ((a, b), (b, a)):
        if _is_number(factor):
            return _scaled(x, Fraction(factor), shape)
    return [Event("multiply", "", _pair(a, b, shape), shape)]


def _divide(args: Any, kwargs: Any, shape: Shape) -> Events:
    a, b = args[0], args[1]
    if not _is_number(b) or b == 0 or _is_number(a) or kwargs.get("rounding_mode") is not None:
        return None
    return _scaled(a, 1 / Fraction(b), shape)


def _reduced(kind: str, x: Indices, axes: Sequence[int] | int | None, shape: Shape) -> Event:
    """The sum or the maximum over axes."""
    if axes is None or (not isinstance(axes, int) and len(axes) == 0):
        axes = tuple(range(x.ndim))
    over = [axis % x.ndim for axis in ((axes,) if isinstance(axes, int) else axes)]
    kept = [axis for axis in range(x.ndim) if axis not in over]
    rows = x.transpose(*kept, *over).reshape(math.prod(shape), -1)
    return Event(kind, "", (rows,), shape)


def _sum(args: Any, kwargs: Any, shape: Shape) -> Events:
    axes = args[1] if len(args) > 1 else kwargs.get("dim")
    return [_reduced("sum", args[0], axes, shape)]


def _mean(args: Any, kwargs: Any, shape: Shape) -> Events:
    axes = args[1] if len(args) > 1 else kwargs.get("dim")
    total = _reduced("sum", args[0], axes, shape)
    terms = total.operands[0].shape[1]
    return [total, Event("scale", "", (), shape, factor=Fraction(1, terms))]


def _largest(args: Any, kwargs: Any, shape: Shape) -> Events:
    axes = args[1] if len(args) > 1 else kwargs.get("dim")
    return [_reduced("max", args[0], axes, shape)]


def _larger(args: Any, kwargs: Any, shape: Shape) -> Events:
    if _is_number(args[0]) or _is_number(args[1]):
        return None
    rows = np.stack(_pair(args[0], args[1], shape), axis=-1)
    return [Event("max", "", (rows.reshape(-1, 2),), shape)]


def _each(value: Any, dimensions: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dimensions if len(values) == 1 else values


def _pooled(kind: str, x: Indices, window: Window, shape: Shape) -> Event | None:
    dimensions = len(window.size)
    fill = ZERO if kind == "sum" else NOTHING
    edges = [(0, 0)] * (x.ndim - dimensions) + [(pad, pad) for pad in window.padding]
    axes = tuple(range(x.ndim - dimensions, x.ndim))
    padded = np.pad(x, edges, constant_values=fill)
    views: Any = np.lib.stride_tricks.sliding_window_view(padded, window.kernel, axes)
    steps = tuple(slice(None, None, step) for step in window.stride)
    views = views[(..., *steps, *(slice(None) for _ in range(dimensions)))]
    if views.shape[: x.ndim] != shape:
        return None  # rounded up, or dilated
    rows = views.reshape(math.prod(shape), -1).copy()
    return Event(kind, "", (rows,), shape, window=window)


def _window(args: Any, dimensions: int) -> Window:
    kernel = _each(args[1], dimensions)
    stride = _each(args[2], dimensions) if len(args) > 2 and args[2] else kernel
    padding = _each(args[3], dimensions) if len(args) > 3 else (0,) * dimensions
    return Window(tuple(args[0].shape[-dimensions:]), kernel, stride, padding)


def _max_pool(dimensions: int) -> Callable[..., Events]:
    def compute(args: Any, kwargs: Any, shape: Shape) -> Events:
        dilation = args[4] if len(args) > 4 else 1
        if any(one != 1 for one in _each(dilation, dimensions)):
            return None
        event = _pooled("max", args[0], _window(args, dimensions), shape)
        return None if event is None else [event]

    return compute


def _average_pool(dimensions: int) -> Callable[..., Events]:
    def compute(args: Any, kwargs: Any, shape: Shape) -> Events:
        window = _window(args, dimensions)
        includes = args[5] if len(args) > 5 else kwargs.get("count_include_pad", True)
        divisor = args[6] if len(args) > 6 else kwargs.get("divisor_override")
        if any(window.padding) and not includes:
            return None
        event = _pooled("sum", args[0], window, shape)
        if event is None:
            return None
        count = math.prod(window.kernel) if divisor is None else int(divisor)
        return [event, Event("scale", "", (), shape, factor=Fraction(1, count))]

    return compute


def _adaptive_average(args: Any, kwargs: Any, shape: Shape) -> Events:
    """Averages of windows of one size, with which the input is covered or repeated."""
    x = args[0]
    dimensions = len(args[1])
    sizes, made = x.shape[-dimensions:], shape[-dimensions:]
    rows, axes = x.reshape(-1, *sizes), []
    for size, out in zip(sizes, made, strict=True):
        axis = _windows(size, out)
        if axis is None:
            return None
        axes.append(axis)
    for number, axis in enumerate(axes):  # each axis becomes two: outputs, and terms of each
        rows = np.take(rows, axis, axis=1 + 2 * number)
    outputs, terms = range(1, 2 * dimensions, 2), range(2, 2 * dimensions + 1, 2)
    rows = rows.transpose(0, *outputs, *terms).reshape(math.prod(shape), -1)
    kernel = tuple(axis.shape[1] for axis in axes)
    window = Window(sizes, kernel, kernel, (0,) * dimensions)
    scale = Event("scale", "", (), shape, factor=Fraction(1, math.prod(kernel)))
    return [Event("sum", "", (rows,), shape, window=window), scale]


def _windows(size: int, outputs: int) -> Indices | None:
    """What each output of an axis averages: ``[outputs, terms]``; None: of several lengths."""
    first = np.arange(outputs) * size // outputs
    last = -(-(np.arange(outputs) + 1) * size // outputs)
    lengths = last - first
    if (lengths != lengths[0]).any():
        return None
    return first[:, None] + np.arange(lengths[0])


def _negated(args: Any, kwargs: Any, shape: Shape) -> Events:
    return _scaled(args[0], Fraction(-1), shape)


def _reversed_subtraction(args: Any, kwargs: Any, shape: Shape) -> Events:
    return _add(args, kwargs, shape, sign=-1, swap=True)


def _subtract(args: Any, kwargs: Any, shape: Shape) -> Events:
    return _add(args, kwargs, shape, sign=-1)


ARITHMETIC: dict[str, Callable[..., Events]] = {
    "add": _add,
    "sub": _subtract,
    "rsub": _reversed_subtraction,
    "neg": _negated,
    "mul": _multiply,
    "div": _divide,
    "sum": _sum,
    "mean": _mean,
    "amax": _largest,
    "max": _largest,
    "maximum": _larger,
    "logical_or": _larger,
    "bitwise_or": _larger,
    "logical_and": _multiply,
    "bitwise_and": _multiply,
    "max_pool1d": _max_pool(1),
    "max_pool2d": _max_pool(2),
    "max_pool2d_with_indices": _max_pool(2),
    "max_pool3d_with_indices": _max_pool(3),
    "avg_pool1d": _average_pool(1),
    "avg_pool2d": _average_pool(2),
    "avg_pool3d": _average_pool(3),
    "_adaptive_avg_pool2d": _adaptive_average,
    "_adaptive_avg_pool3d": _adaptive_average,
}
"""Name of an operator -> the events that it is, from identities of its operands.

Or the identities of its result, where it only moves numbers; None for what no graph holds.
"""
