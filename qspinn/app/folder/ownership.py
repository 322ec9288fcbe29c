"""The owner and the checksum of a checkpoint, both written into the file itself."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from dataclasses import asdict, dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO

from qspinn.app.errors import ConfigurationError

# The comment of a zip archive is the last thing in it, and readers of archives skip it.
_END_OF_ARCHIVE = b"PK\x05\x06"
_END_LENGTH = 22
_SEAL = re.compile(rb"qspinn checkpoint (\{[^{}]*\}) sha256:([0-9a-f]{64})\Z")
_LONGEST_SEAL = 1024
_PLAIN = re.compile(r"[\w:.+-]{1,128}", re.ASCII)


class FolderError(ConfigurationError):
    """A folder that a run may not use, or a file in it that it may not use.

    Nothing is written there: the folder belongs to another run, or needs to be inspected.
    """


@dataclass(frozen=True)
class Owner:
    """The run that a file belongs to.

    Attributes:
        config: Hash of the part of the configuration that is recorded.
        data: Fingerprint of the data; None where it is not known.
    """

    config: str
    data: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{64}", str(self.config)):
            raise ValueError(f"config={self.config!r}: expected 64 hexadecimal digits")
        if self.data is not None and not re.fullmatch(_PLAIN, str(self.data)):
            raise ValueError(f"data={self.data!r}: expected letters and digits, or None")

    @classmethod
    def of(cls, config: str, fingerprint: str | None) -> Owner:
        """Make an owner of any fingerprint; one that is not alphanumeric is hashed."""
        if fingerprint is not None and not re.fullmatch(_PLAIN, fingerprint):
            fingerprint = hashlib.sha256(fingerprint.encode("utf-8", "surrogatepass")).hexdigest()
        return cls(config, fingerprint)

    def to_json(self) -> str:
        """Return one line, without braces inside."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Owner:
        """The inverse.

        Raises:
            ValueError: The text is something else.
        """
        try:
            return cls(**json.loads(text))
        except (TypeError, RecursionError) as error:
            raise ValueError(str(error)) from error


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file (no link, pipe or device) for reading.

    Raises:
        OSError: It cannot be opened, or is something else.
    """
    return open(regular_descriptor(path, os.O_RDONLY), "rb")


def read_whole(path: Path, most: int) -> bytes:
    """Read a file like :func:`open_regular`.

    Raises:
        OSError: As above.
        ValueError: It has more than ``most`` bytes.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most} bytes")
    return content


def regular_descriptor(path: Path, flags: int) -> int:
    """Open a file like :func:`open_regular`, with flags of :func:`os.open`.

    Raises:
        OSError: As above.
    """
    for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"):
        flags |= getattr(os, name, 0)
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is no regular file")
    return descriptor


def seal(path: Path, owner: Owner) -> None:
    """Write the owner and a SHA-256 of all bytes behind a checkpoint, as the archive's comment.

    PyTorch does not verify the checksums in its archives when it loads one, so that a changed byte
    would silently become another number.

    Raises:
        ValueError: The file is no archive, or has a comment.
    """
    text = f"qspinn checkpoint {owner.to_json()} sha256:".encode()
    with open(path, "r+b") as file:
        file.seek(-_END_LENGTH, os.SEEK_END)
        end = file.read()
        if not end.startswith(_END_OF_ARCHIVE) or end[-2:] != b"\0\0":
            raise ValueError(f"{path} is no archive without a comment")
        file.seek(-2, os.SEEK_END)
        file.write((len(text) + 64).to_bytes(2, "little") + text)
        file.flush()
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0, os.SEEK_END)
        file.write(digest.encode())


def unseal(path: Path) -> None:
    """Remove the comment of the archive, so that another owner can be written.

    Raises:
        ValueError: The file has none of :func:`seal`.
    """
    with open(path, "r+b") as file:
        found = _SEAL.search(tail := _tail(file))
        if found is None:
            raise ValueError(f"{path} does not say whose checkpoint it is")
        file.seek(found.start() - len(tail), os.SEEK_END)
        file.truncate()
        file.seek(-2, os.SEEK_END)
        file.write(b"\0\0")


def is_sealed(path: Path) -> bool:
    """Whether a file says that it is a checkpoint of a run of qspinn; it may be damaged."""
    try:
        with open_regular(path) as file:
            return _SEAL.search(_tail(file)) is not None
    except OSError:
        return False


def check_checkpoint(path: Path, owner: Owner) -> None:
    """Check that a checkpoint is intact and that the run which resumes from it wrote it.

    Raises:
        FolderError: It is not; names the file and says what to do.
    """
    way_out = f"delete {path} to train anew"
    try:
        with open_regular(path) as file:
            found = _SEAL.search(_tail(file))
            whole = found is not None and _digest(file) == found[2].decode()
    except OSError as error:
        raise FolderError(
            f"{path} cannot be read ({error.strerror or error}): {way_out}"
        ) from error
    if found is None:
        raise FolderError(
            f"{path} does not say which run it is of: it is damaged, or this version of qspinn "
            f"did not write it. Move it away, or {way_out}"
        )
    if not whole:
        raise FolderError(f"{path} is damaged (its SHA-256 is another one): {way_out}")
    try:
        its = Owner.from_json(found[1])
    except ValueError as error:
        raise FolderError(f"{path} does not say which run it is of ({error}): {way_out}") from error
    if its.config != owner.config:
        raise FolderError(f"{path} is a checkpoint of a run of another configuration: {way_out}")
    if its.data is not None and owner.data is not None and its.data != owner.data:
        raise FolderError(f"{path} is a checkpoint of a run on other data: {way_out}")


def _tail(file: IO[bytes]) -> bytes:
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - _LONGEST_SEAL))
    return file.read()


def _digest(file: IO[bytes]) -> str:
    """SHA-256 of all bytes before the one that is written at the end."""
    left = file.seek(0, os.SEEK_END) - 64
    file.seek(0)
    digest = hashlib.sha256()
    while left > 0 and (block := file.read(min(left, 1 << 20))):
        digest.update(block)
        left -= len(block)
    return digest.hexdigest()
