"""Annotated images as a torch data set: pixels at the network's size, targets in its frame; and their batches."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import pil_to_tensor

from fasterrcnn.config import Augmentation, InputConfig
from fasterrcnn.data import transforms
from fasterrcnn.data.annotations import AnnotatedImage
from fasterrcnn.data.transforms import Sample
from fasterrcnn.errors import DataError, ImageError
from fasterrcnn.images import read_image, read_reduced
from fasterrcnn.ops import image as image_ops
from fasterrcnn.structures import ImageBatch, Target

DetectionExample = tuple[Float[Tensor, "3 _ _"], Target]
Batch = tuple[ImageBatch, list[Target]]

BUCKET = 64
"""Heights and widths of batches are multiples of it: each new shape costs time, for kernels and memory."""


class DetectionDataset(Dataset[DetectionExample]):
    """Examples of a detection data set.

    ``examples[index]`` is an image as in detection, ``examples[index, view]`` an augmented view of it (from 1).
    A view depends on the seed, its number and the image's id alone, not on the order or the process of reading.

    Args:
        images: to read, with their boxes.
        config: size of the network input.
        augmentation: how much the images are varied; "none" leaves them as in detection.
        seed: of the augmentation.
    """

    def __init__(
        self,
        images: Sequence[AnnotatedImage],
        config: InputConfig,
        *,
        augmentation: Augmentation = "none",
        seed: int = 0,
    ) -> None:
        self.images = list(images)
        self.config = config
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: int | tuple[int, int]) -> DetectionExample:
        """Pixels in 0..1 and the target.

        Raises:
            ImageError: the image cannot be decoded; the message names it.
        """
        with _one_thread():
            return self._example(*(key if isinstance(key, tuple) else (key, 0)))

    def _example(self, index: int, view: int) -> DetectionExample:
        settings = transforms.AUGMENTATIONS[self.augmentation] if view else None
        image = self.images[index]
        if settings is None:
            # Exactly as in detection, so without the decoder's own reduction, which averages pixels.
            sample = transforms.plain_sample(_sample(image, pil_to_tensor(read_image(image.path)), 1), self.config)
        else:
            # The word of version 0.1 stays: another one would change the images of runs that are resumed.
            rng = Random(f"seed {self.seed}, epoch {view}, picture {image.image_id}")
            sample = transforms.augment(
                self._read(image, settings.magnification),
                settings,
                self.config,
                self._canvas_hw(image),
                rng,
                lambda: self._read(rng.choice(self.images), settings.magnification),
            )
        objects = ~sample.difficult
        ignored = sample.boxes[sample.difficult]
        return sample.pixels, Target(sample.boxes[objects], sample.labels[objects], ignored)

    def collate(self, examples: Sequence[DetectionExample], padded_hw: tuple[int, int] | None = None) -> Batch:
        """Examples of different sizes as one padded batch.

        Args:
            examples: images and targets.
            padded_hw: minimum size of the batch; without it, the sides are multiples of `BUCKET`.
        """
        pixels = [pixels for pixels, _ in examples]
        divisor = math.lcm(self.config.size_divisor, 1 if padded_hw else BUCKET)
        batch = image_ops.make_batch(pixels, fill=self.config.mean, size_divisor=divisor, padded_hw=padded_hw)
        return batch, [target for _, target in examples]

    def padded_hw(self, index: int, divisor: int = BUCKET) -> tuple[int, int]:
        """Size of a batch of this image alone: multiples of the divisor and of the input's own."""
        height, width = self._canvas_hw(self.images[index])
        divisor = math.lcm(self.config.size_divisor, divisor)
        return image_ops.pad_to(height, divisor), image_ops.pad_to(width, divisor)

    def _canvas_hw(self, image: AnnotatedImage) -> tuple[int, int]:
        return self.config.resized_hw(image.size_hw)

    def _read(self, image: AnnotatedImage, magnification: float) -> Sample:
        """An image to augment; where resizing averages pixels anyway, the decoder may reduce it, which is faster."""
        if not self.config.antialias:
            return _sample(image, pil_to_tensor(read_image(image.path)), 1)
        height, width = (math.ceil(side * magnification) for side in self._canvas_hw(image))
        reduced, divisor = read_reduced(image.path, (height, width))
        return _sample(image, pil_to_tensor(reduced), divisor)


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in reading processes: torch's bilinear resizing rounds differently with several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _sample(image: AnnotatedImage, pixels: Tensor, divisor: int) -> Sample:
    xyxy = torch.from_numpy(image.boxes) / divisor
    return transforms.make_sample(pixels, xyxy, torch.from_numpy(image.labels), torch.from_numpy(image.difficult))


@dataclass(frozen=True)
class BatchPlan:
    """Which images make a batch.

    Attributes:
        indices: of the examples.
        view: number of the augmented view of each image, from 1; 0 leaves the images as in detection.
        padded_hw: minimum size of the batch, in pixels of the network input.
        counts: whether the batch is trained on; a process without images of its own takes part with one that is not.
    """

    indices: tuple[int, ...]
    view: int = 0
    padded_hw: tuple[int, int] | None = None
    counts: bool = True


class _Batches(Dataset[Batch]):
    """A torch data set whose keys are plans and whose items are batches, for the worker processes of `DataLoader`."""

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
            generator=torch.Generator(),  # else it would use the caller's random numbers
        )

    def load(self, plans: Sequence[BatchPlan]) -> Iterator[Batch]:
        """The planned batches, in order.

        Raises:
            ImageError: an image cannot be decoded; the message names it.
            DataError: a reading process died.
        """
        self._plans[:] = plans
        batches = iter(self._loader)
        while True:
            try:
                batch = next(batches, None)
            except ImageError as error:
                advice = 'on_bad_box="drop" leaves such images out; "fasterrcnn data check" finds all of them'
                raise ImageError(f"{_last_line(error)}; {advice}") from None
            except (RuntimeError, EOFError, OSError) as error:
                # A dead process is noticed by its signal, or by a batch that arrives incomplete.
                incomplete = isinstance(error, EOFError | OSError) and self._loader.num_workers > 0
                if not incomplete and "DataLoader worker" not in str(error):
                    raise
                reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(". ")
                raise DataError(f"a process that reads images died ({reason}); try fewer workers") from None
            if batch is None:
                return
            yield batch


def _last_line(error: ImageError) -> str:
    """The message without the traceback that torch puts before it when it comes from another process."""
    return str(error).strip().splitlines()[-1].removeprefix(f"{ImageError.__module__}.{ImageError.__name__}: ")
