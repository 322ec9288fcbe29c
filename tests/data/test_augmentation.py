"""Shifts against slicing in NumPy."""

import numpy as np
import pytest
import torch

from qspinn.data.augmentation import random_shift, shift


def shift_with_numpy(image: np.ndarray, down: int, right: int) -> np.ndarray:
    moved = np.zeros_like(image)
    _, height, width = image.shape
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                moved[:, y, x] = image[:, y - down, x - right]
    return moved


def test_shift_moves_each_image_by_its_own_amount() -> None:
    images = torch.rand(25, 2, 6, 5, generator=torch.Generator().manual_seed(0))
    offsets = torch.cartesian_prod(torch.arange(-2, 3), torch.arange(-2, 3))

    moved = shift(images, offsets[:, 0], offsets[:, 1])

    assert moved.is_contiguous()
    for image, (down, right), result in zip(images, offsets.tolist(), moved, strict=True):
        np.testing.assert_array_equal(result, shift_with_numpy(image.numpy(), down, right))


def test_all_frames_of_a_clip_move_together() -> None:
    clips = torch.rand(9, 4, 2, 6, 5, generator=torch.Generator().manual_seed(1))
    offsets = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 2))

    moved = shift(clips, offsets[:, 0], offsets[:, 1])

    assert moved.is_contiguous()
    for step in range(4):
        assert torch.equal(moved[:, step], shift(clips[:, step], offsets[:, 0], offsets[:, 1]))


def test_random_shifts_are_uniform_and_follow_the_seed() -> None:
    image = torch.zeros(1, 1, 7, 7)
    image[0, 0, 3, 3] = 1.0
    images = image.expand(4900, 1, 7, 7)

    torch.manual_seed(5)
    moved = random_shift(images, 3)
    torch.manual_seed(5)

    assert torch.equal(random_shift(images, 3), moved)
    # 49 places, 100 expected in each: 5 standard deviations of the binomial law are 50.
    assert (moved.sum(0) - 100).abs().max() < 50


def test_no_shift_draws_no_random_number() -> None:
    images = torch.rand(3, 1, 4, 4)
    before = torch.get_rng_state()

    assert random_shift(images, 0) is images
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("max_shift", [1, 2])
def test_shifted_pixels_stay_on_the_grid(max_shift: int) -> None:
    images = torch.arange(64).reshape(4, 1, 4, 4) / 256

    codes = random_shift(images, max_shift) * 256

    assert torch.equal(codes, codes.round())
