"""Pictures in batches of one shape: those that need the same padded input pass the network together."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any

from fasterrcnn.config import InputConfig
from fasterrcnn.errors import ImageError
from fasterrcnn.inference.sources import Loaded, load_picture, size_hw
from fasterrcnn.inference.views import View
from fasterrcnn.ops.sizes import pad_to

Numbered = tuple[int, Any]


def batches_by_size(
    pictures: Iterable[Any], batch_size: int, window: int, size: InputConfig
) -> Iterator[tuple[Numbered, ...]]:
    """Numbered pictures in batches, sorted by the size of their padded input within each window.

    Args:
        pictures: of any kind that `size_hw` knows; sizes of files are read from their headers.
        batch_size: most pictures of a batch.
        window: pictures among which the order may change; only so many are looked at ahead.
        size: how a picture becomes the network input.
    """
    numbered = enumerate(pictures)
    if batch_size == 1:
        yield from ((one,) for one in numbered)
        return

    def shape(one: Numbered) -> tuple[int, int]:
        hw = size_hw(one[1])
        if min(hw) < 1:
            return 0, 0
        height, width = size.resized_hw(hw)
        return pad_to(height, size.size_divisor), pad_to(width, size.size_divisor)

    while seen := list(islice(numbered, max(window, batch_size))):
        seen.sort(key=shape)
        for start in range(0, len(seen), batch_size):
            yield tuple(seen[start : start + batch_size])


def load_batches(
    batches: Iterable[tuple[Numbered, ...]],
) -> Generator[tuple[list[int], list[Loaded | ImageError]], None, None]:
    """The numbers and the pictures of each batch, in memory; where one cannot be read, its error takes its place."""
    for batch in batches:
        yield [number for number, _ in batch], [_load(picture) for _, picture in batch]


def _load(picture: Any) -> Loaded | ImageError:
    if isinstance(picture, Loaded | ImageError):
        return picture
    try:
        return load_picture(picture)
    except ImageError as error:
        return error


def batches_of_views(queue: Sequence[tuple[Loaded, View]], size: int) -> Iterator[list[tuple[Loaded, View]]]:
    """The views in batches of at most that size; crowded ones are not mixed with others."""
    for _, views in groupby(queue, key=lambda look: look[1].crowd):
        while part := list(islice(views, size)):
            yield part
