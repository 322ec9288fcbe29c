"""Batched loading against naive indexing."""

from fractions import Fraction

import pytest
import torch
from torch.utils.data import DataLoader

from qspinn.data import ImageDataset, to_unit_range
from qspinn.data.tensor_dataset import batch_loader


@pytest.fixture
def dataset() -> ImageDataset:
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (23, 1, 4, 5), dtype=torch.uint8, generator=generator)
    return ImageDataset(images, torch.arange(23))


def test_pixels_are_exactly_on_the_grid_of_8_bits() -> None:
    values = to_unit_range(torch.arange(256).to(torch.uint8))

    assert values.dtype == torch.float32
    assert [Fraction(v) for v in values.tolist()] == [Fraction(k, 256) for k in range(256)]


def test_batches_equal_naive_indexing(dataset: ImageDataset) -> None:
    naive = DataLoader(dataset, batch_size=1)
    images = torch.cat([x for x, _ in naive])
    labels = torch.cat([y for _, y in naive])

    batches = list(batch_loader(dataset, 5, shuffle=False))

    assert [len(y) for _, y in batches] == [5, 5, 5, 5, 3]
    assert torch.equal(torch.cat([x for x, _ in batches]), images)
    assert torch.equal(torch.cat([y for _, y in batches]), labels)


def test_shuffling_pairs_images_with_their_labels(dataset: ImageDataset) -> None:
    torch.manual_seed(0)

    labels = []
    for x, y in batch_loader(dataset, 4, shuffle=True):
        assert torch.equal(x, to_unit_range(dataset.images[y]))
        labels += y.tolist()

    assert sorted(labels) == list(range(23))
    assert labels != list(range(23))


def test_order_follows_the_global_random_state(dataset: ImageDataset) -> None:
    def epoch() -> list[int]:
        loader = batch_loader(dataset, 4, shuffle=True)
        return torch.cat([y for _, y in loader]).tolist()

    torch.manual_seed(7)
    first = epoch()
    state = torch.get_rng_state()
    second = epoch()
    torch.set_rng_state(state)
    resumed = epoch()
    torch.manual_seed(7)

    assert epoch() == first
    assert second != first
    assert resumed == second


def test_workers_change_nothing(dataset: ImageDataset) -> None:
    def epoch(num_workers: int) -> torch.Tensor:
        torch.manual_seed(1)
        return torch.cat([x for x, _ in batch_loader(dataset, 6, True, num_workers)])

    assert torch.equal(epoch(0), epoch(2))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64), "images must be uint8"),
        (
            torch.zeros(3, 2, 2, dtype=torch.uint8),
            torch.zeros(3, dtype=torch.int64),
            r"got torch.uint8 \[3, 2, 2\]",
        ),
        (torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.zeros(3), "labels must be int64"),
        (
            torch.zeros(3, 1, 2, 2, dtype=torch.uint8),
            torch.zeros(4, dtype=torch.int64),
            "3 images, but 4 labels",
        ),
    ],
)
def test_wrong_tensors(images: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageDataset(images, labels)
