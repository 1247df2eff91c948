"""What a run needs before its first step: checked data, the input size, norms and anchors that suit both."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fasterrcnn import build
from fasterrcnn.config import ModelConfig, TrainConfig
from fasterrcnn.data import anchor_fit
from fasterrcnn.data.doctor import Repaired, admit
from fasterrcnn.data.formats import Source, read_data
from fasterrcnn.data.records import AnnotatedData, Record
from fasterrcnn.errors import UsageError
from fasterrcnn.weights import pretrained

Say = Callable[[str], None]

_LINES = 20  # told about the data; the run's folder has all


def train_config(**values: Any) -> TrainConfig:
    """The settings of a run.

    Raises:
        UsageError: a value is of no use, or there is no such setting; the message lists those that exist.
    """
    try:
        return TrainConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        known = f"; there are {', '.join(TrainConfig.model_fields)}" if first["type"] == "extra_forbidden" else ""
        raise UsageError(f"{name}: {first['msg']} (given: {first['input']!r}){known}") from None


def open_data(source: Source, config: TrainConfig, tell: Say) -> Repaired:
    """Read and check a data set, and tell what it is and what was mended or left out.

    Raises:
        DataError: it cannot be read, or has errors that the configuration does not allow.
    """
    data = read_data(source)
    tell(data.summary())
    repaired = admit(data, config.on_bad_box)
    for line in repaired.changes[:_LINES]:
        tell(f"note: {line}")
    if len(repaired.changes) > _LINES:
        tell(f"note: and {len(repaired.changes) - _LINES} more, all in data.txt of the run")
    return repaired


def choose_records(data: AnnotatedData, config: TrainConfig) -> tuple[list[Record], list[Record]]:
    """Training and validation pictures; none of the latter without pictures that are not trained on.

    Raises:
        UsageError: a split does not exist, shares pictures with the other, or has nothing to learn from.
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
        raise UsageError(f"{len(seen)} pictures are in {split!r} and in {val_split!r}, for example {min(seen)}")
    if not any(len(record.boxes) for record in records):
        raise UsageError(f"{data.root}: the split {split!r} has no boxes to learn from")
    return records, [] if seen else val_records


def start_config(preset: ModelConfig, data: AnnotatedData, config: TrainConfig) -> ModelConfig:
    """The preset for the classes of the data, with the run's input size and the norms that suit the start weights.

    Random networks need norms that learn, and those of a small batch say little about a single picture: group norm
    (Wu and He 2018), but for timm's networks, which keep their batch norms.
    """
    model = _with_input_size(preset, config).with_classes(data.classes, data.category_ids)
    if config.weights is not None:
        return pretrained.numerics_of(model, config.weights)
    norm = "batch" if model.backbone.trunk.startswith("timm:") else "group"
    return model.model_copy(update={"backbone": model.backbone.model_copy(update={"norm": norm})})


def with_anchors(model: ModelConfig, records: Sequence[Record], config: TrainConfig, tell: Say) -> ModelConfig:
    """The model with the anchors that the run asks for: fitted to its objects, the preset's, or those of a file.

    Raises:
        UsageError: the file is no description of anchors.
    """
    wanted = config.anchors or ("auto" if config.weights in ("imagenet", None) else "preset")
    if wanted == "preset":
        return model
    if wanted != "auto":
        return model.model_copy(update={"anchors": anchor_fit.read_anchors(Path(wanted))})
    fit = anchor_fit.fit_anchors(
        anchor_fit.input_boxes(records, model.input),
        model.anchors,
        build.anchor_strides(model),
        labels=anchor_fit.input_labels(records),
        seed=config.seed,
    )
    tell(fit.line())
    return model.model_copy(update={"anchors": fit.anchors})


def _with_input_size(preset: ModelConfig, config: TrainConfig) -> ModelConfig:
    """The preset with the run's own input size; the long side follows the short one if it is not said."""
    if config.short_side is None and config.long_side is None:
        return preset
    old = preset.input
    short = config.short_side or old.short_side
    long = config.long_side or max(short, round(old.long_side * short / old.short_side))
    return preset.model_copy(update={"input": old.model_copy(update={"short_side": short, "long_side": long})})
