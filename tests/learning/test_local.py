"""Local learning: the rule itself, what it keeps, when it updates."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import lightning
import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from qspinn.learning import LocalLearning, local_loss
from qspinn.networks import ConvSNN, Decolle, DecolleSettings, LayerStep

CLASSES = 3
SHAPE = (1, 6, 6)
LIVELY = DecolleSettings(tau_membrane=3.0, tau_synapse=2.0, weight_gain=2.0)


def network(**arguments: Any) -> Decolle:
    torch.manual_seed(0)
    given = {
        "input_shape": SHAPE,
        "num_classes": CLASSES,
        "channels": [4],
        "kernel_sizes": 3,
        "strides": 1,
        "pools": 2,
        "hidden": [6],
        "time_steps": 8,
        "burn_in": 3,
        "settings": LIVELY,
    }
    return Decolle(**{**given, **arguments})


def module(**arguments: Any) -> LocalLearning:
    of_network = {"channels", "hidden", "pools", "time_steps", "burn_in", "settings"}
    taken = {name: arguments.pop(name) for name in of_network & set(arguments)}
    arguments.setdefault("optimizer", partial(torch.optim.SGD, lr=0.5))
    return LocalLearning(network(**taken), num_classes=CLASSES, **arguments)


def batches(count: int = 12, steps: int | None = None) -> TensorDataset:
    """Noise, and two bright rows that are the class."""
    random = torch.Generator().manual_seed(1)
    shape = (count, *SHAPE) if steps is None else (count, steps, *SHAPE)
    images, labels = 0.5 * torch.rand(shape, generator=random), torch.arange(count) % CLASSES
    for image, label in zip(images, labels, strict=True):
        image[..., 2 * label : 2 * label + 2, :] += 0.5
    return TensorDataset(images, labels)


def trainer(folder: Any, epochs: int = 1, **arguments: Any) -> lightning.Trainer:
    stock = {
        "accelerator": "cpu", "logger": False, "enable_progress_bar": False,
        "enable_model_summary": False, "enable_checkpointing": False,
    }  # fmt: skip
    return lightning.Trainer(default_root_dir=folder, max_epochs=epochs, **{**stock, **arguments})


def fit(folder: Any, learner: LocalLearning, **arguments: Any) -> lightning.Trainer:
    stock = trainer(folder, **arguments)
    loader = DataLoader(batches(), batch_size=4)
    stock.fit(learner, loader, DataLoader(batches(6), batch_size=3))
    return stock


def parameters(learner: nn.Module) -> list[Tensor]:
    return [one.detach().clone() for one in learner.parameters()]


# The rule, written out in NumPy: error x surrogate x trace.


def dense_rule(step: dict[str, np.ndarray], target: np.ndarray, loss: str) -> tuple[Any, Any]:
    """Gradients of weight and bias of a fully connected layer at one step.

    ``step`` has the traces p ``[N, in]``, potentials u ``[N, out]``, spikes s and readout weights
    G ``[C, out]``.
    """
    difference = step["s"] @ step["G"].T - target
    error = np.clip(difference, -1.0, 1.0) if loss == "smooth_l1" else 2.0 * difference
    error = error / target.size
    box = np.abs(step["u"]) < 0.5
    modulated = (error @ step["G"]) * box
    return modulated.T @ step["p"], modulated.sum(0)


def traces(x: np.ndarray, steps: int, settings: DecolleSettings) -> list[np.ndarray]:
    """p at each step of a constant input, by its recursion."""
    alpha, beta = math.exp(-1 / settings.tau_membrane), math.exp(-1 / settings.tau_synapse)
    q, p, found = np.zeros_like(x), np.zeros_like(x), []
    for _ in range(steps):
        p, q = alpha * p + (1 - alpha) * q, beta * q + (1 - beta) * x
        found.append(p)
    return found


@pytest.mark.parametrize("loss", ["smooth_l1", "mse"])
def test_gradients_are_those_of_the_three_factor_rule(loss: str) -> None:
    net = Decolle(
        (5,), CLASSES, channels=[], hidden=[4, 6], time_steps=9, burn_in=2, settings=LIVELY
    ).double()
    x = torch.rand(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(7) % CLASSES
    target = nn.functional.one_hot(labels, CLASSES).double()
    expected = traces(x.numpy(), 9, LIVELY)
    somewhere = 0
    for t, frame in enumerate(net.encoded(x)):
        net.zero_grad()
        steps = net.step(frame)
        torch.stack([local_loss(step, target, loss) for step in steps]).sum().backward()
        np.testing.assert_allclose(net.layers[0].p.numpy(), expected[t], rtol=1e-12)
        for layer, step in zip(net.layers, steps, strict=True):
            seen = {
                "p": layer.p.numpy(), "u": step.membrane.detach().numpy(),
                "s": step.spikes.detach().numpy(), "G": layer.readout.numpy(),
            }  # fmt: skip
            assert np.array_equal(seen["s"], seen["u"] >= 0)
            weight, bias = dense_rule(seen, target.numpy(), loss)
            np.testing.assert_allclose(layer.weight.grad.numpy(), weight, rtol=1e-9, atol=1e-15)
            np.testing.assert_allclose(layer.bias.grad.numpy(), bias, rtol=1e-9, atol=1e-15)
            somewhere += int(np.abs(weight).max() > 0)
    assert somewhere >= 10


def test_with_dropout_the_rule_is_that_of_the_spikes_that_are_seen() -> None:
    settings = dataclasses.replace(LIVELY, readout_dropout=0.25)
    net = Decolle(
        (5,), CLASSES, channels=[], hidden=[40], time_steps=9, burn_in=2, settings=settings
    ).double()
    x = torch.rand(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    target = nn.functional.one_hot(torch.arange(7) % CLASSES, CLASSES).double()
    layer, hidden, somewhere = net.layers[0], 0, 0
    for t, frame in enumerate(net.encoded(x)):
        net.zero_grad()
        torch.manual_seed(t)
        (step,) = net.step(frame)
        torch.manual_seed(t)
        keep = nn.functional.dropout(torch.ones_like(step.spikes), 0.25).numpy()
        assert set(np.unique(keep)) == {0.0, 1 / 0.75}
        local_loss(step, target, "smooth_l1").backward()
        spikes, G = step.spikes.detach().numpy(), layer.readout.numpy()
        seen = (spikes * keep) @ G.T
        np.testing.assert_allclose(step.readout.detach().numpy(), seen, rtol=1e-12, atol=1e-15)
        error = np.clip(seen - target.numpy(), -1.0, 1.0) / target.numel()
        modulated = (error @ G) * keep * (np.abs(step.membrane.detach().numpy()) < 0.5)
        expected = modulated.T @ layer.p.numpy()
        np.testing.assert_allclose(layer.weight.grad.numpy(), expected, rtol=1e-9, atol=1e-15)
        hidden += int((spikes * (keep == 0.0)).sum())
        somewhere += int(np.abs(expected).max() > 0)
    assert hidden > 20
    assert somewhere >= 5


def conv_rule(
    p: np.ndarray, u: np.ndarray, spikes: np.ndarray, G: np.ndarray, target: np.ndarray, pool: int
) -> np.ndarray:
    """The same of a convolution with a border of one, whose squares pass on their largest."""
    samples, channels, rows, columns = u.shape
    error = np.clip(spikes.reshape(samples, -1) @ G.T - target, -1.0, 1.0) / target.size
    modulated = (error @ G).reshape(samples, channels, rows // pool, columns // pool)
    padded = np.pad(p, ((0, 0), (0, 0), (1, 1), (1, 1)))
    gradient = np.zeros((channels, p.shape[1], 3, 3))
    for n, c, i, j in np.ndindex(*modulated.shape):
        square = u[n, c, i * pool : (i + 1) * pool, j * pool : (j + 1) * pool]
        row, column = divmod(int(square.argmax()), pool)
        if abs(square[row, column]) < 0.5:
            top, left = i * pool + row, j * pool + column
            gradient[c] += modulated[n, c, i, j] * padded[n, :, top : top + 3, left : left + 3]
    return gradient


def test_gradients_of_a_convolution_with_pooling() -> None:
    net = network(channels=[4, 3], pools=[2, 1], hidden=[]).double()
    x = batches(5)[:][0].double()
    target = nn.functional.one_hot(torch.arange(5) % CLASSES, CLASSES).double()
    somewhere = 0
    for frame in net.encoded(x):
        net.zero_grad()
        steps = net.step(frame)
        torch.stack([local_loss(step, target, "smooth_l1") for step in steps]).sum().backward()
        for layer, step in zip(net.layers, steps, strict=True):
            expected = conv_rule(
                layer.p.numpy(), step.membrane.detach().numpy(), step.spikes.detach().numpy(),
                layer.readout.numpy(), target.numpy(), layer.shape.pool,
            )  # fmt: skip
            np.testing.assert_allclose(layer.weight.grad.numpy(), expected, rtol=1e-9, atol=1e-15)
            somewhere += int(np.abs(expected).max() > 0)
    assert somewhere >= 8


def test_regularisers_are_the_formula() -> None:
    u = torch.tensor([[0.5, -2.0], [-0.005, -3.0]])
    step = LayerStep(torch.zeros(2, 2), torch.zeros(2, CLASSES), u)
    target = torch.zeros(2, CLASSES)
    high = local_loss(step, target, "mse", excitation=2.0)
    assert float(high) == pytest.approx(2.0 * (0.51 + 0.005) / 4)
    quiet = LayerStep(step.spikes, step.readout, torch.full((2, 2), -4.0))
    mean = 1 / (1 + math.exp(4.0))
    assert float(local_loss(quiet, target, "mse", silence=3.0)) == pytest.approx(3 * (0.1 - mean))
    assert float(local_loss(step, target, "mse", silence=3.0)) == 0.0


class TestLocality:
    def test_a_layers_loss_reaches_no_other_layer(self) -> None:
        net = network(channels=[4, 4], hidden=[6])
        x = batches()[:][0]
        target = torch.zeros(len(x), CLASSES)
        for frame in net.encoded(x):
            steps = net.step(frame)
        for chosen, step in enumerate(steps):
            net.zero_grad()
            local_loss(step, target, "mse").backward(retain_graph=True)
            for index, layer in enumerate(net.layers):
                reached = layer.weight.grad is not None and bool(layer.weight.grad.any())
                assert reached == (index == chosen)

    def test_states_and_inputs_carry_no_gradient(self) -> None:
        net = network()
        x = batches()[:][0].requires_grad_()
        for frame in net.encoded(x):
            steps = net.step(frame)
            for layer in net.layers:
                for state in (layer.q, layer.p, layer.r):
                    assert not state.requires_grad
        sum(step.readout.sum() for step in steps).backward()
        assert x.grad is None

    def test_earlier_steps_do_not_matter_but_through_the_states(self) -> None:
        """The gradient at a step is the same when the states were put there by hand."""
        net = network(hidden=[])
        x = batches()[:][0]
        target = torch.zeros(len(x), CLASSES)
        frames = list(net.encoded(x))
        for frame in frames[:-1]:
            net.step(frame)
        other = copy.deepcopy(net)
        for one in (net, other):
            local_loss(one.step(frames[-1])[0], target, "mse").backward()
        assert torch.equal(net.layers[0].weight.grad, other.layers[0].weight.grad)
        assert bool(net.layers[0].weight.grad.any())

    def test_readouts_are_fixed(self, tmp_path: Any) -> None:
        learner = module()
        before = [layer.readout.clone() for layer in learner.network.layers]
        fit(tmp_path, learner)
        after = [layer.readout for layer in learner.network.layers]
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


class CountedUpdates(torch.optim.SGD):
    """Counts its steps, and notes their learning rates."""

    made: ClassVar[list[CountedUpdates]] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.updates = 0
        self.rates: list[float] = []
        CountedUpdates.made.append(self)

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        self.updates += 1
        self.rates.append(self.param_groups[0]["lr"])
        return super().step(closure)


class TestUpdates:
    @pytest.mark.parametrize(
        ("every", "expected"), [(1, 5), (2, 3), (3, 2), (5, 1), (9, 1), (None, 1)]
    )
    def test_how_many_there_are(self, tmp_path: Any, every: int | None, expected: int) -> None:
        """8 steps, of which the first 3 give none; a batch ends with an update."""
        learner = module(update_every=every, optimizer=partial(CountedUpdates, lr=0.1))
        stock = fit(tmp_path, learner)
        assert CountedUpdates.made[-1].updates == 3 * expected  # three batches
        assert stock.global_step == 3 * expected

    def test_sequences_last_as_long_as_they_last(self, tmp_path: Any) -> None:
        learner = module(optimizer=partial(CountedUpdates, lr=0.1))
        loader = DataLoader(batches(4, steps=13), batch_size=4)
        trainer(tmp_path).fit(learner, loader)
        assert CountedUpdates.made[-1].updates == 10

    @pytest.mark.parametrize("every", [1, 2, None])
    def test_they_are_those_of_a_loop_by_hand(self, tmp_path: Any, every: int | None) -> None:
        learner = module(update_every=every)
        twin = copy.deepcopy(learner.network)
        fit(tmp_path, learner)
        for x, labels in DataLoader(batches(), batch_size=4):
            target = nn.functional.one_hot(labels, CLASSES).float()
            sums = [torch.zeros_like(one) for one in twin.parameters()]
            functional.reset_net(twin)
            counted = 0
            for t, frame in enumerate(twin.encoded(x)):
                steps = twin.step(frame)
                if t < 3:
                    continue
                losses = [local_loss(step, target, "smooth_l1") for step in steps]
                found = torch.autograd.grad(torch.stack(losses).sum(), list(twin.parameters()))
                sums = [one + more for one, more in zip(sums, found, strict=True)]
                counted += 1
                if counted == every or t == 7:
                    with torch.no_grad():
                        for one, gradient in zip(twin.parameters(), sums, strict=True):
                            one -= 0.5 * gradient
                    sums, counted = [torch.zeros_like(one) for one in sums], 0
        for one, other in zip(parameters(learner), twin.parameters(), strict=True):
            torch.testing.assert_close(one, other.detach(), rtol=1e-5, atol=1e-7)

    def test_the_burn_in_leaves_no_trace_in_the_loss(self, tmp_path: Any) -> None:
        learner = module(time_steps=4)
        before = parameters(learner)
        fit(tmp_path, learner)
        assert any(not torch.equal(a, b) for a, b in zip(before, parameters(learner), strict=True))
        with pytest.raises(ValueError, match=r"T=3 steps[:;] write network\.burn_in below"):
            learner(torch.rand(2, 3, *SHAPE))


class TestTraining:
    @pytest.mark.parametrize("dropout", [0.0, 0.5])
    def test_it_learns_and_logs(self, tmp_path: Any, dropout: float) -> None:
        adamax = partial(torch.optim.Adamax, lr=0.03, betas=(0.0, 0.95))
        settings = dataclasses.replace(LIVELY, readout_dropout=dropout)
        learner = module(hidden=[30], optimizer=adamax, settings=settings)
        stock = fit(tmp_path, learner, epochs=12)
        metrics = stock.callback_metrics
        assert float(metrics["val/accuracy"]) == 1.0
        for phase in ("train", "val"):
            for name in ("loss", "accuracy", "accuracy_layer_0", "activity_layer_1"):
                assert 0.0 <= float(metrics[f"{phase}/{name}"]) <= 1.0
        assert "val/accuracy_layer_1" not in metrics

    def test_what_is_predicted_is_what_is_measured(self, tmp_path: Any) -> None:
        learner = module()
        stock = fit(tmp_path, learner)
        x, labels = batches(6)[:]
        learner.eval()
        for step_mode in ("s", "m"):
            functional.set_step_mode(learner.network, step_mode)
            with torch.no_grad():
                right = (learner.predict_step((x, labels), 0) == labels).float().mean()
            assert float(stock.callback_metrics["val/accuracy"]) == pytest.approx(float(right))

    def test_no_state_is_left_after_a_batch(self, tmp_path: Any) -> None:
        learner = module()
        fit(tmp_path, learner)
        assert all(layer.p is None for layer in learner.network.layers)

    @pytest.mark.parametrize(
        ("scheduler", "expected"),
        [
            (partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5), 0.5 / 4),
            (partial(torch.optim.lr_scheduler.CosineAnnealingLR), 0.0),
            (partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, threshold=1e9), 0.005),
        ],
    )
    def test_schedulers_move_on(
        self, tmp_path: Any, scheduler: Callable[..., Any], expected: float
    ) -> None:
        learner = module(scheduler=scheduler)
        stock = fit(tmp_path, learner, epochs=2)
        assert stock.optimizers[0].param_groups[0]["lr"] == pytest.approx(expected, abs=1e-9)

    def test_one_cycle_lasts_for_all_batches(self, tmp_path: Any) -> None:
        cycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.5)
        optimizer = partial(CountedUpdates, lr=0.1, momentum=0.9)
        fit(tmp_path, module(scheduler=cycle, optimizer=optimizer), epochs=4)
        rates = CountedUpdates.made[-1].rates
        twin = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
        by_hand, expected = cycle(twin, total_steps=4 * 3), []
        for _ in range(4 * 3):
            expected += 5 * [twin.param_groups[0]["lr"]]  # updates of a batch
            twin.step()
            by_hand.step()
        assert rates == pytest.approx(expected)
        assert rates[-1] == pytest.approx(0.5 / 25 / 1e4)

    def test_a_metric_that_nobody_logs_is_named(self, tmp_path: Any) -> None:
        scheduler = partial(torch.optim.lr_scheduler.ReduceLROnPlateau)
        with pytest.raises(ValueError, match="monitor='val/lost' is not logged; write one of"):
            fit(tmp_path, module(scheduler=scheduler, monitor="val/lost"))


class Kept:
    """Bytes that autograd keeps for its backward passes, at most at one time."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    def pack(self, value: Tensor) -> Any:
        holder = _Holder(value, self)
        self.now += holder.size
        self.most = max(self.most, self.now)
        return holder

    @staticmethod
    def unpack(holder: _Holder) -> Tensor:
        return holder.value


