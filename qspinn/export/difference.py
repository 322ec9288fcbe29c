"""Where the integers of a device model first differ from what something else computes.

Something else is the torch network that the model was built from (:func:`first_difference`), or a
device of which there is a trace (:func:`first_difference_of_trace`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from qspinn.export.coding import encode
from qspinn.export.listening import Listener
from qspinn.export.model import Codes, DeviceModel
from qspinn.export.trace_file import TraceError, TraceRows
from qspinn.export.tracing import Trace, trace

__all__ = ["OUTPUT", "Difference", "answers_differ", "difference_of", "first_difference"]
__all__ += ["first_difference_of_trace"]

OUTPUT = "output"
"""The name of the network's answers, where a difference shows in nothing else."""


@dataclass(frozen=True)
class Difference:
    """The first value that differs.

    Attributes:
        sample: Number of the sample in the batch.
        step: Time step, from 0.
        layer: Name of the value, as :func:`qspinn.export.tracing.names_of` gives it.
        neuron: Index in the layer's output, such as ``(channel, row, column)``.
        code: What the integer engine has: a whole number.
        other: What the other one has, in the same unit; no whole number where it left the grid.
        fraction_bits: A code stands for ``code * 2^-fraction_bits``.
        against: What the engine was compared with.
        scale: What a code of the output is multiplied by, besides.
    """

    sample: int
    step: int
    layer: str
    neuron: tuple[int, ...]
    code: int
    other: float
    fraction_bits: int
    against: str = "the torch network"
    scale: Fraction = Fraction(1)

    @property
    def value(self) -> float:
        """What the code of the engine stands for."""
        return self._value(self.code)

    @property
    def other_value(self) -> float:
        """The same of the other one."""
        return self._value(self.other)

    def __str__(self) -> str:
        """One sentence with both values."""
        place = ", ".join(map(str, self.neuron))
        return (
            f"sample {self.sample}, time step {self.step}, layer {self.layer}, neuron ({place}): "
            f"the integer engine has code {self.code} (value {self.value:.9g}), {self.against} "
            f"{self.other:.9g} (value {self.other_value:.9g})"
        )

    def _value(self, code: float) -> float:
        return float(np.ldexp(float(code), -self.fraction_bits)) * float(self.scale)


def first_difference(
    model: DeviceModel, module: nn.Module, x: Tensor, batch_axis: int = 0
) -> Difference | None:
    """The first value that the torch network and the integer engine do not agree on.

    Both run sample by sample. The sums of every linear and convolutional layer, and the potentials
    and spikes of every layer of neurons are compared, at every time step, then the answers. The
    network itself is not run, but a copy; its SpikingJelly states are reset.

    Args:
        model: The device model.
        module: The network that it was built from, with quantizers attached.
        x: A batch, as the network takes it.
        batch_axis: Its axis of samples.

    Returns:
        Of the first sample that differs, the first step, in it the first layer in the order in
        which the device computes, and of it the first value; None: nothing differs.

    Raises:
        ValueError: Samples of another shape than the model takes.
    """
    listener = Listener(model, module)
    for number in range(x.shape[batch_axis]):
        sample = x.narrow(batch_axis, number, 1).detach().cpu()
        difference = difference_of(listener, sample, number, batch_axis)
        if difference is not None:
            return difference
    return None


def difference_of(
    listener: Listener, sample: Tensor, number: int, batch_axis: int = 0
) -> Difference | None:
    """The first difference of one sample; `number` is what it is called in the report."""
    model, heard = listener.model, listener.hear(sample)
    codes = encode(model, sample, batch_axis, heard.input_key)
    found = trace(model, codes, keys=heard.keys)
    inside = _first(found, heard.values, number)
    of = (found.sums, found.fraction_bits, heard.output)
    return answers_differ(model, *of, number) if inside is None else inside


def _first(
    found: Trace, heard: Mapping[str, NDArray[np.float64]], sample: int
) -> Difference | None:
    differences = list(_differences(found, heard, sample))
    return min(differences, key=lambda pair: pair[0])[1] if differences else None


