"""The data of a run: its fingerprint, and which images come together in which step of which epoch.

Everything follows from seed and epoch, so a run can be resumed at any batch without stored random states.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fasterrcnn.config import TrainConfig
from fasterrcnn.data.annotations import AnnotatedImage
from fasterrcnn.data.dataset import BatchLoader, BatchPlan, DetectionDataset
from fasterrcnn.errors import ImageError
from fasterrcnn.structures import CPU, ImageBatch, Target
from fasterrcnn.training.optimizer import backbone_is_frozen


@dataclass(frozen=True)
class Process:
    """One of the `world_size` processes that train together; `rank` is its number, from 0."""

    rank: int = 0
    world_size: int = 1


@dataclass(frozen=True)
class Step:
    """A batch with the plan that it follows, and the ground truth of each image.

    Where the feature maps of the frozen backbone were cached, they are `maps`, and the batch's pixels are not read.
    """

    plan: BatchPlan
    batch: ImageBatch
    targets: list[Target]
    maps: list[Float[Tensor, "b _ _ _"]] | None = None

    def to(self, device: torch.device) -> "Step":
        """The same on another device."""
        maps = None if self.maps is None else [level.to(device) for level in self.maps]
        return Step(self.plan, self.batch.to(device), [target.to(device) for target in self.targets], maps)


LoadCached = Callable[[Sequence[BatchPlan]], Iterator[Step]]
"""Gives the planned steps with cached feature maps instead of pixels."""


def seeded_rng(*parts: object) -> Random:
    """A random generator that follows from the parts alone."""
    return Random(", ".join(map(str, parts)))


def fingerprint(images: Sequence[AnnotatedImage]) -> str:
    """16 hexadecimal digits that identify exactly these images and objects.

    They follow from each image's file name, bytes and size, and from its boxes, labels and difficult flags in their
    order; not from where the data is stored, nor from the order of the images.
    """
    with ThreadPoolExecutor() as pool:  # reading and hashing release the interpreter lock
        digests = list(pool.map(image_digest, images))
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()[:16]


def image_digest(image: AnnotatedImage) -> bytes:
    """SHA-256 of an image file and its objects; an `ImageError` names a file that cannot be read."""
    try:
        with image.path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(f"{image.path}: cannot be read ({error.strerror}); put the file back") from None
    head = ascii((image.path.name, content, tuple(image.size_hw), len(image.boxes)))
    columns = (image.boxes.astype("<f4"), image.labels.astype("<i8"), image.difficult.astype("?"))
    return hashlib.sha256(head.encode() + b"".join(column.tobytes() for column in columns)).digest()


def repeat_factors(images: Sequence[AnnotatedImage], classes: int, below: float) -> list[float]:
    """How often each image is shown in an epoch, at least once (Gupta et al. 2019, section 5.1).

    Classes that are in a smaller share of the images than `below` are shown more often.
    """
    present = np.zeros((len(images), classes), np.bool_)
    for row, image in zip(present, images, strict=True):
        row[image.labels[~image.difficult]] = True
    share = present.mean(axis=0) if images else np.ones(classes)
    of_class = np.maximum(1.0, np.sqrt(below / np.maximum(share, 1e-9)))
    return [float(of_class[row].max(initial=1.0)) for row in present]


def order_of_epoch(factors: Sequence[float], rng: Random) -> list[int]:
    """Image indices of an epoch, shuffled: each floor or ceil of its factor times, the same number in every epoch."""
    indices = [index for index, factor in enumerate(factors) for _ in range(int(factor))]
    order = rng.sample(range(len(factors)), len(factors))  # random, so that the first images have no advantage
    fractions = np.array([factors[index] % 1 for index in order])
    extra = int(fractions.sum() + 1e-6)
    if extra:
        ends = np.cumsum(fractions) * (extra / fractions.sum())
        places = np.searchsorted(ends, np.arange(extra) + rng.random(), side="right")
        indices += [order[int(place)] for place in places.clip(max=len(order) - 1)]
    rng.shuffle(indices)
    return indices


def epoch_batches(
    dataset: DetectionDataset, batch_size: int, rng: Random, factors: Sequence[float] | None = None
) -> list[list[int]]:
    """Image indices of one epoch in batches: shuffled, but wide images and tall ones apart to save padding.

    The number of batches is the same in every epoch; at most one batch has both kinds, and at most one is not full.
    """
    order = order_of_epoch(factors or [1.0] * len(dataset), rng)
    sizes = [image.size_hw for image in dataset.images]
    order.sort(key=lambda index: sizes[index][0] > sizes[index][1])
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    rng.shuffle(batches)
    return batches


def plans_of_process(
    dataset: DetectionDataset, batches: Sequence[Sequence[int]], view: int, process: Process
) -> list[BatchPlan]:
    """The part of each batch that one process gets, padded as the whole batch would be.

    A process that gets no image of a small batch runs the first one, and its losses do not count.
    """
    plans = []
    for batch in batches:
        heights, widths = zip(*(dataset.padded_hw(index) for index in batch), strict=True)
        own = tuple(batch[process.rank :: process.world_size])
        plans.append(BatchPlan(own or (batch[0],), view, (max(heights), max(widths)), counts=bool(own)))
    return plans


def validation_plans(dataset: DetectionDataset, batch_size: int, process: Process) -> list[BatchPlan]:
    """Batches with every image once over all processes, each padded as if it were alone: those of one size together."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index in range(len(dataset)):
        groups.setdefault(dataset.padded_hw(index, 1), []).append(index)
    plans = [
        BatchPlan(tuple(members[start : start + batch_size]), 0, size)
        for size, members in groups.items()
        for start in range(0, len(members), batch_size)
    ]
    own = plans[process.rank :: process.world_size]
    return own or [BatchPlan(plans[0].indices[:1], 0, plans[0].padded_hw, counts=False)]


