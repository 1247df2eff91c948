"""Annotated images as a torch data set: pixels at the network's size, targets in its frame; their batches, drawn."""

import math
import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import pil_to_tensor

from fasterrcnn.config import Augmentation, InputConfig
from fasterrcnn.data import transforms
from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.data.transforms import Sample
from fasterrcnn.errors import DataError, ImageError, UsageError
from fasterrcnn.images import read_image, read_reduced
from fasterrcnn.ops import image as image_ops
from fasterrcnn.reporting.drawing import contact_sheet, draw_boxes
from fasterrcnn.structures import CPU, ByteBatch, ImageBatch, Target

DetectionExample = tuple[Float[Tensor, "3 _ _"], Target]
Batch = tuple[ImageBatch, list[Target]]

_EPOCHS_SHOWN = 3

BUCKET = 64
"""Heights and widths of batches are multiples of it: each new shape costs time, for kernels and memory."""


class DetectionDataset(Dataset[DetectionExample]):
    """Examples of a detection data set.

    ``examples[index]`` is an image as in detection, ``examples[index, view]`` an augmented view of it (from 1).
    A view depends on the seed, its number and the image's id alone, not on the order or the process of reading.

    An augmentation of "none" leaves all views as in detection.
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
        """Pixels in 0..1 and the target; an `ImageError` names an image that cannot be decoded."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in reading processes: torch's bilinear resizing rounds differently with several
        try:
            return self._example(*(key if isinstance(key, tuple) else (key, 0)))
        finally:
            torch.set_num_threads(threads)

    def _example(self, index: int, view: int) -> DetectionExample:
        settings = transforms.AUGMENTATIONS[self.augmentation] if view else None
        image = self.images[index]
        if settings is None:
            sample = transforms.plain_sample(self._read(image), self.config)
        else:
            # The word of version 0.1 stays: another one would change the images of runs that are resumed.
            rng = Random(f"seed {self.seed}, epoch {view}, picture {image.image_id}")
            magnification = settings.magnification
            sample = transforms.augment(
                self._read(image, magnification),
                settings,
                self.config,
                self.config.resized_hw(image.size_hw),
                rng,
                another=lambda: self._read(rng.choice(self.images), magnification),
            )
        objects = ~sample.difficult
        ignored = sample.boxes[sample.difficult]
        return sample.pixels, Target(sample.boxes[objects], sample.labels[objects], ignored)

    def collate(self, examples: Sequence[DetectionExample], padded_hw: tuple[int, int] | None = None) -> Batch:
        """Examples of different sizes as one padded batch of a minimum size; without one, of multiples of `BUCKET`."""
        pixels = [pixels for pixels, _ in examples]
        divisor = math.lcm(self.config.size_divisor, 1 if padded_hw else BUCKET)
        batch = image_ops.make_batch(pixels, fill=self.config.mean, size_divisor=divisor, padded_hw=padded_hw)
        return batch, [target for _, target in examples]

    def padded_hw(self, index: int, divisor: int = BUCKET) -> tuple[int, int]:
        """Size of a batch of this image alone: multiples of the divisor and of the input's own."""
        height, width = self.config.resized_hw(self.images[index].size_hw)
        divisor = math.lcm(self.config.size_divisor, divisor)
        return image_ops.pad_to(height, divisor), image_ops.pad_to(width, divisor)

    def _read(self, image: AnnotatedImage, magnification: float | None = None) -> Sample:
        """An image to augment, or without a magnification one that is shown exactly as in detection.

        Where augmentation averages pixels when it resizes, the decoder may reduce the image before, which is faster.
        """
        if magnification is None or not self.config.antialias:
            pil_image, divisor = read_image(image.path, self.config.pixels), 1
        else:
            height, width = (math.ceil(side * magnification) for side in self.config.resized_hw(image.size_hw))
            pil_image, divisor = read_reduced(image.path, (height, width), self.config.pixels)
        xyxy, labels = torch.from_numpy(image.boxes) / divisor, torch.from_numpy(image.labels)
        return transforms.make_sample(pil_to_tensor(pil_image), xyxy, labels, torch.from_numpy(image.difficult))


@dataclass(frozen=True)
class BatchPlan:
    """Which images make a batch."""

    indices: tuple[int, ...]  # of the examples
    view: int = 0  # number of the augmented view of each image, from 1; 0 leaves the images as in detection
    padded_hw: tuple[int, int] | None = None  # minimum size of the batch, in pixels of the network input
    counts: bool = True  # whether it is trained on; a process without images of its own takes part with one that is not


_Read = tuple[ImageBatch | ByteBatch, list[Target]]


class _Batches(Dataset[_Read]):
    """A torch data set whose keys are plans and whose items are batches, for the worker processes of `DataLoader`."""

    def __init__(self, examples: DetectionDataset, *, as_bytes: bool) -> None:
        self.examples = examples
        self.as_bytes = as_bytes

    def __getitem__(self, plan: BatchPlan) -> _Read:
        examples = [self.examples[index, plan.view] for index in plan.indices]
        batch, targets = self.examples.collate(examples, plan.padded_hw)
        return ByteBatch.of(batch, self.examples.config.mean) if self.as_bytes else batch, targets


