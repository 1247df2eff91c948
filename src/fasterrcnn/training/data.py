"""Which images meet in which step: epochs, their batches, and the shares of several processes.

Everything follows from seed and epoch, so that a run can go on at any batch with nothing remembered.
"""

from collections.abc import Callable, Iterator, Sequence
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
from fasterrcnn.structures import ImageBatch, Target
from fasterrcnn.training.optimizer import body_is_frozen


@dataclass(frozen=True)
class Process:
    """One of the processes that train together.

    Attributes:
        rank: its number, from 0.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1


@dataclass(frozen=True)
class Step:
    """A batch with what it was planned as.

    Attributes:
        plan: which images it was to have.
        batch: the images.
        targets: what is true of them.
        maps: of the frozen backbone, where they are known already; the batch then has no pixels worth looking at.
    """

    plan: BatchPlan
    batch: ImageBatch
    targets: list[Target]
    maps: list[Float[Tensor, "b _ _ _"]] | None = None

    def to(self, device: torch.device) -> "Step":
        """The same on another device."""
        maps = None if self.maps is None else [one.to(device) for one in self.maps]
        return Step(self.plan, self.batch.to(device), [target.to(device) for target in self.targets], maps)


Known = Callable[[Sequence[BatchPlan]], Iterator[Step]]
"""Gives the planned steps with the maps of the frozen backbone."""


def draws(*parts: object) -> Random:
    """A generator that follows from the parts alone."""
    return Random(", ".join(map(str, parts)))


def repeat_factors(records: Sequence[AnnotatedImage], classes: int, below: float) -> list[float]:
    """How often each image is shown in an epoch, at least once (Gupta et al. 2019, section 5.1).

    Args:
        records: images.
        classes: how many there are.
        below: classes that are in a smaller share of the images are shown more often.
    """
    present = np.zeros((len(records), classes), np.bool_)
    for row, record in zip(present, records, strict=True):
        row[record.labels[~record.difficult]] = True
    share = present.mean(axis=0) if records else np.ones(classes)
    of_class = np.maximum(1.0, np.sqrt(below / np.maximum(share, 1e-9)))
    return [float(of_class[row].max(initial=1.0)) for row in present]


def order_of_epoch(factors: Sequence[float], random: Random) -> list[int]:
    """Indices of an epoch, shuffled. Every image comes floor or ceil of its factor times; the total is constant."""
    drawn = [index for index, factor in enumerate(factors) for _ in range(int(factor))]
    order = random.sample(range(len(factors)), len(factors))  # chance, not the file's order, decides who comes again
    parts = np.array([factors[index] % 1 for index in order])
    again = int(parts.sum() + 1e-6)
    if again:
        ends = np.cumsum(parts) * (again / parts.sum())
        places = np.searchsorted(ends, np.arange(again) + random.random(), side="right")
        drawn += [order[int(place)] for place in places.clip(max=len(order) - 1)]
    random.shuffle(drawn)
    return drawn


def epoch_batches(
    examples: DetectionDataset, batch_size: int, random: Random, factors: Sequence[float] | None = None
) -> list[list[int]]:
    """Indices of one epoch in batches: shuffled, but wide images and tall ones apart to save padding.

    The number of batches is the same in every epoch; at most one of them is mixed, and one is not full.
    """
    order = order_of_epoch(factors or [1.0] * len(examples), random)
    order.sort(key=lambda index: _is_tall(examples.records[index]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    random.shuffle(batches)
    return batches


def share(examples: DetectionDataset, batches: Sequence[Sequence[int]], view: int, process: Process) -> list[BatchPlan]:
    """The part of each batch that falls to a process, padded as the whole batch would be.

    A process that gets no image of a small batch takes the first one along without learning from it.
    """
    plans = []
    for batch in batches:
        heights, widths = zip(*(examples.padded_hw(index) for index in batch), strict=True)
        own = tuple(batch[process.rank :: process.world])
        plans.append(BatchPlan(own or (batch[0],), view, (max(heights), max(widths)), counts=bool(own)))
    return plans


def val_plans(examples: DetectionDataset, batch_size: int, process: Process) -> list[BatchPlan]:
    """Every image once over all processes, only images of equal padded size together.

    So each image is seen exactly as it would be alone.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for index in range(len(examples)):
        groups.setdefault(examples.padded_hw(index, 1), []).append(index)
    plans = [
        BatchPlan(tuple(members[start : start + batch_size]), 0, size)
        for size, members in groups.items()
        for start in range(0, len(members), batch_size)
    ]
    own = plans[process.rank :: process.world]
    return own or [BatchPlan(plans[0].indices[:1], 0, plans[0].padded_hw, counts=False)]


