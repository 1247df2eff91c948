"""`fit`: from a folder of annotated images to a checkpoint."""

import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import EarlyStopping

from fasterrcnn import build
from fasterrcnn.config import ModelConfig
from fasterrcnn.data.annotations import AnnotatedData
from fasterrcnn.data.formats import Source
from fasterrcnn.errors import UsageError
from fasterrcnn.files import check_output, make_folder
from fasterrcnn.inference.devices import choose_device
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.training import checkpointing, engine, prepare, run_folder, settings
from fasterrcnn.training.checkpointing import BEST, LAST, KeepState, KeepWeights, Stopped
from fasterrcnn.training.data import Process, TrainingBatches, ValidationBatches
from fasterrcnn.training.feature_cache import CachedViews
from fasterrcnn.training.keep_features import KeepFeatures, announce, caches_of
from fasterrcnn.training.module import TrainingModule
from fasterrcnn.training.optimizer import WeightAverage
from fasterrcnn.training.progress import EpochRecord, Report, Row
from fasterrcnn.training.run_folder import Setup
from fasterrcnn.training.validation import Validation
from fasterrcnn.weights.transfer import LoadReport

_FOLDER = "FASTERRCNN_RUN"
"""Environment variable by which processes that this one starts learn the folder of the run."""


@dataclass(frozen=True)
class Run:
    """A finished training run.

    Attributes:
        path: its folder; README.md in it says what all the files are.
        metrics: of the best epoch (the last, without validation): losses by name, validation losses with "val_" before
            the name, and "ap", "ap50", "ap75".
    """

    path: Path
    metrics: dict[str, float]

    @property
    def best(self) -> Path:
        """The checkpoint of the epoch with the highest AP; of the last, without validation."""
        return self.path / BEST

    @property
    def last(self) -> Path:
        """The checkpoint of the last epoch."""
        return self.path / LAST


@dataclass(frozen=True)
class Listeners:
    """Who is told what, while a run goes on.

    Attributes:
        log: takes lines of text.
        on_epoch: takes the row of each epoch.
        bar: show a moving line on the terminal.
    """

    log: prepare.Say
    on_epoch: Callable[[Row], None]
    bar: bool


def fit(
    data: Source | None = None,
    *,
    model: str | ModelConfig | Mapping[str, Any] | None = None,
    output: str | Path | None = None,
    resume: str | Path | None = None,
    config: str | Path | None = None,
    assignments: Sequence[str] = (),
    progress: bool = False,
    log: prepare.Say | None = None,
    on_epoch: Callable[[Row], None] | None = None,
    **options: Any,
) -> Run:
    """Fine-tune a detector on annotated images.

    Args:
        data: a folder or file in COCO, Pascal VOC, YOLO or CSV layout, a list of dicts, or what `read_data` gave.
        model: name of a preset (default "resnet50-fpn"), or a configuration; its classes are replaced by the data's.
        output: folder of the run, which must not exist or be empty; default is ``runs/<data>-<model>``, numbered.
        resume: folder of a run to go on with, exactly where its newest state is; all else is as it was then.
        config: YAML file with fields of `fasterrcnn.config.TrainConfig`; arguments go before it.
        assignments: "a.b=value" for any field, before all else: "model.regions.box_loss=giou".
        progress: show a moving line on the terminal.
        log: called with each line worth telling, for example `print`.
        on_epoch: called with the numbers of each epoch.
        **options: fields of `fasterrcnn.config.TrainConfig`: recipe, epochs, batch_size, augmentation, weights...

    Raises:
        UsageError: an option is of no use; the message says which.
        DataError: the data set cannot be read, or has errors that `on_bad_box` does not allow; the message lists them.
        WeightsError: the start weights are not there or do not fit.
        TrainingError: a loss is not finite. The checkpoints and states that were written stay.
        KeyboardInterrupt: Ctrl-C; the state was saved, and `resume` goes on from it. (SystemExit for SIGTERM.)
    """
    given = {**options, **({} if model is None else {"model": model})}
    logged = Listeners(log or _silence, on_epoch or _silence, progress)
    if resume is not None:
        if given or assignments or config is not None or output is not None:
            raise UsageError("resume goes on with the settings of the run; leave all others out, or start a new run")
        return _resume(data, Path(resume), logged)
    named = {} if data is None else {"data": _name_of(data)}
    said: dict[str, Any] = {**(settings.read(Path(config)) if config is not None else {}), **given, **named}
    if "data" not in said:
        raise UsageError("data: name a folder or a file with annotated images")
    chosen = settings.resolve({"model": "resnet50-fpn", **said}, assignments)
    process = engine.this_process(chosen)
    logged = logged if process.rank == 0 else Listeners(_silence, _silence, False)
    run = _wanted_folder(output, process)
    setup = prepare.prepare(data if data is not None else chosen.data, chosen, logged.log)
    if process.rank == 0:
        check_output(run)
    network, report = _start(setup, logged.log)
    device = choose_device(chosen.device)
    engine.check(chosen, device)
    caches = _caches(setup, network, logged)
    if process.rank == 0:
        run = make_folder(run, re.sub(r"[^\w.-]+", "-", f"{setup.data.root.resolve().name}-{chosen.model.preset}"))
        run_folder.begin(run, setup, report)
    assert run is not None
    return _train(run, setup, network, caches, device, process, logged, None)


