"""States of a run to go on from: written whole or not at all, checked when read, never executed.

A state file is one line of text with the SHA-256 of the rest, then what `torch.save` made of Lightning's checkpoint.
The two newest are kept, so that there is one to go back to where the newest is damaged.
"""

import hashlib
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from fasterrcnn.errors import WeightsError
from fasterrcnn.files import unfinished_in, written_by_many
from fasterrcnn.weights.torch_files import read_torch

FOLDER = "state"
_MAGIC = b"fasterrcnn state, sha256 "
_KEPT = 2


class StateFiles(CheckpointIO):
    """How Lightning writes and reads the states of a run."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a state: beside its place, flushed, then renamed; then remove those that are too old."""
        with written_by_many(Path(path)) as unfinished, unfinished.open("wb") as file:
            file.write(_header(hashlib.sha256()))  # its room: what it says comes with the last byte
            payload = _Hashed(file)
            try:
                torch.save(checkpoint, cast(BinaryIO, payload))
            except RuntimeError:
                if payload.failed is not None:  # torch hides it behind an error of its own
                    raise payload.failed from None
                raise
            file.seek(0)
            file.write(_header(payload.sha256))
            file.flush()
            os.fsync(file.fileno())
        folder = Path(path).parent
        for old in (*_newest_first(folder)[_KEPT:], *unfinished_in(folder)):  # one process writes, so none is its own
            old.unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a state; tensors and plain values only, whatever Lightning asks for.

        Raises:
            WeightsError: torn, changed or no state; the message names the file.
        """
        header, _, payload = Path(path).read_bytes().partition(b"\n")
        if header + b"\n" != _header(hashlib.sha256(payload)):
            raise WeightsError(f"{path}: damaged, its content is not what was written")
        try:
            return self._read(payload)
        except WeightsError as error:
            raise WeightsError(f"{path}: no state of a run ({error})") from None

    @staticmethod
    def _read(payload: bytes) -> dict[str, Any]:
        content = read_torch(io.BytesIO(payload), len(payload), skip=False)
        if not isinstance(content, dict):
            raise WeightsError(f"it holds a {type(content).__name__}")
        return content

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a state."""
        Path(path).unlink(missing_ok=True)


class _Hashed(io.RawIOBase):
    """What is written to it goes on to a file and into a checksum: no second copy of a state is held in memory.

    Attributes:
        failed: the first error of writing.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()
        self.failed: BaseException | None = None

    def write(self, part: Any) -> int:
        """Pass it on."""
        try:
            self.sha256.update(part)
            return self.file.write(part)
        except BaseException as error:
            self.failed = self.failed or error
            raise


def _header(sha256: Any) -> bytes:
    return b"%s%s\n" % (_MAGIC, sha256.hexdigest().encode())


def path_of(run: Path, step: int) -> Path:
    """Where the state after a step is kept."""
    return run / FOLDER / f"{step:09}.state"


def newest(run: Path, tell: Callable[[str], None]) -> Path | None:
    """The newest state of a run that is whole; damaged ones are told of and passed over."""
    for path in _newest_first(run / FOLDER):
        try:
            StateFiles().load_checkpoint(path)
        except (WeightsError, OSError) as error:
            tell(f"note: {error}; the one before is used")
        else:
            return path
    return None


def remove_all(run: Path) -> None:
    """Remove the states of a run that is finished."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!.]*.state"), reverse=True)
