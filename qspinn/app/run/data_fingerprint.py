"""A fingerprint of the data of a run, so that trainings on different data are never mixed up."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import get_object
from lightning import LightningDataModule
from lightning.pytorch.utilities.seed import isolate_rng
from torch.utils.data import IterableDataset, TensorDataset

from qspinn.app.errors import ConfigurationError, naming
from qspinn.app.paths import from_start
from qspinn.data.fingerprint import content_fingerprint
from qspinn.data.foreign_files import is_foreign

MOST_FILES = 200_000
MOST_SAMPLES = 10_000
MOST_READ = 64 << 20
"""Data sets without a fingerprint of their own are read as a whole up to these sizes."""
SAMPLES = 64
"""Number of samples read of larger ones: the first, the last, and some in between."""
READ_STATE = "_fingerprint_when_read"
"""Attribute in which :func:`remember_state` keeps the fingerprint from before the reading."""


@dataclass(frozen=True)
class DataState:
    """What is known of the data of a run.

    Attributes:
        fingerprint: Changes when the data change; None if that is not certain.
        reason: Why there is none.
    """

    fingerprint: str | None
    reason: str = ""

    def __str__(self) -> str:
        return self.fingerprint or self.reason


class UnknownDataError(Exception):
    """It cannot be determined whether the data have changed."""


def data_state(settings: Mapping[str, Any], data: LightningDataModule) -> DataState:
    """Return the state of the data that a run learns from.

    A data module with a method ``fingerprint() -> str`` provides it itself, as all of qspinn's do.
    For others these are hashed: each file that the settings, or the defaults of the class, name;
    the length of each data set of the loaders; and its samples, read twice with the same random
    numbers. Of data sets with more than :data:`MOST_SAMPLES` samples or :data:`MOST_READ` bytes
    only :data:`SAMPLES` are read, which is enough only together with named files. No random state
    is changed, and no loader is iterated over.

    Args:
        settings: The group ``data`` of the configuration.
        data: Made from it, and read.

    Raises:
        ConfigurationError: ``fingerprint()`` fails, or returns something else than a text; or the
            data have changed while they were read.
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
        if getattr(data, READ_STATE, text) != text:
            raise ConfigurationError(
                f"data: the files of {type(data).__name__} have changed while they were read; wait "
                "until they are complete, and start again"
            )
        return DataState(text)
    try:
        paths = named_paths(settings)
        parts = [files_fingerprint(paths), _samples_fingerprint(data, bool(paths))]
    except UnknownDataError as unknown:
        return DataState(None, f"{type(data).__name__}: {unknown}")
    return DataState(f"samples-{hashlib.sha256(' '.join(parts).encode()).hexdigest()}")


def remember_state(data: LightningDataModule, fingerprint: str) -> None:
    """Keep the fingerprint of data that are about to be read, for :func:`data_state` to compare."""
    setattr(data, READ_STATE, fingerprint)


def named_paths(settings: Mapping[str, Any]) -> list[Path]:
    """Return the files and folders that a node with a ``_target_`` names, or its defaults."""
    texts = [*_texts(settings), *_default_texts(settings)]
    found: dict[Path, None] = {}
    for text in filter(None, texts):
        try:
            path = Path(os.path.realpath(from_start(text)))
            if path.exists():
                found[path] = None
        except (OSError, ValueError):  # too long for a path, or with a NUL
            continue
    return list(found)


def files_fingerprint(paths: Sequence[Path]) -> str:
    """Return the fingerprint of files and of all files in folders, wherever these lie.

    Raises:
        UnknownDataError: There are too many, or one cannot be read.
    """
    prints = []
    for path in paths:
        try:
            files = [path] if path.is_file() else _below(path)
            root = path.parent if path.is_file() else path
            prints.append(content_fingerprint(files, root))
        except OSError as error:
            raise UnknownDataError(f"{path} cannot be read ({error})") from error
    return " ".join(prints)


