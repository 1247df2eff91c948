"""The record of a run: one row for each epoch, as a table, as curves and for any logger."""

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
from fasterrcnn.training.module import LOSSES, TrainingModule, check_weights
from fasterrcnn.training.validation import draw_comparison

CURVES = "curves.png"
Row = dict[str, float]

_PAUSE = 20.0
"""Seconds between two drawings of the curves, which take one: epochs may be shorter."""


def plain_numbers(row: Mapping[str, float]) -> dict[str, float | None]:
    """A row for JSON, which has no word for numbers that are not finite."""
    return {name: value if math.isfinite(value) else None for name, value in row.items()}


class EpochRecord(Callback):
    """Writes metrics.csv, the images of the validation after each epoch, and now and then curves.png.

    Args:
        run: folder of the run.
        on_epoch: called with each row.

    Attributes:
        rows: one an epoch: epoch, learning_rate, seconds, the four losses and their total, those of the validation with
            "val_" before the name, and its ap, ap50 and ap75.
    """

    def __init__(self, run: Path, on_epoch: Callable[[Row], None]) -> None:
        self.run = run
        self.rows: list[Row] = []
        self._on_epoch = on_epoch
        self._sum = torch.zeros(4, dtype=torch.float64)
        self._batches = 0
        self._earlier = 0.0
        self._started = time.monotonic()
        self._drawn = time.monotonic()

    @property
    def best(self) -> Row | None:
        """The row of the best epoch by AP, the earliest of equals; none before the first validation."""
        best = best_epoch(self.rows)
        return None if best is None else dict(best)

    def on_train_start(self, trainer: Trainer, module: TrainingModule) -> None:  # type: ignore[override]
        """Time counts from here, also in a run that goes on."""
        self._started = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, module: TrainingModule, *_: Any) -> None:  # type: ignore[override]
        """Add up the losses of an epoch."""
        self._sum += module.losses.double().cpu()
        self._batches += 1

    def on_train_epoch_end(self, trainer: Trainer, module: TrainingModule) -> None:  # type: ignore[override]
        """Close the row of the epoch."""
        check_weights(module.model, trainer.current_epoch + 1)
        means = Losses(*(self._sum / max(1, self._batches)).float()).as_floats()
        seconds = self._earlier + time.monotonic() - self._started
        row = {
            "epoch": float(trainer.current_epoch + 1),
            **means,
            **module.measured,
            "learning_rate": max(group["lr"] for group in trainer.optimizers[0].param_groups),
            "seconds": seconds,
        }
        self.rows.append(row)
        self._sum.zero_()
        self._batches, self._earlier, self._started = 0, 0.0, time.monotonic()
        for logger in trainer.loggers:
            logger.log_metrics(row, step=trainer.global_step)
        if trainer.is_global_zero:
            self._write(module)
            self._on_epoch(row)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        seconds = self._earlier + time.monotonic() - self._started
        return {"rows": list(self.rows), "sum": self._sum.clone(), "batches": self._batches, "seconds": seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from it."""
        self.rows, self._sum, self._batches = list(state["rows"]), state["sum"], state["batches"]
        self._earlier = state["seconds"]

    def _write(self, module: TrainingModule) -> None:
        write_bytes(self.run / "metrics.csv", _table(self.rows).encode())
        if time.monotonic() - self._drawn > _PAUSE:
            write_curves(self.rows, self.run / CURVES)
            self._drawn = time.monotonic()
        if module.validation is not None:
            records, found = module.validation.shown()
            buffer = io.BytesIO()
            draw_comparison(records, found, module.model.classes).save(buffer, "JPEG", quality=85)
            write_bytes(self.run / "validation" / f"epoch-{self.rows[-1]['epoch']:03.0f}.jpg", buffer.getbuffer())


def _table(rows: list[Row]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({name: f"{value:.6g}" for name, value in row.items()})
    return text.getvalue()


_SKIPPED, _TIMED = 3, 8
"""The first steps choose kernels and are slow; the next ones tell how long the run will take."""


class Report(Callback):
    """Tells how a run goes.

    Args:
        log: takes a line of text.
        epochs: of the run.
        images: of an epoch.
        val_images: of a validation.
        bar: show a moving line on the terminal.
    """

    def __init__(self, log: Callable[[str], None], *, epochs: int, images: int, val_images: int, bar: bool) -> None:
        self.log = log
        self.epochs = epochs
        self.images = images
        self.val_images = val_images
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
            validation = (self.epochs - trainer.current_epoch) * self.val_images / self.images * per_epoch / 2
            self.log(f"expected time: {_duration(each * (left + validation))} (measured on the first steps)")
        if self._bar is not None:
            losses = " ".join(f"{n} {value:.3f}" for n, value in zip(LOSSES, module.losses.tolist(), strict=True))
            speed = self._steps * self.images / per_epoch / max(1e-9, time.monotonic() - self._of_epoch)
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
        parts.append(f"{self.images / max(1e-9, row['seconds']):.1f} images/s")
        parts.append(_memory())
        left = (self.epochs - row["epoch"]) * row["seconds"]
        self.log(", ".join(parts) + (f", {_duration(left)} left" if left else ""))

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
