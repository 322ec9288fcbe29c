"""What would fail later fails at the first batch, and says what to do."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from qspinn.callbacks import InTrainingQuantization, PostTrainingQuantization
from qspinn.quantizers import is_attached, load_quantized, plan_of, save_quantized
from tests.callbacks.harness import NAME, PLAN, fit, module, ptq, simple_fit, trainer
from tests.callbacks.strangers import Stranger, loader

CALLBACKS: dict[str, Any] = {
    "ptq": lambda **arguments: PostTrainingQuantization(PLAN, **arguments),
    "itq": lambda **arguments: InTrainingQuantization(PLAN, **arguments),
    "itq later": lambda **arguments: InTrainingQuantization(PLAN, start_epoch=1, **arguments),
}
REMEDY = r"Leave the layers that this is about in float, with a rule such as \{'layers': 'PATH'"


class WantsItsOwnClasses(Stranger):
    """Does not work with a layer of another class than it knows."""

    only_when_training = False

    def forward(self, x: Any) -> Any:
        if self.training or not self.only_when_training:
            kinds = {type(child).__name__ for child in self.network.modules()}
            if "Linear" not in kinds:
                raise NotImplementedError("who are you?")
        return super().forward(x)


@pytest.mark.parametrize("name", list(CALLBACKS))
def test_a_validation_that_cannot_be_quantised(tmp_path: Path, name: str) -> None:
    stock = trainer(tmp_path, CALLBACKS[name]())
    message = rf"WantsItsOwnClasses.validation_step cannot compute with .*who are you\?. {REMEDY}"
    with pytest.raises(RuntimeError, match=message):
        simple_fit(stock, module(kind=WantsItsOwnClasses))
    assert stock.global_step == 0


@pytest.mark.parametrize("name", list(CALLBACKS))
def test_a_forward_that_cannot_be_quantised(tmp_path: Path, name: str) -> None:
    stock = trainer(tmp_path, CALLBACKS[name](forward=lambda one, batch: one(batch[0])))
    with pytest.raises(RuntimeError, match=rf"forward= cannot compute .*who are you\?. {REMEDY}"):
        simple_fit(stock, module(kind=WantsItsOwnClasses))
    assert stock.global_step == 0


def test_a_later_training_that_cannot_be_quantised(tmp_path: Path) -> None:
    class WhenTraining(WantsItsOwnClasses):
        only_when_training = True

    stock = trainer(tmp_path, CALLBACKS["itq later"]())
    with pytest.raises(RuntimeError, match="training_step cannot learn with quantised layers"):
        simple_fit(stock, module(kind=WhenTraining))
    assert stock.global_step == 0


def test_a_training_that_needs_its_trainer_is_left_to_it(tmp_path: Path) -> None:
    class Prepared(Stranger):
        """Its step uses what a hook of its trainer has made."""

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            self.scale = 1.0

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return super().training_step(batch, batch_idx) * self.__dict__.pop("scale")

    stock, fitted = trainer(tmp_path, CALLBACKS["itq later"]()), module(kind=Prepared)
    simple_fit(stock, fitted)
    assert is_attached(fitted)


@pytest.mark.parametrize("name", list(CALLBACKS))
def test_the_trial_changes_nothing(tmp_path: Path, name: str) -> None:
    """Neither parameters nor statistics, gradients or optimizer, nor the batch."""
    seen = []

    class Before(Stranger):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if not seen:
                state = {key: value.clone() for key, value in self.state_dict().items()}
                seen.append((state, [one.grad for one in self.parameters()], batch[0].clone()))
                seen.append(dict(self.trainer.optimizers[0].state))
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            super().validation_step(batch, batch_idx)
            batch[0].zero_()  # of a copy of the batch

    fitted = module(kind=Before)
    first = module(kind=Before).state_dict()
    batches = list(loader(NAME))
    stock = trainer(tmp_path, CALLBACKS[name](), num_sanity_val_steps=0)
    stock.fit(fitted, loader(NAME), loader(NAME, 6, seed=1))
    state, gradients, images = seen[0]
    assert all(torch.equal(state[key], first[key]) for key in first)
    assert all(one is None for one in gradients)
    assert torch.equal(images, batches[0][0])
    assert seen[1] == {}


@pytest.mark.parametrize("name", list(CALLBACKS))
def test_a_step_that_does_not_take_training_batches(tmp_path: Path, name: str) -> None:
    class Others(Stranger):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            super().validation_step((batch["x"], batch["y"]), batch_idx)

    validation = [{"x": x, "y": y} for x, y in loader(NAME, 6, seed=1)]
    validation = torch.utils.data.DataLoader(validation, batch_size=None)
    stock = trainer(tmp_path / "a", CALLBACKS[name]())
    message = "Others.validation_step fails on a training batch.*Say how .*forward=lambda module"
    with pytest.raises(RuntimeError, match=message):
        stock.fit(module(kind=Others), loader(NAME), validation)
    assert stock.global_step == 0
    stock = trainer(tmp_path / "b", CALLBACKS[name](forward=lambda one, batch: one(batch[0])))
    stock.fit(module(kind=Others), loader(NAME), validation)
    assert stock.global_step == 6


def test_a_side_evaluation_that_cannot_be(tmp_path: Path) -> None:
    class Bound(Stranger):
        """Its hook wants something that only its own trainer has."""

        def on_validation_epoch_end(self) -> None:
            assert self.trainer.checkpoint_callback is not None, "where is it?"

    stock = trainer(tmp_path / "a", ptq())
    message = r"the quantised Bound cannot be validated by a trainer of its own: .*where is it\?"
    with pytest.raises(RuntimeError, match=message):
        simple_fit(stock, module(kind=Bound))
    assert stock.global_step == 0
    callback = ptq(stages=())
    simple_fit(trainer(tmp_path / "b", callback), module(kind=Bound))
    assert is_attached(callback.quantized_module)


def test_a_validation_that_needs_all_of_its_data(tmp_path: Path) -> None:
    class Whole(Stranger):
        """Cannot say anything of a part; so its project switches the sanity check off."""

        def on_validation_epoch_start(self) -> None:
            self.batches = 0

        def on_validation_batch_end(self, *args: Any) -> None:
            self.batches += 1

        def on_validation_epoch_end(self) -> None:
            assert self.batches == 2, "a part"

    callback = ptq()
    stock = trainer(tmp_path, callback, num_sanity_val_steps=0)
    stock.fit(module(kind=Whole), loader(NAME), loader(NAME, 8, seed=1))
    assert callback.failure is None
    assert "ptq/val_loss" in callback.metrics


@pytest.mark.parametrize("how", ["module.compile()", "forward", "class", "step", "method"])
@pytest.mark.parametrize("name", ["ptq", "itq"])
def test_whatever_is_compiled_is_refused(tmp_path: Path, name: str, how: str) -> None:
    compiled: Any = module()
    layer: Any = compiled.network.network[6]
    if how == "module.compile()":
        layer.compile(backend="eager")
    elif how == "forward":
        layer.forward = torch.compile(layer.forward, backend="eager")
    elif how == "class":

        class Compiled(type(layer)):  # type: ignore[misc]
            forward = torch.compile(type(layer).forward, backend="eager")

        layer.__class__ = Compiled
    elif how == "step":
        compiled.training_step = torch.compile(compiled.training_step, backend="eager")
    else:
        compiled.run = torch.compile(compiled.network.forward, backend="eager")
    stock = trainer(tmp_path, CALLBACKS[name]())
    with pytest.raises(ValueError, match=r"Stranger is compiled.*cannot be watched; "):
        simple_fit(stock, compiled)
    assert stock.global_step == 0


def test_a_compiled_loss_is_nobodys_business(tmp_path: Path) -> None:
    compiled: Any = module()
    compiled.loss = torch.compile(nn.functional.cross_entropy, backend="eager")
    simple_fit(trainer(tmp_path, ptq()), compiled)


class WithoutGradients(Stranger):
    """Its evaluation steps are decorated."""

    @torch.inference_mode()
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)

    @torch.inference_mode()
    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return self(batch[0])


@pytest.mark.few(0.2)
@pytest.mark.parametrize("inference_mode", [True, False])
@pytest.mark.parametrize("name", list(CALLBACKS))
def test_steps_in_inference_mode(tmp_path: Path, name: str, inference_mode: bool) -> None:
    callback, fitted = CALLBACKS[name](), module(kind=WithoutGradients)
    stock = trainer(tmp_path, callback, inference_mode=inference_mode)
    simple_fit(stock, fitted)
    assert stock.global_step == 6
    quantized = callback.quantized_module if name == "ptq" else fitted
    assert is_attached(quantized)
    # What was evaluated in inference mode can be trained on.
    trainer(tmp_path).predict(quantized, loader(NAME, 6))
    quantized.train()
    quantized(torch.rand(2, 1, 8, 8)).sum().backward()
    assert next(quantized.parameters()).grad is not None


def test_a_resumed_training_is_tried_too(tmp_path: Path) -> None:
    fit(tmp_path, NAME, CALLBACKS["itq"](), max_epochs=1)

    class Later(WantsItsOwnClasses):
        pass

    stock = trainer(tmp_path / "b", CALLBACKS["itq"](), max_epochs=2, num_sanity_val_steps=0)
    with pytest.raises(RuntimeError, match="cannot compute with quantised layers"):
        stock.fit(
            module(kind=Later),
            loader(NAME),
            loader(NAME, 6, seed=1),
            ckpt_path=tmp_path / "epoch=0.ckpt",
        )
    assert stock.global_step == 3  # those of the checkpoint


def test_a_module_may_ask_its_trainer_for_the_epoch(tmp_path: Path) -> None:
    asked = []

    class Annealing(Stranger):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            asked.append((self.current_epoch, self.trainer.max_epochs))
            super().validation_step(batch, batch_idx)

    callback = ptq()
    stock = trainer(tmp_path, callback, num_sanity_val_steps=0)
    simple_fit(stock, module(kind=Annealing))
    assert callback.failure is None
    # Both batches of the evaluation at the end: as after the last epoch.
    assert asked[-2:] == [(stock.current_epoch, 2)] * 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ptq", "itq"])
def test_a_compiled_part_that_nobody_sees(tmp_path: Path, name: str) -> None:
    class Hiding(Stranger):
        """Holds its compiled network in a list, where it is no submodule."""

        def forward(self, x: Any) -> Any:
            if "fast" not in vars(self):
                self.fast = [torch.compile(self.network, backend="eager")]
            return self.fast[0](x)

    stock = trainer(tmp_path, CALLBACKS[name]())
    with pytest.raises((RuntimeError, ValueError), match=r"compiled|was not called"):
        simple_fit(stock, module(kind=Hiding))
    assert stock.global_step == 0


def test_the_plan_of_a_module_that_learned_quantised(tmp_path: Path) -> None:
    callback, fitted = CALLBACKS["itq"](), module()
    simple_fit(trainer(tmp_path, callback), fitted)
    assert plan_of(fitted).formats() == callback.resolved_plan.formats()
    save_quantized(fitted, tmp_path / "learned.pt")
    loaded = load_quantized(module(seed=4), tmp_path / "learned.pt").eval()
    images = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded(images), fitted.eval()(images))
