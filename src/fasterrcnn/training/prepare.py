"""What is decided before the first step of a run: its settings, and data, input size, anchors and norms that suit them.

Settings come from a recipe, a YAML file, arguments and assignments.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from pydantic import BaseModel, ValidationError

from fasterrcnn import build, presets
from fasterrcnn.config import EARLIER_BODY, ModelConfig, RecipeName, TrainConfig, changed, with_pixels
from fasterrcnn.data import anchors
from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.data.checks import Repaired, check_and_repair
from fasterrcnn.data.dataset import DetectionDataset
from fasterrcnn.data.findings import shorten_middle
from fasterrcnn.data.formats import DataLike, read_data
from fasterrcnn.data.pixel_range import fit_pixel_range
from fasterrcnn.errors import UsageError
from fasterrcnn.inference.devices import choose_device, has_bf16_tiles, has_fast_bf16
from fasterrcnn.training.data import fingerprint
from fasterrcnn.weights import transfer

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Log = Callable[[str], None]

_MAX_LINES = 10
"""Changes of the data that are logged; data.txt of the run lists all."""

SETTINGS_FILE = "config.yaml"

TRAINING_RECIPES: dict[RecipeName, dict[str, Any]] = {"quick": {"epochs": 8}, "standard": {}, "best": {"epochs": 24}}
"""Settings of each recipe that differ from the defaults of `TrainConfig`."""

_INPUT_SCALES: dict[RecipeName, float] = {"best": 1.3}
"""Input size of a recipe, as a factor of the preset's."""


def resolve(values: Mapping[str, Any], assignments: Sequence[str] = ()) -> TrainConfig:
    """The settings of a run: the given values, then those of the recipe, then the defaults.

    The values are fields of `TrainConfig`; ``model`` may be the name of a preset, or a mapping with ``preset`` and the
    fields that differ from it. Assignments, "a.b=value" in YAML, override them: "model.regions.box_loss=giou". A
    `UsageError` names an invalid value, or the setting that is closest to one that does not exist.
    """
    given: dict[str, Any] = {n: v.model_dump() if isinstance(v, BaseModel) else v for n, v in values.items()}
    if isinstance(given.get("model"), str):
        given["model"] = {"preset": given["model"]}
    for assignment in assignments:
        _assign(given, assignment)
    recipe = given.get("recipe", "standard")
    if isinstance(recipe, str):
        given = {**TRAINING_RECIPES.get(recipe, {}), **given}  # type: ignore[call-overload]
    try:
        given["model"] = _model_config(given.get("model", {}))
        has_size = given.get("short_side") or given.get("long_side")
        if isinstance(recipe, str) and recipe in _INPUT_SCALES and not has_size:
            given["short_side"] = round(given["model"].input.short_side * _INPUT_SCALES[recipe])
        return TrainConfig(**given)
    except ValidationError as error:
        raise UsageError(_explained(error)) from None


