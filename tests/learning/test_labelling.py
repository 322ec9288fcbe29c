"""The labelling images: which are kept, that nothing of them is lost, and that they are small."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from qspinn.learning.labelling import LabellingImages


def pictures(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, 5, 4), generator=generator) / 256.0
    return images, torch.randint(0, 10, (count,), generator=generator)


def all_of(kept: LabellingImages) -> Tensor:
    return torch.cat(list(kept.batches(1000)))


def test_the_first_images_are_kept_across_batches() -> None:
    kept = LabellingImages(25)
    images, labels = pictures(40)
    for part in (slice(0, 10), slice(10, 20), slice(20, 30), slice(30, 40)):
        kept.add(images[part], labels[part])

    assert len(kept) == 25
    assert torch.equal(all_of(kept), images[:25])
    assert torch.equal(kept.labels, labels[:25])
    assert [len(part) for part in kept.batches(8)] == [8, 2, 8, 2, 5]
    kept.clear()
    assert len(kept) == len(kept.labels) == 0
    assert list(kept.batches(8)) == []


# What bytes cannot hold: finer pixels, pixels outside of [0, 1), and a pixel that is no number.
FLOATS = [torch.tensor(1 / 512), torch.tensor(1.0), torch.tensor(-1 / 256), torch.tensor(torch.inf)]


@pytest.mark.parametrize("pixel", FLOATS)
def test_nothing_is_lost_where_bytes_do_not_suffice(pixel: Tensor) -> None:
    images, labels = pictures(6)
    images[3, 0, 2, 2] = pixel
    kept, loaded = LabellingImages(6), LabellingImages(6)
    kept.add(images[:2], labels[:2])  # bytes
    kept.add(images[2:], labels[2:])  # floats

    assert torch.equal(all_of(kept), images)
    loaded.from_checkpoint(kept.to_checkpoint())
    assert torch.equal(all_of(loaded), images)
    assert torch.equal(loaded.labels, labels)


def test_pixels_are_held_as_bytes_and_later_changes_do_not_reach_them() -> None:
    images, labels = pictures(6)
    kept = LabellingImages(100)
    kept.add(images, labels)
    before, expected = images.clone(), labels.clone()
    images.zero_()
    labels.zero_()

    assert kept.to_checkpoint()["are_bytes"]
    assert torch.equal(all_of(kept), before)
    assert torch.equal(kept.labels, expected)


def test_a_checkpoint_holds_plain_types_and_is_compressed(tmp_path: Any) -> None:
    images, labels = torch.zeros(500, 1, 28, 28), torch.arange(500) % 10
    images[:, :, 10:18, 10:18] = 200 / 256
    kept, loaded = LabellingImages(500), LabellingImages(120)
    kept.add(images, labels)

    torch.save(kept.to_checkpoint(), tmp_path / "kept.pt")
    saved = torch.load(tmp_path / "kept.pt", weights_only=True)
    loaded.from_checkpoint(saved)

    assert saved["pixels"].numel() < 500 * 28 * 28 / 20
    assert torch.equal(all_of(loaded), images[:120])  # its own limit holds
    assert torch.equal(loaded.labels, labels[:120])


def test_none_can_be_saved_and_copied() -> None:
    empty, loaded = LabellingImages(5), LabellingImages(5)
    loaded.add(*pictures(3))
    copied = copy.deepcopy(loaded)
    loaded.from_checkpoint(empty.to_checkpoint())

    assert len(loaded) == 0
    assert len(copied) == 3


def test_a_wrong_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="labelling_images=0; write 1 or more"):
        LabellingImages(0)
