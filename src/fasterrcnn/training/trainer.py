"""Lightning's trainer, set up for this library: devices, precision, processes and loggers, without its own messages."""

import importlib.util
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning
import torch
from lightning_fabric.plugins.environments import ClusterEnvironment, SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning import Callback, Trainer
from pytorch_lightning import loggers as lightning_loggers
from pytorch_lightning.strategies import DDPStrategy

from fasterrcnn.config import TrainConfig
from fasterrcnn.errors import UsageError
from fasterrcnn.training.checkpointing import StateFiles
from fasterrcnn.training.data import Process

_PRECISION: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "float32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}


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
    local, nodes = _processes_and_nodes(config, process)
    single_gpu = device.type == "cuda" and device.index is not None and process.world_size == 1
    # Parameters of frozen stages get no gradients in the first epochs.
    ddp = DDPStrategy(find_unused_parameters=config.unfreeze_at is not None)
    return Trainer(
        default_root_dir=run,
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=[device.index] if single_gpu else local,
        num_nodes=nodes,
        strategy=ddp if process.world_size > 1 else "auto",
        precision=_PRECISION[config.precision],
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
    """Refuse settings that Lightning cannot run, before anything is written.

    Raises:
        UsageError: the precision needs another device, or no logger has that name.
    """
    if config.precision == "fp16" and device.type == "cpu":
        raise UsageError('precision "fp16" needs a GPU; on a CPU there are "float32" and "bf16"')
    names = _loggers()
    if config.logger != "none" and _short_name(config.logger) not in names:
        raise UsageError(f"no logger is called {config.logger!r}; there are none, {', '.join(sorted(names))}")


def make_logger(name: str, run: Path, log: Callable[[str], None]) -> Any:
    """A logger of Lightning by name, in upper or lower case, with or without "Logger" at its end.

    Raises:
        UsageError: a package that it needs is not installed.
    """
    if name == "none":
        return False
    short = _short_name(name)
    if short == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
        log('note: no TensorBoard files; for these, pip install "fasterrcnn[log]"')
        return False
    make: Any = getattr(lightning_loggers, _loggers()[short])
    try:
        return make(save_dir=str(run), **({"name": "", "version": "tensorboard"} if short == "tensorboard" else {}))
    except (ModuleNotFoundError, ImportError) as error:
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


def _loggers() -> dict[str, str]:
    """Lightning's loggers by short name."""
    return {_short_name(name): name for name in lightning_loggers.__all__ if name != "Logger"}


def _short_name(name: str) -> str:
    return name.lower().removesuffix("logger")


def _external_launcher() -> ClusterEnvironment | None:
    """What started the processes, unless Lightning starts them itself."""
    kinds: tuple[type[ClusterEnvironment], ...] = (TorchElasticEnvironment, SLURMEnvironment)
    return next((kind() for kind in kinds if kind.detect()), None)


def _processes_and_nodes(config: TrainConfig, process: Process) -> tuple[int, int]:
    """Processes on each machine, and machines."""
    launcher = _external_launcher()
    if isinstance(launcher, TorchElasticEnvironment):
        local = int(os.environ["LOCAL_WORLD_SIZE"])
    elif isinstance(launcher, SLURMEnvironment):
        local = process.world_size // int(os.environ.get("SLURM_NNODES", "1"))
    else:
        local = config.devices
    return local, max(1, process.world_size // local)
