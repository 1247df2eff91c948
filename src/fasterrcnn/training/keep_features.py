"""When the caches of a run are filled and used, how large they may be, and what is removed for them."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer
from rich.progress import track

from fasterrcnn.config import TrainConfig
from fasterrcnn.errors import UsageError
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.training.data import Process, ValidationBatches, frozen_views
from fasterrcnn.training.feature_cache import CachedViews
from fasterrcnn.training.optimizer import body_is_frozen
from fasterrcnn.training.run_folder import Setup

_GIB = 2**30


class KeepFeatures(Callback):
    """Fills the caches of a run before its first epoch, and ends their use when the backbone begins to learn.

    Args:
        caches: of the training images, and of the validation images if there are any.
        config: of the run.
        process: the part of the entries that is computed here.
        val_batches: the steps of a validation.
        bar: show a moving line on the terminal.
    """

    def __init__(
        self,
        caches: Sequence[CachedViews],
        config: TrainConfig,
        process: Process,
        val_batches: ValidationBatches | None,
        *,
        bar: bool,
    ) -> None:
        self.caches = caches
        self.config = config
        self.process = process
        self.val_batches = val_batches
        self.bar = bar

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Compute what is not there yet."""
        self.on_train_epoch_start(trainer, module)  # a run that goes on within an epoch does not start it
        if self.caches and body_is_frozen(self.config, trainer.current_epoch + 1):
            fill(self.caches, self.config.cache_limit, self.process, bar=self.bar)
            trainer.strategy.barrier()

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """The validation sees the backbone as it is."""
        if self.val_batches is not None:
            self.val_batches.frozen = body_is_frozen(self.config, trainer.current_epoch + 1)


def caches_of(setup: Setup, model: FasterRCNN) -> list[CachedViews]:
    """The caches of a run, training images first; none unless it asks for them."""
    if not setup.config.cache_features:
        return []
    training = CachedViews(model, setup.examples, range(frozen_views(setup.config)))
    return [training, *([CachedViews(model, setup.val_examples, [0], bucket=1)] if setup.val_records else [])]


def announce(caches: Sequence[CachedViews], limit: float) -> str:
    """One line: how much there is to keep, and where.

    Args:
        caches: all of a run.
        limit: most that may be kept, in GiB.

    Raises:
        UsageError: it is more than the limit, or than the disk has.
    """
    folder, size = caches[0].folder, sum(cache.size() for cache in caches)
    views = sum(len(cache.keys) for cache in caches)
    text = f"feature cache: {views} views of images, {size / _GIB:.2f} GiB in {folder}"
    if size > limit * _GIB:
        raise UsageError(
            f"{text}: more than cache_limit, {limit:g} GiB; raise it (--set cache_limit=...), "
            "or take fewer views or a smaller short_side"
        )
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UsageError(f"{text}: the disk has only {free / _GIB:.2f} GiB left")
    return text


def fill(caches: Sequence[CachedViews], limit: float, process: Process, *, bar: bool) -> None:
    """Compute this process's part of what is not there yet.

    First goes what other runs have left beyond the limit, the longest unused before the rest.

    Args:
        caches: all of a run.
        limit: most that may be kept, in GiB.
        process: which part is computed here.
        bar: show a moving line on the terminal.
    """
    wanted = [(cache, key, cache.path(*key)) for cache in caches for key in cache.keys]
    if process.rank == 0:
        _make_room(caches[0].folder, {path for *_, path in wanted}, limit * _GIB - sum(c.size() for c in caches))
    missing = []
    for cache, key, path in wanted[process.rank :: process.world]:
        if path.exists():
            path.touch()
        else:
            missing.append((cache, key))
    for cache, key in track(missing, "running the frozen backbone", disable=not bar):
        cache.write(*key)


def _make_room(folder: Path, own: set[Path], room: float) -> None:
    """Remove entries of others until they take no more than that many bytes."""
    others = [(path.stat(), path) for path in folder.glob("*/*.safetensors") if path not in own]
    total = sum(stat.st_size for stat, _ in others)
    for stat, path in sorted(others, key=lambda entry: entry[0].st_mtime):
        if total <= room:
            return
        path.unlink(missing_ok=True)
        total -= stat.st_size
