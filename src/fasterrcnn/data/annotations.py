"""An annotated data set in memory, whatever format it came from. Needs no torch.

Axes: n boxes. Boxes are xyxy in pixels of the upright original image, continuous: width = x2 - x1.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasterrcnn.data.findings import Finding
from fasterrcnn.errors import UsageError

WHOLE = "all"
"""Name of the only split of a data set that has none."""

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "trainval": "trainval",
    "test": "test",
    "testing": "test",
}
"""Names that folders and files of splits have, and what the splits are called here."""


def split_of(file: Path, root: Path) -> str:
    """The split that the name of a file or of its folder below the root says; "all" where they say none."""
    words = re.findall("[a-z]+", f"{file.stem} {file.parent.relative_to(root).as_posix()}".lower())
    return next((SPLITS[word] for word in words if word in SPLITS), WHOLE)


@dataclass(frozen=True)
class AnnotatedImage:
    """One image and its objects.

    Readers give the boxes as they are written, good or bad; `repair` leaves only boxes that can be learned from.

    Attributes:
        path: the image file.
        image_id: number of the image, unique in its split: that of the COCO file, or from 1.
        size_hw: height and width of the upright image, in pixels, as the annotations say where they do.
        boxes: (n, 4) xyxy.
        labels: (n,) 0..K-1.
        difficult: (n,) crowds, difficult and ignored objects: neither asked for nor counted as a mistake.
        source: the file that holds the annotations.
        numbers: (n,) id, object number or line number of each annotation in it.
        areas: (n,) area of each object in pixels where the file says it (COCO's masks); width x height otherwise.
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

    def take(self, keep: NDArray[np.bool_]) -> "AnnotatedImage":
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
        root: where it was read.
        format: name of the format, for people.
        classes: names; label i means ``classes[i]``.
        splits: records of each split; one called "all" where the data has none. An image may be in several.
        findings: what the reader could not take, and why.
        category_ids: of each class in the file it came from; 1..K where the format has none.
        counted: what ``AnnotatedImage.numbers`` count: "annotation", "object" or "line".
    """

    root: Path
    format: str
    classes: tuple[str, ...]
    splits: dict[str, list[AnnotatedImage]]
    findings: list[Finding] = field(default_factory=list)
    category_ids: tuple[int, ...] = ()
    counted: str = "annotation"

    def __post_init__(self) -> None:
        if not self.category_ids:
            object.__setattr__(self, "category_ids", tuple(range(1, len(self.classes) + 1)))

    def split(self, name: str) -> list[AnnotatedImage]:
        """The records of a split.

        Raises:
            UsageError: there is no such split; the message lists those that exist.
        """
        if name not in self.splits:
            raise UsageError(f"{self.root}: no split {name!r}; there are: {', '.join(self.splits)}")
        return self.splits[name]

    @property
    def training_split(self) -> str:
        """Name of the split to learn from, where nobody says which."""
        return next(name for name in ("train", "trainval", WHOLE, *self.splits) if name in self.splits)

    @cached_property
    def records(self) -> list[AnnotatedImage]:
        """Every record once, though it may be in several splits."""
        return list({id(record): record for records in self.splits.values() for record in records}.values())

    def where(self, record: AnnotatedImage, index: int) -> str:
        """Words for an annotation of a record: "annotation 17 (cat)"."""
        number = index + 1 if record.numbers is None else int(record.numbers[index])
        return f"{self.counted} {number} ({self.classes[record.labels[index]]})"

    def finding(self, kind: str, record: AnnotatedImage, index: int, what: str) -> Finding:
        """A finding about one box of a record; its place and values are put before the words."""
        number = index + 1 if record.numbers is None else int(record.numbers[index])
        box = ",".join(f"{value:g}" for value in record.boxes[index])
        said = f"{self.where(record, index)}: box {box} {what}"
        return Finding(kind, record.source or record.path, said, number, record.path)

    def map(self, change: Callable[[AnnotatedImage], AnnotatedImage | None]) -> "AnnotatedData":
        """The same data set with every record exchanged, or left out where the change gives None."""
        new = {id(record): change(record) for record in self.records}
        splits = {
            name: [changed for record in records if (changed := new[id(record)]) is not None]
            for name, records in self.splits.items()
        }
        return replace(self, splits=splits)

    def summary(self) -> str:
        """One line that says what was found: format, images, classes, splits."""
        # "trainval" is the two together.
        shown = [name for name in self.splits if name != "trainval" or "train" not in self.splits]
        counts = " / ".join(f"{name} {len(self.splits[name])}" for name in shown)
        names = ", ".join(self.classes[:10]) + (", ..." if len(self.classes) > 10 else "")
        empty = sum(not len(record.boxes) for record in self.records)
        negatives = f", {empty} without boxes" if empty else ""
        splits = "no splits" if list(self.splits) == [WHOLE] else f"splits {counts}"
        images = _count(len(self.records), "image", "images")
        return (
            f"{self.format}, {images}{negatives}, {_count(len(self.classes), 'class', 'classes')} ({names}), {splits}"
        )


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def arrange(owners: NDArray[np.int64], count: int, *columns: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """The rows of flat columns that belong to each of ``count`` owners (0..count-1), in order.

    One sort instead of a search for every image: a million boxes take a second.
    """
    order = np.argsort(owners, kind="stable")
    bounds = np.searchsorted(owners[order], np.arange(count + 1))
    ordered = [column[order] for column in columns]
    return (tuple(column[start:end] for column in ordered) for start, end in pairwise(bounds))


def to_coco(data: AnnotatedData, records: Sequence[AnnotatedImage]) -> dict[str, list[dict[str, object]]]:
    """Ground truth as a COCO data set; difficult boxes become crowds, which evaluation ignores.

    Annotation ids count from 1: pycocotools takes a match with annotation 0 for none at all. Image and category ids
    are those of the original.
    """
    annotations: list[dict[str, object]] = []
    for record in records:
        boxes = record.boxes.astype(np.float64)
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) if record.areas is None else record.areas
        for (x1, y1, x2, y2), label, difficult, area in zip(
            boxes.tolist(), record.labels.tolist(), record.difficult.tolist(), areas.tolist(), strict=True
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": record.image_id,
                    "category_id": data.category_ids[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": area,
                    "iscrowd": int(difficult),
                }
            )
    images: list[dict[str, object]] = [
        {"id": r.image_id, "file_name": r.path.name, "height": r.size_hw[0], "width": r.size_hw[1]} for r in records
    ]
    categories: list[dict[str, object]] = [
        {"id": number, "name": name} for number, name in zip(data.category_ids, data.classes, strict=True)
    ]
    return {"images": images, "annotations": annotations, "categories": categories}
