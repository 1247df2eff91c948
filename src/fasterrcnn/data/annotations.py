"""An annotated data set in memory, whatever format it was read from. Needs no torch.

Axes: n boxes. Boxes are xyxy in pixels of the upright original image, continuous: width = x2 - x1.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fasterrcnn.data.findings import Finding
from fasterrcnn.errors import UsageError

_Item = TypeVar("_Item")
_Key = TypeVar("_Key")

NO_SPLIT = "all"
"""Name of the only split of a data set that has none."""

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "trainval": "trainval",
    "test": "test",
    "testing": "test",
}
"""Names of splits in files and folders, and their names here."""


def split_of(path: Path, root: Path) -> str:
    """The split in the name of a file or folder, or of the folders above it below the root; "all" if they name none."""
    relative = path.relative_to(root)
    words = re.findall("[a-z]+", f"{relative.stem} {relative.parent.as_posix()}".lower())
    return next((SPLITS[word] for word in words if word in SPLITS), NO_SPLIT)


@dataclass(frozen=True)
class AnnotatedImage:
    """One image file and its objects.

    Readers give the boxes as they are written, valid or not; `repair` keeps only boxes that can be trained on.

    Attributes:
        path: the image file.
        image_id: number of the image, unique in its split: that of the COCO file, or from 1.
        size_hw: height and width of the upright image in pixels, as the annotations state it where they do.
        boxes: (n, 4) xyxy.
        labels: (n,) 0..K-1.
        difficult: (n,) crowds, difficult and ignored objects: neither asked for nor counted as a mistake.
        source: the file that holds the annotations.
        numbers: (n,) id, object number or line number of each annotation in it.
        areas: (n,) area of each object in pixels where the file states it (COCO's masks); width x height otherwise.
        original_id: the id as the file writes it, where that is no whole number of 63 bits: "6f1e3a", "000123".
    """

    path: Path
    image_id: int
    size_hw: tuple[int, int]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    source: Path | None = None
    numbers: NDArray[np.int64] | None = None
    areas: NDArray[np.float32] | None = None
    original_id: int | str | None = None

    @property
    def stated_id(self) -> int | str:
        """The id as the file writes it, for files that other programs read."""
        return self.image_id if self.original_id is None else self.original_id

    @property
    def annotation_file(self) -> Path:
        """The file that a message about its annotations names: the source, or the image where there is none."""
        return self.source or self.path

    @property
    def content(self) -> tuple[object, ...]:
        """Image and objects, as a key: equal for images of several splits with the same annotations."""
        columns = (self.boxes, self.labels, self.difficult)
        return (self.path, self.size_hw, *(column.tobytes() for column in columns))

    def number(self, index: int) -> int:
        """Number of an annotation in the source; its position from 1 where it has none."""
        return index + 1 if self.numbers is None else int(self.numbers[index])

    def select(self, keep: NDArray[np.bool_]) -> "AnnotatedImage":
        """The same image with some of its objects."""
        return replace(
            self,
            boxes=self.boxes[keep],
            labels=self.labels[keep],
            difficult=self.difficult[keep],
            numbers=None if self.numbers is None else self.numbers[keep],
            areas=None if self.areas is None else self.areas[keep],
        )


@dataclass(frozen=True)
class AnnotatedData:
    """Images with boxes, by split.

    Attributes:
        root: the folder or file it was read from.
        format: title of the format, as in "COCO".
        classes: names; label i means ``classes[i]``.
        splits: images of each split; one split called "all" where the data has none. An image may be in several.
        findings: what the reader could not use, and why.
        category_ids: of each class in the file it came from; 1..K where the format has none.
        counted: what ``AnnotatedImage.numbers`` count: "annotation", "object" or "line".
        notes: what the user should know about the reading, in sentences: where images were found, what was left out.
    """

    root: Path
    format: str
    classes: tuple[str, ...]
    splits: dict[str, list[AnnotatedImage]]
    findings: list[Finding] = field(default_factory=list)
    category_ids: tuple[int, ...] = ()
    counted: str = "annotation"
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.category_ids:
            object.__setattr__(self, "category_ids", tuple(range(1, len(self.classes) + 1)))

    def split(self, name: str) -> list[AnnotatedImage]:
        """The images of a split.

        Raises:
            UsageError: there is no such split; the message lists those that exist.
        """
        if name not in self.splits:
            raise UsageError(f"{self.root}: no split {name!r}; there are: {', '.join(self.splits)}")
        return self.splits[name]

    @property
    def training_split(self) -> str:
        """The split to train on by default: "train", else "trainval", else the first."""
        return next(name for name in ("train", "trainval", NO_SPLIT, *self.splits) if name in self.splits)

    @cached_property
    def images(self) -> list[AnnotatedImage]:
        """Every image once, though it may be in several splits."""
        return list({id(image): image for images in self.splits.values() for image in images}.values())

    def describe_box(self, image: AnnotatedImage, index: int) -> str:
        """An annotation of an image in words: "annotation 17 (cat)"."""
        return f"{self.counted} {image.number(index)} ({self.classes[image.labels[index]]})"

    def box_finding(self, kind: str, image: AnnotatedImage, index: int, what: str) -> Finding:
        """A finding about one box of an image; its number and values come before the words."""
        box = ",".join(f"{value:g}" for value in image.boxes[index])
        text = f"{self.describe_box(image, index)}: box {box} {what}"
        return Finding(kind, image.annotation_file, text, image.number(index), image.path)

    def map(self, change: Callable[[AnnotatedImage], AnnotatedImage | None]) -> "AnnotatedData":
        """The same data set with every image exchanged, or left out where ``change`` gives None."""
        new = {id(image): change(image) for image in self.images}
        splits = {
            name: [changed for image in images if (changed := new[id(image)]) is not None]
            for name, images in self.splits.items()
        }
        return replace(self, splits=splits)

    def describe(self) -> list[str]:
        """The summary, and a line for each note."""
        return [self.summary(), *(f"note: {note}" for note in self.notes)]

    def summary(self) -> str:
        """One line: format, number of images, classes, splits."""
        # "trainval" is not listed beside "train": it is train and val together.
        shown = [name for name in self.splits if name != "trainval" or "train" not in self.splits]
        counts = " / ".join(f"{name} {len(self.splits[name])}" for name in shown)
        names = ", ".join(self.classes[:10]) + (", ..." if len(self.classes) > 10 else "")
        empty = sum(not len(image.boxes) for image in self.images)
        negatives = f", {empty} without boxes" if empty else ""
        splits = "no splits" if list(self.splits) == [NO_SPLIT] else f"splits {counts}"
        images, classes = len(self.images), len(self.classes)
        return (
            f"{self.format}, {images} image{'' if images == 1 else 's'}{negatives}, "
            f"{classes} class{'' if classes == 1 else 'es'} ({names}), {splits}"
        )


def group_by(items: Iterable[_Item], key: Callable[[_Item], _Key]) -> dict[_Key, list[_Item]]:
    """The items of each key; keys and items stay in their order."""
    groups: dict[_Key, list[_Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def group_rows(owners: NDArray[np.int64], count: int, *columns: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """The rows of flat columns that belong to each of ``count`` owners (0..count-1), in order.

    One sort instead of a search for every image: a million boxes take a second.
    """
    order = np.argsort(owners, kind="stable")
    bounds = np.searchsorted(owners[order], np.arange(count + 1))
    ordered = [column[order] for column in columns]
    return (tuple(column[start:end] for column in ordered) for start, end in pairwise(bounds))


def to_coco(data: AnnotatedData, images: Sequence[AnnotatedImage]) -> dict[str, list[dict[str, object]]]:
    """Ground truth as a COCO data set; difficult boxes become crowds, which evaluation ignores.

    Annotation ids count from 1: pycocotools takes a match with annotation 0 for no match. Image and category ids
    are those of the original.
    """
    annotations: list[dict[str, object]] = []
    for image in images:
        boxes = image.boxes.astype(np.float64)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) if image.areas is None else image.areas
        for (x1, y1, x2, y2), label, difficult, area in zip(
            boxes.tolist(), image.labels.tolist(), image.difficult.tolist(), areas.tolist(), strict=True
        ):
            ids = {"id": len(annotations) + 1, "image_id": image.image_id, "category_id": data.category_ids[label]}
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": area, "iscrowd": int(difficult)}
            annotations.append({**ids, **box})
    listed = [
        {"id": i.image_id, "file_name": i.path.name, "height": i.size_hw[0], "width": i.size_hw[1]} for i in images
    ]
    classes = zip(data.category_ids, data.classes, strict=True)
    categories = [{"id": number, "name": name} for number, name in classes]
    return {"images": listed, "annotations": annotations, "categories": categories}
