"""For formats that can be written: file names, copies of the images, and decimal numbers."""

import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.data.images import EXTENSIONS
from fasterrcnn.errors import DataError

# Characters that file systems, lists with one name a line, UTF-8 or XML do not allow.
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\u2028\u2029\ud800-\udfff\ufffe\uffff]')


def shortest_decimals(boxes: NDArray[np.float32]) -> list[list[float]]:
    """The shortest decimal numbers that are these boxes: 38.65 instead of 38.650001525878906."""
    return [[float(str(value)) for value in box] for box in boxes]


def file_names(images: Sequence[AnnotatedImage]) -> list[str]:
    """A portable file name for each image; no two have the same stem, after which YOLO and VOC name annotations."""
    names: list[str] = []
    taken: set[str] = set()
    for image in images:
        path = Path(_NOT_IN_NAMES.sub("_", image.path.name))
        stem, suffix = path.stem.strip(" ."), path.suffix
        if suffix.lower() not in EXTENSIONS:
            stem, suffix = path.name.strip(" ."), ".jpg"  # tools find images by it, and decoders ignore it
        stem = stem or "image"
        free, number = stem, 1
        while free.casefold() in taken:
            number += 1
            free = f"{stem}-{number}"
        taken.add(free.casefold())
        names.append(free + suffix)
    return names


def copy_images(images: Sequence[AnnotatedImage], names: Sequence[str], folder: Path) -> list[str]:
    """Copy the images into a folder, under the given names.

    Returns:
        A sentence if the name of any of them has changed.

    Raises:
        DataError: an image is missing; the message names it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for image, name in zip(images, names, strict=True):
        try:
            shutil.copyfile(image.path, folder / name)
        except FileNotFoundError:
            raise DataError(f"{image.path}: no such file; nothing was written") from None
    renamed = [(i.path.name, name) for i, name in zip(images, names, strict=True) if i.path.name != name]
    if not renamed:
        return []
    old, new = renamed[0]
    return [f"{count_of(len(renamed), 'image')} in {folder.name}/ got another name, as {old!r}, which is now {new!r}"]


def note_copies(splits: Mapping[str, Sequence[AnnotatedImage]]) -> list[str]:
    """A sentence if there are images in several splits, for formats that need a copy in each."""
    counts = Counter(id(image) for images in splits.values() for image in images)
    several = sum(count > 1 for count in counts.values())
    return [f"{count_of(several, 'image')} in several splits: a copy is in each"] if several else []


def count_of(count: int, noun: str) -> str:
    """A number and its noun: "1 image", "2 images"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def write_file(file: Path, text: str) -> None:
    """Write UTF-8 text with the same line ends on every system."""
    file.write_text(text, encoding="utf-8", newline="\n")


def lost_areas_and_ids(title: str, data: AnnotatedData) -> list[str]:
    """Sentences about what only COCO can hold: areas of outlines, and ids of classes."""
    notes = []
    outlines = sum(_count_outlines(image) for image in data.images)
    if outlines:
        notes.append(f"{title} has no areas: of {count_of(outlines, 'object')} the box counts, not the outline")
    if data.category_ids != tuple(range(1, len(data.classes) + 1)):
        notes.append(f"{title} has no ids of classes: those of the original are lost")
    return notes


def _count_outlines(image: AnnotatedImage) -> int:
    """How many objects have another area than their boxes."""
    if image.areas is None:
        return 0
    sides = image.boxes[:, 2:] - image.boxes[:, :2]
    return int((~np.isclose(sides.prod(axis=1), image.areas, rtol=0.01, atol=0.01)).sum())
