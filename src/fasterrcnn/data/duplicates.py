"""Duplicate images: identical, or nearly identical. Needs numpy and Pillow only.

Images whose difference hashes are close are candidates; small grey thumbnails decide. A false alarm is worse than a
miss: images that differ in one detail are not similar. Measured on 1,287 photographs: missed are none of the copies
compressed with quality 30 to 95 or scaled by 0.5 or 2, 0.3 % of the darkened ones and of those cut by 1 %, 8 % of those
cut by 2 %, and 13 % of those brightened by 10 % and clipped at white; of 828,000 pairs one is found, the same blood
cells refocused, and of pairs with an object moved by a tenth of the image 0.4 %, those where it hardly stands out
from its ground.

Axes: n images, k pairs; 32 x 32 thumbnails.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from fasterrcnn.data.annotations import AnnotatedImage, group_by

_SIDE = 32
_SOFTEN = ImageFilter.Kernel((3, 3), (1, 2, 1, 2, 4, 2, 1, 2, 1))
"""Blurs thumbnails, so that edges change less when an image is cropped by a hundredth."""

_MAX_BITS = 10
"""Of 64 bits of the hash, how many may differ between candidates; compression, scaling or cropping change fewer."""

_MIN_CONTRAST = 4.0
"""Standard deviation in grey levels below which an image shows too little to be compared."""

_MIN_CORRELATION = 0.95
_MAX_DIFFERENCE = 0.2
_MAX_LEVELS = 8.0
"""Largest differences of one pixel: in standard deviations of the thumbnail, and in grey levels."""

_MAX_SHIFT = 0.03
"""Of width and height, by which the centre of an object may move between copies of an image; cropping moves it."""

_ROBOFLOW = re.compile(r"(.+)\.rf\.[0-9A-Za-z_-]{8,}\.\w+")

_ROWS = 256
_PAIRS = 2048


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of an image to find its duplicates."""

    pixels: bytes  # hash of size and pixels; equal only for images that are the same pixel by pixel
    gradients: int  # 64 bits: does it get brighter to the right, at 8 x 8 places? (dHash)
    thumbnail: NDArray[np.float32]  # (32, 32) softened grey values, 0..255


def take_fingerprint(image: Image.Image) -> Fingerprint:
    """The fingerprint of an upright RGB image."""
    size = "{} x {} ".format(*image.size).encode()
    pixels = hashlib.blake2b(size + image.tobytes(), digest_size=16).digest()
    grey = image.convert("L")
    steps = np.asarray(grey.resize((9, 8), Image.Resampling.BILINEAR))
    gradients = int.from_bytes(np.packbits(steps[:, 1:] > steps[:, :-1]).tobytes(), "big")
    thumbnail = grey.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR).filter(_SOFTEN)
    return Fingerprint(pixels, gradients, np.asarray(thumbnail).astype(np.float32))


def find_identical(prints: Sequence[Fingerprint]) -> list[list[int]]:
    """Indices of images that are the same pixel by pixel, in groups of two or more."""
    groups = group_by(range(len(prints)), lambda index: prints[index].pixels)
    return [group for group in groups.values() if len(group) > 1]


def find_similar(prints: Sequence[Fingerprint]) -> list[tuple[int, int]]:
    """Pairs of images that are nearly the same: compressed again, resized, brighter, cropped by one or two hundredths.

    Of images that are the same pixel by pixel the first stands for all. Images without contrast are never similar.
    The pairs of indices are sorted, and in each the smaller comes first.
    """
    firsts = {fingerprint.pixels: index for index, fingerprint in reversed(list(enumerate(prints)))}
    kept = [index for index in sorted(firsts.values()) if prints[index].thumbnail.std() >= _MIN_CONTRAST]
    if not kept:
        return []
    hashes = np.array([prints[index].gradients for index in kept], dtype=np.uint64)
    thumbnails = np.stack([prints[index].thumbnail for index in kept])
    contrasts = thumbnails.std(axis=(1, 2))
    thumbnails = (thumbnails - thumbnails.mean(axis=(1, 2), keepdims=True)) / contrasts[:, None, None]
    similar = []
    for pairs in _candidates(hashes):
        left, right = thumbnails[pairs[:, 0]], thumbnails[pairs[:, 1]]
        alike = np.einsum("kyx,kyx->k", left, right) >= _MIN_CORRELATION * _SIDE**2
        limits = np.minimum(_MAX_DIFFERENCE, _MAX_LEVELS / contrasts[pairs[alike]].max(axis=1))
        left, right = left[alike], right[alike]
        alike[alike] = np.maximum(_difference(left, right), _difference(right, left)) <= limits
        similar += [(kept[i], kept[j]) for i, j in pairs[alike].tolist()]
    return sorted(similar)


