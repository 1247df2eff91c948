"""The folder of a run: what is written into it when it begins and when it ends."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fasterrcnn.config import TrainConfig
from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.data.dataset import BatchLoader, DetectionDataset
from fasterrcnn.data.statistics import Counts
from fasterrcnn.errors import UsageError
from fasterrcnn.files import temporary_files, write_bytes
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.reporting.model_card import ModelCard, TrainingFacts, render_model_card, training_sections
from fasterrcnn.reporting.training_curves import best_epoch, write_curves
from fasterrcnn.training import environment, settings
from fasterrcnn.training.checkpointing import BEST, LAST
from fasterrcnn.training.data import Process, TrainingBatches
from fasterrcnn.training.progress import CURVES, plain_numbers
from fasterrcnn.training.validation import draw_batch
from fasterrcnn.weights.transfer import LoadReport

RESULTS = "results.json"
"""Written when a run is finished, and only then."""

START = "start.txt"

_SETTINGS = (
    "recipe",
    "optimizer",
    "learning_rate",
    "batch_size",
    "accumulate",
    "augmentation",
    "class_balance",
    "freeze",
    "precision",
    "seed",
)

_FILES = {
    BEST: "the weights of the epoch with the highest AP; without validation, of the last",
    LAST: "the weights of the last epoch",
    settings.FILE: "all settings; `fasterrcnn train --config` takes them",
    "data.txt": "what was read, what was fixed or left out, and the fingerprint of images and objects",
    START: "which tensors of the start weights were loaded, which got other rows, which are fresh",
    "environment.json": "software and machine",
    "batches.jpg": "the first batch as the network saw it",
    "metrics.csv": "losses, AP, learning rate and seconds of each epoch",
    CURVES: "the same, drawn",
    "validation": "after each epoch: what was found, missed and invented in some validation images",
    "tensorboard": "the same numbers for TensorBoard",
    RESULTS: "the row of the best epoch",
}


@dataclass(frozen=True)
class Setup:
    """All that a run was decided to be.

    Attributes:
        config: its settings; the model in it has its classes, anchors and input size.
        data: checked and fixed.
        changes: what was fixed or left out, for people.
        records: images to learn from.
        val_records: images to measure on; perhaps none.
    """

    config: TrainConfig
    data: AnnotatedData
    changes: list[str]
    records: list[AnnotatedImage]
    val_records: list[AnnotatedImage]

    @property
    def examples(self) -> DetectionDataset:
        """The training images as the network sees them."""
        config = self.config
        return DetectionDataset(self.records, config.model.input, augmentation=config.augmentation, seed=config.seed)

    @property
    def val_examples(self) -> DetectionDataset:
        """The validation images, as detection sees them."""
        return DetectionDataset(self.val_records, self.config.model.input)

    @cached_property
    def fingerprint(self) -> str:
        """Stands for the images and objects of the run."""
        return environment.fingerprint([*self.records, *self.val_records])


def begin(run: Path, setup: Setup, report: LoadReport | None = None) -> None:
    """Write what is known before the first step; the report says what became of the start weights."""
    if report is not None:
        write_bytes(run / START, report.table().encode())
    write_bytes(run / settings.FILE, settings.dump(setup.config).encode())
    write_bytes(run / "data.txt", _about_data(setup).encode())
    write_bytes(run / "environment.json", json.dumps(environment.describe(), indent=1).encode())
    batches = TrainingBatches(setup.examples, setup.config, Process(), 0)
    (batch, targets) = next(BatchLoader(setup.examples).load(batches.plans(1)[:1]))
    draw_batch(batch, targets, setup.config.model.classes).save(run / "batches.jpg", quality=85)


def check_same_data(run: Path, setup: Setup) -> None:
    """Refuse data that are not those that the run began with.

    Raises:
        UsageError: they are not.
    """
    if not (run / "data.txt").exists():  # it came no further than its settings
        begin(run, setup)
    if (run / "data.txt").read_text(encoding="utf-8", errors="replace") != _about_data(setup):
        raise UsageError(
            f"{setup.data.root}: images or objects have changed since {run} began; start a new run, perhaps "
            f"with --weights {run / LAST}"
        )


def finish(run: Path, setup: Setup, rows: list[dict[str, float]], network: FasterRCNN) -> dict[str, float]:
    """Write results and model card of a run that is done, and give the row of its best epoch."""
    write_curves(rows, run / CURVES)
    result = dict(best_epoch(rows) or rows[-1])
    config = setup.config
    splits = {config.split or setup.data.training_split: setup.records}
    if setup.val_records:
        splits[config.val_split or "val"] = setup.val_records
    facts = TrainingFacts(
        data_name=setup.data.root.resolve().name,
        data_format=setup.data.format,
        splits={name: _split_numbers(records, config.model.classes) for name, records in splits.items()},
        fingerprint=setup.fingerprint,
        weights=config.weights,
        preset=config.model.preset,
        settings={name: getattr(config, name) for name in _SETTINGS},
        max_epochs=config.epochs,
        epochs=len(rows),
        seconds=sum(row["seconds"] for row in rows),
        environment=environment.describe(),
        result=result,
        command=_command(setup),
        files={name: text for name, text in _FILES.items() if (run / name).exists() or name == RESULTS},
    )
    card = ModelCard(
        name=run.resolve().name,
        preset=config.model.preset,
        classes=config.model.classes,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        short_side=config.model.input.short_side,
        long_side=config.model.input.long_side,
        address=BEST,
        sections=training_sections(facts),
    )
    for temporary in temporary_files(run):
        temporary.unlink(missing_ok=True)  # of processes that were killed while they wrote
    write_bytes(run / "README.md", render_model_card(card).encode())
    write_bytes(run / RESULTS, json.dumps(plain_numbers(result), indent=1).encode())
    return result


def result_of(run: Path) -> dict[str, float] | None:
    """The row of the best epoch of a finished run; None while it is not finished."""
    if not (run / RESULTS).is_file():
        return None
    try:
        content: Mapping[str, Any] = json.loads((run / RESULTS).read_text(encoding="utf-8"))
        return {name: math.nan if value is None else float(value) for name, value in content.items()}
    except (ValueError, TypeError, AttributeError):
        return None  # damaged: the run goes on from its last state, or from the beginning


def _split_numbers(records: Sequence[AnnotatedImage], classes: Sequence[str]) -> dict[str, int]:
    """The numbers of a split that the model card shows."""
    counts = Counts.of(records, len(classes))
    return {
        "images": counts.images,
        "images without objects": counts.negatives,
        "difficult objects and crowds, not asked for": counts.difficult,
        "boxes": counts.boxes,
        **{f"boxes: {name}": boxes for name, boxes in zip(classes, counts.by_class, strict=True)},
    }


def _about_data(setup: Setup) -> str:
    lines = [setup.data.summary(), *setup.changes, f"fingerprint {setup.fingerprint}"]
    return "\n".join([*lines, ""])


def _command(setup: Setup) -> str:
    """The command that repeats the run, from its own file of settings."""
    return shlex.join(["fasterrcnn", "train", setup.data.root.resolve().name, "--config", settings.FILE])
