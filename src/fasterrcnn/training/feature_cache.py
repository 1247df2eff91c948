"""Feature maps of a frozen backbone on disk, computed once for each view of an image, and when they are used.

An entry is a safetensors file: the backbone's maps in float16, and the view's size and objects, so that the image need
not be read again. Its name is a hash of everything it depends on: weights, preprocessing, image, objects and view.

Axes: b images, c channels, h w pixels or cells.
"""

import hashlib
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import cast

import safetensors.torch
import torch
from jaxtyping import Float
from pytorch_lightning import Callback, LightningModule, Trainer
from rich.progress import track
from safetensors import SafetensorError
from torch import Tensor

from fasterrcnn.config import TrainConfig
from fasterrcnn.data.dataset import BUCKET, BatchPlan, DetectionDataset
from fasterrcnn.errors import TrainingError, UsageError
from fasterrcnn.files import cache_folder, write_bytes
from fasterrcnn.inference.devices import choose_device
from fasterrcnn.model.backbones import Body
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.ops.image import pad_to
from fasterrcnn.structures import MEMORY_FORMAT, ImageBatch, Target
from fasterrcnn.training.data import Process, Step, frozen_views, image_digest
from fasterrcnn.training.optimizer import backbone_is_frozen
from fasterrcnn.training.prepare import Log, Setup

_GIB = 2**30


@torch.no_grad()
def frozen_maps(model: FasterRCNN, batch: ImageBatch) -> list[Float[Tensor, "b _ _ _"]]:
    """The backbone's maps of a batch, each image computed alone; zero where an image has ended.

    They are rounded to float16 as in the cache, so that caching changes nothing but the time.
    """
    maps = []
    for number, size_hw in enumerate(batch.sizes_hw):
        divisor = math.lcm(model.size_divisor, BUCKET)
        height, width = (min(pad_to(a, divisor), b) for a, b in zip(size_hw, batch.padded_hw, strict=True))
        maps.append(_maps_of_image(model, batch.pixels[number : number + 1, :, :height, :width]))
    return _batched(maps, _map_sizes(model, batch.padded_hw))


@dataclass(frozen=True, eq=False)
class FeatureCache:
    """The cached feature maps of some views, as the data set counts them, of its images.

    The model's backbone is frozen while entries are used; heights and widths that it gets are multiples of `bucket`.
    """

    model: FasterRCNN
    dataset: DetectionDataset
    views: Sequence[int]
    bucket: int = BUCKET
    folder: Path = field(default_factory=lambda: cache_folder() / "features")

    @property
    def keys(self) -> list[tuple[int, int]]:
        """Image and view of each entry."""
        return [(index, view) for view in self.views for index in range(len(self.dataset))]

    def size(self) -> int:
        """Bytes of all maps."""
        body = cast(Body, self.model.backbone.body)
        values = 0
        for index, _ in self.keys:
            sizes = _map_sizes(self.model, self.dataset.padded_hw(index, self.bucket))
            values += sum(c * h * w for c, (h, w) in zip(body.channels, sizes, strict=True))
        return values * torch.finfo(torch.float16).bits // 8

    def path(self, index: int, view: int) -> Path:
        """The file of an entry."""
        dataset = self.dataset
        parts: list[object] = [self._body_digest, dataset.config.model_dump_json(), self._image_digests[index]]
        parts.append(dataset.padded_hw(index, self.bucket))
        if view:  # augmented: it depends on the seed, and may contain parts of other images
            parts += [dataset.augmentation, dataset.seed, view, dataset.images[index].image_id, self._dataset_digest]
        name = hashlib.sha256(repr(parts).encode()).hexdigest()
        return self.folder / name[:2] / f"{name[2:34]}.safetensors"

    def write(self, index: int, view: int) -> None:
        """Run the backbone on a view and write the entry; refused where float16 cannot hold the maps."""
        size = self.dataset.padded_hw(index, self.bucket)
        batch, (target,) = self.dataset.collate([self.dataset[index, view]], size)
        maps = [level.cpu() for level in _maps_of_image(self.model, batch.pixels.to(self.model.mean.device))]
        if not all(bool(level.isfinite().all()) for level in maps):
            image = self.dataset.images[index].path
            raise TrainingError(f"{image}: the backbone's maps are too large for float16; train without cache_features")
        entry = {f"map{number}": level for number, level in enumerate(maps)}
        entry |= {"boxes": target.boxes, "labels": target.labels, "ignored": target.ignored}
        entry["size_hw"] = torch.tensor(batch.sizes_hw[0])
        content = safetensors.torch.save({name: tensor.contiguous() for name, tensor in entry.items()})
        write_bytes(self.path(index, view), content)

    def load(self, plans: Sequence[BatchPlan]) -> Iterator[Step]:
        """The planned steps, with maps instead of pixels; an entry that is missing or damaged is a `TrainingError`."""
        for plan in plans:
            assert plan.padded_hw is not None
            entries = [_read(self.path(index, plan.view)) for index in plan.indices]
            sizes = _map_sizes(self.model, plan.padded_hw)
            maps = [[entry[f"map{number}"] for number in range(len(sizes))] for entry in entries]
            # The pixels are not read: a single zero is expanded to their shape.
            pixels = torch.zeros(1, 1, 1, 1).expand(len(entries), 3, *plan.padded_hw)
            sizes_hw = [entry["size_hw"].tolist() for entry in entries]
            batch = ImageBatch(pixels, [(height, width) for height, width in sizes_hw])
            targets = [Target(entry["boxes"], entry["labels"], entry["ignored"]) for entry in entries]
            yield Step(plan, batch, targets, _batched(maps, sizes))

    @cached_property
    def _body_digest(self) -> str:
        """Identifies the network that computes the maps, weights included."""
        body = self.model.backbone.body
        digest = hashlib.sha256(f"{torch.__version__} {self.model.mean.tolist()} {self.model.std.tolist()}".encode())
        digest.update(repr(body).encode())
        for name, value in sorted(body.state_dict().items()):
            digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def _image_digests(self) -> list[str]:
        return [image_digest(image).hex() for image in self.dataset.images]

    @cached_property
    def _dataset_digest(self) -> str:
        return hashlib.sha256("".join(self._image_digests).encode()).hexdigest()


