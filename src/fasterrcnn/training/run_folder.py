"""The folder of a run: what is written into it when the run begins and when it ends."""

import json
import math
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from fasterrcnn.data.annotations import AnnotatedImage
from fasterrcnn.data.dataset import BatchLoader
from fasterrcnn.data.statistics import Counts
from fasterrcnn.errors import UsageError
from fasterrcnn.files import temporary_files, write_bytes
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.reporting.model_card import ModelCard, TrainingFacts, render_model_card, training_sections
from fasterrcnn.reporting.training_curves import best_epoch, write_curves
from fasterrcnn.training.checkpointing import BEST, LAST
from fasterrcnn.training.data import Process, TrainingBatches
from fasterrcnn.training.prepare import SETTINGS_FILE, Setup, dump_settings
from fasterrcnn.training.progress import CURVES, EpochRow, plain_numbers
from fasterrcnn.training.validation import draw_batch
from fasterrcnn.weights.transfer import LoadReport

_RESULTS = "results.json"  # written when a run is finished, and only then
_START = "start.txt"
_DATA = "data.txt"
_FILES = {
    BEST: "the weights of the epoch with the highest AP; without validation, of the last",
    LAST: "the weights of the last epoch",
    SETTINGS_FILE: "all settings; `fasterrcnn train --config` takes them",
    _DATA: "what was read, what was fixed or left out, and the fingerprint of images and objects",
    _START: "which tensors of the start weights were loaded, which got other rows, which are fresh",
    "environment.json": "software and machine",
    "batches.jpg": "the first batch as the network got it",
    "metrics.csv": "losses, AP, learning rate and seconds of each epoch",
    CURVES: "the same as curves",
    "validation": "after each epoch: found and missed objects and false positives in some validation images",
    "tensorboard": "the same numbers for TensorBoard",
    _RESULTS: "the row of the best epoch",
}
_SETTINGS = (
    *("recipe", "optimizer", "learning_rate", "batch_size", "accumulate"),
    *("augmentation", "class_balance", "freeze", "precision", "seed"),
)
_PACKAGES = ("fasterrcnn", "torch", "torchvision", "pytorch-lightning", "numpy", "timm")
_VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES")


def begin_run(run: Path, setup: Setup, report: LoadReport | None = None) -> None:
    """Write what is decided before the first step; the report is about the start weights."""
    if report is not None:
        write_bytes(run / _START, report.table().encode())
    write_bytes(run / SETTINGS_FILE, dump_settings(setup.config).encode())
    about_data = [*setup.data.describe(), *setup.changes, _fingerprint_line(setup), ""]
    write_bytes(run / _DATA, "\n".join(about_data).encode())
    write_bytes(run / "environment.json", json.dumps(describe_environment(), indent=1).encode())
    batches = TrainingBatches(setup.dataset, setup.config, Process(), 0)
    (batch, targets) = next(BatchLoader(setup.dataset).load(batches.plans(1)[:1]))
    draw_batch(batch, targets, setup.config.model.classes).save(run / "batches.jpg", quality=85)


def check_same_data(run: Path, setup: Setup) -> None:
    """Refuse to resume a run with other data than it began with."""
    if not (run / _DATA).exists():  # killed right after its settings were written
        begin_run(run, setup)
    lines = (run / _DATA).read_text(encoding="utf-8", errors="replace").splitlines()
    # Not the whole text: other versions may word it in another way.
    if _fingerprint_line(setup) not in lines or tuple(setup.data.classes) != setup.config.model.classes:
        raise UsageError(
            f"{setup.data.root}: images or objects have changed since {run} began; start a new run, perhaps "
            f"with --weights {run / LAST}"
        )


def finish_run(run: Path, setup: Setup, rows: list[EpochRow], network: FasterRCNN) -> EpochRow:
    """Write results and model card of a finished run, and return the row of its best epoch."""
    write_curves(rows, run / CURVES)
    result = dict(best_epoch(rows) or rows[-1])
    config = setup.config
    splits = {config.split or setup.data.training_split: setup.images}
    if setup.val_images:
        splits[config.val_split or "val"] = setup.val_images
    data_name = setup.data.root.resolve().name
    facts = TrainingFacts(
        data_name=data_name,
        data_format=setup.data.format,
        splits={name: _split_numbers(images, config.model.classes) for name, images in splits.items()},
        fingerprint=setup.fingerprint,
        weights=config.weights,
        preset=config.model.preset,
        body=config.model.backbone.body,
        settings={name: getattr(config, name) for name in _SETTINGS},
        max_epochs=config.epochs,
        epochs=len(rows),
        seconds=sum(row["seconds"] for row in rows),
        environment=describe_environment(),
        result=result,
        command=shlex.join(["fasterrcnn", "train", data_name, "--config", SETTINGS_FILE]),
        files={name: text for name, text in _FILES.items() if (run / name).exists() or name == _RESULTS},
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
    write_bytes(run / _RESULTS, json.dumps(plain_numbers(result), indent=1).encode())
    return result


def read_result(run: Path) -> EpochRow | None:
    """The row of the best epoch of a finished run; None while it is not finished."""
    if not (run / _RESULTS).is_file():
        return None
    try:
        content: Mapping[str, Any] = json.loads((run / _RESULTS).read_text(encoding="utf-8"))
        return {name: math.nan if value is None else float(value) for name, value in content.items()}
    except (ValueError, TypeError, AttributeError):
        return None  # damaged: the run is resumed from its last state, or from the beginning


def describe_environment() -> dict[str, Any]:
    """Software and machine as plain values for YAML and JSON, without names of people or computers.

    None stands for a package that is not installed, and for memory where it is unknown. The variables are those of the
    environment that change the speed or the device of a run, if they are set.
    """
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "cuda": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    """From the Linux kernel where there is one, else from Python."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def _split_numbers(images: Sequence[AnnotatedImage], classes: Sequence[str]) -> dict[str, int]:
    """The numbers of a split that the model card shows."""
    counts = Counts.of(images, len(classes))
    return {
        "images": counts.images,
        "images without objects": counts.negatives,
        "difficult objects and crowds, not asked for": counts.difficult,
        "boxes": counts.boxes,
        **{f"boxes: {name}": boxes for name, boxes in zip(classes, counts.by_class, strict=True)},
    }


def _fingerprint_line(setup: Setup) -> str:
    return f"fingerprint {setup.fingerprint}"
