"""Random translations of a batch of images, or of clips of frames."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def shift(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Moves each image by whole pixels; what leaves is lost, what enters is 0.

    Whole pixels keep every value on the grid of the 8-bit input.

    Args:
        images: ``[N, *, H, W]``, such as ``[N, C, H, W]``, or clips ``[N, T, C, H, W]``.
        rows: ``int64`` ``[N]``; n moves image n down by n pixels.
        columns: ``int64`` ``[N]``; n moves image n to the right by n pixels.

    Returns:
        A new tensor ``[N, *, H, W]``.
    """
    shape = images.shape
    batch, (height, width) = shape[0], shape[-2:]
    images = images.reshape(batch, -1, height, width)
    margin = int(torch.maximum(rows.abs().max(), columns.abs().max()))
    padded = functional.pad(images, (margin, margin, margin, margin))
    device = images.device
    y = torch.arange(height, device=device) + margin - rows.to(device)[:, None]
    x = torch.arange(width, device=device) + margin - columns.to(device)[:, None]
    index = torch.arange(batch, device=device)[:, None, None]
    moved = padded.movedim(1, -1)[index, y[:, :, None], x[:, None, :]].movedim(-1, 1)
    return moved.contiguous().view(shape)


def random_shift(images: Tensor, max_shift: int) -> Tensor:
    """Moves each image at random by ``-max_shift`` to ``max_shift`` pixels (uniform) per axis.

    All frames of a clip move together.

    The numbers come from torch's global CPU random state on every device, so that a run is
    reproducible from its seed whatever it runs on.

    Args:
        images: ``[N, *, H, W]``.
        max_shift: Largest shift in pixels, 0 or more; 0 returns the images unchanged.

    Returns:
        ``[N, *, H, W]``.
    """
    if max_shift == 0:
        return images
    offsets = torch.randint(-max_shift, max_shift + 1, (2, len(images)))
    return shift(images, offsets[0], offsets[1])
