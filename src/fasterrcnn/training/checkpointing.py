"""Never lose a run: the weights of the last and the best epoch, states to go on from, and stops that save first."""

import hashlib
import io
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, cast

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.plugins.io import CheckpointIO

from fasterrcnn.config import ModelConfig
from fasterrcnn.errors import WeightsError
from fasterrcnn.files import atomic_write, temporary_files, write_bytes
from fasterrcnn.training.module import TrainingModule
from fasterrcnn.training.optimizer import WeightAverage
from fasterrcnn.training.progress import EpochRecord
from fasterrcnn.weights import native
from fasterrcnn.weights.torch_files import read_torch

LAST, BEST = "last.safetensors", "best.safetensors"


class Stopped(Exception):  # noqa: N818 - it is no error
    """The run was asked to stop, and has saved its state.

    Attributes:
        signal: that asked for it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by signal {number}")
        self.signal = number


class KeepWeights(Callback):
    """Writes last.safetensors after each epoch and best.safetensors after each that is the best so far.

    Args:
        run: folder of the run.
        config: of the network.
        average: the weights that are kept.
        record: knows which epoch is the best.
        notes: what the files say about the run.
    """

    def __init__(
        self, run: Path, config: ModelConfig, average: WeightAverage, record: EpochRecord, notes: Mapping[str, Any]
    ) -> None:
        self.run = run
        self.config = config
        self.average = average
        self.record = record
        self.notes = dict(notes)

    def on_train_epoch_end(self, trainer: Trainer, module: TrainingModule) -> None:  # type: ignore[override]
        """Write what the epoch gave."""
        if not trainer.is_global_zero:
            return
        row, best = self.record.rows[-1], self.record.best
        notes = {**self.notes, "epoch": int(row["epoch"])}
        if best is not None:
            notes |= {"ap": round(row["ap"], 6), "ap50": round(row["ap50"], 6)}
        with self.average.applied(module):
            native.save_checkpoint(self.run / LAST, module.model, self.config, notes)
        if best is None or best == row:  # without validation, the last is the best there is
            write_bytes(self.run / BEST, (self.run / LAST).read_bytes())


class KeepState(Callback):
    """Writes states to go on from: now and then, after each epoch, and before a stop that was asked for.

    The last callback of an epoch, so that a state holds what all others have done.

    Args:
        run: folder of the run.
        minutes: between two states; 0 writes one after every step.
    """

    def __init__(self, run: Path, minutes: float) -> None:
        self.run = run
        self.minutes = minutes
        self._written = time.monotonic()
        self._asked = 0
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, module: TrainingModule) -> None:  # type: ignore[override]
        """Listen to the signals that end programs; the engine's own handler would stop without saving."""
        self._written = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_train_batch_start(self, trainer: Trainer, module: TrainingModule, *_: Any) -> None:  # type: ignore[override]
        """Tell the other processes in the step that comes."""
        due = trainer.is_global_zero and time.monotonic() - self._written >= 60 * self.minutes
        module.requests = {"stop": self._asked, "keep": int(due)}

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: TrainingModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        """Keep the state in the middle of an epoch, where all gradients are used up.

        Raises:
            Stopped: that was asked for.
        """
        wanted = module.requests["stop"] or module.requests["keep"]
        is_last = batch_index + 1 == trainer.num_training_batches  # its state is kept when the epoch is closed
        if wanted and not is_last and (batch_index + 1) % trainer.accumulate_grad_batches == 0:
            self._keep(trainer)
            if module.requests["stop"]:
                raise Stopped(module.requests["stop"])

    def on_train_epoch_end(self, trainer: Trainer, module: TrainingModule) -> None:  # type: ignore[override]
        """Keep the state after each epoch.

        Raises:
            Stopped: that was asked for.
        """
        self._keep(trainer)
        if module.requests["stop"] or (self._asked and trainer.world_size == 1):
            raise Stopped(module.requests["stop"] or self._asked)

    def teardown(self, trainer: Trainer, module: TrainingModule, stage: str) -> None:  # type: ignore[override]
        """Give the signals back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _keep(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(path_of(self.run, trainer.global_step))
        self._written = time.monotonic()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:  # twice: at once
            raise KeyboardInterrupt
        self._asked = number


FOLDER = "state"
_MAGIC = b"fasterrcnn state, sha256 "
_KEPT = 2


class StateFiles(CheckpointIO):
    """How Lightning writes and reads the states of a run."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a state: beside its place, flushed, then renamed; then remove those that are too old."""
        with atomic_write(Path(path), shared=True) as temporary, temporary.open("wb") as file:
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
        for old in (*_newest_first(folder)[_KEPT:], *temporary_files(folder)):  # one process writes, so none is its own
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


def newest(run: Path, log: Callable[[str], None]) -> Path | None:
    """The newest state of a run that is whole; damaged ones are told of and passed over."""
    for path in _newest_first(run / FOLDER):
        try:
            StateFiles().load_checkpoint(path)
        except (WeightsError, OSError) as error:
            log(f"note: {error}; the one before is used")
        else:
            return path
    return None


def remove_all(run: Path) -> None:
    """Remove the states of a run that is finished."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!.]*.state"), reverse=True)
