"""An annotated data set in memory, whatever format it came from. Needs no torch.

Axes: n boxes. Boxes are xyxy in pixels of the upright original picture, continuous: width = x2 - x1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasterrcnn.errors import UsageError

WHOLE = "all"
"""Name of the only split of a data set that has none."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a data set, and what was done about it."""

    file: Path
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


@dataclass(frozen=True)
class Record:
    """One picture and its objects.

    Attributes:
        path: the picture file.
        image_id: number of the picture in COCO files, from 1.
        size_hw: height and width of the upright picture, in pixels.
        boxes: (n, 4) xyxy.
        labels: (n,) 0..K-1.
        difficult: (n,) neither asked for nor counted as a mistake.
    """

    path: Path
    image_id: int
    size_hw: tuple[int, int]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]


@dataclass(frozen=True)
class AnnotatedData:
    """Pictures with boxes, by split.

    Attributes:
        root: where it was read.
        format: name of the format, for people.
        classes: names; label i means ``classes[i]``.
        splits: records of each split; one called "all" where the data has none.
        problems: what was wrong and dropped or mended.
    """

    root: Path
    format: str
    classes: tuple[str, ...]
    splits: dict[str, list[Record]]
    problems: list[Problem]

    def split(self, name: str) -> list[Record]:
        """The records of a split.

        Raises:
            UsageError: there is no such split; the message lists those that exist.
        """
        if name not in self.splits:
            raise UsageError(f"{self.root}: no split {name!r}; there are: {', '.join(self.splits)}")
        return self.splits[name]

    def summary(self) -> str:
        """One line that says what was found."""
        counts = " / ".join(f"{name} {len(records)}" for name, records in self.splits.items())
        images = len({record.path for records in self.splits.values() for record in records})
        return f"{self.format}, {images} images, {len(self.classes)} classes ({', '.join(self.classes)}), {counts}"


def to_coco(records: Sequence[Record], classes: Sequence[str]) -> dict[str, list[dict[str, object]]]:
    """Ground truth as a COCO data set; difficult boxes become crowds, which evaluation ignores.

    Annotation ids count from 1: pycocotools takes a match with annotation 0 for none at all.
    """
    annotations: list[dict[str, object]] = []
    for record in records:
        for box, label, difficult in zip(record.boxes, record.labels, record.difficult, strict=True):
            x1, y1, x2, y2 = (float(value) for value in box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": record.image_id,
                    "category_id": int(label) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(difficult),
                }
            )
    images: list[dict[str, object]] = [
        {"id": r.image_id, "file_name": r.path.name, "height": r.size_hw[0], "width": r.size_hw[1]} for r in records
    ]
    categories: list[dict[str, object]] = [{"id": i + 1, "name": name} for i, name in enumerate(classes)]
    return {"images": images, "annotations": annotations, "categories": categories}
