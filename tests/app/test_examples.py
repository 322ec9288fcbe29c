"""The sample from which a plan learns what a network is made of."""

import random

import lightning
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from qspinn.app.errors import ConfigurationError
from qspinn.app.examples import example_input


def loader_of(value: float, size: int = 3, **settings):
    x = torch.full((size, 2), value)
    return DataLoader(TensorDataset(x, torch.zeros(size)), batch_size=2, **settings)


class Drawing(Dataset):
    """Samples that draw from every random generator."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.rand(2) + random.random(), 0


class Named(Dataset):
    """Samples by names, which a sampler of its own hands out."""

    def __len__(self):
        return 1

    def __getitem__(self, name):
        return {"a": (torch.ones(2), 0)}[name]


class Stream(IterableDataset):
    def __iter__(self):
        raise AssertionError("a stream must not be opened")


class Data(lightning.LightningDataModule):
    def __init__(self, train, val, test):
        super().__init__()
        self.train, self.val, self.test = train, val, test

    def train_dataloader(self):
        return self.train

    def val_dataloader(self):
        return self.val

    def test_dataloader(self):
        return self.test


STREAM = DataLoader(Stream(), batch_size=2)


@pytest.mark.parametrize(
    ("train", "val", "expected"),
    [
        (loader_of(1.0), loader_of(2.0), 2.0),
        (loader_of(1.0), [loader_of(2.0), loader_of(4.0)], 2.0),
        (loader_of(1.0), [], 1.0),
        (loader_of(1.0), loader_of(2.0, size=0), 1.0),
        (STREAM, STREAM, 3.0),
        (STREAM, [], 3.0),
        (DataLoader(Named(), batch_size=1, sampler=["a"]), [], 3.0),
    ],
)
def test_is_no_test_sample_where_there_is_another_one(train, val, expected):
    example = example_input(Data(train, val, loader_of(3.0)))
    assert torch.equal(example, torch.full((1, 2), expected))


def test_draws_no_random_number():
    generator = torch.Generator().manual_seed(1)
    train = DataLoader(Drawing(), batch_size=2, shuffle=True, generator=generator)
    before = generator.get_state(), torch.get_rng_state(), random.getstate()
    example_input(Data(train, [], loader_of(3.0)))
    after = generator.get_state(), torch.get_rng_state(), random.getstate()
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    assert before[2] == after[2]


def test_no_data():
    with pytest.raises(ConfigurationError, match="Data has no test data"):
        example_input(Data(STREAM, [], []))
