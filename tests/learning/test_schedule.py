"""Which argument a scheduler takes the number of steps in."""

from functools import partial
from typing import Any

import pytest
from torch.optim import lr_scheduler

from qspinn.learning.schedule import step_count_argument


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (partial(lr_scheduler.OneCycleLR, max_lr=0.1), "total_steps"),
        (partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=None), "total_steps"),
        (partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=5), None),
        (partial(lr_scheduler.OneCycleLR, max_lr=0.1, epochs=5, steps_per_epoch=3), None),
        (lr_scheduler.CosineAnnealingLR, "T_max"),
        (partial(lr_scheduler.CosineAnnealingLR, T_max=7), None),
        (partial(lr_scheduler.StepLR, step_size=3), None),
        (lr_scheduler.ReduceLROnPlateau, None),
        (lambda optimizer, total_steps: None, "total_steps"),
    ],
)
def test_step_count_argument(scheduler: Any, expected: str | None) -> None:
    assert step_count_argument(scheduler) == expected
