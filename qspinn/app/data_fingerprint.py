"""A text that changes when the data of a run change, so that no two trainings are mixed up."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from hydra.utils import get_object
from lightning.pytorch.utilities.seed import isolate_rng
from torch.utils.data import IterableDataset

from qspinn.app.errors import ConfigurationError, naming
from qspinn.app.paths import from_start
from qspinn.data.fingerprint import MOST_DIGESTED, content_fingerprint
from qspinn.data.foreign_files import is_foreign

__all__ = ["DataState", "data_state", "files_fingerprint"]

MOST_FILES = 200_000
SAMPLES = 64
"""Of each data set whose class says nothing: its first, its last, and some in between."""


@dataclass(frozen=True)
class DataState:
    """What is known of the data of a run.

    Attributes:
        fingerprint: Changes when the data change; None where nothing is certain.
        reason: Why there is none.
    """

    fingerprint: str | None
    reason: str = ""

    def __str__(self) -> str:
        return self.fingerprint or self.reason


class Unknown(Exception):
    """The data do not tell whether they have changed."""


def data_state(settings: Mapping[str, Any], data: lightning.LightningDataModule) -> DataState:
    """Return the state of the data that a run learns from.

    A data module with a method ``fingerprint() -> str`` says it itself, as all of qspinn's do. Of
    another one these count: each file that its settings, or the defaults of its class, name; the
    length of each data set that its loaders have; and :data:`SAMPLES` samples of each, read twice
    with the same random numbers. No random state is changed, and no loader is iterated over.

    Args:
        settings: The group ``data`` of the configuration.
        data: Made from it, and read.

    Raises:
        ConfigurationError: ``fingerprint()`` fails, or returns something else than a text.
    """
    says = getattr(data, "fingerprint", None)
    if callable(says):
        with naming("data"):
            text = says()
        if not isinstance(text, str) or not text:
            raise ConfigurationError(
                f"data: {type(data).__name__}.fingerprint() returned {text!r}; return a text that "
                "changes when the data change"
            )
        return DataState(text)
    try:
        parts = [files_fingerprint(named_paths(settings)), _samples_fingerprint(data)]
    except Unknown as unknown:
        return DataState(None, f"{type(data).__name__}: {unknown}")
    return DataState(f"samples-{hashlib.sha256(' '.join(parts).encode()).hexdigest()}")


def named_paths(settings: Mapping[str, Any]) -> list[Path]:
    """Return the files and folders that a node of a configuration names, or its class's defaults.

    Args:
        settings: A node with a ``_target_``.
    """
    texts = [*_texts(settings), *_default_texts(settings)]
    paths = dict.fromkeys(Path(os.path.realpath(from_start(text))) for text in texts if text)
    return [path for path in paths if path.exists()]


def files_fingerprint(paths: Sequence[Path]) -> str:
    """Return the fingerprint of files and of all files in folders, wherever these lie.

    Raises:
        Unknown: There are too many, or one cannot be read.
    """
    prints = []
    for path in paths:
        try:
            files = [path] if path.is_file() else _below(path)
            root = path.parent if path.is_file() else path
            prints.append(content_fingerprint(files, root))
        except OSError as error:
            raise Unknown(f"{path} cannot be read ({error})") from error
    return " ".join(prints)


def _below(folder: Path) -> list[Path]:
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_foreign(name)]
        paths = (Path(place, name) for name in names if not is_foreign(name))
        found += (path for path in paths if path.is_file())
        if len(found) > MOST_FILES:
            raise Unknown(f"{folder} holds more than {MOST_FILES} files")
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, (str, os.PathLike)):
        yield os.fspath(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key != "_target_":
                yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)


def _default_texts(settings: Mapping[str, Any]) -> Iterator[str]:
    """Texts and paths that the class takes where the settings are silent."""
    try:
        parameters = inspect.signature(get_object(settings["_target_"])).parameters
    except (KeyError, TypeError, ValueError):
        return
    for name, parameter in parameters.items():
        if name not in settings and isinstance(parameter.default, (str, os.PathLike)):
            yield from _texts(parameter.default)


def _samples_fingerprint(data: lightning.LightningDataModule) -> str:
    with isolate_rng():
        try:
            data.setup("test")
            loaders = {
                name: getattr(data, f"{name}_dataloader")() for name in ("train", "val", "test")
            }
        except Exception as error:
            raise Unknown(f"its loaders cannot be asked ({error})") from error
        texts = [_twice(name, dataset) for name, dataset in _datasets(loaders)]
    return " ".join(texts)


def _datasets(loaders: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The data sets of loaders, of lists and of mappings of loaders, with names."""
    for name, loader in loaders.items():
        if isinstance(loader, (list, tuple)):
            yield from _datasets({f"{name}[{i}]": item for i, item in enumerate(loader)})
        elif isinstance(loader, Mapping):
            yield from _datasets({f"{name}.{key}": item for key, item in loader.items()})
        elif not hasattr(loader, "dataset"):
            raise Unknown(f"its {name} loader has no data set to look into")
        else:
            yield name, loader.dataset


def _twice(name: str, dataset: Any) -> str:
    """The fingerprint of a data set, if reading it twice gives the same."""
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        raise Unknown(f"its {name} data cannot be read by index")
    try:
        length = len(dataset)
        indices = sorted({i * (length - 1) // max(SAMPLES - 1, 1) for i in range(SAMPLES)})
        one, other = (_read(dataset, indices if length else []) for _ in range(2))
    except Unknown:
        raise
    except Exception as error:
        raise Unknown(f"its {name} data cannot be read twice ({error})") from error
    if one != other:
        raise Unknown(f"its {name} data are not the same when they are read twice")
    return f"{name} {length} {one}"


def _read(dataset: Any, indices: Sequence[int]) -> str:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (what a stranger's transforms may draw from)
    torch.manual_seed(0)
    digest = hashlib.sha256()
    left = MOST_DIGESTED
    for index in indices:
        for part in _bytes(dataset[index]):
            digest.update(part)
            left -= len(part)
        if left < 0:
            break
    return digest.hexdigest()


def _bytes(value: Any) -> Iterator[bytes]:
    """What a sample holds, as bytes."""
    convert = _CONVERTED.get(type(value))
    if convert is not None:
        yield convert(value)
    elif isinstance(value, torch.Tensor):
        tensor = value.detach().cpu().contiguous()
        yield f"{tensor.dtype} {tuple(tensor.shape)}".encode()
        yield tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, (np.ndarray, np.generic)) and value.dtype != object:
        yield f"{value.dtype} {value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, Mapping):
        yield from _bytes([item for pair in value.items() for item in pair])
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from _bytes([getattr(value, field.name) for field in dataclasses.fields(value)])
    elif isinstance(value, (list, tuple)):
        yield f"{len(value)} items".encode()
        for item in value:
            yield from _bytes(item)
    elif hasattr(value, "__array__"):  # a picture
        yield from _bytes(np.asarray(value))
    else:
        raise Unknown(f"its samples hold a {type(value).__name__}")


_CONVERTED: dict[type, Callable[[Any], bytes]] = {
    bytes: bytes,
    str: lambda text: text.encode("utf-8", "surrogatepass"),
    **{kind: lambda value: repr(value).encode() for kind in (int, float, bool, type(None))},
}
