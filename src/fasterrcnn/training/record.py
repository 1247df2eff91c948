"""The record of a run: one row for each epoch, as a table, as curves and for any logger."""

import csv
import io
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer

from fasterrcnn.files import write_whole
from fasterrcnn.structures import Losses
from fasterrcnn.training.curves import best_row, draw_curves
from fasterrcnn.training.module import TrainingModule, check_weights
from fasterrcnn.training.pictures import draw_comparison

CURVES = "curves.png"
Row = dict[str, float]

_PAUSE = 20.0
"""Seconds between two drawings of the curves, which take one: epochs may be shorter."""


def plain_numbers(row: Mapping[str, float]) -> dict[str, float | None]:
    """A row for JSON, which has no word for numbers that are not finite."""
    return {name: value if math.isfinite(value) else None for name, value in row.items()}


class EpochRecord(Callback):
    """Writes metrics.csv, the pictures of the validation after each epoch, and now and then curves.png.

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
        best = best_row(self.rows)
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
        write_whole(self.run / "metrics.csv", _table(self.rows).encode())
        if time.monotonic() - self._drawn > _PAUSE:
            draw_curves(self.rows, self.run / CURVES)
            self._drawn = time.monotonic()
        if module.validation is not None:
            records, found = module.validation.shown()
            buffer = io.BytesIO()
            draw_comparison(records, found, module.model.classes).save(buffer, "JPEG", quality=85)
            write_whole(self.run / "validation" / f"epoch-{self.rows[-1]['epoch']:03.0f}.jpg", buffer.getbuffer())


def _table(rows: list[Row]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({name: f"{value:.6g}" for name, value in row.items()})
    return text.getvalue()