class TrainingBatches:
    """The steps of all epochs, one epoch at each iteration; goes on where its state says.

    Args:
        examples: the data set.
        config: batch size, seed, views and balance.
        process: which part is wanted.
        workers: processes that read.
        known: gives the steps of epochs in which the backbone is frozen, if its maps are kept.
    """

    def __init__(
        self,
        examples: DetectionDataset,
        config: TrainConfig,
        process: Process,
        workers: int,
        known: Known | None = None,
    ) -> None:
        self.examples = examples
        self.config = config
        self.process = process
        self.known = known
        self.epoch = 1
        self.done = 0
        self._loader = BatchLoader(examples, workers)
        self._factors: list[float] | None = None
        if config.class_balance == "repeat":
            self._factors = repeat_factors(examples.records, len(config.model.classes), config.repeat_below)

        self._length = len(self._batches(1))

    def __len__(self) -> int:
        return self._length

    def plans(self, epoch: int) -> list[BatchPlan]:
        """Batches of an epoch, counted from 1."""
        views = frozen_views(self.config) if self._knows(epoch) else self.config.views
        view = epoch if views is None else (epoch - 1) % views
        return share(self.examples, self._batches(epoch), view, self.process)

    def __iter__(self) -> Iterator[Step]:
        plans = self.plans(self.epoch)
        todo = plans[self.done :]
        steps = self.known(todo) if self.known is not None and self._knows(self.epoch) else _read(self._loader, todo)
        for step in steps:
            self.done += 1
            if self.done == len(plans):
                self.epoch, self.done = self.epoch + 1, 0
            yield step

    @property
    def sampler(self) -> "TrainingBatches":
        """Where the engine looks for something that it can tell the epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Told by the engine before each epoch, counted from 0: its own count holds, also where a run goes on."""
        if self.epoch != epoch + 1:
            self.epoch, self.done = epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Where the run is."""
        return {"epoch": self.epoch, "done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on there."""
        self.epoch, self.done = state["epoch"], state["done"]

    def _knows(self, epoch: int) -> bool:
        return self.config.cache_features and body_is_frozen(self.config, epoch)

    def _batches(self, epoch: int) -> list[list[int]]:
        size = self.config.batch_size * self.process.world
        random = draws("batches", self.config.seed, "epoch", epoch)
        return epoch_batches(self.examples, size, random, self._factors)


class ValidationBatches:
    """The steps of a validation.

    Args:
        examples: the images.
        batch_size: most of a step.
        process: which part is wanted.
        workers: processes that read.
        known: gives the steps, while the backbone's maps are kept.

    Attributes:
        frozen: whether they are.
    """

    def __init__(
        self,
        examples: DetectionDataset,
        batch_size: int,
        process: Process,
        workers: int,
        known: Known | None = None,
    ) -> None:
        self._plans = val_plans(examples, batch_size, process)
        self._loader = BatchLoader(examples, workers)
        self._known = known
        self.frozen = known is not None

    def __len__(self) -> int:
        return len(self._plans)

    def __iter__(self) -> Iterator[Step]:
        if self._known is not None and self.frozen:
            return self._known(self._plans)
        return _read(self._loader, self._plans)


def frozen_views(config: TrainConfig) -> int:
    """How many views of each image a frozen backbone sees: one, the image as it is, unless the run says more."""
    return config.views or 1


def _read(loader: BatchLoader, plans: Sequence[BatchPlan]) -> Iterator[Step]:
    for plan, (batch, targets) in zip(plans, loader.load(plans), strict=True):
        yield Step(plan, batch, targets)


def _is_tall(record: AnnotatedImage) -> bool:
    return record.size_hw[0] > record.size_hw[1]