class _Holder:
    def __init__(self, value: Tensor, kept: Kept) -> None:
        self.value, self.kept = value, kept
        self.size = value.numel() * value.element_size()

    def __del__(self) -> None:
        self.kept.now -= self.size


@pytest.mark.few(0.2)
@pytest.mark.parametrize("update_every", [1, 7, None])
def test_training_memory_is_constant_in_the_number_of_steps(
    tmp_path: Any, update_every: int | None
) -> None:
    most = {}
    for steps in (50, 200, 800):
        learner, kept = module(update_every=update_every), Kept()
        # One image, looked at again and again: a sequence takes memory of its own.
        frames = batches(4)[:][0].unsqueeze(1).expand(4, steps, *SHAPE)
        data = DataLoader(TensorDataset(frames, torch.arange(4) % CLASSES), batch_size=4)
        with torch.autograd.graph.saved_tensors_hooks(kept.pack, kept.unpack):
            trainer(tmp_path).fit(learner, data)
        assert kept.now == 0
        most[steps] = kept.most
    assert most[50] > 0
    assert most[50] == most[200] == most[800]


def test_the_measure_sees_memory_that_grows() -> None:
    """The same network, propagated back through all its steps."""
    most = {}
    for steps in (5, 20):
        net, kept = network(), Kept()
        frames = batches(4)[:][0].unsqueeze(1).expand(4, steps, *SHAPE)
        with torch.autograd.graph.saved_tensors_hooks(kept.pack, kept.unpack):
            total = sum(net.step(frame)[-1].readout.sum() for frame in net.encoded(frames))
            total.backward()
        most[steps] = kept.most
    assert most[20] > 2 * most[5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "hinge"}, "loss='hinge'; write one of smooth_l1, mse"),
        ({"update_every": 0}, "update_every=0; write 1 or more, or null"),
        ({"excitation": -1.0}, "excitation=-1.0; write 0 or more"),
        ({"silence": -1.0}, "silence=-1.0; write 0 or more"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(**arguments)


def test_other_networks_and_numbers_of_classes_are_refused() -> None:
    optimizer = partial(torch.optim.SGD, lr=0.1)
    with pytest.raises(TypeError, match="ConvSNN has no readout at each layer"):
        LocalLearning(ConvSNN(), optimizer)
    with pytest.raises(ValueError, match="num_classes=10: the network has 3; write the same"):
        LocalLearning(network(), optimizer)
