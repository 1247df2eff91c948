"""`fit`: from annotated images to a checkpoint, by Lightning's trainer."""

import importlib.util
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning
import torch
from lightning_fabric.plugins.environments import ClusterEnvironment, SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning import Callback, Trainer
from pytorch_lightning import loggers as lightning_loggers
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.strategies import DDPStrategy

from fasterrcnn import build
from fasterrcnn.config import ModelConfig, TrainConfig
from fasterrcnn.data.annotations import AnnotatedData
from fasterrcnn.data.dataset import start_method
from fasterrcnn.data.formats import DataLike
from fasterrcnn.errors import TrainingError, UsageError
from fasterrcnn.files import check_output, make_folder
from fasterrcnn.inference.devices import choose_device, has_fast_bf16, memory_errors_as, processors, tuned_convolutions
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.training import checkpointing, prepare, run_folder
from fasterrcnn.training.checkpointing import BEST, LAST, SaveState, SaveWeights, StateFiles, Stopped
from fasterrcnn.training.data import Process, TrainingBatches, ValidationBatches
from fasterrcnn.training.feature_cache import FeatureCache, FillCaches, caches_of_run
from fasterrcnn.training.module import TrainingModule
from fasterrcnn.training.optimizer import WeightAverage
from fasterrcnn.training.prepare import Log, Setup
from fasterrcnn.training.progress import EpochRecord, EpochRow, ProgressReport
from fasterrcnn.training.validation import Validation
from fasterrcnn.weights.transfer import LoadReport

_FOLDER = "FASTERRCNN_RUN"
"""Environment variable with the folder of the run, for the processes that Lightning starts."""

_LESS_MEMORY = "take a smaller batch_size, with accumulate to keep a step's images, bf16, or a smaller short_side"

