"""The compiled engine, the clear one and the network with quantizers give the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from qspinn.export import IntegerEngine, NotExportableError, device_model, encode
from qspinn.export.compiled import CompiledEngine
from qspinn.export.kernels import listing
from qspinn.export.lowering import program_of
from qspinn.export.model import DeviceModel, Neuron, Output, Synapse
from qspinn.export.packed_tensor import PackedTensor
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, calibrate
from qspinn.quantizers.class_swap import attached_quantizer
from qspinn.quantizers.neuron_quantizer import NeuronQuantizer
from tests.export.random_networks import Case, Net, cases
from tests.quantizers.zoo import BY_NAME

Watched = dict[int, list[NDArray[np.int64]]]


def drawn_keys(network: nn.Module) -> dict[str, int]:
    """The keys of the random bits that a network has just taken: layer -> key."""
    keys = {}
    for path, child in network.named_modules():
        quantizer = attached_quantizer(child)
        if isinstance(quantizer, NeuronQuantizer):
            held = list(quantizer.states.values())
        else:
            held = [getattr(quantizer, "input", None)]
        for one in held:
            if one is not None and one.key is not None:
                keys[path] = one.key
    return keys


def simulated(case: Case) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """What the network answers, and what its neurons do: path -> ``[T, N, *]``."""
    seen: dict[str, Any] = {}

    def note(path: str) -> Any:
        return lambda _, __, out: seen.setdefault(path, []).append(out)

    hooks = [
        child.register_forward_hook(note(path))
        for path, child in case.network.named_modules()
        if isinstance(attached_quantizer(child), NeuronQuantizer)
    ]
    functional.reset_net(case.network)
    with torch.no_grad():
        answer = case.network(case.x)
    functional.reset_net(case.network)
    for hook in hooks:
        hook.remove()
    traced = {
        path: (torch.stack(outs) if len(outs) > 1 else outs[0]).double().numpy()
        for path, outs in seen.items()
    }
    return answer.double().numpy(), traced


def exported(case: Case) -> DeviceModel:
    """The device model, of a network that has one."""
    try:
        case.attach()
        model = device_model(case.network, case.example)
        program_of(model)
        return model
    except ValueError as error:
        # Words too short for a threshold, or too long for exact sums in floats or in 64 bits; or a
        # mean of maxima, all of which the random spikes of a plan's pass make 1 in a small network.
        for reason in (
            *("the neuron would fire", "shorten the words", "write shorter word lengths"),
            "the input was 0 or 1 in the pass",
        ):
            assume(reason not in str(error))
        raise


def check(case: Case) -> DeviceModel:
    """Compares all three, operation by operation."""
    model = exported(case)
    answer, traced = simulated(case)
    keys = drawn_keys(case.network)
    taker = next(o.path for o in model.operations if any(p.source == 0 for p in o.operands))
    codes = encode(model, case.x, 0 if case.static else 1, keys.get(taker))
    watched: Watched = {}
    found = IntegerEngine(model).run(
        codes, keys=keys, watch=lambda _, number, out: watched.setdefault(number, []).append(out)
    )
    scale = float(model.output.scale) * 2.0**-found.fraction_bits
    check_answers(model, found.sums.reshape(-1), scale, answer.reshape(-1))
    for number, one in enumerate(model.operations):
        if isinstance(one.what, Neuron):
            step = 1.0 if one.what.threshold else 2.0**-one.what.state.fraction_bits
            codes_then = np.stack(watched[number]) * step
            assert np.array_equal(codes_then.ravel(), traced[one.path].ravel()), one.path
    compare(model, codes, keys, watched)
    return model


def check_answers(model: DeviceModel, sums: Any, scale: float, answer: Any) -> None:
    """Exactly equal, unless torch adds up longer numbers over time than a float32 holds."""
    one = program_of(model).instructions[model.output.operation]
    terms = model.tables[model.output.table].shape[1] * model.steps
    longest = max(abs(one.low), abs(one.high)) * terms
    if longest < 1 << 24:
        assert np.array_equal(sums * scale, answer)
    else:
        assert np.allclose(sums * scale, answer, rtol=0, atol=terms * longest * scale * 2.0**-24)


def compare(model: DeviceModel, codes: Any, keys: Mapping[str, int], watched: Watched) -> None:
    """Compares the compiled engine with the clear one: the answers, and every operation."""
    expected = IntegerEngine(model).run(codes, keys=keys)
    answers = CompiledEngine(model).run(codes, keys=keys)
    assert np.array_equal(answers.sums, expected.sums)
    assert answers.fraction_bits == expected.fraction_bits
    for number, one in enumerate(model.operations):
        table = np.arange(one.size).reshape(-1, 1)
        read = replace(
            model,
            output=Output(number, "everything", "each"),
            tables={**model.tables, "everything": PackedTensor(table, 32, signed=False)},
        )
        sums = CompiledEngine(read).run(codes, keys=keys).sums
        steps = len(sums)
        outs = watched[number] * (steps if one.is_static else 1)
        assert np.array_equal(sums, np.stack(outs).reshape(sums.shape)), (number, one)


LOOKING = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking a network takes minutes
)


@pytest.mark.slow
@given(case=cases())
@settings(LOOKING, max_examples=30)
def test_random_networks(case: Case) -> None:
    check(case)


@given(case=cases(), seed=st.integers(0, 1 << 62), accumulators=st.integers(4, 14))
@settings(LOOKING, max_examples=10)
def test_seeds_and_overflows_are_those_of_the_clear_engine(
    case: Case, seed: int, accumulators: int
) -> None:
    model = exported(case)
    codes = encode(model, case.x, 0 if case.static else 1, seed)
    steps = 3 if case.static else None
    expected = IntegerEngine(model, accumulators).run(codes, seed=seed, steps=steps)
    found = CompiledEngine(model, accumulators).run(codes, seed=seed, steps=steps)
    assert np.array_equal(found.sums, expected.sums)
    assert found.overflows == expected.overflows


@pytest.mark.slow
@given(case=cases())
@settings(LOOKING, max_examples=10)
def test_numbers_of_64_bits_give_the_same(case: Case) -> None:
    model = exported(case)
    codes = encode(model, case.x, 0 if case.static else 1, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "is_narrow", lambda program: False)
        wide = CompiledEngine(model)
    assert np.array_equal(wide.run(codes).sums, IntegerEngine(model).run(codes).sums)


def small_model() -> tuple[DeviceModel, NDArray[np.int64]]:
    torch.manual_seed(0)
    net = Net([layer.Linear(6, 4), neuron.LIFNode(2.0, v_threshold=0.3)], False, 3, "sum")
    case = Case(net.eval(), QuantizationPlan.uniform(8), torch.rand(3, 2, 6), False, "small")
    functional.set_step_mode(net, "m")
    model = exported(case)
    return model, encode(model, case.x, 1)


def test_an_operation_without_a_kernel_is_refused() -> None:
    class Learned(Synapse):
        pass

    model, _ = small_model()
    synapse = next(one for one in model.operations if isinstance(one.what, Synapse))
    program = program_of(model)
    changed = replace(synapse, what=Learned(synapse.what.weight))
    instructions = [
        replace(one, operation=changed) if one.operation is synapse else one
        for one in program.instructions
    ]
    with pytest.raises(NotExportableError, match="Learned has no compiled kernel"):
        listing.listing_of(replace(program, instructions=tuple(instructions)))


def test_codes_that_the_input_cannot_hold_are_refused() -> None:
    model, codes = small_model()
    codes[0, 0, 0] = 1 << 20
    with pytest.raises(ValueError, match="saturate them first"):
        CompiledEngine(model).run(codes)
    with pytest.raises(ValueError, match="write whole numbers"):
        CompiledEngine(model).run(codes[0])


@pytest.mark.parametrize("steps", [0, -1, 4])
def test_steps_that_there_are_not_are_refused(steps: int) -> None:
    model, codes = small_model()
    with pytest.raises(ValueError, match="write at least 1"):
        CompiledEngine(model).run(codes, steps=steps)


def test_an_empty_batch_has_no_answers() -> None:
    model, codes = small_model()
    assert CompiledEngine(model).run(codes[:, :0]).sums.shape == (0, 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["spiking_resnet18", "sew_resnet18", "sew_resnet34", "MNISTNet"])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.campaign
def test_networks_of_the_zoo(name: str, bits: int) -> None:
    variant = BY_NAME[name]
    net, x = variant.exactly_foldable(), variant.inputs()
    attach(net, calibrate(net, QuantizationPlan.uniform(bits).resolve(net, x), x))
    functional.reset_net(net)
    model = device_model(net, x[:, :1])
    functional.reset_net(net)
    codes = encode(model, x, 1)
    expected = IntegerEngine(model).run(codes).sums
    assert np.array_equal(CompiledEngine(model).run(codes).sums, expected)


@pytest.mark.slow
@given(case=cases())
@settings(LOOKING, max_examples=300)
@pytest.mark.campaign
def test_random_networks_at_length(case: Case) -> None:
    check(case)
