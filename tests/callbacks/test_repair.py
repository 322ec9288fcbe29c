"""Post-training quantisation that repairs the network it has quantised."""

import copy
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from qspinn.callbacks import InTrainingQuantization, PostTrainingQuantization
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import integer_codes, load_quantized
from qspinn.quantizers.repair import REPAIRS
from tests.callbacks.harness import NAME, fit, module, trainer
from tests.callbacks.plastic_strangers import Validated
from tests.callbacks.strangers import loader

PLAN = QuantizationPlan.uniform(word_length=3)
ALL = "+".join(REPAIRS)


def ptq(repair: Any = ALL, **arguments: Any) -> PostTrainingQuantization:
    return PostTrainingQuantization(PLAN, repair=repair, **arguments)


def codes(callback: PostTrainingQuantization) -> dict[str, torch.Tensor]:
    assert callback.quantized_module is not None
    return {path: one.codes for path, one in integer_codes(callback.quantized_module).items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[p], other[p]) for p in one)


@pytest.mark.few(0.5)
@pytest.mark.parametrize("name", ["sequential", "step_loop"])
def test_the_repaired_copy_is_what_is_evaluated_and_the_training_stays(name, tmp_path: Path):
    plain, repaired = ptq("none", prefix="plain/"), ptq(prefix="repaired/")
    _, both = fit(tmp_path / "a", name, plain, repaired)
    _, alone = fit(tmp_path / "b", name, ptq("none"))
    assert repaired.failure is None
    assert not same(codes(plain), codes(repaired))
    assert repaired.metrics.keys() == {key.replace("plain/", "repaired/") for key in plain.metrics}
    for key, value in both.state_dict().items():
        assert torch.equal(value, alone.state_dict()[key])


def test_the_same_training_is_repaired_to_the_same_numbers(tmp_path: Path):
    found = []
    for folder in "ab":
        callback = ptq()
        fit(tmp_path / folder, NAME, callback)
        found.append((codes(callback), callback.metrics))
    assert same(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def test_a_checkpoint_holds_what_was_repaired(tmp_path: Path):
    callback = ptq()
    stock, _ = fit(tmp_path, NAME, callback)
    stock.save_checkpoint(tmp_path / "after.ckpt")
    evaluated = Seen()
    other = ptq()
    trainer(tmp_path / "b", other, evaluated).validate(
        module(seed=9), loader(NAME, 6, seed=1), ckpt_path=tmp_path / "after.ckpt", verbose=False
    )
    assert same(evaluated.codes, codes(callback))
    # Of another repair: chosen anew, on the data at hand.
    anew, looked = ptq("none", calibration_data=list(loader(NAME))), Seen()
    trainer(tmp_path / "c", anew, looked).validate(
        module(seed=9), loader(NAME, 6, seed=1), ckpt_path=tmp_path / "after.ckpt", verbose=False
    )
    assert not same(looked.codes, codes(callback))


class Seen(lightning.Callback):
    """Looks at the integers that are evaluated."""

    def __init__(self) -> None:
        self.codes: dict[str, torch.Tensor] = {}

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.codes = {path: one.codes for path, one in integer_codes(pl_module).items()}


def test_a_file_of_the_callback_holds_what_was_repaired(tmp_path: Path):
    callback = ptq()
    fit(tmp_path, NAME, callback)
    callback.save(tmp_path / "quantized.pt")
    loaded = load_quantized(module(seed=5), tmp_path / "quantized.pt")
    loaded_codes = {path: one.codes for path, one in integer_codes(loaded).items()}
    assert same(loaded_codes, codes(callback))


def test_evaluating_repairs_for_that_time_only(tmp_path: Path):
    one = module()
    before = copy.deepcopy(one.state_dict())
    looked = Seen()
    callback = ptq(calibration_data=list(loader(NAME)))
    trainer(tmp_path, callback, looked).validate(one, loader(NAME, 6, seed=1), verbose=False)
    plain = Seen()
    other = ptq("none", calibration_data=list(loader(NAME)))
    trainer(tmp_path, other, plain).validate(one, loader(NAME, 6, seed=1), verbose=False)
    assert not same(looked.codes, plain.codes)
    assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize(
    ("repair", "message"),
    [
        ("equalize", r"repair='equalize': .* write scale=free and granularity=channel"),
        ("all", r"repair='all': unknown repair 'all'; write none, one of learned, threshold, bias"),
        (["bias", "bias"], "names a repair twice"),
        ("none+bias", "none stands alone"),
    ],
)
def test_unknown_repairs_are_refused(repair, message):
    with pytest.raises(ValueError, match=message):
        ptq(repair)


def test_nothing_to_repair_is_said_before_the_training(tmp_path: Path):
    rules = [{"role": "membrane", "word_length": 4}]
    callback = PostTrainingQuantization(QuantizationPlan.from_rules(rules), repair="learned")
    with pytest.raises(ValueError, match="quantises no weight that can be repaired"):
        fit(tmp_path, NAME, callback)
    with pytest.raises(ValueError, match="quantises no weight that can be repaired"):
        trainer(tmp_path, ptq("learned")).fit(Validated(), loader(NAME))


def test_in_training_quantisation_has_no_repair():
    with pytest.raises(TypeError, match="repair"):
        InTrainingQuantization(PLAN, repair="bias")  # type: ignore[call-arg]
