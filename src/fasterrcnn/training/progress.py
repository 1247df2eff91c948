"""The progress of a run: one row of numbers for each epoch, and what is shown on the terminal meanwhile."""

import csv
import io
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from fasterrcnn.files import write_bytes
from fasterrcnn.reporting.training_curves import best_epoch, write_curves
from fasterrcnn.structures import Losses
from fasterrcnn.training.module import TrainingModule, check_weights
from fasterrcnn.training.prepare import Log, Setup
from fasterrcnn.training.validation import draw_comparison

CURVES = "curves.png"
EpochRow = dict[str, float]

_CURVES_INTERVAL = 20.0
"""Seconds between two updates of the curves: drawing takes a second, and epochs may be shorter."""

_MIN_WAITING = 10.0
"""Seconds of an epoch below which nothing is stated about other programs."""

_SKIPPED_STEPS, _TIMED_STEPS = 3, 8
"""The first steps are slow, because kernels are chosen; the next ones are timed for the expected time of the run."""


def plain_numbers(row: Mapping[str, float]) -> dict[str, float | None]:
    """A row for JSON, which cannot express numbers that are not finite."""
    return {name: value if math.isfinite(value) else None for name, value in row.items()}


class EpochRecord(Callback):
    """Writes metrics.csv and the images of the validation after each epoch, and curves.png from time to time.

    The functions that are given are called with each of the `rows`: epoch, learning_rate, seconds, the four losses and
    their total, those of the validation with "val_" before the name, and its ap, ap50 and ap75.
    """

    def __init__(self, run: Path, *on_epoch: Callable[[EpochRow], None]) -> None:
        self.run = run
        self.rows: list[EpochRow] = []
        self._on_epoch = on_epoch
        self._sum = torch.zeros(4, dtype=torch.float64)
        self._batches = 0
        self._earlier_seconds = 0.0
        self._started = time.monotonic()
        self._drawn = time.monotonic()

    @property
    def best(self) -> EpochRow | None:
        """The row of the epoch with the highest AP, the earliest of equals; None before the first validation."""
        best = best_epoch(self.rows)
        return None if best is None else dict(best)

    def on_train_start(self, trainer: Trainer, module: TrainingModule) -> None:  # type: ignore[override]
        """Start the clock, also in a resumed run."""
        self._started = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, module: TrainingModule, *_: Any) -> None:  # type: ignore[override]
        """Add up the losses of an epoch."""
        self._sum += module.losses.double()
        self._batches += 1

    def on_train_epoch_end(self, trainer: Trainer, module: TrainingModule) -> None:  # type: ignore[override]
        """Add the row of the epoch."""
        check_weights(module.model, trainer.current_epoch + 1)
        means = Losses(*(self._sum / max(1, self._batches)).float()).as_floats()
        row = {
            "epoch": float(trainer.current_epoch + 1),
            **means,
            **module.measured,
            "learning_rate": max(group["lr"] for group in trainer.optimizers[0].param_groups),
            "seconds": self._seconds(),
        }
        self.rows.append(row)
        self._sum.zero_()
        self._batches, self._earlier_seconds, self._started = 0, 0.0, time.monotonic()
        for logger in trainer.loggers:
            logger.log_metrics(row, step=trainer.global_step)
        if trainer.is_global_zero:
            self._write(module)
            for function in self._on_epoch:
                function(row)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"rows": list(self.rows), "sum": self._sum.clone(), "batches": self._batches, "seconds": self._seconds()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self.rows, self._sum, self._batches = list(state["rows"]), state["sum"], state["batches"]
        self._earlier_seconds = state["seconds"]

    def _seconds(self) -> float:
        """Time spent on the current epoch, before an interruption included."""
        return self._earlier_seconds + time.monotonic() - self._started

    def _write(self, module: TrainingModule) -> None:
        write_bytes(self.run / "metrics.csv", _csv(self.rows).encode())
        if time.monotonic() - self._drawn > _CURVES_INTERVAL:
            write_curves(self.rows, self.run / CURVES)
            self._drawn = time.monotonic()
        if module.validation is not None:
            images, detections = module.validation.samples()
            buffer = io.BytesIO()
            draw_comparison(images, detections, module.model.classes).save(buffer, "JPEG", quality=85)
            write_bytes(self.run / "validation" / f"epoch-{self.rows[-1]['epoch']:03.0f}.jpg", buffer.getbuffer())


