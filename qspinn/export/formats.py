"""What a device model can be exported as: a name for each format, and the function that writes it.

A new format is a function and an entry in :data:`FORMATS`.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from qspinn.atomic import write_bytes
from qspinn.export.container import MODEL_NAME
from qspinn.export.learning_layers import learning_layers
from qspinn.export.model import DeviceModel
from qspinn.export.report import DeviceReport
from qspinn.export.saving import save_model
from qspinn.export.summary import summary

__all__ = ["FORMATS", "OptionError", "check_format", "export", "options_of"]

SUMMARY_NAME = "summary.txt"
_SWITCHES = {"true": True, "false": False}


class OptionError(ValueError):
    """A format or an option that there is not; the message says what to write."""


def packed(
    model: DeviceModel, output: str | os.PathLike[str], *, report: DeviceReport | None = None
) -> list[Path]:
    """Writes ``model.qspinn``, and ``summary.txt``, which says what it holds.

    Args:
        model: The model.
        output: The folder; it is made.
        report: What the model takes, where more is known than the model says.
    """
    folder = Path(output)
    save_model(model, folder / MODEL_NAME)
    text = "\n".join(summary(model, report)) + "\n"
    return [folder / MODEL_NAME, write_bytes(text.encode(), folder / SUMMARY_NAME)]


def c(
    model: DeviceModel,
    output: str | os.PathLike[str],
    *,
    name: str | None = None,
    layout: Literal["aligned", "packed"] = "aligned",
    learning: bool = False,
    report: DeviceReport | None = None,
    say: Callable[[str], None] | None = None,
) -> list[Path]:
    """Writes the model as C99, the model itself, and what both take.

    Args:
        model: The model.
        output: The folder; it is made.
        name: Of files and functions; None: from the name of the model.
        layout: Of the states, ``aligned`` or ``packed``.
        learning: Whether it goes on learning on the device; the model must say how.
        report: See :func:`packed`.
        say: Is told what the code takes, line by line.
    """
    from qspinn.export.c import write_c

    folder = Path(output)
    try:
        sizes = write_c(model, folder, name, layout, learning)
    except ValueError as error:
        raise OptionError(str(error)) from error
    said = [
        f"C: {sizes.constant_bytes:,} bytes of constants, {sizes.ram_bytes:,} bytes of RAM "
        f"({sizes.state_bytes:,} for states, layout={layout}, {sizes.buffer_bytes:,} for buffers)"
    ]
    if learning:
        said.append(
            f"Learning in C: {sizes.learner_bytes:,} bytes of RAM, which hold what is learned; "
            f"{_labelling(model, Path(sizes.files[0]).stem)}"
        )
    if say is not None:
        for line in said:
            say(line)
    written = [folder / one for one in sizes.files]
    save_model(model, folder / MODEL_NAME)
    text = "\n".join([*summary(model, report), *said]) + "\n"
    return [*written, folder / MODEL_NAME, write_bytes(text.encode(), folder / SUMMARY_NAME)]


def _labelling(model: DeviceModel, name: str) -> str:
    """Whether neurons are labelled on the device."""
    assert model.learning is not None
    if learning_layers(model, model.learning).labels is not None:
        return "it labels neurons on the device"
    return (
        f"it labels no neurons, which needs learning.readout=maximum; {name}_show gives the spikes "
        "of each neuron for an image"
    )


def nir(model: DeviceModel, output: str | os.PathLike[str], *, dt: float = 1.0) -> list[Path]:
    """Writes a NIR graph and its side-car, see :func:`qspinn.export.nir_writing.write_nir`.

    Raises:
        OptionError: The package nir is not installed.
    """
    try:
        from qspinn.export.nir_writing import write_nir
    except ModuleNotFoundError as error:
        raise OptionError(
            f"format=nir needs the package {error.name}; pip install 'qspinn[nir]'"
        ) from error
    return list(write_nir(model, output, dt).values())


def hls4ml(model: DeviceModel, output: str | os.PathLike[str]) -> list[Path]:
    """Writes precisions for hls4ml, see :func:`qspinn.export.hls4ml.write_hls4ml`."""
    from qspinn.export.hls4ml import write_hls4ml

    return [write_hls4ml(model, output)]


FORMATS: dict[str, Callable[..., list[Path]]] = {
    "packed": packed,
    "c": c,
    "nir": nir,
    "hls4ml": hls4ml,
}
"""Name -> ``function(model, output, **options)``, which returns the files that it wrote.

Options are keyword-only; those of type int, float, bool, str or a literal can be given as text.
One called ``report`` gets the :class:`~qspinn.export.report.DeviceReport`, one called
``say`` a function that shows people a line of text.
"""
_GIVEN = ("report", "say")


def check_format(name: object) -> str:
    """The name of a format.

    Raises:
        OptionError: There is no such format.
    """
    if not isinstance(name, str) or name not in FORMATS:
        raise OptionError(f"format={name}: is no format; write one of {', '.join(FORMATS)}")
    return name


def options_of(name: str) -> dict[str, inspect.Parameter]:
    """Options of a format that can be given as text."""
    parameters = inspect.signature(FORMATS[name], eval_str=True).parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    return {one.name: one for one in parameters if one.kind is keyword and one.name not in _GIVEN}


def export(
    name: str,
    model: DeviceModel,
    output: str | os.PathLike[str],
    options: Mapping[str, Any] | None = None,
    report: DeviceReport | None = None,
    say: Callable[[str], None] | None = None,
) -> list[Path]:
    """Writes a model in a format.

    Args:
        name: Of the format.
        model: The model.
        output: The folder.
        options: Of the format; texts are converted.
        report: What the model takes.
        say: Is told what the format says of what it wrote.

    Raises:
        OptionError: No such format or option, or a value that it cannot have.
        OSError: A file cannot be written.
    """
    function = FORMATS[check_format(name)]
    given: dict[str, Any] = dict(converted(name, options or {}))
    known = inspect.signature(function).parameters
    given |= {key: one for key, one in (("report", report), ("say", say)) if key in known}
    return function(model, output, **given)


def converted(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a format, with texts, numbers and switches as the types that it takes.

    Raises:
        OptionError: See :func:`export`.
    """
    known = options_of(name)
    found = {}
    for key, value in options.items():
        if key not in known:
            listed = ", ".join(known) or "none"
            raise OptionError(f"{key}=: format={name} has no such option; it has {listed}")
        found[key] = _converted(key, value, known[key].annotation)
    return found


def _converted(key: str, value: Any, annotation: object) -> Any:
    if value is None:
        return value
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, int | float):
        value = str(value)
    elif not isinstance(value, str):
        raise OptionError(f"{key}={value!r:.80}: write one text, number or switch")
    choices = get_args(annotation)
    if any(isinstance(one, str) for one in choices):
        if value not in choices:
            raise OptionError(f"{key}={value}: write {' or '.join(choices)}")
        return value
    kind = str(getattr(annotation, "__name__", annotation))
    if kind.startswith("bool"):
        if value not in _SWITCHES:
            raise OptionError(f"{key}={value}: write true or false")
        return _SWITCHES[value]
    if kind.startswith("float"):
        try:
            return float(value)
        except ValueError:
            raise OptionError(f"{key}={value}: write a number") from None
    if kind.startswith("int"):
        if not value.removeprefix("-").isdecimal():
            raise OptionError(f"{key}={value}: write a whole number")
        return int(value)
    return value