class FillCaches(Callback):
    """Fills the caches of a run, from `caches_of_run`, before its first epoch."""

    def __init__(self, caches: Sequence[FeatureCache], config: TrainConfig, *, bar: bool) -> None:
        self.caches = caches
        self.config = config
        self.bar = bar

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Compute the missing entries, unless the backbone is trained by now."""
        if self.caches and backbone_is_frozen(self.config, trainer.current_epoch + 1):
            process = Process(trainer.global_rank, trainer.world_size)
            fill_caches(self.caches, self.config.cache_limit, process, bar=self.bar)
            trainer.strategy.barrier()


def caches_of_run(setup: Setup, model: FasterRCNN, log: Log) -> list[FeatureCache]:
    """The caches of a run, training images first; none unless `cache_features` is set. Their size is logged."""
    if not setup.config.cache_features:
        return []
    caches = [FeatureCache(model, setup.dataset, range(frozen_views(setup.config)))]
    if setup.val_images:
        caches.append(FeatureCache(model, setup.val_dataset, [0], bucket=1))
    log(check_cache_size(caches, setup.config.cache_limit))
    if choose_device(setup.config.device).type != "cpu":
        log("note: on a GPU, reading maps from the disk is slower than running the backbone; leave out cache_features")
    return caches


def check_cache_size(caches: Sequence[FeatureCache], limit: float) -> str:
    """One line about size and folder of all caches of a run; refused where limit (in GiB) or disk are too small."""
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


def fill_caches(caches: Sequence[FeatureCache], limit: float, process: Process, *, bar: bool) -> None:
    """Compute this process's part of the missing entries of a run.

    Entries of other runs that exceed the limit, in GiB for all entries together, are removed first, the least recently
    used ones before the others.
    """
    entries = [(cache, key, cache.path(*key)) for cache in caches for key in cache.keys]
    if process.rank == 0:
        _make_room(caches[0].folder, {path for *_, path in entries}, limit * _GIB - sum(c.size() for c in caches))
    missing = []
    for cache, key, path in entries[process.rank :: process.world_size]:
        if path.exists():
            path.touch()
        else:
            missing.append((cache, key))
    for cache, key in track(missing, "running the frozen backbone", disable=not bar):
        cache.write(*key)


def _make_room(folder: Path, own: set[Path], room: float) -> None:
    """Remove entries of other runs until they take no more than that many bytes."""
    others = [(path.stat(), path) for path in folder.glob("*/*.safetensors") if path not in own]
    total = sum(stat.st_size for stat, _ in others)
    for stat, path in sorted(others, key=lambda entry: entry[0].st_mtime):
        if total <= room:
            return
        path.unlink(missing_ok=True)
        total -= stat.st_size


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{path}: an entry of the feature cache cannot be read ({str(error).splitlines()[0]}); "
            "remove the file and continue with --resume"
        ) from None


@torch.no_grad()
def _maps_of_image(model: FasterRCNN, pixels: Float[Tensor, "1 3 h w"]) -> list[Tensor]:
    """The backbone's maps of one image in float16, computed in eval mode."""
    body = model.backbone.body
    modes = [(module, module.training) for module in body.modules()]  # pretrained norms are in eval mode already
    body.eval()
    maps = body(model.normalised(pixels))
    for module, was_training in modes:
        module.training = was_training
    return [level.half() for level in maps]


def _map_sizes(model: FasterRCNN, padded_hw: tuple[int, int]) -> list[tuple[int, int]]:
    """Heights and widths of the backbone's maps of images of that size."""
    return [(padded_hw[0] // stride, padded_hw[1] // stride) for stride in model.backbone.strides]


def _batched(maps: Sequence[Sequence[Tensor]], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Maps of single images in float16 as those of a batch in float32; zero where an image has ended."""
    batched = []
    for number, (height, width) in enumerate(sizes):
        first = maps[0][number]
        whole = first.new_zeros(len(maps), first.shape[1], height, width, dtype=torch.float32)
        whole = whole.contiguous(memory_format=MEMORY_FORMAT)
        for target, levels in zip(whole, maps, strict=True):
            level = levels[number][0]
            target[:, : level.shape[1], : level.shape[2]] = level
        batched.append(whole)
    return batched