def _resume(data: Source | None, run: Path, logged: Listeners) -> Run:
    """Go on with a run."""
    chosen = settings.resolve(settings.read(run / settings.FILE))
    process = engine.this_process(chosen)
    logged = logged if process.rank == 0 else Listeners(_silence, _silence, False)
    finished = run_folder.result_of(run)
    if finished is not None and (run / BEST).is_file() and (run / LAST).is_file():
        logged.log(f"{run} is finished; there is nothing to go on with")
        return Run(run, finished)
    setup = prepare.reopen(data if data is not None else chosen.data, chosen, logged.log)
    if process.rank == 0:
        run_folder.check_same_data(run, setup)
    newest = checkpointing.newest(run, logged.log)
    logged.log(f"going on from {newest}" if newest else "no state to go on from; the run begins anew")
    network = _start(setup, logged.log)[0] if newest is None else build.assemble(chosen.model)
    caches = _caches(setup, network, logged)
    return _train(run, setup, network, caches, choose_device(chosen.device), process, logged, newest)


def _start(setup: Setup, log: prepare.Say) -> tuple[FasterRCNN, LoadReport | None]:
    """The network before its first step: fresh layers are random, the seed decides, the caller's generator is kept."""
    with torch.random.fork_rng():
        torch.manual_seed(setup.config.seed)
        network, report = build.start_model(setup.config.model, setup.config.weights)
    for line in report.lines() if report is not None else []:
        log(line)
    return network, report


def _train(
    run: Path,
    setup: Setup,
    network: FasterRCNN,
    caches: Sequence[CachedViews],
    device: torch.device,
    process: Process,
    logged: Listeners,
    newest: Path | None,
) -> Run:
    """Run the epochs that are left."""
    config = setup.config
    workers = config.workers if config.workers is not None else default_workers(device)
    known = [cache.load for cache in caches]
    batches = TrainingBatches(setup.examples, config, process, workers, *known[:1])
    validation, val_batches = None, None
    if setup.val_records:
        validation = Validation(setup.data, setup.val_examples, process)
        val_batches = ValidationBatches(setup.val_examples, config.batch_size, process, workers, *known[1:])
    steps = -(-len(batches) // config.accumulate) * config.epochs
    module = TrainingModule(network, config, setup.records, steps, validation).train()
    report = Report(
        logged.log, epochs=config.epochs, images=len(setup.records), val_images=len(setup.val_records), bar=logged.bar
    )
    average = WeightAverage(config.ema)

    def close_epoch(row: Row) -> None:
        report.epoch(row)
        logged.on_epoch(row)

    record = EpochRecord(run, close_epoch)
    notes = {"data": setup.data.root.name, "start": config.weights}
    features = KeepFeatures(caches, config, process, val_batches, bar=logged.bar)
    callbacks = [features, average, record, KeepWeights(run, config.model, average, record, notes), report]
    if config.patience is not None:
        # Not at the end of an epoch, where it would come after the state was kept.
        callbacks.append(EarlyStopping("ap", patience=config.patience, mode="max", check_on_train_epoch_end=False))
    callbacks.append(KeepState(run, config.checkpoint_minutes))
    with _stops(run, logged):
        logger = engine.make_logger(config.logger, run, logged.log) if process.rank == 0 else False
        trainer = engine.make_trainer(config, device, process, run, callbacks, logger)
        trainer.fit(module, batches, val_batches, ckpt_path=newest)
    if process.rank > 0:
        return Run(run, dict(record.best or record.rows[-1]))
    result = run_folder.finish(run, setup, record.rows, network)
    checkpointing.remove_all(run)
    return Run(run, result)


@contextmanager
def _stops(run: Path, logged: Listeners) -> Iterator[None]:
    """The engine runs quietly, its processes find the folder, and what asked it to stop gets what it expects."""
    os.environ[_FOLDER] = str(run)
    try:
        with engine.quiet(), torch.random.fork_rng():
            yield
    except Stopped as stopped:
        logged.log(f"stopped; go on with: fasterrcnn train --resume {run}")
        if stopped.signal == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + stopped.signal) from None
    finally:
        os.environ.pop(_FOLDER, None)


def _caches(setup: Setup, network: FasterRCNN, logged: Listeners) -> list[CachedViews]:
    """The caches of a run, announced, if it asks for them."""
    caches = caches_of(setup, network)
    if caches:
        logged.log(announce(caches, setup.config.cache_limit))
    return caches


def default_workers(device: torch.device) -> int:
    """Processes that load images: none where they would take the cores from the network."""
    return 0 if device.type == "cpu" else 4


def _wanted_folder(output: str | Path | None, process: Process) -> Path | None:
    """The folder that was asked for; None where a free one is to be found.

    Raises:
        UsageError: several processes were started from outside, and could not agree.
    """
    if _FOLDER in os.environ and process.rank > 0:
        return Path(os.environ[_FOLDER])
    if output is None and process.world > 1 and process.rank > 0:
        raise UsageError("several processes need one folder: name it with output (--output)")
    return None if output is None else Path(output)


def _name_of(data: Source) -> str:
    if isinstance(data, str | Path):
        return str(data)
    return str(data.root) if isinstance(data, AnnotatedData) else f"list of {len(data)} images"


def _silence(_: object) -> None:
    """Tells nobody."""
