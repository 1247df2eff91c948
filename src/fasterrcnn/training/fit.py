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
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from fasterrcnn import build, presets
from fasterrcnn.config import ModelConfig
from fasterrcnn.data.dataset import DetectionDataset
from fasterrcnn.data.folders import check_output, make_folder
from fasterrcnn.data.formats import Source
from fasterrcnn.data.records import AnnotatedData
from fasterrcnn.inference.detector import choose_device
from fasterrcnn.training import prepare
from fasterrcnn.training.loop import EpochResult, Progress, train
from fasterrcnn.weights import native


@dataclass(frozen=True)
class Run:
    """A finished training run.

    Attributes:
        path: its folder, with config.yaml, data.txt (what was mended or left out), metrics.csv and last.safetensors.
        metrics: of the last epoch: losses by name, validation losses with "val_" before the name.
    """

    path: Path
    metrics: dict[str, float]

    @property
    def last(self) -> Path:
        """The checkpoint of the last epoch."""
        return self.path / "last.safetensors"


def fit(
    data: Source,
    *,
    model: str | ModelConfig = "resnet50-fpn",
    output: str | Path | None = None,
    progress: bool = False,
    say: prepare.Say | None = None,
    **options: Any,
) -> Run:
    """Fine-tune a detector on annotated pictures.

    Args:
        data: a folder or file in COCO, Pascal VOC, YOLO or CSV layout, a list of dicts, or what `read_data` gave.
        model: name of a preset, or a configuration (its classes are replaced by the data's).
        output: folder of the run, which must not exist or be empty; default is ``runs/<data>-<model>``, numbered.
        progress: show a bar on the terminal.
        say: called with each line worth telling, for example `print`.
        **options: fields of `fasterrcnn.config.TrainConfig`: epochs, batch_size, augmentation, weights...

    Raises:
        UsageError: an option is of no use; the message says which.
        DataError: the data set cannot be read, or has errors that `on_bad_box` does not allow; the message lists them.
        WeightsError: the start weights are not there or do not fit.
        TrainingError: a loss is not finite. The checkpoint of the last whole epoch stays.
    """
    tell = say or (lambda line: None)
    preset = presets.get(model) if isinstance(model, str) else model
    config = prepare.train_config(data=_name_of(data), model=preset.preset, **options)
    opened = prepare.open_data(data, config, tell)
    annotated = opened.data
    records, val_records = prepare.choose_records(annotated, config)
    if "val" in annotated.splits and not val_records:
        tell("note: no validation, for the split 'val' has pictures that are learnt from, or none")
    model_config = prepare.start_config(preset, annotated, config)
    model_config = prepare.with_anchors(model_config, records, config, tell)
    examples = DetectionDataset(records, model_config.input, augmentation=config.augmentation, seed=config.seed)
    val_examples = DetectionDataset(val_records, model_config.input) if val_records else None
    wanted = None if output is None else Path(output)
    check_output(wanted)
    with torch.random.fork_rng():  # fresh layers are random: the seed decides, and the caller's generator is kept
        torch.manual_seed(config.seed)
        network = build.build_model(model_config, weights=config.weights)
    if config.weights is not None:
        network.backbone.freeze(config.freeze_stages)
    device = choose_device(config.device)
    network.to(device)
    run = make_folder(wanted, re.sub(r"[^\w.-]+", "-", f"{annotated.root.resolve().name}-{config.model}"))
    settings = {"train": config.model_dump(mode="json"), "model": model_config.model_dump(mode="json")}
    (run / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    (run / "data.txt").write_text("\n".join([annotated.summary(), *opened.changes, ""]), encoding="utf-8")
    metrics: dict[str, float] = {}
    with _progress_bar(progress) as on_step:
        for result in train(network, examples, val_examples, config, device, on_step):
            metrics = _metrics(result)
            _append(run / "metrics.csv", metrics)
            notes = {"data": annotated.root.name, "epoch": result.epoch, "start": config.weights}
            native.save(run / "last.safetensors", network, model_config, notes)
            tell(_line(result, config.epochs))
    return Run(run, metrics)


def _name_of(data: Source) -> str:
    if isinstance(data, str | Path):
        return str(data)
    return str(data.root) if isinstance(data, AnnotatedData) else f"list of {len(data)} pictures"


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
