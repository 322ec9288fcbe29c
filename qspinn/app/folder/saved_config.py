"""The configuration in the folder of a run, which identifies the owner of the folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf

from qspinn.app.folder.ownership import FolderError, Owner, read_whole
from qspinn.atomic import write_bytes
from qspinn.records import config_hash

MOST_BYTES = 1 << 22
DEEPEST = 64
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the first is ten times faster
_START = b"# Written by qspinn "
_HEADER = re.compile(rb"# Written by qspinn (\{[^{}\n]*\}) sha256:([0-9a-f]{64})\n")
# Keys that every configuration of train.py has.
_GROUPS = ("data", "network", "learning", "trainer", "quantization", "seed")


@dataclass(frozen=True)
class SavedConfig:
    """The content of a ``config.yaml``.

    Attributes:
        path: Of the file.
        content: Its bytes.
        owner: The run that the folder belongs to; None in files of qspinn before it wrote them.
    """

    path: Path
    content: bytes
    owner: Owner | None

    def values(self) -> dict[str, Any]:
        """Parse the configuration, the slowest part of reading it.

        Raises:
            FolderError: It is none.
        """
        try:
            values = _plain(self.content)
            if not _is_ours(values):
                raise ValueError("it is no configuration of a run")
            config_hash(values)
            return dict(values)
        except ValueError as error:
            raise _unusable(self.path, error) from error


def write_saved_config(path: Path, values: Mapping[str, Any], owner: Owner) -> None:
    """Write a configuration, with its owner and a SHA-256 of the rest in its first line."""
    start = _START + owner.to_json().encode() + b" sha256:"
    body = OmegaConf.to_yaml(dict(values)).encode()
    digest = hashlib.sha256(start + body).hexdigest().encode()
    write_bytes(start + digest + b"\n" + body, path)


def is_saved_config(path: Path) -> bool:
    """Whether a file says that qspinn wrote it, or holds what qspinn wrote before it said so."""
    try:
        content = read_whole(path, MOST_BYTES)
        return content.startswith(_START) or _is_ours(_plain(content))
    except (OSError, ValueError):
        return False


def read_saved_config(path: Path) -> SavedConfig:
    """Read a configuration.

    Raises:
        FolderError: It cannot be read, or has changed since it was written.
    """
    try:
        content = read_whole(path, MOST_BYTES)
        owner = None
        if content.startswith(_START):
            header = _HEADER.match(content)
            if header is None:
                raise ValueError("its first line is damaged")
            body = content[header.end() :]
            start = content[: header.start(2)]
            if hashlib.sha256(start + body).hexdigest().encode() != header[2]:
                raise ValueError("it has changed since it was written")
            owner = Owner.from_json(header[1])
        return SavedConfig(path, content, owner)
    except (OSError, ValueError) as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> FolderError:
    reason = str(getattr(error, "strerror", None) or error).strip().partition("\n")[0]
    return FolderError(
        f"{path} cannot be used ({reason}), and says which run the checkpoint beside it is of: "
        f"delete {path} and {path.parent / 'checkpoints' / 'last.ckpt'} to train anew, or write "
        "hydra.run.dir=FOLDER with another folder"
    )


def _plain(content: bytes) -> Any:
    """Parse YAML of plain types: no tags, nothing that grows or that is very deep."""
    try:
        text = content.decode("utf-8")
        depth = 0
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("it has aliases")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > DEEPEST:
                raise ValueError(f"it is nested more than {DEEPEST} deep")
        made = OmegaConf.create(text)  # numbers are read as Hydra reads them
        return OmegaConf.to_container(made)
    except ValueError:
        raise
    except Exception as error:  # of the parser, of OmegaConf: many kinds
        raise ValueError(f"it is no YAML: {error}") from error


def _is_ours(values: Any) -> bool:
    return isinstance(values, dict) and all(name in values for name in _GROUPS)
