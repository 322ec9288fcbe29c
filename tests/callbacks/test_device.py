"""The callbacks save the network of any project as a device model."""

import lightning
import pytest
import torch
from spikingjelly.activation_based import functional
from torch.utils.data import DataLoader

from qspinn.callbacks import InTrainingQuantization, PostTrainingQuantization
from qspinn.callbacks.device import ExampleSeeker
from qspinn.export import NotExportableError, load_model, verify
from qspinn.quantizers import is_attached, load_quantized
from tests.callbacks.harness import NAME, PLAN, fit, module, simple_fit, trainer
from tests.callbacks.strangers import MAKERS, Stranger, loader

SCHEMES = {"ptq": PostTrainingQuantization, "itq": InTrainingQuantization}


@pytest.fixture(params=SCHEMES)
def callback(request):
    return SCHEMES[request.param](PLAN, fidelity_samples=0)


def quantized_of(callback, fitted):
    return getattr(callback, "quantized_module", fitted)


def test_the_network_of_a_stranger_is_saved(callback, tmp_path):
    _, fitted = fit(tmp_path, NAME, callback)
    state = torch.get_rng_state()
    before = {path: list(one._forward_pre_hooks) for path, one in fitted.named_modules()}
    callback.save(tmp_path / "model.qspinn")
    assert torch.equal(torch.get_rng_state(), state)
    assert {path: list(one._forward_pre_hooks) for path, one in fitted.named_modules()} == before
    model = load_model(tmp_path / "model.qspinn")
    assert model.stored_bits + model.state_bits == callback.footprint.inference_bits
    quantized = quantized_of(callback, fitted)
    assert is_attached(quantized)
    batch = next(iter(loader(NAME, 6, seed=1)))
    assert verify(model, quantized, batch[0]).equal


def test_another_name_gives_the_parameters(callback, tmp_path):
    _, fitted = fit(tmp_path, NAME, callback)
    callback.save(tmp_path / "quantized.pt")
    loaded = load_quantized(module(NAME), tmp_path / "quantized.pt").eval()
    batch = next(iter(loader(NAME, 6, seed=1)))
    quantized = quantized_of(callback, fitted).eval()
    with torch.no_grad():
        outputs = []
        for one in (loaded, quantized):
            functional.reset_net(one.network)
            outputs.append(one(batch[0]))
    assert torch.equal(*outputs)


def test_before_a_fit_there_is_nothing_to_save(callback, tmp_path):
    for name in ("model.qspinn", "quantized.pt"):
        with pytest.raises(
            ValueError, match=f"{type(callback).__name__}: there is no quantised ne"
        ):
            callback.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


class NoForward(Stranger):
    """Calls its layers one by one."""

    def forward(self, x):
        raise NotImplementedError

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.by_hand(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.by_hand(batch[0])

    def by_hand(self, x):
        x = x.expand(self.network.steps, *x.shape)
        for child in self.network.network:
            x = child(x)
        return x.mean(0)[:, :3]


def test_a_project_without_a_network_that_is_called_gives_an_example(callback, tmp_path):
    torch.manual_seed(1)
    fitted = NoForward(MAKERS[NAME]())
    simple_fit(trainer(tmp_path, callback), fitted)
    with pytest.raises(
        NotExportableError, match=r"no part of the module .* write save\(path, exam"
    ):
        callback.save(tmp_path / "model.qspinn")
    with pytest.raises(NotImplementedError):
        callback.save(tmp_path / "model.qspinn", example=torch.zeros(1))
    assert not (tmp_path / "model.qspinn").exists()


def test_an_example_may_be_given(callback, tmp_path):
    _, fitted = fit(tmp_path, NAME, callback)
    callback.save(tmp_path / "a.qspinn")
    batch = next(iter(loader(NAME, 6, seed=1)))
    net = quantized_of(callback, fitted)
    callback.save(tmp_path / "b.qspinn", example=batch[0][:1])
    assert (tmp_path / "a.qspinn").read_bytes() == (tmp_path / "b.qspinn").read_bytes()
    model = callback.device_model(name="mine", classes=("x", "y"), origin={"by": "me"})
    assert (model.name, model.classes, model.origin) == ("mine", ("x", "y"), {"by": "me"})
    assert net is not None


def test_batches_of_a_collate_fn_will_do(callback, tmp_path):
    data = loader(NAME, 12).dataset

    def collate(samples):
        inputs, labels = zip(*samples, strict=True)
        return torch.stack(inputs), torch.stack([torch.as_tensor(label) for label in labels])

    train, validation = (DataLoader(data, batch_size=4, collate_fn=collate) for _ in range(2))
    trainer(tmp_path, callback).fit(module(NAME), train, validation)
    callback.save(tmp_path / "model.qspinn")
    assert load_model(tmp_path / "model.qspinn").answers == 3


@pytest.mark.parametrize(
    ("shape", "samples", "taken"),
    [
        ((5, 3, 2), 5, (1, 3, 2)),
        ((3, 5, 2), 5, (3, 1, 2)),
        ((1, 3), 1, (1, 3)),
        ((5, 5, 2), 5, None),
        ((4, 3, 2), 5, None),
        ((10, 3), 5, None),
    ],
)
def test_one_sample_is_taken_along_the_axis_that_counts_them(shape, samples, taken):
    found = ExampleSeeker.one_sample(torch.rand(shape), "net", samples)
    if taken is None:
        assert found.input is None
        assert f"which axis of {list(shape)} counts {samples} samples" in found.reason
    else:
        assert tuple(found.input.shape) == taken
        assert found.entry == "net"


def test_saving_changes_nothing_of_a_training(tmp_path):
    """What the callback looks up for it at the end of the fit draws no random number."""
    ends = []
    for name in ("a", "b"):
        callback = InTrainingQuantization(PLAN, fidelity_samples=0)
        _, fitted = fit(tmp_path / name, NAME, callback)
        if name == "b":
            callback.save(tmp_path / "model.qspinn")
        ends.append(torch.get_rng_state())
        assert isinstance(fitted, lightning.LightningModule)
    assert torch.equal(*ends)
