"""The weights of the last and the best epoch, states to resume from, and signals that save a state before they stop.

Files of a run that is killed at any moment are whole: each is written beside its place and then renamed.
"""

import hashlib
import io
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, cast

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.plugins.io import CheckpointIO

from fasterrcnn.errors import WeightsError
from fasterrcnn.files import atomic_write, temporary_files, write_bytes
from fasterrcnn.training.module import TrainingModule
from fasterrcnn.training.optimizer import WeightAverage
from fasterrcnn.training.prepare import Setup
from fasterrcnn.training.progress import EpochRecord
from fasterrcnn.weights import native
from fasterrcnn.weights.safe_read import read_torch

LAST, BEST = "last.safetensors", "best.safetensors"
STATES = "state"
"""Folder of the states in the folder of a run."""

_MAGIC = b"fasterrcnn state, sha256 "
_KEPT_STATES = 2
_CHEAP = 0.5
"""Seconds: states that take no longer are written after each epoch, however short."""
_SHARE = 20
"""Other states are written after an epoch when so many times the seconds they take have passed."""


class Stopped(Exception):  # noqa: N818 - it is no error
    """A signal asked the run to stop, and its state is saved; `signal` is its number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by signal {number}")
        self.signal = number


class SaveWeights(Callback):
    """Writes last.safetensors after each epoch, and best.safetensors after each one that is the best so far.

    The averaged weights are saved, with notes about the data, the start and the epoch.
    """

    def __init__(self, run: Path, setup: Setup, average: WeightAverage, record: EpochRecord) -> None:
        self.run = run
        self.config = setup.config
        self.data_name = setup.data.root.name
        self.average = average
        self.record = record

    def on_train_epoch_end(self, trainer: Trainer, module: TrainingModule) -> None:  # type: ignore[override]
        """Write the weights of the epoch."""
        if not trainer.is_global_zero:
            return
        row, best = self.record.rows[-1], self.record.best
        notes: dict[str, Any] = {"data": self.data_name, "start": self.config.weights, "epoch": int(row["epoch"])}
        if best is not None:
            notes |= {"ap": round(row["ap"], 6), "ap50": round(row["ap50"], 6)}
        with self.average.applied(module):
            native.save_checkpoint(self.run / LAST, module.model, self.config.model, notes)
        if best is None or best == row:  # without validation, the last epoch counts as the best
            write_bytes(self.run / BEST, (self.run / LAST).read_bytes())


class SaveState(Callback):
    """Writes states to resume from: every few minutes, after epochs, and before a stop that a signal asked for.

    After each epoch, unless they are so short that writing would take more than a twentieth of the time. It must be
    the last callback of an epoch, so that a state contains what all others have done. With 0 minutes, it writes one
    after every step.
    """

    def __init__(self, run: Path, minutes: float) -> None:
        self.run = run
        self.minutes = minutes
        self._written = time.monotonic()
        self._cost = 0.0  # seconds that the last state took
        self._signal = 0
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, module: TrainingModule) -> None:  # type: ignore[override]
        """Handle SIGINT and SIGTERM; Lightning's own handlers would stop without saving."""
        self._written = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            self._handlers = {n: signal.signal(n, self._on_signal) for n in (signal.SIGINT, signal.SIGTERM)}

    def on_train_batch_start(self, trainer: Trainer, module: TrainingModule, *_: Any) -> None:  # type: ignore[override]
        """Request a state or a stop; the next step shares the request with the other processes."""
        due = trainer.is_global_zero and time.monotonic() - self._written >= 60 * self.minutes
        module.requests = {"stop": self._signal, "save": int(due)}

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: TrainingModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        """Write a requested state within an epoch, after a step of the optimizer, when no gradients are accumulated."""
        requested = module.requests["stop"] or module.requests["save"]
        is_last = batch_index + 1 == trainer.num_training_batches  # its state is written at the end of the epoch
        if requested and not is_last and (batch_index + 1) % trainer.accumulate_grad_batches == 0:
            self._save(trainer)
            if module.requests["stop"]:
                raise Stopped(module.requests["stop"])

    def on_train_epoch_end(self, trainer: Trainer, module: TrainingModule) -> None:  # type: ignore[override]
        """Write the state after an epoch that was long enough for it."""
        stop = module.requests["stop"] or (self._signal if trainer.world_size == 1 else 0)
        elapsed = trainer.strategy.broadcast(time.monotonic() - self._written)  # all processes decide the same
        if stop or module.requests["save"] or self._cost < _CHEAP or elapsed >= _SHARE * self._cost:
            self._save(trainer)
        if stop:
            raise Stopped(stop)

    def teardown(self, trainer: Trainer, module: TrainingModule, stage: str) -> None:  # type: ignore[override]
        """Restore the signal handlers of before."""
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _save(self, trainer: Trainer) -> None:
        started = time.monotonic()
        trainer.save_checkpoint(state_path(self.run, trainer.global_step))
        self._written = time.monotonic()
        self._cost = trainer.strategy.broadcast(self._written - started)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal:  # the second signal stops at once
            raise KeyboardInterrupt
        self._signal = number