def _below(folder: Path) -> list[Path]:
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_foreign(name)]
        paths = (Path(place, name) for name in names if not is_foreign(name))
        found += (path for path in paths if path.is_file())
        if len(found) > MOST_FILES:
            raise UnknownDataError(f"{folder} holds more than {MOST_FILES} files")
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
    """Strings and paths among the defaults of the class."""
    try:
        parameters = inspect.signature(get_object(settings["_target_"])).parameters
    except (KeyError, TypeError, ValueError):
        return
    for name, parameter in parameters.items():
        if name not in settings and isinstance(parameter.default, (str, os.PathLike)):
            yield from _texts(parameter.default)


def _samples_fingerprint(data: LightningDataModule, has_files: bool) -> str:
    with isolate_rng():
        try:
            data.setup("test")
            loaders = {
                name: getattr(data, f"{name}_dataloader")() for name in ("train", "val", "test")
            }
        except Exception as error:
            raise UnknownDataError(f"its loaders cannot be asked ({error})") from error
        texts = [_twice(name, dataset, has_files) for name, dataset in _datasets(loaders)]
    return " ".join(texts)


def _datasets(loaders: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The data sets of loaders, of lists and of mappings of loaders, with names."""
    for name, loader in loaders.items():
        if isinstance(loader, (list, tuple)):
            yield from _datasets({f"{name}[{i}]": item for i, item in enumerate(loader)})
        elif isinstance(loader, Mapping):
            yield from _datasets({f"{name}.{key}": item for key, item in loader.items()})
        elif not hasattr(loader, "dataset"):
            raise UnknownDataError(f"its {name} loader has no data set to look into")
        else:
            yield name, loader.dataset


def _twice(name: str, dataset: Any, has_files: bool) -> str:
    """The fingerprint of a data set, if reading it twice gives the same."""
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        raise UnknownDataError(f"its {name} data cannot be read by index")
    try:
        length = len(dataset)
        if type(dataset) is TensorDataset:  # nothing but its tensors
            return f"{name} {length} {_digest(dataset.tensors)}"
        indices = _indices(dataset, length)
        if len(indices) < length and not has_files:
            raise UnknownDataError(
                f"its {name} data are {length} samples, too many to read all of them, and its "
                "settings name no file"
            )
        one, other = (_read(dataset, indices) for _ in range(2))
    except UnknownDataError:
        raise
    except Exception as error:
        raise UnknownDataError(f"its {name} data cannot be read twice ({error})") from error
    if one != other:
        raise UnknownDataError(f"its {name} data are not the same when they are read twice")
    return f"{name} {length} {one}"


def _indices(dataset: Any, length: int) -> Sequence[int]:
    """Which samples to read: all, if they are few and, judging by some, small."""
    spread = sorted({i * (length - 1) // (SAMPLES - 1) for i in range(SAMPLES)}) if length else []
    if length <= SAMPLES or length > MOST_SAMPLES:
        return range(length) if length <= SAMPLES else spread
    _seed()
    size = sum(len(part) for index in spread for part in _bytes(dataset[index]))
    return range(length) if size * length <= MOST_READ * len(spread) else spread


def _read(dataset: Any, indices: Sequence[int]) -> str:
    _seed()
    return _digest(dataset[index] for index in indices)


def _digest(samples: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for sample in samples:
        for part in _bytes(sample):
            digest.update(f"{len(part)} ".encode())
            digest.update(part)
    return digest.hexdigest()


def _seed() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (third-party transforms may draw from it)
    torch.manual_seed(0)


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
        raise UnknownDataError(f"its samples hold a {type(value).__name__}")


_CONVERTED: dict[type, Callable[[Any], bytes]] = {
    bytes: bytes,
    str: lambda text: text.encode("utf-8", "surrogatepass"),
    **{kind: lambda value: repr(value).encode() for kind in (int, float, bool, type(None))},
}
