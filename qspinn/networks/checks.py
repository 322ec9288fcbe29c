"""The checks of sizes, constants and inputs that networks here share."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import Tensor


def check(fits: bool, name: str, value: object, wanted: str) -> None:
    """Raises ``ValueError`` for a value that does not fit, and says what to write instead."""
    if not fits:
        shown = repr(value) if isinstance(value, str) else value
        raise ValueError(f"{name}={shown}: write {wanted}")


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raises ``ValueError`` for a value that is none of the choices."""
    check(value in choices, name, value, f"one of {', '.join(choices)}")


def check_at_least(lowest: int, **sizes: int) -> None:
    """Raises ``ValueError`` for a size below ``lowest``, by its name."""
    for name, value in sizes.items():
        check(value >= lowest, name, value, f"{lowest} or more")


def check_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """The shape ``(C, H, W)`` of an image; ``ValueError`` where it is none."""
    fits = len(shape) == 3 and all(size >= 1 for size in shape)
    check(fits, "input_shape", list(shape), "three sizes, [C, H, W], 1 or more")
    return (shape[0], shape[1], shape[2])


def check_input(
    x: Tensor, input_shape: tuple[int, ...], time_steps: int | None, remedy: str = ""
) -> None:
    """Raises ``ValueError`` unless these are images, or sequences of ``time_steps`` frames."""
    if x.ndim not in (4, 5) or tuple(x.shape[-3:]) != input_shape:
        raise ValueError(
            f"input {list(x.shape)}: expected images [N, C, H, W] or sequences "
            f"[N, T, C, H, W] with (C, H, W) = {input_shape}{remedy}"
        )
    if x.ndim == 5 and time_steps not in (None, x.shape[1]):
        raise ValueError(
            f"input {list(x.shape)}: sequences of {x.shape[1]} steps, but "
            f"time_steps={time_steps}; write network.time_steps={x.shape[1]}, or null"
        )


def per_block(name: str, value: int | Sequence[int], blocks: int) -> tuple[int, ...]:
    """One number per block; ``ValueError`` where there are more or fewer."""
    values = (value,) * blocks if isinstance(value, int) else tuple(value)
    wanted = f"one number, or {blocks} numbers as channels has"
    check(len(values) == blocks, name, list(values), wanted)
    return values
