"""MNIST files: found, split, missing, damaged, downloaded."""

import gzip
import struct
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch

from qspinn.data import MNIST, FashionMNIST, IDXError


def idx(array: np.ndarray) -> bytes:
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.astype(np.uint8).tobytes()


def write_files(raw: Path, train: int = 50, test: int = 20) -> None:
    raw.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for prefix, count in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (count, 28, 28))
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(np.arange(count) % 10))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_files(tmp_path / "MNIST" / "raw")
    return tmp_path


def ready(module: MNIST) -> MNIST:
    module.prepare_data()
    module.setup()
    return module


def test_validation_is_the_end_of_the_training_set(root: Path) -> None:
    from torchvision import datasets

    reference = datasets.MNIST(str(root), train=True)

    module = ready(MNIST(root, val_size=8))

    assert torch.equal(module.train_dataset.images[:, 0], reference.data[:42])
    assert torch.equal(module.val_dataset.images[:, 0], reference.data[42:])
    assert torch.equal(module.val_dataset.labels, reference.targets[42:])
    assert len(module.test_dataset) == 20


def test_without_validation(root: Path) -> None:
    module = ready(MNIST(root, val_size=0))

    assert len(module.train_dataset) == 50
    assert module.val_dataloader() == []


@pytest.mark.parametrize(("val_size", "message"), [(50, "data.val_size=49"), (-1, "val_size=-1")])
def test_wrong_validation_size(root: Path, val_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ready(MNIST(root, val_size=val_size))


def test_missing_files_name_the_place_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        MNIST(tmp_path).prepare_data()

    message = str(caught.value)
    assert str(tmp_path.resolve() / "MNIST" / "raw") in message
    assert "train-images-idx3-ubyte" in message
    assert "data.root=" in message
    assert "data.download=true" in message


def test_setup_without_prepare_data_reports_missing_files_as_well(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data\.root="):
        MNIST(tmp_path).setup()


def test_one_missing_file_is_the_only_one_named(root: Path) -> None:
    (root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()

    with pytest.raises(FileNotFoundError, match="no t10k-labels-idx1-ubyte in"):
        MNIST(root).prepare_data()


def test_compressed_files_serve_as_well(root: Path) -> None:
    plain = ready(MNIST(root, val_size=5))
    for path in list((root / "MNIST" / "raw").iterdir()):
        (path.parent / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()

    packed = ready(MNIST(root, val_size=5))

    assert torch.equal(packed.train_dataset.images, plain.train_dataset.images)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", b"<html>404</html>", "not an IDX file"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((19, 28, 28))), r"\(19, 28, 28\), expected"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((20, 32, 32))), r"expected uint8 \(20, 28, 28\)"),
        ("t10k-labels-idx1-ubyte", idx(np.full(20, 10)), "labels 0 to 9"),
        ("t10k-images-idx3-ubyte", b"", "0 bytes are too few"),
        ("t10k-labels-idx1-ubyte", idx(np.zeros((4, 5))), "list of labels"),
    ],
)
def test_damaged_files_are_named(root: Path, name: str, content: bytes, message: str) -> None:
    (root / "MNIST" / "raw" / name).write_bytes(content)

    with pytest.raises(IDXError, match=message) as caught:
        ready(MNIST(root, val_size=5))

    assert name in str(caught.value)


def test_files_without_an_image_are_named(root: Path) -> None:
    write_files(root / "MNIST" / "raw", test=0)

    with pytest.raises(IDXError, match=r"t10k-images-idx3-ubyte: holds no image: download it"):
        ready(MNIST(root, val_size=5))


def test_download_fetches_what_is_missing_and_touches_nothing_else(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = root / "MNIST" / "raw"
    (raw / "t10k-labels-idx1-ubyte").unlink()
    before = {path.name: path.read_bytes() for path in raw.iterdir()}

    def torchvision_mnist(folder: str, download: bool) -> None:
        assert download
        write_files(Path(folder) / "MNIST" / "raw", train=30, test=20)

    monkeypatch.setattr("torchvision.datasets.MNIST", torchvision_mnist)

    module = ready(MNIST(root, download=True, val_size=5))

    assert len(module.test_dataset) == 20
    after = {path.name: path.read_bytes() for path in raw.iterdir()}
    assert after.pop("t10k-labels-idx1-ubyte") == idx(np.arange(20) % 10)
    assert after == before


def test_failed_download_says_what_to_do_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(folder: str, download: bool) -> None:
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", offline)

    with pytest.raises(RuntimeError, match=r"fashion_mnist: the download failed.*mnist_subset"):
        FashionMNIST(tmp_path, download=True).prepare_data()

    assert list((tmp_path / "FashionMNIST" / "raw").iterdir()) == []


def test_fashion_mnist_has_its_own_folder(tmp_path: Path) -> None:
    write_files(tmp_path / "FashionMNIST" / "raw")

    assert len(ready(FashionMNIST(tmp_path, val_size=5)).train_dataset) == 45
    with pytest.raises(FileNotFoundError):
        MNIST(tmp_path).prepare_data()


def test_the_real_files(shared_data: Path) -> None:
    module = ready(MNIST(shared_data))

    sizes = [len(d) for d in (module.train_dataset, module.val_dataset, module.test_dataset)]
    assert sizes == [55_000, 5_000, 10_000]
    # Class counts of the official test set.
    expected = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert module.test_dataset.labels.bincount().tolist() == expected


class Recorder(lightning.LightningModule):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[torch.Tensor]] = {"train": [], "val": []}

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.seen["train"].append(batch[0].clone())
        return self.weight * 0

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.seen["val"].append(batch[0].clone())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data: MNIST, seed: int) -> dict[str, torch.Tensor]:
    lightning.seed_everything(seed, verbose=False)
    module = Recorder()
    lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    ).fit(module, data)
    return {phase: torch.cat(batches) for phase, batches in module.seen.items()}


def test_shifts_in_a_trainer_follow_the_seed_and_spare_validation(root: Path) -> None:
    settings: dict[str, Any] = {"val_size": 10, "batch_size": 16, "max_shift": 2}

    shifted = fit(MNIST(root, **settings), seed=1)
    again = fit(MNIST(root, **settings, num_workers=1), seed=1)
    plain = fit(MNIST(root, **{**settings, "max_shift": 0}), seed=1)

    assert torch.equal(shifted["train"], again["train"])
    assert not torch.equal(shifted["train"], fit(MNIST(root, **settings), seed=2)["train"])
    assert not torch.equal(shifted["train"], plain["train"])
    assert torch.equal(shifted["val"], plain["val"])