def state_path(run: Path, step: int) -> Path:
    """The file of the state after a step."""
    return run / STATES / f"{step:09}.state"


def newest_state(run: Path, log: Callable[[str], None]) -> Path | None:
    """The newest undamaged state of a run; damaged ones are logged and skipped."""
    for path in _newest_first(run / STATES):
        try:
            StateFiles().load_checkpoint(path)
        except (WeightsError, OSError) as error:
            log(f"note: {error}; the one before is used")
        else:
            return path
    return None


def remove_states(run: Path) -> None:
    """Remove the states of a finished run."""
    shutil.rmtree(run / STATES, ignore_errors=True)


class StateFiles(CheckpointIO):
    """How Lightning writes and reads the states of a run: torch's format after a line with its SHA-256."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a state, then remove the oldest ones."""
        with atomic_write(Path(path), shared=True) as temporary, temporary.open("wb") as file:
            file.write(_header(hashlib.sha256()))  # a placeholder of the same length
            payload = _HashedFile(file)
            try:
                torch.save(checkpoint, cast(BinaryIO, payload))
            except RuntimeError:
                if payload.error is not None:  # torch replaces it with an error of its own
                    raise payload.error from None
                raise
            file.seek(0)
            file.write(_header(payload.sha256))
            file.flush()
            os.fsync(file.fileno())
        folder = Path(path).parent
        # Only one process writes states, so temporary files are those of killed processes.
        for old in (*_newest_first(folder)[_KEPT_STATES:], *temporary_files(folder)):
            old.unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a state, tensors and plain values only; a `WeightsError` names a file that is damaged or no state."""
        header, _, payload = Path(path).read_bytes().partition(b"\n")
        if header + b"\n" != _header(hashlib.sha256(payload)):
            raise WeightsError(f"{path}: damaged, its content is not what was written")
        try:
            state = read_torch(io.BytesIO(payload), len(payload), skip=False)
            if not isinstance(state, dict):
                raise WeightsError(f"it holds a {type(state).__name__}")
        except WeightsError as error:
            raise WeightsError(f"{path}: no state of a run ({error})") from None
        return _upgraded(state)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a state."""
        Path(path).unlink(missing_ok=True)


class _HashedFile(io.RawIOBase):
    """Passes what is written on to a file and into a checksum, so that no second copy of a state is held in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()
        self.error: BaseException | None = None  # the first one of writing

    def write(self, part: Any) -> int:
        """Write the bytes."""
        try:
            self.sha256.update(part)
            return self.file.write(part)
        except BaseException as error:
            self.error = self.error or error
            raise


def _header(sha256: Any) -> bytes:
    return b"%s%s\n" % (_MAGIC, sha256.hexdigest().encode())


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!.]*.state"), reverse=True)


def _upgraded(state: dict[str, Any]) -> dict[str, Any]:
    """The state with today's names of parameters and modules."""
    state["trained_norms"] = [native.upgrade_key(name) for name in state.get("trained_norms", [])]
    average = state.get("callbacks", {}).get(WeightAverage.__qualname__, {})
    for holder, part in ((state, "state_dict"), (average, "average")):
        holder[part] = {native.upgrade_key(name): value for name, value in holder.get(part, {}).items()}
    return state
