"""What a run needs before its first step: checked data, the input size, norms and anchors that suit both."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fasterrcnn import build
from fasterrcnn.config import ModelConfig, TrainConfig
from fasterrcnn.data import anchors
from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.data.checks import Repaired, admit
from fasterrcnn.data.formats import Source, read_data
from fasterrcnn.errors import UsageError
from fasterrcnn.training.run_folder import Setup
from fasterrcnn.weights import transfer

Say = Callable[[str], None]

_LINES = 20  # told about the data; the run's folder has all


def prepare(source: Source, config: TrainConfig, log: Say) -> Setup:
    """Decide all that can be decided before the first step.

    Raises:
        UsageError: the settings do not suit the data; the message says which.
        DataError: the data set cannot be read, or has errors that the configuration does not allow.
        WeightsError: the start weights are not there.
    """
    opened = open_data(source, config, log)
    records, val_records = choose_records(opened.data, config)
    if "val" in opened.data.splits and not val_records:
        log("note: no validation, for the split 'val' has images that are learned from, or none")
    if config.patience is not None and not val_records:
        raise UsageError("patience waits for a better AP, which needs a validation split (--val-split)")
    model = with_anchors(start_config(opened.data, config), records, config, log)
    model = with_class_balance(with_scale(model, records), records, config)
    log(_plan(config, model, records))
    return Setup(config.model_copy(update={"model": model}), opened.data, opened.changes, records, val_records)


def reopen(source: Source, config: TrainConfig, log: Say) -> Setup:
    """As `prepare` for a run whose settings are decided already."""
    opened = open_data(source, config, log)
    return Setup(config, opened.data, opened.changes, *choose_records(opened.data, config))


def _plan(config: TrainConfig, model: ModelConfig, records: Sequence[AnnotatedImage]) -> str:
    """One line: what the recipe came to."""
    frozen = "the backbone" if config.freeze == "backbone" else f"{config.freeze} parts of the backbone"
    parts = [
        f"{config.epochs} epochs of {len(records)} images, short side {model.input.short_side}",
        f"augmentation {config.augmentation}",
        f"{config.optimizer} at {config.learning_rate:g}",
        f"averaged weights ({config.ema:g})" if config.ema else "no averaged weights",
        f"{frozen} frozen" if config.weights is not None and config.freeze else "nothing frozen",
    ]
    return f"recipe {config.recipe}: {', '.join(parts)}"


def open_data(source: Source, config: TrainConfig, log: Say) -> Repaired:
    """Read and check a data set, and tell what it is and what was fixed or left out.

    Raises:
        DataError: it cannot be read, or has errors that the configuration does not allow.
    """
    data = source if isinstance(source, AnnotatedData) else read_data(source, **config.reading.model_dump())
    log(data.summary())
    repaired = admit(data, config.on_bad_box)
    for line in repaired.changes[:_LINES]:
        log(f"note: {line}")
    if len(repaired.changes) > _LINES:
        log(f"note: and {len(repaired.changes) - _LINES} more, all in data.txt of the run")
    return repaired


def choose_records(data: AnnotatedData, config: TrainConfig) -> tuple[list[AnnotatedImage], list[AnnotatedImage]]:
    """Training and validation images; none of the latter without images that are not trained on.

    Raises:
        UsageError: a split does not exist, shares images with the other, or has nothing to learn from.
    """
    split = config.split or data.training_split
    if config.split is None and split in ("val", "test"):
        known = ", ".join(data.splits)
        raise UsageError(f"{data.root}: there is no split to learn from, only {known}; name it with split (--split)")
    records = data.split(split)
    val_split = config.val_split or ("val" if "val" in data.splits else None)
    val_records = data.split(val_split) if val_split else []
    seen = {record.path for record in records} & {record.path for record in val_records}
    if seen and config.val_split:
        raise UsageError(f"{len(seen)} images are in {split!r} and in {val_split!r}, for example {min(seen)}")
    if not any(len(record.boxes) for record in records):
        raise UsageError(f"{data.root}: the split {split!r} has no boxes to learn from")
    return records, [] if seen else val_records


def start_config(data: AnnotatedData, config: TrainConfig) -> ModelConfig:
    """The run's model for the classes of the data, with the run's input size and the norms that suit the start weights.

    Random networks need norms that learn, and those of a small batch say little about a single image: group norm
    (Wu and He 2018), but for timm's networks, which keep their batch norms.
    """
    model = _with_input_size(config.model, config).with_classes(data.classes, data.category_ids)
    if config.weights is not None:
        return transfer.numerics_of(model, config.weights)
    norm = "batch" if model.backbone.body.startswith("timm:") else "group"
    return model.model_copy(update={"backbone": model.backbone.model_copy(update={"norm": norm})})


def with_anchors(model: ModelConfig, records: Sequence[AnnotatedImage], config: TrainConfig, log: Say) -> ModelConfig:
    """The model with the anchors that the run asks for: fitted to its objects, the preset's, or those of a file.

    Raises:
        UsageError: the file is no description of anchors.
    """
    wanted = config.anchors or ("auto" if config.weights in ("imagenet", None) else "preset")
    if wanted == "preset":
        return model
    if wanted != "auto":
        return model.model_copy(update={"anchors": anchors.read_anchors(Path(wanted))})
    fit = anchors.fit_anchors(
        anchors.input_boxes(records, model.input),
        model.anchors,
        build.anchor_strides(model),
        labels=anchors.input_labels(records),
        seed=config.seed,
    )
    log(fit.line())
    return model.model_copy(update={"anchors": fit.anchors})


def with_scale(model: ModelConfig, records: Sequence[AnnotatedImage]) -> ModelConfig:
    """The model that knows by how much its training images were resized: later, tiles of large ones are, too."""
    size = model.input
    factors = [min(size.short_side / min(r.size_hw), size.long_side / max(r.size_hw)) for r in records]
    return model.model_copy(update={"input": size.model_copy(update={"scale": float(np.median(factors))})})


def with_class_balance(model: ModelConfig, records: Sequence[AnnotatedImage], config: TrainConfig) -> ModelConfig:
    """The model with the class loss that the run asks for.

    Class weights are the inverse root of how often a class occurs, their mean over the objects 1; background has 1.
    """
    changes: dict[str, Any] = {}
    if config.class_balance == "focal" and not model.regions.focal_gamma:
        changes["focal_gamma"] = 2.0
    if config.class_balance == "weights" and model.regions.class_weights is None:
        labels = np.concatenate([record.labels[~record.difficult] for record in records])
        counts = np.bincount(labels, minlength=len(model.classes))
        inverse = 1 / np.sqrt(counts.clip(min=1))
        weights = inverse / (inverse * counts).sum() * counts.sum()
        changes["class_weights"] = (*(round(float(weight), 4) for weight in weights), 1.0)
    return model.model_copy(update={"regions": model.regions.model_copy(update=changes)})


def _with_input_size(preset: ModelConfig, config: TrainConfig) -> ModelConfig:
    """The preset with the run's own input size; the long side follows the short one if it is not said."""
    if config.short_side is None and config.long_side is None:
        return preset
    old = preset.input
    short = config.short_side or old.short_side
    long = config.long_side or max(short, round(old.long_side * short / old.short_side))
    return preset.model_copy(update={"input": old.model_copy(update={"short_side": short, "long_side": long})})
