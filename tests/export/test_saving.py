"""Device models as files, and back; files that hold what is no model."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import tracemalloc
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from qspinn.export import IntegerEngine, checking, checks
from qspinn.export.checking import check_model
from qspinn.export.container import DamagedModelError, read_container, write_container
from qspinn.export.errors import FindingError
from qspinn.export.model import (
    Arithmetic,
    DeviceModel,
    DeviceOperation,
    Gather,
    Input,
    Neuron,
    Output,
    Pooling,
    Round,
    State,
    StoredTensor,
    Synapse,
)
from qspinn.export.packed_tensor import PackedTensor
from qspinn.export.saving import load_model, save_model
from qspinn.fixed_point import FixedPointFormat, PerChannelFormat
from qspinn.plan.graph import Operand, Window
from tests.export.random_models import random_codes, random_model
from tests.mutations import mutations
from tests.reference import model_file

FAST, MANY = 150, 5_000
SLACK = 1 << 20
BYTE, SPIKES = FixedPointFormat(3, 4), FixedPointFormat(1, 0, signed=False)
LEAK = FixedPointFormat(0, 4, signed=False)
SYMMETRIC = FixedPointFormat(3, 0, symmetric=True)


def tensor(shape, fmt, seed=0):
    random = np.random.default_rng(seed)
    low, high = max(fmt.code_min, -9), min(fmt.code_max, 9)
    return StoredTensor.of(random.integers(low, high, shape, endpoint=True), fmt)


def whole_model() -> DeviceModel:
    """A model with every kind of operation, on frames."""
    late = Operand(7, 1)
    halves = Window((4, 4), (2, 2), (2, 2), (0, 0))
    lif = Neuron("lif", BYTE, "stochastic", "wrap", "threshold", "decay", True, -3, 2)
    ilif = Neuron("ilif", BYTE, threshold="level", decay="decay", decay_input=False, most=3)
    convolution = Synapse("kernel", "bias", (1, 1), ((1, 1), (1, 1)), (1, 1))
    operations = (
        DeviceOperation(Input(SPIKES), (), (2, 4, 4), "", False),
        DeviceOperation(convolution, (Operand(0),), (3, 4, 4), "conv", False, (2, 4, 4)),
        DeviceOperation(lif, (Operand(1),), (3, 4, 4), "lif"),
        DeviceOperation(Pooling("sum", halves), (Operand(2),), (3, 2, 2), "pool"),
        DeviceOperation(Round(BYTE, "nearest_even"), (Operand(3),), (3, 2, 2), "fc"),
        DeviceOperation(Synapse("weight"), (Operand(4),), (4,), "fc", False, (12,)),
        DeviceOperation(Arithmetic("add", (1, -1)), (Operand(5), late), (4,)),
        DeviceOperation(ilif, (Operand(6),), (4,), "ilif"),
        DeviceOperation(State(), (Operand(7),), (4,), "ilif"),
        DeviceOperation(Gather("order"), (Operand(7), Operand(8)), (6,)),
        DeviceOperation(Pooling("max", None, "rows"), (Operand(9),), (2,)),
        DeviceOperation(Arithmetic("scale", factor=Fraction(3, 4)), (Operand(10),), (2,)),
    )
    channels = PerChannelFormat(5, (1, 2, 3))
    tensors = {
        "kernel": StoredTensor.of(tensor((3, 2, 3, 3), BYTE).codes, channels),
        "bias": tensor((3,), BYTE, 1),
        "threshold": StoredTensor.of(np.array([[[9]], [[12]], [[7]]]), BYTE),
        "decay": StoredTensor.of(np.array(5), LEAK),
        "level": StoredTensor.of(np.array(4), FixedPointFormat(5, 2)),
        "weight": tensor((4, 12), BYTE, 2),
    }
    tables = {
        "order": PackedTensor.shortest(np.array([7, 0, -1, 3, 2, 6])),
        "rows": PackedTensor.shortest(np.array([[0, 1, 2], [3, 4, 5]])),
        "output": PackedTensor.shortest(np.array([[0], [1]])),
        "frame": PackedTensor.shortest(np.arange(32)[::-1]),
    }
    output = Output(11, "output", "each", Fraction(1, 5))
    return DeviceModel(
        operations, output, tensors, tables, "frame", 32, 5, "whole", ("cat", "dog"), {"by": "hand"}
    )


MODEL = whole_model()


def same(a: DeviceModel, b: DeviceModel) -> bool:
    """Whether two models are equal in every field."""
    for field in dataclasses.fields(DeviceModel):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if field.name == "tensors":
            one = {name: (held.packed, held.format) for name, held in one.items()}
            other = {name: (held.packed, held.format) for name, held in other.items()}
        if field.name == "operations":
            one, other = [vars(x) for x in one], [vars(x) for x in other]
        if one != other:
            return False
    return True


def test_a_model_comes_back_as_it_was(tmp_path):
    sizes = save_model(MODEL, tmp_path / "deep" / "model.qspinn")
    loaded = load_model(tmp_path / "deep" / "model.qspinn")
    assert same(loaded, MODEL)
    assert sizes.file_bytes == (tmp_path / "deep" / "model.qspinn").stat().st_size
    codes = random_codes(MODEL, 0, 3)
    before, after = IntegerEngine(MODEL).run(codes), IntegerEngine(loaded).run(codes)
    assert np.array_equal(before.sums, after.sums)
    assert before.sums.any()


@pytest.mark.parametrize("seed", range(10))
def test_random_models_come_back_as_they_were(tmp_path, seed):
    model = random_model(seed)
    save_model(model, tmp_path / "a.qspinn")
    loaded = load_model(tmp_path / "a.qspinn")
    assert same(loaded, model)
    save_model(loaded, tmp_path / "b.qspinn")
    assert (tmp_path / "a.qspinn").read_bytes() == (tmp_path / "b.qspinn").read_bytes()


def with_operation(number, **changes):
    def change(model):
        operations = list(model.operations)
        operations[number] = dataclasses.replace(operations[number], **changes)
        return dataclasses.replace(model, operations=tuple(operations))

    return change


def with_what(number, **changes):
    def change(model):
        what = dataclasses.replace(model.operations[number].what, **changes)
        return with_operation(number, what=what)(model)

    return change


def with_output(**changes):
    return lambda model: dataclasses.replace(
        model, output=dataclasses.replace(model.output, **changes)
    )


def with_model(**changes):
    return lambda model: dataclasses.replace(model, **changes)


def with_tensor(name, held):
    return lambda model: dataclasses.replace(model, tensors={**model.tensors, name: held})


def with_table(name, table):
    table = None if table is None else PackedTensor.shortest(np.array(table))
    return lambda model: dataclasses.replace(model, tables={**model.tables, name: table})


def without(kind, name):
    def change(model):
        held = {key: one for key, one in getattr(model, kind).items() if key != name}
        return dataclasses.replace(model, **{kind: held})

    return change


def both(*changes):
    def change(model):
        for one in changes:
            model = one(model)
        return model

    return change


def window(size=(4, 4), kernel=(2, 2), stride=(2, 2), padding=(0, 0)):
    return Pooling("sum", Window(size, kernel, stride, padding))


HUGE = 1 << 40
FINAL = tuple(dataclasses.replace(one, is_final=True) for one in MODEL.operations)
FAULTS = {
    "nothing": (with_model(operations=()), "the first operation is not the input"),
    "no input": (with_operation(0, what=State()), "the first operation is not the input"),
    "two inputs": (with_operation(4, what=Input(SPIKES)), "the input comes first, and only there"),
    "no steps": (with_model(steps=0), "0 steps with a stride of 32"),
    "stride": (with_model(frame_stride=-1), "5 steps with a stride of -1"),
    "shape": (with_operation(5, shape=(0,)), r"a shape of \(0,\)"),
    "taken": (with_operation(5, taken=(-12,)), "a shape of"),
    "values": (with_operation(4, shape=(HUGE,)), f"an output of {HUGE} values"),
    "rows": (with_operation(5, rows=0), "an output of 4 values"),
    "unknown operand": (with_operation(4, operands=(Operand(12),)), "takes operation 12"),
    "negative operand": (with_operation(4, operands=(Operand(-1),)), "takes operation -1"),
    "circle": (with_operation(3, operands=(Operand(4),)), "takes operation 4 too early"),
    "itself": (with_operation(3, operands=(Operand(3),)), "takes operation 3 too early"),
    "delay": (with_operation(3, operands=(Operand(2, 2),)), "takes operation 2 too early"),
    "negative delay": (with_operation(3, operands=(Operand(2, -1),)), "too early"),
    "once": (with_operation(3, is_static=True), "is computed once, from what changes with time"),
    "operands of the input": (with_operation(0, operands=(Operand(7, 1),)), "an input with operan"),
    "input of an image": (with_operation(0, is_static=True), "a stride that is not that of the in"),
    "late image": (
        both(with_operation(0, is_static=True), with_model(frame_stride=0),
             with_operation(1, operands=(Operand(0, 1),))),
        "takes operation 0 too early",
    ),
    "rounding": (with_what(4, rounding="up"), "the rounding 'up'"),
    "overflow": (with_what(0, overflow="up"), "the overflow 'up'"),
    "no frame": (without("tables", "frame"), "the table 'frame' is missing"),
    "frame": (with_table("frame", range(31)), r"the table 'frame' has the shape \(31,\)"),
    "place": (with_table("frame", range(-1, 31)), "a place below 0"),
    "operands": (with_operation(1, operands=(Operand(0), Operand(0))), "takes 2 operands, not one"),
    "no operand": (with_operation(4, operands=()), "takes 0 operands, not one"),
    "no weight": (without("tensors", "weight"), "the tensor 'weight' is missing"),
    "weights": (with_tensor("weight", tensor((48,), BYTE)), r"weights of the shape \(48,\)"),
    "no weights": (with_tensor("weight", tensor((4, 0), BYTE)), "weights of the shape"),
    "biases": (with_tensor("bias", tensor((4,), BYTE)), "biases of another number"),
    "axes": (with_what(1, stride=(1,)), "weights of 4 axes"),
    "linear stride": (with_what(5, stride=(1,)), "weights of 2 axes"),
    "convolved input": (with_operation(1, taken=(2, 4, 5)), "takes another number of values"),
    "linear rows": (with_operation(5, rows=2), "takes other rows"),
    "linear groups": (with_what(5, groups=2), "takes other rows"),
    "linear output": (with_operation(5, shape=(5,)), "puts out another number of values"),
    "taken axes": (with_operation(1, taken=(2, 16)), "takes a shape of"),
    "convolved rows": (with_operation(1, rows=2), "takes a shape of"),
    "groups": (with_what(1, groups=2), "takes other channels"),
    "no groups": (with_what(1, groups=0), "takes other channels"),
    "no stride": (with_what(1, stride=(1, 0)), "a stride, dilation or padding"),
    "no dilation": (with_what(1, dilation=(0, 1)), "a stride, dilation or padding"),
    "negative padding": (with_what(1, padding=((1, -1), (1, 1))), "a stride, dilation or padding"),
    "spread": (with_what(1, dilation=(9, 1)), "a kernel larger than its input"),
    "zeros": (with_what(1, padding=((HUGE, HUGE),) * 2, stride=(2 * HUGE, 2 * HUGE)), "zeros ar"),
    "convolved": (with_operation(1, shape=(3, 16)), r"puts out \(3, 16\), not \(3, 4, 4\)"),
    "neuron": (with_what(2, model="izhikevich"), "the neuron 'izhikevich'"),
    "fallback": (with_what(2, model="fallback"), "the neuron 'fallback'"),
    "neurons": (with_operation(2, shape=(3, 4, 5)), "has other neurons than currents"),
    "no leak": (with_what(2, decay=None), "a leak where there is none, or none"),
    "leak": (with_what(2, model="if"), "a leak where there is none, or none"),
    "filter": (with_what(2, model="filter"), "a filter with a threshold"),
    "decays": (with_what(7, decay_input=True), "decays"),
    "reset": (with_what(2, reset=128), r"codes \(2, 128\) beyond Q3.4"),
    "initial": (with_what(2, initial=-129), r"codes \(-129, -3\) beyond Q3.4"),
    "most": (with_what(7, most=0), "0 spikes in a step"),
    "no threshold": (without("tensors", "level"), "the tensor 'level' is missing"),
    "formats of leaks": (
        with_tensor("decay", StoredTensor.of(np.array([1, 2, 3]), PerChannelFormat(4, (1, 2, 3)))),
        "decay has several formats",
    ),
    "spread of one": (with_tensor("threshold", tensor((3,), BYTE)), "constants of the shape"),
    "axes of constants": (with_tensor("decay", tensor((1,) * 4, LEAK)), "constants of the shape"),
    "fine threshold": (with_tensor("level", tensor((), FixedPointFormat(2, 5))), "finer than"),
    "counts": (with_tensor("level", StoredTensor.of(np.array(0), BYTE)), "below 1"),
    "rounded": (with_operation(4, shape=(3, 2)), "rounds another number of values"),
    "arithmetic": (with_what(6, kind="divide"), "the arithmetic 'divide'"),
    "terms": (with_operation(6, operands=(Operand(5),)), "another number of operands"),
    "sizes": (with_operation(6, operands=(Operand(5), Operand(4))), "operands of other sizes"),
    "signs": (with_what(6, signs=(1, 2)), r"the signs \(1, 2\)"),
    "more signs": (with_what(6, signs=(1, 1, 1)), r"the signs \(1, 1, 1\)"),
    "signs of a scale": (with_what(11, signs=(1,)), r"the signs \(1,\)"),
    "third": (with_what(11, factor=Fraction(1, 3)), "the factor 1/3"),
    "fine factor": (with_what(11, factor=Fraction(1, HUGE)), "the factor 1/"),
    "large factor": (with_what(11, factor=Fraction(HUGE)), "the factor 1099"),
    "pooling": (with_what(3, kind="mean"), "the pooling 'mean'"),
    "no window": (with_what(3, window=None), "a window and a table, or neither"),
    "both": (with_what(3, table="rows"), "a window and a table, or neither"),
    "table": (with_table("rows", [[0, 1, 2]]), "the table 'rows' has the shape"),
    "places": (with_table("rows", [[0, 1, 2], [3, 4, 6]]), "places from 0 to 6 of 6 values"),
    "nothing in a maximum": (with_table("rows", [[0, 1, 2], [3, 4, -1]]), "places from -1 to 4"),
    "window": (with_operation(3, what=window(kernel=(2,))), "a window of different axes"),
    "no axes": (with_operation(3, what=window((), (), (), ())), "a window of different axes"),
    "kernel": (with_operation(3, what=window(kernel=(5, 2))), "does not fit its input"),
    "no kernel": (with_operation(3, what=window(kernel=(0, 2))), "does not fit its input"),
    "window stride": (with_operation(3, what=window(stride=(0, 2))), "does not fit its input"),
    "padding": (with_operation(3, what=window(padding=(2, 0))), "does not fit its input"),
    "window size": (with_operation(3, what=window((5, 4))), "another size than its input"),
    "huge window": (with_operation(3, what=window((HUGE, HUGE))), "another size than its input"),
    "no window size": (with_operation(3, what=window((0, 4), (1, 2), padding=(0, 0))), "not fit"),
    "outputs": (with_operation(3, shape=(3, 2, 3)), "another number of outputs"),
    "large window": (
        with_operation(3, what=window(kernel=(2 * HUGE, 2), padding=(HUGE, 0), stride=(9, 2)),
                       shape=(3, 1, 2)),
        "windows that are too large",
    ),
    "gathered": (with_table("order", [7, 0, -1, 3, 2, 8]), "places from -1 to 8 of 8 values"),
    "gathers": (with_table("order", [7, 0]), r"the table 'order' has the shape \(2,\)"),
    "state": (with_operation(8, operands=(Operand(6),)), "the state of what has none"),
    "state size": (with_operation(8, shape=(3,)), "a state of another size"),
    "late state": (with_operation(8, operands=(Operand(7, 1),)), "the state of an earlier step"),
    "unused": (with_tensor("more", tensor((2,), BYTE)), "no operation uses the tensor"),
    "words": (
        with_tensor("weight", StoredTensor(tensor((4, 12), BYTE).packed, FixedPointFormat(4, 4))),
        "weight: stored with 8 bits, its format is Q4.4",
    ),
    "channels": (
        with_tensor(
            "weight", StoredTensor(tensor((4, 12), BYTE).packed, PerChannelFormat(8, (1,)))
        ),
        "weight: has other channels",
    ),
    "axis": (
        with_tensor(
            "weight",
            StoredTensor(tensor((4, 12), BYTE).packed, PerChannelFormat(8, (1, 2, 3, 4), True, 1)),
        ),
        "weight: has other channels",
    ),
    "left out": (
        with_tensor("weight", StoredTensor(PackedTensor(np.full((4, 12), -8), 4, True), SYMMETRIC)),
        "weight: a code that SQ3.0 leaves out",
    ),
    "symmetric threshold": (
        with_tensor("level", StoredTensor.of(np.array(1), SYMMETRIC)),
        "level: the format SQ3.0, which only weights have",
    ),
    "symmetric state": (with_what(2, state=SYMMETRIC), "the format SQ3.0, which only weights"),
    "reads": (with_output(operation=12), "reads 12"),
    "over": (with_output(over="some"), "the readout over 'some'"),
    "no output": (with_output(table="outputs"), "the table 'outputs' is missing"),
    "answers": (with_table("output", [[0], [2]]), "places from 0 to 2 of 2 values"),
    "flat answers": (with_table("output", [0, 1]), "the table 'output' has the shape"),
    "classes": (with_model(classes=("cat",)), "1 names for 2 answers"),
    "zero": (with_output(scale=Fraction(0)), "answers that are all 0"),
    "after the end": (with_operation(3, is_final=True), "takes in each step what is computed aft"),
    "first and last": (with_model(operations=FINAL), "is computed first and last"),
    "divisors": (with_output(divisors=(1,)), "the divisors"),
    "no divisor": (with_output(divisors=(1, 0)), "the divisors"),
    "final answers": (with_operation(11, is_final=True), "answers of each step, computed after"),
}  # fmt: skip


@pytest.mark.few(0.34)
@pytest.mark.parametrize("name", FAULTS)
def test_models_that_are_none_are_refused(tmp_path, monkeypatch, name):
    change, message = FAULTS[name]
    damaged = change(MODEL)
    with pytest.raises(FindingError, match=message) as caught:
        check_model(damaged)
    assert str(caught.value).count(";") == 1
    with pytest.raises(FindingError):
        save_model(damaged, tmp_path / "model.qspinn")
    assert not any(tmp_path.iterdir())
    if not damaged.operations or any(table is None for table in damaged.tables.values()):
        return
    monkeypatch.setattr("qspinn.export.saving.check_model", lambda model: None)
    save_model(damaged, tmp_path / "model.qspinn")
    monkeypatch.undo()
    tracemalloc.start()
    with pytest.raises(DamagedModelError, match=message) as refused:
        load_model(tmp_path / "model.qspinn")
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken < SLACK
    assert str(refused.value).startswith(f"{tmp_path / 'model.qspinn'}: ")


def test_every_check_is_reached(monkeypatch):
    """Each line that requires something refuses at least one of the models above."""
    failed = set()

    def require(holds, what):
        if not holds:
            caller = inspect.currentframe().f_back
            failed.add((caller.f_globals["__name__"], caller.f_lineno))
            raise FindingError(what)

    for module in (checking, checks):
        monkeypatch.setattr(module, "require", require)
    for change, _ in FAULTS.values():
        with pytest.raises(FindingError):
            check_model(change(MODEL))
    wanted = {
        (module.__name__, node.lineno)
        for module in (checking, checks)
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require"
    }
    assert len(wanted) > 50
    assert wanted <= failed, sorted(wanted - failed)


def test_sums_of_too_many_bits_are_refused(tmp_path):
    """Checks of shapes alone would let them through."""
    wide = FixedPointFormat(-32, 63)
    damaged = both(
        with_what(2, state=wide, reset=0, initial=0),
        with_tensor("threshold", StoredTensor.of(np.array(9), FixedPointFormat(13, -9, False))),
    )(MODEL)
    save_model(damaged, tmp_path / "model.qspinn")
    with pytest.raises(DamagedModelError, match="need 77 bits on the grid"):
        load_model(tmp_path / "model.qspinn")


def test_a_filter_on_a_coarse_grid_is_refused(tmp_path):
    coarse = PerChannelFormat(5, (-2,) * 3)
    damaged = both(
        with_what(2, model="filter", threshold=None, reset=None),
        without("tensors", "threshold"),
        with_tensor("kernel", StoredTensor.of(MODEL.tensors["kernel"].codes, coarse)),
        with_tensor("bias", StoredTensor.of(MODEL.tensors["bias"].codes, FixedPointFormat(9, -2))),
    )(MODEL)
    save_model(damaged, tmp_path / "model.qspinn")
    with pytest.raises(DamagedModelError, match="lif: takes numbers in steps above 1"):
        load_model(tmp_path / "model.qspinn")


def edited(tmp_path, change):
    """A file whose header was changed by hand and sealed again."""
    path = tmp_path / "model.qspinn"
    save_model(MODEL, path)
    header, tensors = read_container(path)
    header = json.loads(json.dumps(header))
    given = SimpleNamespace(header=header, tensors=dict(tensors))
    change(given)
    write_container(path, given.header, given.tensors)
    return path


def setting(*keys, value):
    def change(given):
        place = given.header
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def removing(*keys):
    def change(given):
        place = given.header
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]

    return change


EDITS = {
    "missing": (removing("steps"), "the header: 'steps' is missing"),
    "more": (setting("code", value="x"), "the header: 'code' is not known"),
    "operations": (setting("operations", value={}), "operations: {} should be of type list"),
    "operation": (setting("operations", 3, value=7), "operations: 7 should be of type dict"),
    "field": (removing("operations", 3, "path"), "operation 3: 'path' is missing"),
    "field more": (setting("operations", 3, "x", value=1), "operation 3: 'x' is not known"),
    "what": (setting("operations", 3, "what", value="sum"), "'sum' should be of type dict"),
    "kind": (setting("operations", 3, "what", "type", value="exec"), "'exec' is no operation"),
    "no kind": (removing("operations", 3, "what", "type"), "'' is no operation"),
    "list kind": (setting("operations", 3, "what", "type", value=[]), "should be of type str"),
    "member": (removing("operations", 3, "what", "kind"), "operation 3: 'kind' is missing"),
    "window": (setting("operations", 3, "what", "window", value=[2, 2]), "should be of type dict"),
    "float": (setting("operations", 3, "shape", value=[3, 2.0, 2]), "2.0 should be of type int"),
    "true": (setting("operations", 3, "shape", value=[3, True, 2]), "True should be of type int"),
    "truth": (setting("operations", 3, "is_static", value=0), "0 should be of type bool"),
    "text": (setting("operations", 3, "path", value=None), "None should be of type str"),
    "operand": (setting("operations", 3, "operands", 0, value=2), "should be of type dict"),
    "pair": (setting("operations", 1, "what", "padding", 0, value=[1]), "should hold 2 values"),
    "format": (setting("operations", 4, "what", "format", value="Q3"), "no fixed-point format"),
    "long format": (setting("operations", 4, "what", "format", value="Q30.4"), "word length"),
    "number": (setting("operations", 4, "what", "format", value=3), "3 should be of type str"),
    "fraction": (setting("operations", 11, "what", "factor", value="1/0"), "is no fraction"),
    "decimal": (setting("operations", 11, "what", "factor", value="0.5"), "is no fraction"),
    "long": (setting("operations", 11, "what", "factor", value="9" * 99), "is no fraction"),
    "thirds": (setting("operations", 11, "what", "factor", value="1/2/3"), "is no fraction"),
    "output": (setting("output", value=None), "None should be of type dict"),
    "frame": (setting("frame", value=0), "0 should be of type str"),
    "steps": (setting("steps", value="5"), "'5' should be of type int"),
    "classes": (setting("classes", value=["cat", 1]), "1 should be of type str"),
    "origin": (setting("origin", value={"by": 1}), "1 should be of type str"),
    "formats": (removing("formats", "weight"), "the formats are those of other tensors"),
    "a format": (setting("formats", "weight", value="Q9"), "Q9"),
    "float format": (setting("formats", "weight", value=1.5), "1.5 should be of type str"),
}


@pytest.mark.parametrize("name", EDITS)
def test_headers_that_say_something_else_are_refused(tmp_path, name):
    change, message = EDITS[name]
    with pytest.raises(DamagedModelError, match=message):
        load_model(edited(tmp_path, change))


def test_a_tensor_that_is_neither_tensor_nor_table_is_refused(tmp_path):
    def change(given):
        given.tensors["other:x"] = given.tensors.pop("tensor:weight")

    with pytest.raises(DamagedModelError, match="neither a tensor nor a table"):
        load_model(edited(tmp_path, change))


def attack(path, contents):
    """Whatever was changed: the file is refused, or holds a model that can be run."""
    refused = 0
    codes = random_codes(MODEL, 0, 1)
    tracemalloc.start()
    try:
        for content in contents:
            content = model_file.resealed(content)
            path.write_bytes(content)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            try:
                model = load_model(path)
            except DamagedModelError as error:
                assert str(error).startswith(f"{path}: ")
                assert len(str(error)) < 1000
                refused += 1
            else:
                check_model(model)
                if model.operations[0].size == codes.shape[-1] and model.frame_stride:
                    IntegerEngine(model).run(codes)
            assert tracemalloc.get_traced_memory()[1] - before < 4 * SLACK
    finally:
        tracemalloc.stop()
    return refused


def values_changed(path, seed, count):
    """The header with one value in it replaced by another one, of another kind too."""
    random = np.random.default_rng(seed)
    header, tensors = read_container(path)
    texts = ["if", "filter", "wrap", "weight", "rows", "UQ0.1", "Q-20.51", "Q64.-33", "1/2", "sum"]
    values = [
        *texts,
        0,
        1,
        -1,
        2,
        3,
        7,
        31,
        1 << 20,
        (1 << 62) + 1,
        True,
        None,
        "",
        "Q3.4",
        [],
        {},
        1.5,
    ]
    for _ in range(count):
        changed = json.loads(json.dumps(header))
        for _ in range(random.integers(1, 3)):
            place, key = changed, random.choice(list(changed))
            while isinstance(place[key], dict | list) and place[key]:
                place = place[key]
                keys = list(place) if isinstance(place, dict) else range(len(place))
                key = keys[random.integers(len(keys))]
            place[key] = values[random.integers(len(values))]
        write_container(path, changed, tensors)
        yield path.read_bytes()


@pytest.mark.slow
def test_changed_files_with_a_valid_checksum_hold_a_model_or_are_refused(tmp_path):
    path = tmp_path / "model.qspinn"
    save_model(MODEL, path)
    assert attack(path, mutations(path.read_bytes(), 6, FAST)) > FAST / 3
    save_model(MODEL, path)
    assert attack(path, values_changed(path, 7, FAST)) > FAST / 2


@pytest.mark.slow
@pytest.mark.campaign
def test_many_changed_files_hold_a_model_or_are_refused(tmp_path):
    path = tmp_path / "model.qspinn"
    save_model(MODEL, path)
    assert attack(path, mutations(path.read_bytes(), 8, MANY)) > MANY / 3
    save_model(MODEL, path)
    assert attack(path, values_changed(path, 9, MANY)) > MANY / 2
