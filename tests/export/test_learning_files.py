"""Model files that say how a network learns, and hold anything."""

from __future__ import annotations

import copy
import json
import subprocess
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qspinn.export import DeviceModel, device_model
from qspinn.export.c import write_c
from qspinn.export.checking import check_model
from qspinn.export.coding import encode
from qspinn.export.container import DamagedModelError, read_container, write_container
from qspinn.export.errors import FindingError
from qspinn.export.model import DeviceOperation, LabelSums, RandomSpikes, StoredTensor, Total
from qspinn.export.saving import load_model, save_model
from qspinn.fixed_point import FixedPointFormat
from qspinn.plan.graph import Operand
from tests.export.c.c_programs import SANITIZED, needs_compiler
from tests.export.c.learners import built
from tests.export.test_plastic_model import CLASSES, SHAPE, learned, pixels
from tests.mutations import mutations
from tests.reference import model_file

FAST, MANY = 120, 1_500
SLACK = 2 << 20
SPIKES, CURRENT, NEURONS, COUNTS, LABELS = 1, 2, 3, 4, 5
"""Numbers of operations of the model."""


@cache
def learner() -> DeviceModel:
    """A network of 12 neurons that goes on learning and labels its neurons."""
    return device_model(learned("maximum"), pixels(1, SHAPE, 7), learning=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_model(learner(), tmp_path / "model.qspinn")
    return tmp_path / "model.qspinn"


def read(path: Path) -> DeviceModel | None:
    """The model, or None where the file is refused, without much memory and with a clear error."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        return load_model(path)
    except DamagedModelError as error:
        assert str(error).startswith(f"{path}: ")
        assert len(str(error)) < 1000
        assert "; " in str(error)
        return None
    finally:
        assert tracemalloc.get_traced_memory()[1] - before < SLACK


def attack(path: Path, contents: Iterable[bytes]) -> tuple[int, int]:
    """How many files are refused, and of how many other ones C is written.

    What is read is exactly what the header says, and C is written of it or refused.
    """
    refused = written = 0
    tracemalloc.start()
    try:
        for content in contents:
            path.write_bytes(content)
            model = read(path)
            if model is None:
                refused += 1
                continue
            header, _ = read_container(path)
            save_model(model, path)
            again, _ = read_container(path)
            for key in ("learning", "learning_refused"):
                assert again.get(key) == header.get(key)
            try:
                write_c(model, path.parent / "c", "net", "packed", learning=True)
            except ValueError as error:
                assert "learning" in str(error) or "int64_t has 64" in str(error)
            else:
                written += 1
    finally:
        tracemalloc.stop()
    return refused, written


def cut(content: bytes, step: int) -> Iterator[bytes]:
    """The file without its end, from many places on."""
    for end in range(0, len(content), step):
        yield content[:end]


def flipped(content: bytes, step: int) -> Iterator[bytes]:
    """The file with one bit changed, of each `step`-th byte."""
    for place in range(0, len(content), step):
        changed = content[place] ^ 1 << place % 8
        yield content[:place] + bytes([changed]) + content[place + 1 :]


@pytest.mark.parametrize("change", [cut, flipped])
def test_a_damaged_file_is_refused(path: Path, change: Callable[..., Iterator[bytes]]) -> None:
    contents = list(change(path.read_bytes(), 37))
    assert attack(path, contents) == (len(contents), 0)


@pytest.mark.few(0.5)
@pytest.mark.parametrize("change", [cut, flipped])
def test_a_damaged_file_with_a_valid_checksum_is_refused_or_read_as_it_is(
    path: Path, change: Callable[..., Iterator[bytes]]
) -> None:
    contents = [model_file.resealed(one) for one in change(path.read_bytes(), 37)]
    refused, _ = attack(path, contents)
    assert refused > len(contents) / 2


INTEGERS = (0, 1, -1, 2, 7, 31, 40, 62, 63, 64, 255, 1 << 20, 1 << 31, (1 << 32) - 1)
INTEGERS += (1 << 40, 1 << 53, 1 << 61, 1 << 62, (1 << 63) - 1, -(1 << 63))
TEXTS = (
    "",
    "nearest",
    "stochastic",
    "wrap",
    "none",
    "update",
    "Q3.4",
    "UQ20.2",
    "Q-20.51",
    "UQ0.31",
)
OTHERS = (None, True, 1.5, "x", [], {}, [0], [1 << 62], [1 << 62] * 12, 3)


def new_value(old: Any, random: np.random.Generator) -> Any:
    """Another value, as a rule of the same type."""
    if random.random() < 0.3:
        return copy.deepcopy(OTHERS[random.integers(len(OTHERS))])  # it may be changed further
    if type(old) is int:
        near = min(max(old + int(random.integers(-3, 4)), -(1 << 63)), (1 << 63) - 1)
        return INTEGERS[random.integers(len(INTEGERS))] if random.random() < 0.5 else near
    if type(old) is bool:
        return not old
    if type(old) is str:
        return TEXTS[random.integers(len(TEXTS))]
    if type(old) is list:
        return old[1:] if random.random() < 0.5 else old + old
    return {}


def learning_changed(path: Path, seed: int, count: int) -> Iterator[bytes]:
    """The file with one or two values in what it says of learning replaced."""
    random = np.random.default_rng(seed)
    header, tensors = read_container(path)
    for _ in range(count):
        changed = json.loads(json.dumps(header))
        for _ in range(random.integers(1, 3)):
            place: Any = changed
            key: Any = "learning"
            while isinstance(place[key], dict | list) and place[key] and random.random() < 0.9:
                place = place[key]
                keys = list(place) if isinstance(place, dict) else range(len(place))
                key = keys[random.integers(len(keys))]
            place[key] = new_value(place[key], random)
        write_container(path, changed, tensors)
        yield path.read_bytes()


@pytest.mark.slow
def test_other_values_are_refused_or_read_as_they_are(path: Path) -> None:
    refused, written = attack(path, learning_changed(path, 1, FAST))
    assert refused > FAST / 3
    assert written > FAST / 20


def test_changed_bytes_are_refused_or_read_as_they_are(path: Path) -> None:
    contents = [model_file.resealed(one) for one in mutations(path.read_bytes(), 2, FAST)]
    assert attack(path, contents)[0] > FAST / 2


@pytest.mark.slow
@pytest.mark.campaign
def test_many_changed_files(path: Path) -> None:
    content = path.read_bytes()
    resealed = (model_file.resealed(one) for one in mutations(content, 3, MANY))
    assert attack(path, resealed)[0] > MANY / 2
    path.write_bytes(content)
    assert attack(path, learning_changed(path, 4, MANY))[0] > MANY / 3


@pytest.mark.campaign
@needs_compiler
@pytest.mark.slow
def test_what_is_read_can_be_compiled_and_learns_without_undefined_behaviour(path: Path) -> None:
    tried, images = 0, encode(learner(), pixels(6, SHAPE, 9)).astype(np.uint8).tobytes()
    for content in learning_changed(path, 5, 80):
        path.write_bytes(content)
        try:
            model = load_model(path)
            write_c(model, path.parent, "net", "packed", learning=True)
        except ValueError:
            continue
        program = built(model, path.parent, "net", SANITIZED)
        done = subprocess.run([program.path, "4", "0"], input=images, capture_output=True)
        assert done.returncode == 0, done.stderr[:2000].decode()
        tried += 1
    assert tried > 10


def setting(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        place: Any = header
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def learn(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    return setting("learning", *keys, value=value)


def removing(header: dict[str, Any]) -> None:
    del header["learning"]["theta"]["bits"]


HUGE = 1 << 62
EDITS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "null": (setting("learning", value=None), "learning: None should be of type dict"),
    "list": (setting("learning", value=[]), r"learning: \[\] should be of type dict"),
    "missing": (removing, "learning.theta: 'bits' is missing"),
    "more": (learn("code", value="x"), "learning: 'code' is not known"),
    "type": (learn("deferred", value=0), "learning.deferred: 0 should be of type bool"),
    "true": (learn("theta", "plus", value=True), "theta.plus: True should be of type"),
    "float": (learn("key", value=1.0), "learning.key: 1.0 should be of type int"),
    "draws": (learn("draws", value=[1]), r"learning.draws: \[1\] should hold 5 values"),
    "draw": (learn("draws", 2, value=1 << 31), "learning: draws=2147483648: lies out"),
    "state": (learn("trace_pre", "state", value="Q9"), "trace_pre.state: .*'Q9' is no"),
    "wide": (learn("trace_pre", "state", value="Q40.1"), "trace_pre.state: .*42"),
    "one": (learn("trace_post", "one", value=HUGE), "trace_post: one=.*lies outside 0"),
    "shift": (learn("theta", "bits", value=HUGE), "theta: bits=.*outside 0 to 62"),
    "rate": (learn("weight", "rate_post", value=[-1]), "weight: rate_post=-1: lies out"),
    "rates": (learn("weight", "rate_post", value=[1, 2]), "rate_post: 2 numbers for 12"),
    "no rate": (learn("weight", "rate_pre", value=[]), "rate_pre: 0 numbers for 12 ne"),
    "maximum": (learn("weight", "maximum", value=[0]), "maximum=0: lies outside 1 to"),
    "rounding": (learn("weight", "rounding", value="up"), "weight: 'up' and 'saturate'"),
    "normalise": (learn("normalise", value="never"), "learning: normalise='never': wri"),
    "turns": (learn("turns", value=[0]), "learning: turns: 1 numbers for 12 neurons"),
    "turn": (learn("turns", 3, value=1 << 32), "learning: turns=4294967296: lies outs"),
    "seen": (learn("presentations", value=HUGE + 1), "learning: presentations=.*outside"),
    "both": (setting("learning_refused", value="no"), "says how it learns, and why it cannot"),
    "reason": (setting("learning_refused", value=3), "learning_refused: 3 should be of type str"),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_headers_that_say_something_else_are_refused(path: Path, name: str) -> None:
    change, message = EDITS[name]
    header, tensors = read_container(path)
    header = json.loads(json.dumps(header))
    change(header)
    write_container(path, header, tensors)
    with pytest.raises(DamagedModelError, match=message) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "export the model again" in str(caught.value)


def test_more_counters_than_a_header_has_room_for_are_refused(path: Path) -> None:
    header, tensors = read_container(path)
    turns = [0] * 200_000
    write_container(path, {**header, "learning": {**header["learning"], "turns": turns}}, tensors)
    with pytest.raises(DamagedModelError, match="turns: 200000 numbers for 12 neurons"):
        load_model(path)


def with_operation(number: int, **changes: Any) -> Callable[[DeviceModel], DeviceModel]:
    def change(model: DeviceModel) -> DeviceModel:
        operations = list(model.operations)
        operations[number] = replace(operations[number], **changes)
        return replace(model, operations=tuple(operations))

    return change


def with_another(operation: DeviceOperation) -> Callable[[DeviceModel], DeviceModel]:
    return lambda model: replace(model, operations=(*model.operations, operation))


def drawing_from_others(model: DeviceModel) -> DeviceModel:
    """Neurons that draw from another layer of random spikes than their weights take."""
    spikes = model.operations[SPIKES]
    assert isinstance(spikes.what, RandomSpikes)
    other = replace(spikes, what=replace(spikes.what, key=1))
    moved = [
        replace(
            one, operands=tuple(replace(o, source=o.source + (o.source > 1)) for o in one.operands)
        )
        for one in model.operations
    ]
    moved[NEURONS] = replace(moved[NEURONS], operands=(Operand(CURRENT + 1), Operand(2)))
    operations = (*moved[:2], other, *moved[2:])
    output = replace(model.output, operation=model.output.operation + 1)
    return replace(model, operations=operations, output=output)


def labelling_inputs(model: DeviceModel) -> DeviceModel:
    """Labels of what is no neuron."""
    labels = StoredTensor.of(np.zeros(SHAPE[1] * SHAPE[2], np.int64), FixedPointFormat(2, 0, False))
    changed = replace(model, tensors={**model.tensors, "readout.labels": labels})
    changed = with_operation(COUNTS, operands=(Operand(SPIKES),), shape=(labels.shape[0],))(changed)
    return changed


def signed_weights(model: DeviceModel) -> DeviceModel:
    held = model.tensors["network.weight"]
    signed = StoredTensor.of(np.minimum(held.codes, 3), FixedPointFormat(0, 2))
    return replace(model, tensors={**model.tensors, "network.weight": signed})


FAULTS: dict[str, tuple[Callable[[DeviceModel], DeviceModel], str]] = {
    "late currents": (
        with_operation(NEURONS, operands=(Operand(CURRENT, 1), Operand(SPIKES))),
        "neurons that learn take their currents in the same step",
    ),
    "late spikes": (
        with_operation(CURRENT, operands=(Operand(SPIKES, 1),)),
        "weights that are learned take spikes of the same step",
    ),
    "other draws": (drawing_from_others, "draw from the spikes that their weights take"),
    "labels of inputs": (labelling_inputs, "one readout by labels at most, of the counts"),
    "two readouts": (
        with_another(
            DeviceOperation(
                LabelSums("readout.labels"), (Operand(COUNTS),), (CLASSES,), "more", is_final=True
            )
        ),
        "one readout by labels at most",
    ),
    "late counts": (with_operation(COUNTS, what=Total(7, 3)), "one readout by labels at most"),
    "signed": (signed_weights, "never negative; write an unsigned format"),
    "steps": (lambda model: replace(model, frame_stride=36), "inputs that spike at random|stride"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_other_networks_do_not_learn(tmp_path: Path, name: str) -> None:
    change, message = FAULTS[name]
    changed = change(learner())
    with pytest.raises(FindingError, match=message):
        check_model(changed)
    with pytest.raises(FindingError):
        save_model(changed, tmp_path / "model.qspinn")
    assert not list(tmp_path.iterdir())