_PRECISION: dict[str, Any] = {"float32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True)
class Run:
    """A finished training run.

    Attributes:
        path: its folder; README.md in it describes all files.
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
class _Reporter:
    """Where a run reports its progress: lines of text, the row of each epoch, and whether a bar is shown."""

    log: Log
    on_epoch: Callable[[EpochRow], None]
    bar: bool

    def of(self, process: Process) -> "_Reporter":
        """Only the process of rank 0 reports."""
        return self if process.rank == 0 else _Reporter(_ignore, _ignore, False)


def _ignore(_: object) -> None: ...


def fit(
    data: DataLike | None = None,
    *,
    model: str | ModelConfig | Mapping[str, Any] | None = None,
    output: str | Path | None = None,
    resume: str | Path | None = None,
    config: str | Path | None = None,
    assignments: Sequence[str] = (),
    progress: bool = False,
    log: Log | None = None,
    on_epoch: Callable[[EpochRow], None] | None = None,
    **options: Any,
) -> Run:
    """Fine-tune a detector on annotated images.

    Args:
        data: a folder or file of annotated images in any format, a list of dicts, or what `read_data` returned.
        model: name of a preset (default "resnet50-fpn"), or a configuration; its classes are replaced by the data's.
        output: folder of the run, which must not exist or be empty; default is ``runs/<data>-<model>``, numbered.
        resume: folder of an interrupted run, which continues exactly from its newest state, with its own settings.
        config: YAML file with fields of `fasterrcnn.config.TrainConfig`; other arguments override it.
        assignments: "a.b=value" for any field, which override all other arguments: "model.regions.box_loss=giou".
        progress: show a progress bar on the terminal.
        log: called with each line of text about the run, for example `print`.
        on_epoch: called with the numbers of each epoch.
        **options: fields of `fasterrcnn.config.TrainConfig`: recipe, epochs, batch_size, augmentation, weights...

    Raises:
        UsageError: an option is invalid; the message names it.
        DataError: the data set cannot be read, or has errors that `on_bad_box` does not allow; the message lists them.
        WeightsError: the start weights do not exist or do not fit.
        TrainingError: a loss is not finite, or the memory is too small. Checkpoints and states of before are kept.
        KeyboardInterrupt: Ctrl-C; the state is saved, and `resume` continues from it. (SystemExit for SIGTERM.)
    """
    given = {**options, **({} if model is None else {"model": model})}
    reporter = _Reporter(log or _ignore, on_epoch or _ignore, progress)
    if resume is not None:
        if given or assignments or config is not None or output is not None:
            raise UsageError("resume uses the settings of the run; leave all others out, or start a new run")
        return _resume(data, Path(resume), reporter)
    values = prepare.read_settings(Path(config)) if config is not None else {}
    values |= given if data is None else {**given, "data": _name_of(data)}
    if "data" not in values:
        raise UsageError("data: name a folder or a file with annotated images")
    train_config = prepare.resolve({"model": "resnet50-fpn", **values}, assignments)
    process = this_process(train_config)
    reporter = reporter.of(process)
    run = _output_folder(output, process)
    setup = prepare.prepare_run(data if data is not None else train_config.data, train_config, reporter.log)
    if process.rank == 0:
        check_output(run)
    network, report = _start_network(setup, reporter.log)
    check_trainer(setup.config, choose_device(train_config.device))
    caches = caches_of_run(setup, network, reporter.log)
    if process.rank == 0:
        name = f"{setup.data.root.resolve().name}-{train_config.model.preset}"
        run = make_folder(run, re.sub(r"[^\w.-]+", "-", name))
        run_folder.begin_run(run, setup, report)
    assert run is not None
    return _train(run, setup, network, caches, process, reporter)


def _resume(data: DataLike | None, run: Path, reporter: _Reporter) -> Run:
    """Continue an interrupted run."""
    if not (run / prepare.SETTINGS_FILE).is_file():
        raise UsageError(_no_run(run))
    train_config = prepare.resolve(prepare.read_settings(run / prepare.SETTINGS_FILE))
    process = this_process(train_config)
    reporter = reporter.of(process)
    result = run_folder.read_result(run)
    if result is not None and (run / BEST).is_file() and (run / LAST).is_file():
        reporter.log(f"{run} is finished; there is nothing to resume. {_train_on(run / LAST)}")
        return Run(run, result)
    setup = prepare.prepare_resumed(data if data is not None else train_config.data, train_config, reporter.log)
    if process.rank == 0:
        run_folder.check_same_data(run, setup)
    state = checkpointing.newest_state(run, reporter.log)
    reporter.log(f"resuming from {state}" if state else "no state to resume from; the run begins anew")
    network = _start_network(setup, reporter.log)[0] if state is None else build.assemble(train_config.model)
    return _train(run, setup, network, caches_of_run(setup, network, reporter.log), process, reporter, state)


def _no_run(path: Path) -> str:
    """What to do about a path that is not the folder of a run."""
    if not path.is_file():
        return f"{path}: not the folder of a run, which has a {prepare.SETTINGS_FILE}"
    is_in_run = (path.parent / prepare.SETTINGS_FILE).is_file()
    folder = f" (--resume {path.parent})" if is_in_run else ""
    return f"{path}: resume takes the folder of an interrupted run{folder}, not a file. {_train_on(path)}"


def _train_on(weights: Path) -> str:
    return f"To train on from these weights, start a new run: fasterrcnn train DATA --weights {weights} --epochs N"


def _start_network(setup: Setup, log: Log) -> tuple[FasterRCNN, LoadReport | None]:
    """The network with its start weights; fresh layers follow from the seed, the global generator is not changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setup.config.seed)
        network, report = build.start_model(setup.config.model, setup.config.weights)
    for line in report.lines() if report is not None else []:
        log(line)
    return network, report


