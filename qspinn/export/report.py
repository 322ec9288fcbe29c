"""What a device model takes: memory, work and energy, as one table.

Memory is counted from the model itself; work and energy were measured on the network and come from
the record of its run, see ``docs/energy.md``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qspinn.export.container import ContainerSizes
from qspinn.export.lowering import program_of
from qspinn.export.model import DeviceModel, DeviceOperation, Total
from qspinn.export.program import Instruction, Program, word_length_of
from qspinn.export.verification import Verification

__all__ = ["DeviceReport", "buffer_bits", "device_report", "sizes_of"]


@dataclass(frozen=True, kw_only=True)
class DeviceReport:
    """What a device model takes. Bits and bytes are exact; what is not known is None.

    Attributes:
        sizes: Of its file.
        tensor_bits: Weights, biases, thresholds and leaks, at their word lengths.
        table_bits: Wiring, which no footprint counts.
        state_bits: States of neurons, at their word lengths.
        buffer_bits: See :func:`buffer_bits`.
        accumulator_bits: Word length of the longest exact sum.
        constant_bytes: Constants of a program (``.rodata``), of exporters that write one.
        activation_sparsity: Share of the outputs of spiking neurons that were 0.
        work: As a record has it.
    """

    sizes: ContainerSizes | None = None
    tensor_bits: int
    table_bits: int
    state_bits: int
    buffer_bits: int
    accumulator_bits: int
    constant_bytes: int | None = None
    activation_sparsity: float | None = None
    work: Mapping[str, Any] | None = None

    @property
    def footprint_bits(self) -> int:
        """What a device holds to classify: tensors and states."""
        return self.tensor_bits + self.state_bits

    def rows(self) -> list[tuple[str, str]]:
        """Quantity and value of each row of the table."""
        rows = []
        if self.sizes is not None:
            one = self.sizes
            rows.append(("model file", f"{one.file_bytes:,} bytes"))
            rows.append(("model file, header", f"{one.header_bytes:,} bytes"))
            rows.append(("model file, codes", _bits(one.payload_bits)))
            rows.append(("model file, padding", f"{one.padding_bits:,} bits"))
        rows += [
            ("footprint", _bits(self.footprint_bits)),
            ("footprint, constants", _bits(self.tensor_bits)),
            ("footprint, states", _bits(self.state_bits)),
            ("wiring tables", _bits(self.table_bits)),
        ]
        if self.constant_bytes is not None:
            rows.append(("constants of the program", f"{self.constant_bytes:,} bytes"))
        rows += [
            ("RAM", _bits(self.state_bits + self.buffer_bits)),
            ("RAM, states", _bits(self.state_bits)),
            ("RAM, buffers", _bits(self.buffer_bits)),
            ("longest sum", f"{self.accumulator_bits} bits"),
        ]
        if self.activation_sparsity is not None:
            rows.append(("activation sparsity", f"{100 * self.activation_sparsity:.2f}%"))
        return rows + _work_rows(self.work)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for a record: what is not in its ``work``, and the sizes of the file."""
        sizes = {} if self.sizes is None else dict(vars(self.sizes))
        given = {
            "tensor_bits": self.tensor_bits,
            "table_bits": self.table_bits,
            "state_bits": self.state_bits,
            "buffer_bits": self.buffer_bits,
            "accumulator_bits": self.accumulator_bits,
            "activation_sparsity": self.activation_sparsity,
        }
        return sizes | {name: value for name, value in given.items() if value is not None}


def device_report(
    model: DeviceModel,
    work: Mapping[str, Any] | None = None,
    *,
    sizes: ContainerSizes | None = None,
    verification: Verification | None = None,
    sparsity: float | None = None,
) -> DeviceReport:
    """The report of a model.

    Args:
        model: The model.
        work: Of the record of its run.
        sizes: Of its file, as :func:`qspinn.export.save_model` returns them.
        verification: Where the activation sparsity was measured.
        sparsity: The same, where it is known from a record.
    """
    program = program_of(model)
    if verification is not None:
        sparsity = verification.sparsity
    return DeviceReport(
        sizes=sizes,
        tensor_bits=model.stored_bits,
        table_bits=sum(table.payload_bits for table in model.tables.values()),
        state_bits=model.state_bits,
        buffer_bits=buffer_bits(program),
        accumulator_bits=max(program.accumulators.values(), default=0),
        activation_sparsity=sparsity,
        work=work,
    )


def sizes_of(model: DeviceModel, path: str | os.PathLike[str]) -> ContainerSizes:
    """Where the bits of the file of a model are.

    Raises:
        OSError: The file cannot be found.
    """
    packed = [*(tensor.packed for tensor in model.tensors.values()), *model.tables.values()]
    payload = sum(one.payload_bits for one in packed)
    padding = sum(one.padding_bits for one in packed)
    size = os.stat(path).st_size
    return ContainerSizes(
        file_bytes=size,
        header_bytes=size - (payload + padding) // 8,
        payload_bits=payload,
        padding_bits=padding,
    )


def buffer_bits(program: Program) -> int:
    """The most bits of results that are held at one time, if each layer is computed as a whole.

    Results are counted at the word lengths that their ranges need (a spike takes one bit, a sum
    what the largest sum takes), from when they are computed to when they are last taken. What is
    computed once for all time steps is held throughout, and so are sums over time steps that are
    no states; what is taken in the next time step is held twice. A program that computes a neuron's
    sum and its spike together needs less.
    """
    operations = program.model.operations
    last = list(range(len(operations)))
    for number, one in enumerate(operations):
        for operand in one.operands:
            if not operand.delay:
                last[operand.source] = max(last[operand.source], number)
    last[program.model.output.operation] = len(operations) - 1
    sizes = [one.operation.size * _word_length(one) for one in program.instructions]
    delayed = {o.source for one in operations for o in one.operands if o.delay}
    held = sum(sizes[number] for number in delayed)
    most = 0
    for number in range(len(operations)):
        live = sum(
            sizes[other]
            for other, one in enumerate(operations)
            if _is_kept(one) or other <= number <= last[other]
        )
        most = max(most, live)
    return held + most


def _is_kept(one: DeviceOperation) -> bool:
    is_result = isinstance(one.what, Total) and not one.what.state_word_length
    return one.is_static or is_result


def _word_length(one: Instruction) -> int:
    signed = one.low < 0
    return max(1, word_length_of(one.low, one.high) - (not signed))


def _bits(bits: int) -> str:
    return f"{-(-bits // 8):,} bytes ({bits:,} bits)"


_WORK = (
    ("synaptic operations, effective", "synaptic_operations", ""),
    ("synaptic operations, dense", "dense_synaptic_operations", ""),
    ("state updates", "state_updates", ""),
    ("energy, estimated", "energy_nj", " nJ"),
    ("energy, the same network in float32", "float_energy_nj", " nJ"),
    ("energy, an ANN of the same word lengths", "ann_energy_nj", " nJ"),
    ("energy, that ANN in float32", "ann_float_energy_nj", " nJ"),
)


def _work_rows(work: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What is known of the work for one sample."""
    rows = []
    for name, key, unit in _WORK:
        value = (work or {}).get(key)
        if not isinstance(value, int | float):
            continue
        rows.append((f"{name}", f"{value:,.0f}{unit}" if value >= 100 else f"{value:.4g}{unit}"))
        if key == "state_updates":
            rows.append(("state accesses, read and written", f"{2 * value:,.0f}"))
    return rows
