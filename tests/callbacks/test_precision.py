"""Mixed precision and compiled steps under the callbacks: what is quantised stays exact."""

from pathlib import Path
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional

from qspinn.callbacks import InTrainingQuantization, PostTrainingQuantization
from qspinn.plan import QuantizationPlan
from qspinn.quantizers.class_swap import attached_quantizer
from tests.callbacks.harness import NAME, fit, itq, ptq
from tests.callbacks.strangers import loader


def scores(module: Any, autocast: bool) -> torch.Tensor:
    x = next(iter(loader(NAME, 6, seed=1)))[0]
    functional.reset_net(module)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = module.eval()(x)
    functional.reset_net(module)
    return out


def test_training_in_fixed_point_is_the_same_in_both_precisions(tmp_path: Path) -> None:
    """Everything that has a format is computed exactly, so autocast finds nothing to do."""
    found = []
    for precision in ("32-true", "bf16-mixed"):
        callback = itq()
        _, module = fit(tmp_path / precision, NAME, callback, precision=precision)
        assert callback.resolved_plan is not None
        found.append((module, callback.resolved_plan.formats()))
    (one, formats), (other, same_formats) = found
    assert formats == same_formats
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    assert torch.equal(scores(one, False), scores(other, True))


def test_what_was_trained_in_bfloat16_is_quantised_and_evaluated_exactly(tmp_path: Path) -> None:
    callback = ptq()
    _, module = fit(tmp_path, NAME, callback, precision="bf16-mixed")

    quantized = callback.quantized_module
    exact = scores(quantized, False)
    assert torch.equal(scores(quantized, True).to(exact.dtype), exact)
    # The float network itself is what bfloat16 changes.
    assert scores(module, True).dtype != scores(module, False).dtype or not torch.equal(
        scores(module, True), scores(module, False)
    )


@pytest.mark.parametrize("kind", [itq, ptq])
def test_sixteen_bit_parameters_are_refused_before_training(tmp_path: Path, kind: Any) -> None:
    with pytest.raises(ValueError, match=r"bfloat16.*keep the parameters in float32"):
        fit(tmp_path, NAME, kind(), precision="bf16-true")


def test_compiled_steps_train_the_same_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = torch.compile

    def compile_without_code(function: Any, **settings: Any) -> Any:
        return original(function, backend="eager", **settings)

    monkeypatch.setattr(torch, "compile", compile_without_code)
    modules = []
    for flag in (False, True):
        callback = itq(compile_steps=flag, freeze_epoch=1)
        _, module = fit(tmp_path / str(flag), NAME, callback, max_epochs=2)
        nodes = [child for child in module.modules() if hasattr(child, "surrogate_function")]
        assert [attached_quantizer(node).compiled for node in nodes] == [flag] * len(nodes)
        modules.append(module)
    for key, value in modules[0].state_dict().items():
        assert torch.equal(value, modules[1].state_dict()[key]), key


@pytest.mark.parametrize("scheme", [InTrainingQuantization, PostTrainingQuantization])
def test_steps_that_cannot_be_compiled_are_refused_before_training(
    tmp_path: Path, scheme: Any
) -> None:
    plan = QuantizationPlan.uniform(8, rounding="stochastic")
    callback = scheme(plan, compile_steps=True)
    with pytest.raises(ValueError, match=r"stochastic .*compile_steps=false"):
        fit(tmp_path, NAME, callback)