class TrainingBatches:
    """The steps of all epochs, one epoch at each iteration; continues where its state points to.

    The part of one process is loaded to the device, images by so many workers; to a CUDA GPU in 256 levels.
    `load_cached` gives the steps of epochs in which the backbone is frozen, if its feature maps are cached.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        config: TrainConfig,
        process: Process,
        workers: int,
        load_cached: LoadCached | None = None,
        device: torch.device = CPU,
    ) -> None:
        self.dataset = dataset
        self.config = config
        self.process = process
        self.load_cached = load_cached
        self.epoch = 1
        self.done = 0
        self._loader = BatchLoader(dataset, workers, device=device, as_bytes=device.type == "cuda")
        self._factors: list[float] | None = None
        if config.class_balance == "repeat":
            self._factors = repeat_factors(dataset.images, len(config.model.classes), config.repeat_below)
        self._length = len(self._batches(1))

    def __len__(self) -> int:
        return self._length

    def plans(self, epoch: int) -> list[BatchPlan]:
        """Batches of an epoch, counted from 1."""
        views = frozen_views(self.config) if self._is_cached(epoch) else self.config.views
        view = epoch if views is None else (epoch - 1) % views
        return plans_of_process(self.dataset, self._batches(epoch), view, self.process)

    def __iter__(self) -> Iterator[Step]:
        plans = self.plans(self.epoch)
        remaining = plans[self.done :]
        if self.load_cached is not None and self._is_cached(self.epoch):
            steps = self.load_cached(remaining)
        else:
            steps = _load(self._loader, remaining)
        for step in steps:
            self.done += 1
            if self.done == len(plans):
                self.epoch, self.done = self.epoch + 1, 0
            yield step

    @property
    def shapes(self) -> set[tuple[int, int] | None]:
        """Padded heights and widths of all batches of an epoch."""
        return {plan.padded_hw for plan in self.plans(1)}

    @property
    def sampler(self) -> "TrainingBatches":
        """Lightning calls `set_epoch` on the loader's `sampler`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch, counted from 0, also in a resumed run."""
        if self.epoch != epoch + 1:
            self.epoch, self.done = epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """The current epoch, and how many of its batches are done."""
        return {"epoch": self.epoch, "done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue there."""
        self.epoch, self.done = state["epoch"], state["done"]

    def _is_cached(self, epoch: int) -> bool:
        return self.config.cache_features and backbone_is_frozen(self.config, epoch)

    def _batches(self, epoch: int) -> list[list[int]]:
        size = self.config.batch_size * self.process.world_size
        rng = seeded_rng("batches", self.config.seed, "epoch", epoch)
        return epoch_batches(self.dataset, size, rng, self._factors)


class ValidationBatches:
    """The steps of a validation, with pixels exactly as in detection; arguments as for `TrainingBatches`."""

    batch_sampler = None  # Lightning reads it where there is a `sampler`

    def __init__(
        self,
        dataset: DetectionDataset,
        config: TrainConfig,
        process: Process,
        workers: int,
        load_cached: LoadCached | None = None,
        device: torch.device = CPU,
    ) -> None:
        self.config = config
        self.load_cached = load_cached
        self.epoch = 1
        self._plans = validation_plans(dataset, config.batch_size, process)
        self._loader = BatchLoader(dataset, workers, device=device)

    def __len__(self) -> int:
        return len(self._plans)

    def __iter__(self) -> Iterator[Step]:
        if self.load_cached is not None and backbone_is_frozen(self.config, self.epoch):
            return self.load_cached(self._plans)
        return _load(self._loader, self._plans)

    @property
    def shapes(self) -> set[tuple[int, int] | None]:
        """Padded heights and widths of all batches."""
        return {plan.padded_hw for plan in self._plans}

    @property
    def sampler(self) -> "ValidationBatches":
        """Lightning calls `set_epoch` on the loader's `sampler`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each validation, with the epoch counted from 0."""
        self.epoch = epoch + 1


def frozen_views(config: TrainConfig) -> int:
    """How many views of each image a frozen backbone gets: one, the unchanged image, unless `views` sets more."""
    return config.views or 1


def _load(loader: BatchLoader, plans: Sequence[BatchPlan]) -> Iterator[Step]:
    for plan, (batch, targets) in zip(plans, loader.load(plans), strict=True):
        yield Step(plan, batch, targets)