def _train(
    run: Path,
    setup: Setup,
    network: FasterRCNN,
    caches: Sequence[FeatureCache],
    process: Process,
    reporter: _Reporter,
    state: Path | None = None,
) -> Run:
    """Train all epochs, or those after the state."""
    config, device = setup.config, choose_device(setup.config.device)
    workers = config.workers if config.workers is not None else default_workers(device, config.devices)
    for_training, for_validation = [cache.load for cache in caches] + [None] * (2 - len(caches))
    batches = TrainingBatches(setup.dataset, config, process, workers, for_training, device)
    validation, val_batches = None, None
    if setup.val_images:
        validation = Validation(setup.data, setup.val_dataset, process)
        val_batches = ValidationBatches(setup.val_dataset, config, process, workers, for_validation, device)
    steps = -(-len(batches) // config.accumulate) * config.epochs
    module = TrainingModule(network, config, setup.images, steps, validation).train()
    report = ProgressReport(reporter.log, setup, bar=reporter.bar)
    record = EpochRecord(run, report.log_epoch, reporter.on_epoch)
    average = WeightAverage(config.ema)
    fill_caches = FillCaches(caches, config, bar=reporter.bar)
    callbacks = [fill_caches, average, record, SaveWeights(run, setup, average, record), report]
    if config.patience is not None:
        # By default it would run after SaveState, and its own state would be missing in the saved one.
        callbacks.append(EarlyStopping("ap", patience=config.patience, mode="max", check_on_train_epoch_end=False))
    callbacks.append(SaveState(run, config.checkpoint_minutes))
    shapes = batches.shapes | (val_batches.shapes if val_batches is not None else set())
    with _running(run, reporter.log), tuned_convolutions(len(shapes)):
        logger = make_logger(config.logger, run, reporter.log) if process.rank == 0 else False
        engine = make_trainer(config, device, process, run, callbacks, logger)
        engine.fit(module, batches, val_batches, ckpt_path=state)
    if process.rank > 0:
        return Run(run, dict(record.best or record.rows[-1]))
    result = run_folder.finish_run(run, setup, record.rows, network)
    checkpointing.remove_states(run)
    return Run(run, result)


@contextmanager
def _running(run: Path, log: Log) -> Iterator[None]:
    """Quiet Lightning, pass the folder to its processes, and turn a stop into the exception its signal stands for."""
    os.environ[_FOLDER] = str(run)
    try:
        with quiet_lightning(), torch.random.fork_rng(devices=[]), memory_errors_as(TrainingError, _LESS_MEMORY):
            yield
    except Stopped as stopped:
        log(f"stopped; resume with: fasterrcnn train --resume {run}")
        if stopped.signal == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + stopped.signal) from None
    finally:
        os.environ.pop(_FOLDER, None)


