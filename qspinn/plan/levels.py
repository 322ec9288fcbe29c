"""Which weights have symmetric formats, whose words of 1 bit are signs and of 2 bits ternary."""

from __future__ import annotations

from dataclasses import replace

from qspinn.fixed_point import Format
from qspinn.plan.inventory import TensorInfo
from qspinn.plan.settings import TensorSettings


def with_levels(
    settings: TensorSettings, info: TensorInfo, kind: str, stated: Format | None
) -> TensorSettings:
    """The settings of a tensor, with ``levels`` as they are meant.

    A signed word of 1 bit would hold 0 and -1 steps, which is of no use to weights: they become
    signs, unless a format is written down.

    Args:
        settings: What the rules say of it.
        info: The tensor.
        kind: Of its layer, as of a :class:`~qspinn.plan.inventory.LayerInfo`.
        stated: The format that is written down.

    Raises:
        ValueError: A symmetric format of what cannot have one, or one that is to wrap around.
    """
    is_weight = info.role == "weight" and kind == "synapse"
    if stated is None and is_weight and settings.word_length == 1:
        settings = replace(settings, levels="symmetric")
    elif stated is not None:
        settings = replace(settings, levels="symmetric" if stated.symmetric else "all")
    if settings.levels != "symmetric":
        return settings
    given = "levels='symmetric'" if stated is None else f"format={settings.format!r}"
    if not is_weight:
        what = "of a layer that computes by itself" if info.role == "weight" else f"a {info.role}"
        other = "levels=all" if stated is None else "a format such as 'Q1.6'"
        raise ValueError(
            f"{info.path}: {given} is for weights of linear and convolutional layers, and this is "
            f"{what}; write {other} for it, or role=weight in the rule"
        )
    if settings.overflow == "wrap":
        what = given if stated is not None or settings.word_length != 1 else "word_length=1"
        raise ValueError(
            f"{info.path}: overflow='wrap' and {what} disagree: a symmetric format leaves out a "
            "code, so that no number can wrap around; write overflow=saturate for role=weight"
        )
    return settings