def _differences(
    found: Trace, heard: Mapping[str, NDArray[np.float64]], sample: int
) -> Iterator[tuple[tuple[int, int], Difference]]:
    """The first difference of each layer, with its place in time."""
    for name, own in found:
        if name not in heard:
            continue
        codes = own.codes.reshape(len(own.codes), -1)
        other = np.ldexp(heard[name], own.fraction_bits)
        steps = min(len(codes), len(other))  # what a device computes once, torch may repeat
        places = np.argwhere(codes[:steps] != other[:steps])
        if len(places):
            step, flat = (int(one) for one in places[0])
            index = np.unravel_index(flat, own.codes.shape[2:])
            yield (
                (step, own.order),
                Difference(
                    sample,
                    step,
                    name,
                    tuple(int(one) for one in index),
                    int(codes[step, flat]),
                    float(other[step, flat]),
                    own.fraction_bits,
                ),
            )


def answers_differ(
    model: DeviceModel, sums: Codes, fraction_bits: int, output: NDArray[np.float64], sample: int
) -> Difference | None:
    """The first answer that differs, of one sample.

    The network multiplies its sums by ``model.output.scale``. Where that is a power of two, both
    must be equal; else the network's own floating-point numbers were rounded, and the whole numbers
    that they stand for are compared.

    Raises:
        ValueError: The network returned another number of values.
    """
    flat = sums.reshape(-1)
    if len(flat) != len(output):
        raise ValueError(
            f"the network returned {len(output)} values, and the device model has {len(flat)} "
            "answers; give the network and the shape of input that the model was built with"
        )
    scale = model.output.scale
    other = np.ldexp(output, fraction_bits) / float(scale)
    divisors = model.output.divisors
    if divisors:
        other = other * np.resize(np.array(divisors), len(other))
    if (
        divisors
        or scale.numerator & (scale.numerator - 1)
        or scale.denominator & (scale.denominator - 1)
    ):
        whole = np.rint(other)
        near = np.abs(other - whole) <= (model.steps + 8) * 2.0**-24 * (np.abs(whole) + 1)
        other = np.where(near, whole, other)
    # Sums over time of more bits than a float32 holds are rounded by the network itself.
    close = np.abs(flat - other) <= (model.steps + 8) * 2.0**-24 * np.abs(flat)
    other = np.where((np.abs(flat) >= 1 << 24) & close, flat, other)
    places = np.flatnonzero(flat != other)
    if not len(places):
        return None
    first = int(places[0])
    each = model.output.over == "each"
    step, place = divmod(first, model.answers) if each else (model.steps - 1, first)
    return Difference(
        *(sample, step, OUTPUT, (place,), int(flat[first]), float(other[first]), fraction_bits),
        scale=scale,
    )


def first_difference_of_trace(
    model: DeviceModel, codes: Codes, rows: TraceRows, sample: int = 0
) -> Difference | None:
    """The first value that a trace of a device and the integer engine do not agree on.

    Args:
        model: The device model.
        codes: Of one sample, as :func:`qspinn.export.encode` gives them.
        rows: What the device computed, see :func:`qspinn.export.trace_file.read_trace`; it may
            hold any part of what there is.
        sample: Its number, for the report.

    Raises:
        TraceError: A row names a layer, step or neuron that there is not.
    """
    found = trace(model, codes)
    first: tuple[tuple[int, int, int], Difference] | None = None
    for name, (steps, neurons, values) in rows.by_layer().items():
        if name not in found.values:
            known = ", ".join(found.values)
            raise TraceError(f"layer {name!r:.80} is none of the model's; there are {known}")
        own = found.values[name]
        flat = own.codes.reshape(len(own.codes), -1)
        outside = (steps < 0) | (steps >= len(flat)) | (neurons < 0) | (neurons >= flat.shape[1])
        if outside.any():
            place = int(np.flatnonzero(outside)[0])
            raise TraceError(
                f"layer {name}: there is no step {steps[place]}, neuron {neurons[place]}; it has "
                f"the steps 0 to {len(flat) - 1} and the neurons 0 to {flat.shape[1] - 1}"
            )
        wrong = np.flatnonzero(flat[steps, neurons] != values)
        if not len(wrong):
            continue
        at = min(wrong, key=lambda row: (steps[row], neurons[row]))
        step, neuron = int(steps[at]), int(neurons[at])
        index = tuple(int(one) for one in np.unravel_index(neuron, own.codes.shape[2:]))
        mine, other = int(flat[step, neuron]), float(values[at])
        difference = Difference(
            *(sample, step, name, index, mine, other, own.fraction_bits, "the trace")
        )
        place_in_time = (step, own.order, neuron)
        if first is None or place_in_time < first[0]:
            first = place_in_time, difference
    return None if first is None else first[1]