def default_workers(device: torch.device, devices: int = 1) -> int:
    """Processes that load images for each of so many GPUs; none on a CPU, where they would take the network's cores.

    None either where processes start by running the script again, because a script without a guard would not survive.
    """
    if device.type == "cpu" or start_method() != "fork":
        return 0
    return max(1, min(8, processors() // devices))


def _output_folder(output: str | Path | None, process: Process) -> Path | None:
    """The requested folder; None if a free one is to be chosen, on which several processes could not agree."""
    if _FOLDER in os.environ and process.rank > 0:
        return Path(os.environ[_FOLDER])
    if output is None and process.world_size > 1 and process.rank > 0:
        raise UsageError("several processes need one folder: name it with output (--output)")
    return None if output is None else Path(output)


def _name_of(data: DataLike) -> str:
    if isinstance(data, str | Path):
        return str(data)
    return str(data.root) if isinstance(data, AnnotatedData) else f"list of {len(data)} images"


# ---- Lightning's trainer: processes, devices, precision and loggers, without its own messages


def _short_name(logger: str) -> str:
    return logger.lower().removesuffix("logger")


_LOGGERS = {_short_name(name): name for name in lightning_loggers.__all__ if name != "Logger"}


def this_process(config: TrainConfig) -> Process:
    """Rank and number of processes: from torchrun, SLURM or Lightning's own launcher."""
    launcher = _external_launcher()
    if launcher is not None:
        return Process(launcher.global_rank(), launcher.world_size())
    return Process(int(os.environ.get("LOCAL_RANK", "0")), config.devices) if config.devices > 1 else Process()


def is_main_process() -> bool:
    """Whether this is the process of rank 0, the only one that prints."""
    launcher = _external_launcher()
    return (launcher.global_rank() if launcher is not None else int(os.environ.get("LOCAL_RANK", "0"))) == 0


def make_trainer(
    config: TrainConfig, device: torch.device, process: Process, run: Path, callbacks: Sequence[Callback], logger: Any
) -> Trainer:
    """The trainer of a run."""
    local = _local_processes(config, process)
    single_gpu = device.type == "cuda" and device.index is not None and process.world_size == 1
    # Parameters of frozen stages get no gradients in the first epochs.
    ddp = DDPStrategy(find_unused_parameters=config.unfreeze_at is not None)
    return Trainer(
        default_root_dir=run,
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=[device.index] if single_gpu else local,
        num_nodes=max(1, process.world_size // local),
        strategy=ddp if process.world_size > 1 else "auto",
        precision=_PRECISION[config.precision or "float32"],
        max_epochs=config.epochs,
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.clip_norm,
        deterministic=config.deterministic,
        callbacks=list(callbacks),
        logger=logger,
        plugins=[StateFiles()],
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def check_trainer(config: TrainConfig, device: torch.device) -> None:
    """Refuse settings that Lightning cannot run, before anything is written."""
    if config.precision == "fp16" and device.type == "cpu":
        raise UsageError('precision "fp16" needs a GPU; on a CPU there are "float32" and "bf16"')
    if config.deterministic and device.type == "cuda" and config.model.regions.pooling == "pool":
        raise UsageError(
            "deterministic: the gradients of RoIPool are added in any order on a GPU; take device cpu, a preset with "
            "RoIAlign, or leave deterministic out"
        )
    if config.devices > 1 and _external_launcher() is None and hasattr(sys, "ps1"):
        raise UsageError(
            f"devices is {config.devices}, but a notebook cannot start further processes; in a terminal: "
            f"torchrun --nproc-per-node {config.devices} -m fasterrcnn train ..."
        )
    if config.precision == "bf16" and device.type == "cuda" and not has_fast_bf16(device):
        raise UsageError(f'precision "bf16": {torch.cuda.get_device_name(device)} has no bfloat16; give "fp16"')
    if config.logger != "none" and _short_name(config.logger) not in _LOGGERS:
        raise UsageError(f"no logger is called {config.logger!r}; there are none, {', '.join(sorted(_LOGGERS))}")


def make_logger(name: str, run: Path, log: Log) -> Any:
    """A logger of Lightning by name, in upper or lower case, with or without "Logger" at its end."""
    if name == "none":
        return False
    short = _short_name(name)
    if short == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
        log('note: no TensorBoard files; for these, pip install "fasterrcnn[log]"')
        return False
    make: Any = getattr(lightning_loggers, _LOGGERS[short])
    try:
        return make(save_dir=str(run), **({"name": "", "version": "tensorboard"} if short == "tensorboard" else {}))
    except ImportError as error:
        raise UsageError(f"logger {name!r}: {str(error).splitlines()[0]}") from None


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Lightning prints no messages and warnings of its own inside the block."""
    loggers = [logging.getLogger(name) for name in (pytorch_lightning.__name__, "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for module in ("pytorch_lightning", "lightning_fabric", "torch.utils.data"):
                warnings.filterwarnings("ignore", module=module)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _external_launcher() -> ClusterEnvironment | None:
    """What started the processes, unless Lightning starts them itself."""
    kinds: tuple[type[ClusterEnvironment], ...] = (TorchElasticEnvironment, SLURMEnvironment)
    return next((kind() for kind in kinds if kind.detect()), None)


def _local_processes(config: TrainConfig, process: Process) -> int:
    """Processes on this machine."""
    launcher = _external_launcher()
    if isinstance(launcher, TorchElasticEnvironment):
        return int(os.environ["LOCAL_WORLD_SIZE"])
    if isinstance(launcher, SLURMEnvironment):
        return process.world_size // int(os.environ.get("SLURM_NNODES", "1"))
    return config.devices
