"""Shapes in a NIR graph, worked out without computing or holding any values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import nir
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from qspinn.export.nir_file import refusal
from qspinn.export.nir_graph import SYNAPSES, Step

Shape = tuple[int, ...]
Values = npt.NDArray[Any]

_POOLS = (nir.SumPool2d, nir.AvgPool2d)
_ELEMENTWISE = (nir.Scale, nir.Threshold, nir.IF, nir.LIF, nir.CubaLIF, nir.I, nir.LI, nir.CubaLI)
# The parameter whose shape is that of the layer.
_SIZED_BY = {nir.Scale: "scale", nir.Threshold: "threshold"}
SUPPORTED = (nir.Input, nir.Output, nir.Flatten, *SYNAPSES, *_POOLS, *_ELEMENTWISE)


def shapes_of(steps: Sequence[Step]) -> dict[str, Shape]:
    """The shape, without time and batch, of what each node puts out.

    Raises:
        NirError: A node that is not supported, or to which its input does not fit.
    """
    shapes: dict[str, Shape] = {}
    for step in steps:
        if not isinstance(step.node, SUPPORTED):
            kinds = ", ".join(kind.__name__ for kind in SUPPORTED)
            raise refusal(step.name, step.node, f"not supported; supported are {kinds}")
        if not step.sources:
            shapes[step.name] = _declared(step, "input_type", "input")
            continue
        given = {shapes[source] for source in step.sources}
        if len(given) > 1:
            raise _misfit(step, f"its sources have the shapes {sorted(given)}")
        shape = given.pop()
        shapes[step.name] = _shape_after(step.name, step.node, shape)
        if step.feedback is not None and _shape_after(*step.feedback, shape) != shape:
            raise refusal(*step.feedback, f"feeds neurons of the shape {shape} with another one")
    return shapes


def numbers(step: tuple[str, Any], key: str, count: int = 1) -> tuple[int, ...]:
    """Whole numbers, such as a stride: as many as dimensions, one number standing for all."""
    name, node = step
    found = np.asarray(getattr(node, key)).reshape(-1)
    whole = found.dtype.kind in "iuf" and bool((found == np.floor(found)).all())
    if not whole or len(found) not in (1, count):
        raise refusal(name, node, f"{key}={found.tolist()!r}; expected {count} whole number(s)")
    return tuple(int(one) for one in np.broadcast_to(found, count))


def padding_of(step: tuple[str, Any], count: int) -> str | tuple[int, ...]:
    """The padding of a convolution: ``"same"``, ``"valid"`` or numbers."""
    given = step[1].padding
    return str(given) if isinstance(given, str) else numbers(step, "padding", count)


def convolution_settings(step: tuple[str, Any]) -> dict[str, Any]:
    """Stride, padding, dilation and groups of a convolution, as torch takes them."""
    count = 1 if isinstance(step[1], nir.Conv1d) else 2
    return {
        "stride": numbers(step, "stride", count),
        "padding": padding_of(step, count),
        "dilation": numbers(step, "dilation", count),
        "groups": numbers(step, "groups")[0],
    }


def flattened_dims(step: tuple[str, Any]) -> tuple[int, int]:
    """First and last dimension to flatten, counted with a batch dimension in front."""
    start, end = numbers(step, "start_dim")[0], numbers(step, "end_dim")[0]
    return (start + 1 if start >= 0 else start), (end + 1 if end >= 0 else end)


def _shape_after(name: str, node: Any, shape: Shape) -> Shape:
    step = Step(name, node, ())
    if isinstance(node, nir.Output):
        if (node.output_type or {}).get("output") is None:
            return shape
        declared = _declared(step, "output_type", "output")
        if math.prod(declared) != math.prod(shape):
            raise _misfit(step, f"it declares {declared}, and is given {shape}")
        return shape
    if isinstance(node, nir.Input):
        return shape
    if isinstance(node, _ELEMENTWISE):
        key = _SIZED_BY.get(type(node), "r")
        per_neuron(name, node, np.asarray(getattr(node, key)), shape)
        return shape
    try:
        made = _on_meta((name, node), torch.empty((1, *shape), device="meta"))
    except (RuntimeError, IndexError, TypeError, ArithmeticError) as error:
        raise _misfit(step, f"its input has the shape {shape}: {error}") from error
    return tuple(made.shape[1:])


def _on_meta(step: tuple[str, Any], x: torch.Tensor) -> torch.Tensor:
    """The node on a tensor without values."""
    node = step[1]
    if isinstance(node, nir.Flatten):
        return x.flatten(*flattened_dims(step))
    if isinstance(node, _POOLS):
        sizes = (numbers(step, key, 2) for key in ("kernel_size", "stride", "padding"))
        if x.dim() != 4:
            raise RuntimeError("expected channels, height and width")
        return functional.avg_pool2d(x, *sizes)  # type: ignore[arg-type]
    shape = np.shape(node.weight)
    weight = torch.empty(shape, device="meta")
    dimensions = {nir.Conv1d: 3, nir.Conv2d: 4}.get(type(node), 2)
    if len(shape) != dimensions or x.dim() != max(2, dimensions):
        raise RuntimeError(f"its weight has the shape {shape}")
    if getattr(node, "bias", None) is not None and np.shape(node.bias) != shape[:1]:
        raise RuntimeError(f"its bias has the shape {np.shape(node.bias)}, its weight {shape}")
    if dimensions == 2:
        return functional.linear(x, weight)
    convolve = functional.conv1d if dimensions == 3 else functional.conv2d
    return convolve(x, weight, **convolution_settings(step))


def per_neuron(name: str, node: Any, values: Values, shape: Shape) -> Values:
    """A parameter, which has one value or one for each neuron, for each neuron of a layer.

    The result is a view: it takes no more memory than the parameter.
    """
    fits = values.size == 1 or values.shape == shape or values.ndim == len(shape)
    try:
        if not fits:
            raise ValueError
        return np.broadcast_to(values.reshape(()) if values.size == 1 else values, shape)
    except ValueError:
        raise refusal(
            name, node, f"its parameters have the shape {values.shape}, its input {shape}"
        ) from None


def _declared(step: Step, attribute: str, key: str) -> Shape:
    given = (getattr(step.node, attribute, None) or {}).get(key)
    if given is None:
        raise refusal(step.name, step.node, "does not say which shape it has")
    shape = np.asarray(given)
    whole = shape.ndim == 1 and shape.dtype.kind in "iuf" and bool((shape == np.floor(shape)).all())
    if not whole or not (shape >= 1).all():
        raise refusal(step.name, step.node, f"has the shape {shape.tolist()!r}")
    return tuple(int(one) for one in shape)


def _misfit(step: Step, why: str) -> ValueError:
    return refusal(step.name, step.node, f"shapes do not fit: {why}")
