"""Records as a torch data set: images at the network's size, targets in its frame; and their batches."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fasterrcnn.config import Augmentation, InputConfig
from fasterrcnn.data import transforms
from fasterrcnn.data.annotations import AnnotatedImage
from fasterrcnn.data.pixels import read_image_tensor, read_reduced_image
from fasterrcnn.data.transforms import Scene
from fasterrcnn.errors import DataError, ImageError
from fasterrcnn.ops import image
from fasterrcnn.structures import ImageBatch, Target

Example = tuple[Float[Tensor, "3 _ _"], Target]
Batch = tuple[ImageBatch, list[Target]]

BUCKET = 64
"""Heights and widths of batches are multiples of it: kernels are chosen and memory is laid out anew for every shape."""


class DetectionDataset(Dataset[Example]):
    """Examples of a detection data set.

    ``examples[index]`` is an image as detection sees it, ``examples[index, number]`` a view that is varied by chance.
    That follows from the seed, the number and the image's id alone, never from the order or the process of reading.

    Args:
        records: images and boxes.
        config: size of the network input.
        augmentation: how much the images are varied; "none" shows them as detection sees them.
        seed: of the variation.
    """

    def __init__(
        self,
        records: Sequence[AnnotatedImage],
        config: InputConfig,
        *,
        augmentation: Augmentation = "none",
        seed: int = 0,
    ) -> None:
        self.records = list(records)
        self.config = config
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: int | tuple[int, int]) -> Example:
        """Pixels in 0..1 and the target.

        Raises:
            ImageError: the image cannot be decoded; the message names it.
        """
        with _one_thread():
            return self._view(*(key if isinstance(key, tuple) else (key, 0)))

    def _view(self, index: int, number: int) -> Example:
        recipe = transforms.RECIPES[self.augmentation] if number else None
        record = self.records[index]
        if recipe is None:
            # Exactly what detection sees: a decoder that averages would hide what it does not.
            view = transforms.plain_view(_scene(record, read_image_tensor(record.path), 1), self.config)
        else:
            draws = Random(f"seed {self.seed}, epoch {number}, image {record.image_id}")
            view = transforms.random_view(
                self._read(record, recipe.magnification),
                recipe,
                self.config,
                self._canvas_hw(record),
                draws,
                lambda: self._read(draws.choice(self.records), recipe.magnification),
            )
        asked = ~view.difficult
        return view.pixels, Target(view.boxes[asked], view.labels[asked], view.boxes[view.difficult])

    def collate(self, examples: Sequence[Example], padded_hw: tuple[int, int] | None = None) -> Batch:
        """Examples of different sizes as one padded batch.

        Args:
            examples: images and targets.
            padded_hw: least size of the batch; without it, the sides are multiples of `BUCKET`.
        """
        pixels = [pixels for pixels, _ in examples]
        divisor = math.lcm(self.config.size_divisor, 1 if padded_hw else BUCKET)
        batch = image.make_batch(pixels, fill=self.config.mean, size_divisor=divisor, padded_hw=padded_hw)
        return batch, [target for _, target in examples]

    def padded_hw(self, index: int, divisor: int = BUCKET) -> tuple[int, int]:
        """Size of a batch of this image alone: multiples of the divisor and of the input's own."""
        height, width = self._canvas_hw(self.records[index])
        divisor = math.lcm(self.config.size_divisor, divisor)
        return image.pad_to(height, divisor), image.pad_to(width, divisor)

    def _canvas_hw(self, record: AnnotatedImage) -> tuple[int, int]:
        return self.config.resized_hw(record.size_hw)

    def _read(self, record: AnnotatedImage, magnification: float) -> Scene:
        """An image that is going to be varied; where resizing averages anyway, its decoder may do so before."""
        if not self.config.antialias:
            return _scene(record, read_image_tensor(record.path), 1)
        height, width = (math.ceil(side * magnification) for side in self._canvas_hw(record))
        return _scene(record, *read_reduced_image(record.path, (height, width)))


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in processes that read: torch's bilinear resizing rounds differently with several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _scene(record: AnnotatedImage, pixels: Tensor, divisor: int) -> Scene:
    xyxy = torch.from_numpy(record.boxes) / divisor
    return transforms.make_scene(pixels, xyxy, torch.from_numpy(record.labels), torch.from_numpy(record.difficult))


@dataclass(frozen=True)
class BatchPlan:
    """Which images make a batch.

    Attributes:
        indices: of the examples.
        view: of each image: 0 is the image as it is, others are varied.
        padded_hw: least size of the batch, in pixels of the network input.
        counts: whether the batch is to be learned from; a process without images of its own takes part all the same.
    """

    indices: tuple[int, ...]
    view: int = 0
    padded_hw: tuple[int, int] | None = None
    counts: bool = True


class _Batches(Dataset[Batch]):
    """Plans in, batches out; a data set in torch's sense, so that other processes can read it."""

    def __init__(self, examples: DetectionDataset) -> None:
        self.examples = examples

    def __getitem__(self, plan: BatchPlan) -> Batch:
        return self.examples.collate([self.examples[index, plan.view] for index in plan.indices], plan.padded_hw)


class BatchLoader:
    """Batches of a data set, read by this process or by others, which live as long as the loader.

    Every number of processes gives the same bits.

    Args:
        examples: the data set.
        workers: processes that read; 0 reads in this one.
    """

    def __init__(self, examples: DetectionDataset, workers: int = 0) -> None:
        self.examples = examples
        self._plans: list[BatchPlan] = []
        self._loader: DataLoader[Batch] = DataLoader(
            _Batches(examples),
            batch_size=None,
            sampler=self._plans,
            num_workers=workers,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # without one of its own, it would draw from the caller's
        )

    def load(self, plans: Sequence[BatchPlan]) -> Iterator[Batch]:
        """The planned batches, in order.

        Raises:
            ImageError: an image cannot be decoded; the message names it.
            DataError: a reading process died.
        """
        self._plans[:] = plans
        coming = iter(self._loader)
        while True:
            try:
                batch = next(coming, None)
            except ImageError as error:
                advice = 'on_bad_box="drop" leaves such images out; "fasterrcnn data check" finds all of them'
                raise ImageError(f"{_last_line(error)}; {advice}") from None
            except (RuntimeError, EOFError, OSError) as error:
                # A dead process is noticed by its signal, or by whatever part of a batch it did not hand over.
                torn = isinstance(error, EOFError | OSError) and self._loader.num_workers > 0
                if not torn and "DataLoader worker" not in str(error):
                    raise
                reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(". ")
                raise DataError(f"a process that reads images died ({reason}); try fewer workers") from None
            if batch is None:
                return
            yield batch


def _last_line(error: ImageError) -> str:
    """The message without the traceback that torch puts before it when it comes from another process."""
    return str(error).strip().splitlines()[-1].removeprefix(f"{ImageError.__module__}.{ImageError.__name__}: ")
