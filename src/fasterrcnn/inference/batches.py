"""Images in batches of one shape: those that need the same padded input pass the network together."""

import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fasterrcnn.config import InputConfig
from fasterrcnn.errors import ImageError
from fasterrcnn.inference.devices import processors
from fasterrcnn.inference.sources import LoadedImage, batch_of_images, load_image, size_hw
from fasterrcnn.inference.tiling import Tile
from fasterrcnn.inference.video import files_and_frames
from fasterrcnn.ops.image import pad_to
from fasterrcnn.pixel_options import AS_STORED, PixelOptions
from fasterrcnn.structures import CPU, ImageBatch

Numbered = tuple[int, Any]


def batches_by_size(
    images: Iterable[Any], batch_size: int, window: int, input_config: InputConfig
) -> Iterator[tuple[Numbered, ...]]:
    """Numbered images in batches, sorted by the size of their padded input within each window.

    Sizes of files are read from their headers; the order changes only among ``window`` images, which are read ahead.
    """
    numbered = enumerate(images)
    if batch_size == 1:
        yield from ((item,) for item in numbered)
        return

    def padded_hw(item: Numbered) -> tuple[int, int]:
        hw = size_hw(item[1])
        if min(hw) < 1:
            return 0, 0
        height, width = input_config.resized_hw(hw)
        divisor = input_config.size_divisor
        return pad_to(height, divisor), pad_to(width, divisor)

    while ahead := list(islice(numbered, max(window, batch_size))):
        ahead.sort(key=padded_hw)
        for start in range(0, len(ahead), batch_size):
            yield tuple(ahead[start : start + batch_size])


def load_batches(
    batches: Iterable[tuple[Numbered, ...]],
    options: PixelOptions = AS_STORED,
    device: torch.device = CPU,
) -> Generator[tuple[list[int], list[LoadedImage | ImageError]], None, None]:
    """The numbers and the images of each batch, in memory; where one cannot be read, its error takes its place.

    Args:
        batches: of numbered images.
        options: how the values of files become RGB.
        device: of the network. For a CUDA GPU, up to 8 images of a batch are decoded at the same time, into memory that
            it reads itself; a network on the CPU leaves no cores for that.
    """
    on_gpu = device.type == "cuda"
    threads = min(8, processors()) if on_gpu else 1

    def load(item: Numbered) -> LoadedImage | ImageError:
        image = _load(item[1], options)
        if on_gpu and isinstance(image, LoadedImage) and image.pixels.device.type == "cpu":
            return replace(image, pixels=image.pixels.pin_memory())
        return image

    with ThreadPoolExecutor(threads, thread_name_prefix="fasterrcnn-decode") as pool:
        for batch in batches:
            images = pool.map(load, batch) if min(threads, len(batch)) > 1 else map(load, batch)
            yield [number for number, _ in batch], list(images)


def _load(image: Any, options: PixelOptions) -> LoadedImage | ImageError:
    if isinstance(image, LoadedImage | ImageError):
        return image
    try:
        return load_image(image, options)
    except ImageError as error:
        return error


def default_batch_size(source: object, device: torch.device) -> int:
    """8 on a CUDA GPU, where all images are there: a list, files or a video; else 1.

    Images of a camera or of any other iterator do not wait for each other.
    """
    is_there = isinstance(source, Sequence | Path | np.ndarray | Tensor | Image.Image)
    return 8 if device.type == "cuda" and is_there else 1


def input_batches(images: Any, config: InputConfig) -> Iterator[ImageBatch]:
    """Network inputs one by one, of all kinds of images that `Detector.stream` takes; unreadable files give a warning.

    Raises:
        ImageError: an image that is no file of a folder, glob or video cannot be read.
    """
    from_files = isinstance(images, str | Path | int)
    if from_files:
        images = files_and_frames(images, 1)
    elif isinstance(images, bytes | np.ndarray | Tensor | Image.Image):
        images = [images]
    for image in (_load(image, config.pixels) for image in images):
        if isinstance(image, LoadedImage):
            yield batch_of_images([image.pixels], config, image.pixels.device)
        elif from_files:
            warnings.warn(str(image), stacklevel=2)
        else:
            raise image


def batches_of_tiles(
    queue: Sequence[tuple[LoadedImage, Tile]], batch_size: int
) -> Iterator[list[tuple[LoadedImage, Tile]]]:
    """Batches of at most that many tiles; all tiles of a batch have the same capacity."""
    for _, same_capacity in groupby(queue, key=lambda entry: entry[1].capacity):
        while part := list(islice(same_capacity, batch_size)):
            yield part


T = TypeVar("T")
_END: Final = object()


def prefetch(items: Iterator[T]) -> Generator[T, None, None]:
    """The same items in the same order; the next one is computed in a thread while this one is used.

    An error of an item is raised here, in its place. Never more than one item is computed ahead.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="fasterrcnn-prefetch") as pool:
        pending = pool.submit(next, items, _END)
        while (item := pending.result()) is not _END:
            pending = pool.submit(next, items, _END)
            yield item  # type: ignore[misc]  # only the end is not a T