class BatchLoader:
    """Batches of a data set, read by worker processes that live as long as the loader, or with 0 of them by this one.

    Every number of processes gives the same bits.

    Args:
        examples: the data set.
        workers: number of processes.
        device: where the batches are needed; to a CUDA GPU they travel while the CPU goes on.
        as_bytes: they travel as `ByteBatch`, with pixels of 256 levels.
    """

    def __init__(
        self,
        examples: DetectionDataset,
        workers: int = 0,
        *,
        device: torch.device = CPU,
        as_bytes: bool = False,
    ) -> None:
        self.examples = examples
        self.device = device
        self._plans: list[BatchPlan] = []
        self._loader: DataLoader[_Read] = DataLoader(
            _Batches(examples, as_bytes=as_bytes),
            batch_size=None,
            sampler=self._plans,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            multiprocessing_context=start_method() if workers else None,
            generator=torch.Generator(),  # else it would use the caller's random numbers
        )

    def load(self, plans: Sequence[BatchPlan]) -> Iterator[Batch]:
        """The planned batches, in order; an `ImageError` names a bad image, `DataError`: a reading process died."""
        self._plans[:] = plans
        batches = _iterate(self._loader)
        while True:
            try:
                batch = next(batches, None)
            except ImageError as error:
                # From another process, torch puts the traceback before the message.
                last_line = str(error).strip().splitlines()[-1]
                message = last_line.removeprefix(f"{ImageError.__module__}.{ImageError.__name__}: ")
                advice = 'on_bad_box="drop" leaves such images out; "fasterrcnn data check" finds all of them'
                raise ImageError(f"{message}; {advice}") from None
            except (RuntimeError, EOFError, OSError) as error:
                # Torch asks in vain for some seconds, or the batch arrives incomplete.
                message = str(error) or type(error).__name__
                incomplete = isinstance(error, EOFError | OSError) and "Caught" not in message
                if not (incomplete and self._loader.num_workers) and not message.startswith("DataLoader worker"):
                    raise
                reason = message.splitlines()[0].rstrip(". ")
                advice = "try fewer workers"
                if start_method() != "fork":
                    advice = 'each runs the script again: call fit below if __name__ == "__main__":, or take workers=0'
                raise DataError(f"a process that reads images died ({reason}); {advice}") from None
            if batch is None:
                return
            images, targets = batch
            yield images.to(self.device), [target.to(self.device) for target in targets]


def start_method() -> str:
    """How processes that read images start: as a copy of this one on Linux, else as Python does it here.

    A copy does not run the script again, so a script needs no guard; it never uses the GPU.
    """
    return "fork" if sys.platform == "linux" else multiprocessing.get_context().get_start_method()


def _iterate(loader: DataLoader[_Read]) -> Iterator[_Read]:
    """The iterator of a loader, without torch's handler of processes that end.

    It would raise an exception wherever the program is when a reading process dies, be it in the midst of writing a
    file. Without it, the next batch notices.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        return iter(loader)  # here torch sets no handler
    handler = signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
    return iterator


def draw_augmented(
    data: AnnotatedData,
    images: Sequence[AnnotatedImage],
    config: InputConfig,
    augmentation: Augmentation,
    count: int,
    seed: int,
) -> Image.Image:
    """One sheet with a row for each of ``count`` images, at most: as in detection, then as in three epochs of training.

    Everything is at the network's input size, padding included, in a white frame. Difficult objects and crowds are
    captioned "difficult". Mosaics are made of the given images too. The seed chooses the images; a training run with
    it augments them in the same way in its first epochs.

    Raises:
        UsageError: there is no image to show.
        ImageError: an image cannot be decoded.
    """
    if not images or count < 1:
        raise UsageError(f"{data.root}: no images to show")
    plain = DetectionDataset(images, config)
    augmented = DetectionDataset(images, config, augmentation=augmentation, seed=seed)
    examples = []
    for index in sorted(Random(seed).sample(range(len(images)), min(count, len(images)))):
        examples += [plain[index], *(augmented[index, epoch] for epoch in range(1, _EPOCHS_SHOWN + 1))]
    batch, targets = plain.collate(examples)
    drawn = [draw_target(pixels, target, data.classes) for pixels, target in zip(batch.pixels, targets, strict=True)]
    framed = [ImageOps.expand(pil_image, border=2, fill="white") for pil_image in drawn]
    return contact_sheet(framed, columns=1 + _EPOCHS_SHOWN)


def draw_target(pixels: Float[Tensor, "3 h w"], target: Target, classes: Sequence[str]) -> Image.Image:
    """An image of the network's input, RGB in 0..1, with its objects; ignored regions are captioned "difficult"."""
    pil_image = Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).contiguous().numpy())
    # A target does not keep the classes of difficult objects, so they get a colour of their own.
    labels = torch.cat([target.labels, target.labels.new_full((len(target.ignored),), len(classes))])
    captions = [classes[label] for label in target.labels.tolist()] + ["difficult"] * len(target.ignored)
    xyxy = torch.cat([target.boxes, target.ignored])
    return draw_boxes(pil_image, xyxy.numpy(), labels.numpy(), captions)
