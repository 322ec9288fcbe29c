"""From images and event frames to what the first layer takes at each time step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from qspinn.networks.checks import check, check_choice

CODINGS = ("direct", "bernoulli", "binary", "counts")
EVALUATION_SEED = 0


def check_coding(coding: str, input_max: float) -> None:
    """Refuses a coding that is none, or an ``input_max`` that does not fit it."""
    check_choice("coding", coding, CODINGS)
    check(0 < input_max < float("inf"), "input_max", input_max, "a finite number above 0")
    if coding in ("bernoulli", "binary") and input_max != 1:
        raise ValueError(f"input_max={input_max}: coding={coding} makes spikes; write 1")
    if coding == "counts" and input_max != int(input_max):
        raise ValueError(f"input_max={input_max}: coding=counts; write a whole number")


def encoded_steps(
    frames: Tensor, steps: int, coding: str, input_max: float, training: bool
) -> Iterator[Tensor]:
    """The input of one time step after the other, made when it is asked for.

    Args:
        frames: ``[T, N, *]``, or ``[1, N, *]`` for what stays the same; 0 or more.
        steps: T.
        coding: See :class:`~qspinn.networks.decolle.network.Decolle`.
        input_max: Larger values are cut off there.
        training: Whether random spikes come from torch's generator; otherwise they are the same
            at every call.

    Yields:
        ``[N, *]``.
    """
    generator = None
    if coding == "bernoulli" and not training:
        generator = torch.Generator(frames.device).manual_seed(EVALUATION_SEED)
    for step in range(steps):
        frame = frames[step if len(frames) > 1 else 0]
        if coding == "bernoulli":
            drawn = torch.rand(frame.shape, generator=generator, device=frame.device)
            yield (drawn < frame).to(frame.dtype)
        elif coding == "binary":
            yield (frame > 0).to(frame.dtype)
        elif coding == "counts":
            yield frame.floor().clamp(0.0, input_max)
        else:
            yield frame.clamp(0.0, input_max)
