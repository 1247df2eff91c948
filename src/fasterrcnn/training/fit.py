"""`fit`: from a folder of annotated pictures to a checkpoint."""

import csv
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from fasterrcnn import build, presets
from fasterrcnn.config import ModelConfig, TrainConfig
from fasterrcnn.data.dataset import DetectionDataset
from fasterrcnn.data.records import WHOLE, AnnotatedData
from fasterrcnn.data.voc import read_voc
from fasterrcnn.errors import UsageError
from fasterrcnn.inference.detector import choose_device
from fasterrcnn.training.loop import EpochResult, Progress, train
from fasterrcnn.training.run_folder import check_output, make_folder
from fasterrcnn.weights import native, pretrained

Say = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """A finished training run.

    Attributes:
        path: its folder, with config.yaml, metrics.csv and last.safetensors.
        metrics: of the last epoch: losses by name, validation losses with "val_" before the name.
    """

    path: Path
    metrics: dict[str, float]

    @property
    def last(self) -> Path:
        """The checkpoint of the last epoch."""
        return self.path / "last.safetensors"


def fit(
    data: str | Path,
    *,
    model: str | ModelConfig = "resnet50-fpn",
    output: str | Path | None = None,
    progress: bool = False,
    say: Say | None = None,
    **options: Any,
) -> Run:
    """Fine-tune a detector on annotated pictures.

    Args:
        data: a Pascal VOC folder.
        model: name of a preset, or a configuration (its classes are replaced by the data's).
        output: folder of the run, which must not exist or be empty; default is ``runs/<data>-<model>``, numbered.
        progress: show a bar on the terminal.
        say: called with each line worth telling, for example `print`.
        **options: fields of `fasterrcnn.config.TrainConfig`: epochs, batch_size, learning_rate, weights...

    Raises:
        UsageError: an option is of no use; the message says which.
        DataError: the data set cannot be read; the message lists every file.
        WeightsError: the start weights are not there or do not fit.
        TrainingError: a loss is not finite. The checkpoint of the last whole epoch stays.
    """
    tell = say or (lambda line: None)
    preset = presets.get(model) if isinstance(model, str) else model
    config = _train_config(data=str(data), model=preset.preset, **options)
    preset = _with_input_size(preset, config)
    annotated = read_voc(Path(data))
    tell(annotated.summary())
    for problem in annotated.problems:
        tell(f"note: {problem}")
    model_config = _start(preset.with_classes(annotated.classes), config.weights)
    examples, val_examples = _examples(annotated, config, model_config)
    wanted = None if output is None else Path(output)
    check_output(wanted)
    with torch.random.fork_rng():  # fresh layers are random: the seed decides, and the caller's generator is kept
        torch.manual_seed(config.seed)
        network = build.build_model(model_config, weights=config.weights)
    if config.weights is not None:
        network.backbone.freeze(config.freeze_stages)
    device = choose_device(config.device)
    network.to(device)
    run = make_folder(wanted, re.sub(r"[^\w.-]+", "-", f"{Path(data).resolve().name}-{config.model}"))
    settings = {"train": config.model_dump(mode="json"), "model": model_config.model_dump(mode="json")}
    (run / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    metrics: dict[str, float] = {}
    with _progress_bar(progress) as on_step:
        for result in train(network, examples, val_examples, config, device, on_step):
            metrics = _metrics(result)
            _append(run / "metrics.csv", metrics)
            notes = {"data": annotated.root.name, "epoch": result.epoch, "start": config.weights}
            native.save(run / "last.safetensors", network, model_config, notes)
            tell(_line(result, config.epochs))
    return Run(run, metrics)


def _train_config(**values: Any) -> TrainConfig:
    try:
        return TrainConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        known = f"; there are {', '.join(TrainConfig.model_fields)}" if first["type"] == "extra_forbidden" else ""
        raise UsageError(f"{name}: {first['msg']} (given: {first['input']!r}){known}") from None


def _start(preset: ModelConfig, weights: str | None) -> ModelConfig:
    """The preset with the norms that suit the start weights.

    Random networks need norms that learn, and those of a small batch say little about a single picture: group norm
    (Wu and He 2018), but for timm's networks, which keep their batch norms.
    """
    if weights is not None:
        return pretrained.numerics_of(preset, weights)
    norm = "batch" if preset.backbone.trunk.startswith("timm:") else "group"
    return preset.model_copy(update={"backbone": preset.backbone.model_copy(update={"norm": norm})})


def _with_input_size(preset: ModelConfig, config: TrainConfig) -> ModelConfig:
    """The preset with the run's own input size; the long side follows the short one if it is not said."""
    if config.short_side is None and config.long_side is None:
        return preset
    old = preset.input
    short = config.short_side or old.short_side
    long = config.long_side or max(short, round(old.long_side * short / old.short_side))
    return preset.model_copy(update={"input": old.model_copy(update={"short_side": short, "long_side": long})})


def _examples(
    data: AnnotatedData, config: TrainConfig, model: ModelConfig
) -> tuple[DetectionDataset, DetectionDataset | None]:
    """Training and validation examples; none of the latter without pictures that are not trained on."""
    split = config.split or next(name for name in ("train", "trainval", WHOLE, *data.splits) if name in data.splits)
    records = data.split(split)
    val_split = config.val_split or ("val" if "val" in data.splits else None)
    val_records = data.split(val_split) if val_split else []
    seen = {record.path for record in records} & {record.path for record in val_records}
    if seen and config.val_split:
        raise UsageError(f"{len(seen)} pictures are in {split!r} and in {val_split!r}, for example {min(seen)}")
    if seen:
        val_records = []
    if not any(len(record.boxes) for record in records):
        raise UsageError(f"{data.root}: the split {split!r} has no boxes to learn from")
    examples = DetectionDataset(records, model.input, flip=config.flip, seed=config.seed)
    return examples, DetectionDataset(val_records, model.input) if val_records else None


@contextmanager
def _progress_bar(show: bool) -> Iterator[Callable[[Progress], None]]:
    """Gives the callback that moves the bar; without a bar it does nothing."""
    if not show:
        yield lambda now: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with ProgressBar(*columns) as bar:
        task = bar.add_task("starting", total=None)

        def on_step(now: Progress) -> None:
            losses = " ".join(f"{name} {value:.3f}" for name, value in now.losses.items())
            bar.update(task, description=f"epoch {now.epoch} {losses}", completed=now.step, total=now.steps)

        yield on_step


def _metrics(result: EpochResult) -> dict[str, float]:
    row: dict[str, float] = {
        "epoch": float(result.epoch),
        "learning_rate": result.learning_rate,
        "seconds": result.seconds,
    }
    row |= result.losses
    row |= {f"val_{name}": value for name, value in result.val_losses.items()}
    return row


def _append(file: Path, row: dict[str, float]) -> None:
    is_new = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, row)
        if is_new:
            writer.writeheader()
        writer.writerow({name: f"{value:.6g}" for name, value in row.items()})


def _line(result: EpochResult, epochs: int) -> str:
    validation = f", validation {result.val_losses['total']:.3f}" if result.val_losses else ""
    return f"epoch {result.epoch}/{epochs}: loss {result.losses['total']:.3f}{validation}, {result.seconds:.0f} s"