def read_settings(path: Path) -> dict[str, Any]:
    """Settings in a YAML file, as `resolve` takes them; a `UsageError` names a file with invalid ones or none."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: no YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UsageError(f"{path}: holds no settings; lines like 'epochs: 12' are needed")
    try:
        resolve({"data": "", "model": "resnet50-fpn", **content})
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return content


def dump_settings(config: TrainConfig) -> str:
    """All settings as YAML for `read_settings`."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _assign(given: dict[str, Any], assignment: str) -> None:
    name, equals, text = assignment.partition("=")
    if not equals or not all(name.split(".")):
        raise UsageError(f"{assignment!r}: give name=value, for example epochs=12 or model.regions.box_loss=giou")
    *path, last = name.split(".")
    place = given
    for part in path:
        inner = place.get(part)
        place[part] = dict(inner) if isinstance(inner, Mapping) else {}
        place = place[part]
    try:
        place[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        place[last] = text
    if isinstance(place[last], str):  # YAML reads 1e-4 as a string
        with suppress(ValueError):
            place[last] = float(text)


def _model_config(given: Any) -> ModelConfig:
    """The preset with the given fields in place of its own."""
    if not isinstance(given, Mapping) or not isinstance(given.get("preset"), str):
        raise UsageError(f"model: name a preset ({', '.join(presets.names())} or timm:<name>)")
    try:
        return ModelConfig.model_validate(_merged(presets.get(given["preset"]).model_dump(), given))
    except ValidationError as error:
        raise UsageError(_explained(error, ModelConfig, "model.")) from None


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in changes.items():
        key = "body" if name == EARLIER_BODY else name
        old = base.get(key)
        merged[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _explained(error: ValidationError, model: type[BaseModel] = TrainConfig, prefix: str = "") -> str:
    """One line about the first error: which setting, what is wrong, and for unknown names the closest one."""
    first, *others = error.errors()
    alternatives = [other for other in others if _of_one_union(first, other)]
    if alternatives:
        first["loc"] = first["loc"][:-1]
        first["msg"] += "".join(f" or {other['msg'].removeprefix('Input should be ')}" for other in alternatives)
    name = prefix + ".".join(str(part) for part in first["loc"])
    if first["type"] == "value_error" and not first["loc"]:  # about several settings; its message names them
        return str(first["ctx"]["error"])
    if first["type"] != "extra_forbidden":
        return f"{name}: {first['msg']} (given: {first['input']!r})"
    for part in first["loc"][:-1]:
        inner = model.model_fields[part].annotation if part in model.model_fields else None
        model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else model
    unknown = str(first["loc"][-1])
    close = difflib.get_close_matches(unknown, model.model_fields, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(model.model_fields)}"
    return f"there is no setting {name!r}: {hint}"


def _of_one_union(first: "ErrorDetails", other: "ErrorDetails") -> bool:
    """Whether two errors are about one value that fits none of several types; pydantic adds the type to the place."""
    place = first["loc"]
    has_type = bool(place) and isinstance(place[-1], str) and not place[-1].isidentifier()
    return has_type and place[:-1] == other["loc"][:-1]


def with_precision(config: TrainConfig, device: torch.device, log: Log) -> TrainConfig:
    """The settings with the number format of the run: "float32", "bf16" or "fp16".

    "auto" takes bfloat16 where every network trains faster with it: on CPUs with AMX, and on cards from compute
    capability 8.0 on. An older card gets float16, any other processor float32.
    """
    wanted = config.precision or ("auto" if device.type == "cuda" else "float32")
    if wanted == "auto":
        if device.type == "cuda":
            wanted = "bf16" if has_fast_bf16(device) else "fp16"
        else:
            wanted = "bf16" if device.type == "cpu" and has_bf16_tiles() else "float32"
        log(f"precision: {wanted}, the fastest on this {'CPU' if device.type == 'cpu' else 'GPU'}")
    return config.model_copy(update={"precision": wanted})


# ---- data, and a model that suits them


@dataclass(frozen=True)
class Setup:
    """A run before its first step."""

    config: TrainConfig  # its settings; the model in it has its classes, anchors and input size
    data: AnnotatedData  # checked and fixed
    changes: list[str]  # what was fixed or left out, one line each
    images: list[AnnotatedImage]  # of the training split
    val_images: list[AnnotatedImage]  # of the validation split; may be empty

    @property
    def dataset(self) -> DetectionDataset:
        """The training images as the network gets them."""
        config = self.config
        return DetectionDataset(self.images, config.model.input, augmentation=config.augmentation, seed=config.seed)

    @property
    def val_dataset(self) -> DetectionDataset:
        """The validation images as the network gets them."""
        return DetectionDataset(self.val_images, self.config.model.input)

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the images and objects of the run."""
        return fingerprint([*self.images, *self.val_images])


def prepare_run(source: DataLike, config: TrainConfig, log: Log) -> Setup:
    """Check the data and complete the settings of a new run.

    Raises:
        UsageError: the settings do not suit the data; the message names the setting.
        DataError: the data set cannot be read, or has errors that the configuration does not allow.
        WeightsError: the start weights do not exist.
    """
    opened = open_data(source, config, log)
    images, val_images = choose_images(opened.data, config)
    if "val" in opened.data.splits and not val_images:
        log("note: no validation, because the split 'val' is empty or shares images with the training split")
    has_objects = any((~image.difficult).any() for image in val_images)
    if val_images and not has_objects:
        log("note: no AP, because no image of the validation split has an object that counts (crowds do not)")
    if config.patience is not None and not has_objects:
        raise UsageError("patience waits for a better AP, which needs a validation split with objects (--val-split)")
    model = with_pixel_range(start_config(opened.data, config), images, log)
    model = with_anchors(model, images, config, log)
    model = with_class_balance(with_scale(model, images), images, config)
    log(_summary(config, model, images))
    config = with_precision(config, choose_device(config.device), log)
    return Setup(config.model_copy(update={"model": model}), opened.data, opened.changes, images, val_images)


def prepare_resumed(source: DataLike, config: TrainConfig, log: Log) -> Setup:
    """As `prepare_run`, for a run whose settings are complete already."""
    opened = open_data(source, config, log)
    config = with_precision(config, choose_device(config.device), log)
    return Setup(config, opened.data, opened.changes, *choose_images(opened.data, config))


def _summary(config: TrainConfig, model: ModelConfig, images: Sequence[AnnotatedImage]) -> str:
    """One line: the main settings of the run."""
    frozen = "the backbone" if config.freeze == "backbone" else f"{config.freeze} stages of the backbone"
    parts = [
        f"{config.epochs} epochs of {len(images)} images, short side {model.input.short_side}",
        f"augmentation {config.augmentation}",
        f"{config.optimizer} at {config.learning_rate:g}",
        f"averaged weights ({config.ema:g})" if config.ema else "no averaged weights",
        f"{frozen} frozen" if config.weights is not None and config.freeze else "nothing frozen",
    ]
    return f"recipe {config.recipe}: {', '.join(parts)}"


def open_data(source: DataLike, config: TrainConfig, log: Log) -> Repaired:
    """Read and check a data set, and log a summary and what was fixed or left out; other errors are a `DataError`."""
    data = source if isinstance(source, AnnotatedData) else read_data(source, **config.reading.model_dump())
    log("\n".join(data.describe()))
    repaired = check_and_repair(data, config.on_bad_box)
    for line in repaired.changes[:_MAX_LINES]:
        log(shorten_middle(f"note: {line}"))
    if len(repaired.changes) > _MAX_LINES:
        log(f"note: and {len(repaired.changes) - _MAX_LINES} more, all in data.txt of the run")
    return repaired


def choose_images(data: AnnotatedData, config: TrainConfig) -> tuple[list[AnnotatedImage], list[AnnotatedImage]]:
    """Training images, and validation images unless their split was not asked for and shares images with the other."""
    split = config.split or data.training_split
    if config.split is None and split in ("val", "test"):
        raise UsageError(
            f"{data.root}: there is no split to train on, only {', '.join(data.splits)}; name it with split (--split)"
        )
    images = data.split(split)
    val_split = config.val_split or ("val" if "val" in data.splits else None)
    val_images = data.split(val_split) if val_split else []
    shared = {image.path for image in images} & {image.path for image in val_images}
    if shared and config.val_split:
        raise UsageError(f"{len(shared)} images are in {split!r} and in {val_split!r}, for example {min(shared)}")
    if not any(len(image.boxes) for image in images):
        raise UsageError(f"{data.root}: the split {split!r} has no boxes to train on")
    return images, [] if shared else val_images


def start_config(data: AnnotatedData, config: TrainConfig) -> ModelConfig:
    """The run's model for the classes of the data, with the run's input size and what suits the start weights.

    A trained detector keeps its anchors, norms, layers and input size, unless a setting differs from the preset's. A
    network with random weights needs trainable norms. Batch statistics of few images are inaccurate, so it gets group
    norms (Wu and He 2018); timm's networks cannot have these and keep their batch norms.
    """
    model = config.model.with_classes(data.classes, data.category_ids)
    if config.weights is not None:
        model = transfer.numerics_of(model, config.weights)
    else:
        model = changed(model, backbone={"norm": "batch" if model.backbone.body.startswith("timm:") else "group"})
    return with_pixels(_with_input_size(model, config), config.pixel_range, config.bands)


def with_anchors(model: ModelConfig, images: Sequence[AnnotatedImage], config: TrainConfig, log: Log) -> ModelConfig:
    """The model with the anchors of the run: fitted to its objects, the preset's, or those of a file.

    The default is to fit them, but a trained detector as start weights keeps its own, which the model has already.
    """
    choice = config.anchors or ("auto" if config.weights in ("imagenet", None) else None)
    own, preset = model.anchors, config.model.anchors
    if choice in (None, "preset"):
        if (own.sizes, own.ratios) == (preset.sizes, preset.ratios):
            return model
        log("anchors: those of the preset" if choice else "anchors: those of the start weights")
        return model.model_copy(update={"anchors": preset}) if choice else model
    if choice != "auto":
        return model.model_copy(update={"anchors": anchors.read_anchors(Path(choice))})
    fitted = anchors.fit_anchors(
        anchors.input_boxes(images, model.input),
        own,
        build.anchor_strides(model),
        labels=anchors.input_labels(images),
        seed=config.seed,
    )
    log(fitted.line())
    return model.model_copy(update={"anchors": fitted.anchors})


def with_pixel_range(model: ModelConfig, images: Sequence[AnnotatedImage], log: Log) -> ModelConfig:
    """The model with the range of the values of its training images, unless it has one or they have 8 bits."""
    if model.input.pixel_range is not None:
        return model
    fitted = fit_pixel_range([image.path for image in images], model.input.bands)
    for line in fitted.lines():
        log(line)
    return changed(model, input={"pixel_range": fitted.value_range})


def with_scale(model: ModelConfig, images: Sequence[AnnotatedImage]) -> ModelConfig:
    """The model with the median factor by which its training images are resized; tiles of large images use it later."""
    size = model.input
    factors = [min(size.short_side / min(i.size_hw), size.long_side / max(i.size_hw)) for i in images]
    return changed(model, input={"scale": float(np.median(factors))})


def with_class_balance(model: ModelConfig, images: Sequence[AnnotatedImage], config: TrainConfig) -> ModelConfig:
    """The model with the class loss that `class_balance` asks for.

    Class weights are the inverse square root of the number of objects, scaled to a mean of 1 over all objects;
    background has 1.
    """
    if config.class_balance == "focal" and not model.regions.focal_gamma:
        return changed(model, regions={"focal_gamma": 2.0})
    if config.class_balance == "weights" and model.regions.class_weights is None:
        labels = np.concatenate([image.labels[~image.difficult] for image in images])
        counts = np.bincount(labels, minlength=len(model.classes))
        inverse = 1 / np.sqrt(counts.clip(min=1))
        weights = inverse / (inverse * counts).sum() * counts.sum()
        return changed(model, regions={"class_weights": (*(round(float(weight), 4) for weight in weights), 1.0)})
    return model


def _with_input_size(preset: ModelConfig, config: TrainConfig) -> ModelConfig:
    """The preset with the run's input size; without a long side in the settings, it follows the short side."""
    if config.short_side is None and config.long_side is None:
        return preset
    old = preset.input
    short = config.short_side or old.short_side
    long = config.long_side or max(short, round(old.long_side * short / old.short_side))
    return changed(preset, input={"short_side": short, "long_side": long})
