"""Which files in a folder a run of qspinn wrote: only those are deleted or written over.

The files of a run identify themselves, so that none is recognised by its name alone.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection
from pathlib import Path

from qspinn.app.folder.ownership import FolderError, is_sealed, open_regular
from qspinn.app.folder.saved_config import is_saved_config
from qspinn.export.container import MODEL_NAME
from qspinn.records import (
    FAILURE_NAME,
    GATE_NAME,
    RECORD_NAME,
    RecordError,
    read_failure,
    read_gate_report,
    read_record,
)

PICTURES = (
    "weights.png",
    "confusion_matrix.png",
    "ptq_weights.png",
    "ptq_confusion_matrix.png",
    "events.gif",
    "spikes.png",
    "membranes.png",
)
CHECKPOINTS = "checkpoints"
LAST_CHECKPOINT = "last.ckpt"
OUTPUT_START = "Output of qspinn\n"
_BEGINNING = 4096


def check_files(folder: Path) -> None:
    """Check that a run may write its files into a folder.

    Raises:
        FolderError: A file or folder by such a name was not written by a run of qspinn.
    """
    _files(folder)


def delete_files(folder: Path, keep: Collection[Path] = ()) -> None:
    """Delete what runs have left in a folder but for what is to be kept, and nothing else.

    Raises:
        FolderError: As above; nothing is deleted then.
    """
    files = _files(folder)
    checkpoints = folder / CHECKPOINTS
    if checkpoints.is_dir():
        more = [path for path in checkpoints.glob("*.ckpt") if is_sealed(path)]
        files += [path for path in more if path not in files]
    # Other programs look for the record, and the configuration says to which run the rest belongs.
    first, last = folder / RECORD_NAME, folder / "config.yaml"
    for path in sorted(files, key=lambda path: (path != first, path == last)):
        if path not in keep:
            path.unlink()
    if checkpoints.is_dir() and not any(checkpoints.iterdir()):
        checkpoints.rmdir()


def sweep_up(folder: Path) -> None:
    """Delete temporary files that a killed run has left."""
    names = [*_PROOFS, LAST_CHECKPOINT]
    known = "|".join(re.escape(name) for name in names)
    wandb_id = folder / "wandb_run_id.txt"
    if os.path.lexists(wandb_id) and _is_regular(wandb_id) and wandb_id.stat().st_size == 0:
        wandb_id.unlink()
    temporary = re.compile(rf"\.({known})(\.[0-9a-f]{{32}})?\.tmp")
    for place in (folder, folder / CHECKPOINTS):
        if not place.is_dir() or place.is_symlink():
            continue
        for path in list(place.iterdir()):
            if temporary.fullmatch(path.name) and _is_regular(path):
                path.unlink(missing_ok=True)


def is_writable(path: Path) -> bool:
    """Whether a run may write the file by this name: there is none, or a run wrote it."""
    return not os.path.lexists(path) or (_is_regular(path) and _PROOFS[path.name](path))


def _files(folder: Path) -> list[Path]:
    """The files of runs in a folder.

    Raises:
        FolderError: One by the name of such a file is something else.
    """
    checkpoints = folder / CHECKPOINTS
    if os.path.lexists(checkpoints) and not stat.S_ISDIR(os.lstat(checkpoints).st_mode):
        raise _foreign(checkpoints, "it is no folder")
    is_old = _is_old_run(folder)
    found = []
    proofs = {folder / name: proof for name, proof in _PROOFS.items()}
    for path, proof in {**proofs, checkpoints / LAST_CHECKPOINT: is_sealed}.items():
        if not os.path.lexists(path):
            continue
        if not _is_regular(path):
            raise _foreign(path, "it is a link, a folder or no regular file")
        if not is_old and not proof(path):
            raise _foreign(path, "it does not say that qspinn wrote it, or is damaged")
        found.append(path)
    return found


def _foreign(path: Path, reason: str) -> FolderError:
    return FolderError(
        f"{path} is not what a run of qspinn writes there ({reason}), and is left alone; delete "
        "the file or move it away (fresh=true does not touch it either), or write "
        "hydra.run.dir=FOLDER with another folder"
    )


def _is_old_run(folder: Path) -> bool:
    """Whether a version of qspinn wrote the run whose files did not say so."""
    config = folder / "config.yaml"
    return is_saved_config(config) and not _beginning(config).startswith(b"# Written by qspinn ")


def _is_regular(path: Path) -> bool:
    return stat.S_ISREG(os.lstat(path).st_mode)


def _beginning(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read(_BEGINNING)
    except OSError:
        return b""


def _reads_as(read: Callable[[Path], object]) -> Callable[[Path], bool]:
    def proof(path: Path) -> bool:
        try:
            read(path)
        except RecordError:
            return False
        return True

    return proof


def _starts_with(*starts: bytes) -> Callable[[Path], bool]:
    return lambda path: _beginning(path).startswith(starts)


def _is_picture(path: Path) -> bool:
    return b"qspinn" in _beginning(path)


def _is_model(path: Path) -> bool:
    return b'","format":"qspinn-device-model","' in _beginning(path)[:256]


def _is_output(path: Path) -> bool:
    # Earlier versions wrote no first line: of a run that failed before it began, only this is left.
    of_failed = _PROOFS[FAILURE_NAME](path.with_name(FAILURE_NAME))
    is_empty = path.stat().st_size == 0
    return is_empty or _beginning(path).startswith(OUTPUT_START.encode()) or of_failed


def _is_wandb_id(path: Path) -> bool:
    return re.fullmatch(rb"([\w-]{1,128}\n)?", _beginning(path)) is not None


_PROOFS: dict[str, Callable[[Path], bool]] = {
    RECORD_NAME: _reads_as(read_record),
    FAILURE_NAME: _reads_as(read_failure),
    GATE_NAME: _reads_as(read_gate_report),
    "config.yaml": is_saved_config,
    "metrics.csv": _starts_with(b"epoch,step\n", b"epoch,step,"),
    "output.txt": _is_output,
    "wandb_run_id.txt": _is_wandb_id,
    MODEL_NAME: _is_model,
    **dict.fromkeys(PICTURES, _is_picture),
}