def _csv(rows: list[EpochRow]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({name: f"{value:.6g}" for name, value in row.items()})
    return text.getvalue()


class ProgressReport(Callback):
    """Logs the expected time and a line for each epoch, and shows a progress bar."""

    def __init__(self, log: Log, setup: Setup, *, bar: bool) -> None:
        self._log = log  # Lightning replaces the attribute `log` of every callback by its own function
        self.epochs = setup.config.epochs
        self.images = len(setup.images)
        self.val_images = len(setup.val_images)
        self._bar = Progress(*_COLUMNS) if bar else None
        self._task = TaskID(0)
        self._steps = 0
        self._timing_started = time.monotonic()
        self._epoch_started = time.monotonic()
        self._processor_started = time.process_time()
        self._on_processor = False  # whether the network runs on the CPU
        self._epoch_steps = 0

    def on_train_start(self, trainer: Trainer, module: TrainingModule) -> None:  # type: ignore[override]
        """Show the bar."""
        if self._bar is not None and trainer.is_global_zero:
            self._bar.start()
            self._task = self._bar.add_task("starting", total=self.epochs * int(trainer.num_training_batches))

    def on_train_epoch_start(self, trainer: Trainer, module: TrainingModule) -> None:  # type: ignore[override]
        """Measure the speed of each epoch."""
        self._epoch_started, self._processor_started = time.monotonic(), time.process_time()
        self._epoch_steps, self._on_processor = 0, module.device.type == "cpu"

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: TrainingModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        """Update the bar; after the first steps, log the expected time of the run."""
        if not trainer.is_global_zero:
            return
        self._steps += 1
        self._epoch_steps += 1
        per_epoch = int(trainer.num_training_batches)
        if self._steps == _SKIPPED_STEPS:
            self._timing_started = time.monotonic()
        if self._steps == _SKIPPED_STEPS + _TIMED_STEPS:
            left = (self.epochs - trainer.current_epoch) * per_epoch - batch_index
            seconds = (time.monotonic() - self._timing_started) / _TIMED_STEPS
            # An image costs about half as much in validation as in training.
            validation = (self.epochs - trainer.current_epoch) * self.val_images / self.images * per_epoch / 2
            self._log(f"expected time: {_duration(seconds * (left + validation))} (measured on the first steps)")
        if self._bar is not None:
            losses = " ".join(f"{name} {float(value):.3f}" for name, value in Losses(*module.losses))
            speed = self._epoch_steps * self.images / per_epoch / max(1e-9, time.monotonic() - self._epoch_started)
            text = f"epoch {trainer.current_epoch + 1}/{self.epochs} {losses} {speed:.1f} images/s {_memory()}"
            self._bar.update(
                self._task, description=text, completed=trainer.current_epoch * per_epoch + batch_index + 1
            )

    def log_epoch(self, row: EpochRow) -> None:
        """Log the line of a finished epoch."""
        parts = [f"epoch {row['epoch']:.0f}/{self.epochs}: loss {row['total']:.3f}"]
        if "val_total" in row:
            parts += [f"validation {row['val_total']:.3f}", f"AP {row['ap']:.3f}, AP50 {row['ap50']:.3f}"]
        parts += [_duration(row["seconds"]), f"{self.images / max(1e-9, row['seconds']):.1f} images/s", _memory()]
        left = (self.epochs - row["epoch"]) * row["seconds"]
        self._log(", ".join(parts) + (f", {_duration(left)} left" if left else ""))
        computing = time.process_time() - self._processor_started
        if self._on_processor and is_waiting(time.monotonic() - self._epoch_started, computing):
            self._log(
                f"note: the processor worked on this run for {_duration(computing)} of this epoch only; other programs "
                "use it, or the disk is slow"
            )

    def teardown(self, trainer: Trainer, module: TrainingModule, stage: str) -> None:  # type: ignore[override]
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()


def is_waiting(seconds: float, computing: float) -> bool:
    """Whether a process had less than half of one processor core for some time; so short that it is noise: no."""
    return seconds > _MIN_WAITING and computing < seconds / 2


_COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _memory() -> str:
    """Largest memory of the GPU, or of this process, in GiB."""
    if torch.cuda.is_available():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of the GPU"
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return "memory unknown"
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.1f} GiB"
