"""The training loop: steps, epochs, validation loss."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fasterrcnn.config import TrainConfig
from fasterrcnn.data.dataset import BatchLoader, DetectionDataset
from fasterrcnn.data.records import Record
from fasterrcnn.errors import TrainingError
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.structures import Losses
from fasterrcnn.training.recipe import epoch_batches, freeze_trained_norms, make_optimizer, rate_at


@dataclass(frozen=True)
class Progress:
    """Where a run is, after a step.

    Attributes:
        epoch: from 1.
        step: from 1, over the whole run.
        steps: of the whole run.
        losses: of this step's batch, by name.
        learning_rate: of the heads.
    """

    epoch: int
    step: int
    steps: int
    losses: dict[str, float]
    learning_rate: float


@dataclass(frozen=True)
class EpochResult:
    """What an epoch gave.

    Attributes:
        epoch: from 1.
        losses: means over the training batches, by name.
        val_losses: means over the validation batches; empty without a validation split.
        learning_rate: of the heads, at the end.
        seconds: that the epoch took, validation included.
    """

    epoch: int
    losses: dict[str, float]
    val_losses: dict[str, float]
    learning_rate: float
    seconds: float


def train(
    model: FasterRCNN,
    examples: DetectionDataset,
    val_examples: DetectionDataset | None,
    config: TrainConfig,
    device: torch.device,
    on_step: Callable[[Progress], None],
) -> Iterator[EpochResult]:
    """Run the epochs of a configuration; what was learnt so far is in the model after each result.

    Raises:
        ImageError: a picture cannot be decoded; the message names it and says what to do.
        TrainingError: a loss is not finite; the message has the losses, the step and the pictures.
    """
    trained_norms = freeze_trained_norms(model)
    optimizer = make_optimizer(model, config)
    full_rates = [group["lr"] for group in optimizer.param_groups]
    shuffling = torch.Generator().manual_seed(config.seed)
    sampling = torch.Generator().manual_seed(config.seed)
    per_epoch = len(epoch_batches(examples.records, config.batch_size, torch.Generator()))
    steps = per_epoch * config.epochs
    workers = config.workers if config.workers is not None else default_workers(device)
    loader = BatchLoader(examples, workers)
    val_loader = BatchLoader(val_examples, workers) if val_examples is not None else None
    step = 0
    for epoch in range(1, config.epochs + 1):
        started = time.monotonic()
        model.train()
        for norm in trained_norms:
            norm.eval()
        batches = epoch_batches(examples.records, config.batch_size, shuffling)
        history = []
        for indices, (batch, targets) in zip(batches, loader.load(batches, epoch), strict=True):
            for group, full in zip(optimizer.param_groups, full_rates, strict=True):
                group["lr"] = full * rate_at(step, steps, config)
            step += 1
            losses = model.losses(batch.to(device), [t.to(device) for t in targets], generator=sampling)
            values = losses.as_floats()
            _check_finite(values, step, [examples.records[i] for i in indices])
            _update(model, optimizer, losses, config.clip_norm)
            history.append(values)
            on_step(Progress(epoch, step, steps, values, config.learning_rate * rate_at(step, steps, config)))
        _check_weights(model, epoch)
        val_losses = validate(model, val_loader, config, device) if val_loader is not None else {}
        rate = config.learning_rate * rate_at(step, steps, config)
        yield EpochResult(epoch, _mean(history), val_losses, rate, time.monotonic() - started)


@torch.no_grad()
def validate(model: FasterRCNN, loader: BatchLoader, config: TrainConfig, device: torch.device) -> dict[str, float]:
    """Mean losses over a data set, with the same random draws every time."""
    model.eval()
    sampling = torch.Generator().manual_seed(config.seed)
    batches = epoch_batches(loader.examples.records, config.batch_size, torch.Generator().manual_seed(0))
    history = [
        model.losses(batch.to(device), [t.to(device) for t in targets], generator=sampling).as_floats()
        for batch, targets in loader.load(batches)
    ]
    return _mean(history)


def default_workers(device: torch.device) -> int:
    """Processes that load pictures: none where they would take the cores from the network."""
    return 0 if device.type == "cpu" else 4


def _update(model: FasterRCNN, optimizer: torch.optim.Optimizer, losses: Losses, clip_norm: float) -> None:
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(losses.total)
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()


def _check_finite(losses: dict[str, float], step: int, records: Sequence[Record]) -> None:
    if not all(torch.isfinite(torch.tensor(list(losses.values())))):
        shown = ", ".join(f"{name} {value:g}" for name, value in losses.items())
        files: list[Path] = [record.path for record in records]
        raise TrainingError(
            f"a loss is not finite at step {step}: {shown}; pictures: {', '.join(map(str, files))}; "
            "lower the learning rate, or look at the boxes of these pictures"
        )


def _check_weights(model: FasterRCNN, epoch: int) -> None:
    """The losses come before the last update of an epoch; what is saved comes after it."""
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise TrainingError(f"{name} is not finite after epoch {epoch}; lower the learning rate")


def _mean(history: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in history) / len(history) for name in history[0]}