def differ_clearly(first: AnnotatedImage, other: AnnotatedImage) -> bool:
    """Whether images that are alike show different scenes: each has an object that the other has not.

    So the same board with other pieces on it is another image, but not a copy of which some objects were not annotated.
    """
    return _has_more(first, other) and _has_more(other, first)


def _has_more(image: AnnotatedImage, other: AnnotatedImage) -> bool:
    """Whether an object of an image has no counterpart: the same class, at nearly the same place."""
    centres, sides = _relative(image)
    other_centres, other_sides = _relative(other)
    reach = _MAX_SHIFT + np.maximum(sides[:, None], other_sides[None]) / 4
    near = (np.abs(centres[:, None] - other_centres[None]) <= reach).all(axis=2)
    same = near & (image.labels[:, None] == other.labels[None])
    return not bool(same.any(axis=1).all())


def _relative(image: AnnotatedImage) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n, 2) centres and sides of the finite boxes of an image, as shares of its width and height; NaN for others."""
    boxes = np.where(np.isfinite(image.boxes), image.boxes, np.nan).astype(np.float64)
    size = np.array(image.size_hw[::-1], np.float64)
    return (boxes[:, :2] + boxes[:, 2:]) / 2 / size, np.abs(boxes[:, 2:] - boxes[:, :2]) / size


def original_name(path: Path) -> str | None:
    """The name of the image of which Roboflow made this one, NAME of ``NAME.rf.HASH.jpg``; None for other files.

    Its versions of an image may be turned, cut or darkened.
    """
    match = _ROBOFLOW.fullmatch(path.name)
    return match and match[1]


def connected_groups(count: int, links: Iterable[Sequence[int]]) -> list[list[int]]:
    """Groups of the indices 0..count-1 that links connect, directly or through others.

    Indices without links are groups of one. Groups are in the order of their first members. A link has any number of
    indices.
    """
    parents = list(range(count))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    for link in links:
        for index in link[1:]:
            first, second = sorted((root(link[0]), root(index)))
            parents[second] = first
    return list(group_by(range(count), root).values())


def _candidates(hashes: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """(k, 2) indices i < j of close hashes, in parts that fit into memory."""
    for start in range(0, len(hashes), _ROWS):
        bits = np.bitwise_count(hashes[start : start + _ROWS, None] ^ hashes[None, start:])
        rows, columns = np.nonzero(bits <= _MAX_BITS)
        pairs = np.stack([rows, columns], axis=1)[rows < columns] + start
        for first in range(0, len(pairs), _PAIRS):
            yield pairs[first : first + _PAIRS]


def _difference(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """(k,) how far a pixel of the left (k, 32, 32) thumbnails is out of the range of the right, at most.

    The right ones are shifted by up to half a pixel: cropping an image by one or two hundredths does that.
    """
    inner, centre = left[:, 1:-1, 1:-1], right[:, 1:-1, 1:-1]
    steps = [(y, x) for y in range(3) for x in range(3)]
    moved = [(centre + right[:, y : y + _SIDE - 2, x : x + _SIDE - 2]) / 2 for y, x in steps]
    outside = np.maximum(inner - np.maximum.reduce(moved), np.minimum.reduce(moved) - inner)
    greatest: NDArray[np.float32] = outside.max(axis=(1, 2))
    return greatest
