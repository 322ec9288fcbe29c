"""Writes a device model as C99: a header, a source, and a driver to try it with."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from qspinn.atomic import write_bytes
from qspinn.export.c.driver import driver_text
from qspinn.export.c.interface import header_text, init_text, read_text, step_text, trace_text
from qspinn.export.c.learner import Learner
from qspinn.export.c.learner_interface import learner_driver, learner_header
from qspinn.export.c.learner_text import learner_texts
from qspinn.export.c.source import CSizes, Source
from qspinn.export.c.text import comment, identifier
from qspinn.export.lowering import program_of
from qspinn.export.model import AdaptiveNeuron, DeviceModel
from qspinn.steps.targets.c import ARITHMETIC_SHIFT, c_random

__all__ = ["LAYOUTS", "CSizes", "write_c"]

LAYOUTS = ("packed", "aligned")


def write_c(
    model: DeviceModel,
    folder: str | os.PathLike[str],
    name: str | None = None,
    layout: str = "aligned",
    learning: bool = False,
) -> CSizes:
    """Writes ``NAME.h``, ``NAME.c`` and ``NAME_main.c``.

    The code computes exactly what :class:`~qspinn.export.IntegerEngine` computes for one sample.
    It has three functions: ``NAME_init`` (before each sample), ``NAME_step`` (one time step) and
    ``NAME_read`` (the answers). Stochastic roundings draw the same numbers from the same seed.

    With `learning` there is a second struct, in which the network goes on learning with
    ``NAME_learn`` and others, and ``NAME_learn_main.c``, to try it with.

    Args:
        model: The model.
        folder: Where to; it is made.
        name: Of files and functions; None: from the name of the model.
        layout: Of the states: ``aligned``, each in a type of C, or ``packed`` at their word
            lengths, which takes less memory and more time. Of weights that are learned, likewise.
        learning: Whether it goes on learning; the model must say how.

    Raises:
        ValueError: An unknown layout, a name that is none in C, or a model that does not learn.
        OSError: A file cannot be written.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r}: write one of {', '.join(LAYOUTS)}")
    prefix = identifier(model.name or "network") if name is None else name
    if prefix != identifier(prefix):
        raise ValueError(f"name={name!r}: write a name in C, such as {identifier(prefix)}")
    source = Source(program_of(model), prefix, layout == "packed", learning)
    learner = _learner(source, layout) if learning else None
    target = Path(folder)
    more = "" if learner is None else learner_header(learner)
    write_bytes(header_text(source, more).encode(), target / f"{prefix}.h")
    write_bytes(_text(source, learner).encode(), target / f"{prefix}.c")
    driver = driver_text(prefix, source.input_kind, source.answer_kind, model)
    write_bytes(driver.encode(), target / f"{prefix}_main.c")
    files = [f"{prefix}.h", f"{prefix}.c", f"{prefix}_main.c"]
    if learner is None:
        return replace(source.sizes(), files=tuple(files))
    files.append(f"{prefix}_learn_main.c")
    write_bytes(learner_driver(learner).encode(), target / files[-1])
    return replace(source.sizes(), files=tuple(files), learner_bytes=learner.bytes)


def _learner(source: Source, layout: str) -> Learner:
    model = source.model
    if model.learning_refused is not None:
        raise ValueError(f"learning=true: {model.learning_refused}")
    if model.learning is None and any(isinstance(o.what, AdaptiveNeuron) for o in model.operations):
        raise ValueError(
            f"learning=true: the model of {model.name} does not say how it learns, as those of "
            "earlier versions do not; run it again in this version (fresh=true), or build it anew "
            "with device_model(..., learning=True)"
        )
    if model.learning is None:
        raise ValueError(
            f"learning=true: {model.name} does not learn by itself; leave learning=true out, or "
            "export a network that does, such as that of experiment=unsupervised_quick"
        )
    return Learner(source, layout == "packed")


def _text(source: Source, learner: Learner | None) -> str:
    """The whole source file."""
    about = f"Written by qspinn from the device model {source.model.name!r}; not to be changed."
    random = source.random
    if learner is not None and learner.steps.is_stochastic:
        random = c_random()
    shift = comment("Numbers below 0 must keep their sign in shifts to the right.")
    learned = [] if learner is None else learner_texts(learner)  # may add to what comes before
    parts = [
        comment(about),
        f'#include "{source.prefix}.h"',
        f"{shift}\n{ARITHMETIC_SHIFT}",
        *([] if random is None else [random]),
        *source.arrays.texts,
        *source.tables,
        *source.arrays.readers.values(),
        *source.functions,
        init_text(source),
        step_text(source),
        read_text(source),
        trace_text(source),
        *learned,
    ]
    return "\n\n".join(parts) + "\n"
