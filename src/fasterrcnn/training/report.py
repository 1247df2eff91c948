"""What a person is told while a run goes on: its expected time, a moving line, a line for each epoch."""

import sys
import time
from collections.abc import Callable
from typing import Any

from pytorch_lightning import Callback, Trainer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from fasterrcnn.training.module import LOSSES, TrainingModule
from fasterrcnn.training.record import Row

_SKIPPED, _TIMED = 3, 8
"""The first steps choose kernels and are slow; the next ones tell how long the run will take."""


class Report(Callback):
    """Tells how a run goes.

    Args:
        tell: takes a line of text.
        epochs: of the run.
        pictures: of an epoch.
        val_pictures: of a validation.
        bar: show a moving line on the terminal.
    """

    def __init__(
        self, tell: Callable[[str], None], *, epochs: int, pictures: int, val_pictures: int, bar: bool
    ) -> None:
        self.tell = tell
        self.epochs = epochs
        self.pictures = pictures
        self.val_pictures = val_pictures
        self._bar = Progress(*_COLUMNS) if bar else None
        self._task = TaskID(0)
        self._seen = 0
        self._begun = time.monotonic()
        self._of_epoch = time.monotonic()
        self._steps = 0

    def on_train_start(self, trainer: Trainer, module: TrainingModule) -> None:  # type: ignore[override]
        """Show the line."""
        if self._bar is not None and trainer.is_global_zero:
            self._bar.start()
            self._task = self._bar.add_task("starting", total=self.epochs * int(trainer.num_training_batches))

    def on_train_epoch_start(self, trainer: Trainer, module: TrainingModule) -> None:  # type: ignore[override]
        """Measure the speed of each epoch."""
        self._of_epoch, self._steps = time.monotonic(), 0

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: TrainingModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        """Move the line; after the first steps, say how long the run will take."""
        if not trainer.is_global_zero:
            return
        self._seen += 1
        self._steps += 1
        per_epoch = int(trainer.num_training_batches)
        if self._seen == _SKIPPED:
            self._begun = time.monotonic()
        if self._seen == _SKIPPED + _TIMED:
            left = (self.epochs - trainer.current_epoch) * per_epoch - batch_index
            each = (time.monotonic() - self._begun) / _TIMED
            validation = (self.epochs - trainer.current_epoch) * self.val_pictures / self.pictures * per_epoch / 2
            self.tell(f"expected time: {_duration(each * (left + validation))} (measured on the first steps)")
        if self._bar is not None:
            losses = " ".join(f"{n} {value:.3f}" for n, value in zip(LOSSES, module.losses.tolist(), strict=True))
            speed = self._steps * self.pictures / per_epoch / max(1e-9, time.monotonic() - self._of_epoch)
            text = f"epoch {trainer.current_epoch + 1}/{self.epochs} {losses} {speed:.1f} images/s {_memory()}"
            self._bar.update(
                self._task, description=text, completed=trainer.current_epoch * per_epoch + batch_index + 1
            )

    def epoch(self, row: Row) -> None:
        """A line for an epoch that is done."""
        parts = [f"epoch {row['epoch']:.0f}/{self.epochs}: loss {row['total']:.3f}"]
        if "val_total" in row:
            parts.append(f"validation {row['val_total']:.3f}")
            parts.append(f"AP {row['ap']:.3f}, AP50 {row['ap50']:.3f}")
        parts.append(_duration(row["seconds"]))
        parts.append(f"{self.pictures / max(1e-9, row['seconds']):.1f} images/s")
        parts.append(_memory())
        left = (self.epochs - row["epoch"]) * row["seconds"]
        self.tell(", ".join(parts) + (f", {_duration(left)} left" if left else ""))

    def teardown(self, trainer: Trainer, module: TrainingModule, stage: str) -> None:  # type: ignore[override]
        """Take the line away."""
        if self._bar is not None:
            self._bar.stop()


_COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _memory() -> str:
    """Memory of this process, in GiB."""
    import torch  # noqa: PLC0415

    if torch.cuda.is_available():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of the GPU"
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return "memory unknown"
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.1f} GiB"
