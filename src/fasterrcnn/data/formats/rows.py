"""Boxes one after the other: builds data sets from rows of files and from dicts in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np

from fasterrcnn.data.annotations import NO_SPLIT, SPLITS, AnnotatedData, AnnotatedImage
from fasterrcnn.data.findings import Finding, size_mismatch, unreadable_image
from fasterrcnn.data.formats.base import BoxFormat
from fasterrcnn.data.images import read_size_hw
from fasterrcnn.errors import DataError, ImageError, UsageError

Box = Sequence[float]

IN_MEMORY = "list"
"""``AnnotatedData.format`` of what `read_dicts` gives; its root is no folder."""

_KEYS = ("image", "boxes", "labels", "split", "difficult")


@dataclass(frozen=True)
class ImageRows:
    """What was read so far about an image of one split."""

    path: Path
    split: str
    source: Path | None
    stated_hw: tuple[int, int] | None = None
    boxes: list[Box] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)


class RowCollector:
    """The images of a data set while its rows are read.

    Args:
        classes: names in the order of their labels; None collects them in the order of the rows.
    """

    def __init__(self, classes: tuple[str, ...] | None) -> None:
        self.findings: list[Finding] = []
        self._images: dict[tuple[Path, str, Path | None], ImageRows] = {}
        self._labels = {name: label for label, name in enumerate(classes or ())}
        self._classes_given = classes is not None

    def image(self, path: Path, split: str, source: Path | None, stated_hw: tuple[int, int] | None = None) -> ImageRows:
        """The rows of an image of a split; new ones when it is named for the first time."""
        return self._images.setdefault((path, split, source), ImageRows(path, split, source, stated_hw))

    def add(self, image: ImageRows, box: Box, name: str, difficult: bool, number: int, where: str) -> None:
        """Add a box to an image; a class that is not in the given list becomes a finding instead."""
        if name not in self._labels:
            if self._classes_given:
                what = f"{where}: {name!r} is none of the classes {', '.join(self._labels)}"
                self.findings.append(Finding("unknown-class", image.source or image.path, what, number, image.path))
                return
            self._labels[name] = len(self._labels)
        image.boxes.append(box)
        image.labels.append(self._labels[name])
        image.difficult.append(difficult)
        image.numbers.append(number)

    def finish(self, root: Path, title: str, counted: str) -> AnnotatedData:
        """The data set; see `AnnotatedData` for the arguments.

        Raises:
            DataError: there is no image.
        """
        sizes_hw = {path: self._size_hw(path) for path in dict.fromkeys(rows.path for rows in self._images.values())}
        splits: dict[str, list[AnnotatedImage]] = {}
        for number, rows in enumerate(self._images.values(), start=1):
            size_hw = sizes_hw[rows.path]
            if size_hw is not None:
                if rows.stated_hw is not None and rows.stated_hw != size_hw:
                    self.findings.append(size_mismatch(rows.path, rows.source or rows.path, rows.stated_hw, size_hw))
                    size_hw = rows.stated_hw
                numbers = None if rows.source is None else rows.numbers
                image = AnnotatedImage.from_lists(
                    rows.path, number, size_hw, rows.boxes, rows.labels, rows.difficult, rows.source, numbers
                )
                splits.setdefault(rows.split, []).append(image)
        if not splits:
            first = f"; first: {self.findings[0]}" if self.findings else ""
            raise DataError(f"{title} ({root}): no image that could be used{first}")
        order = [*dict.fromkeys(SPLITS.values()), *splits]
        splits = {split: splits[split] for split in dict.fromkeys(order) if split in splits}
        return AnnotatedData(root, title, tuple(self._labels), splits, self.findings, counted=counted)

    def _size_hw(self, path: Path) -> tuple[int, int] | None:
        try:
            return read_size_hw(path)
        except ImageError as error:
            self.findings.append(unreadable_image(path, error))
            return None


def box_to_xyxy(box: Box, box_format: BoxFormat) -> Box:
    """A box of some format as two corners.

    Raises:
        UsageError: there is no such format.
    """
    x, y, width, height = box
    if box_format == "xywh":
        return x, y, x + width, y + height
    if box_format == "cxcywh":
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if box_format != "xyxy":
        raise UsageError(f"no box format {box_format!r}; there are: {', '.join(get_args(BoxFormat))}")
    return box


def split_name(text: str) -> str:
    """The name of a split as `SPLITS` has it, from the name in a file; "all" where the file has none."""
    return SPLITS.get(text.strip().lower(), text.strip()) or NO_SPLIT


def read_dicts(
    rows: Sequence[Mapping[str, Any]], *, classes: tuple[str, ...] | None = None, box_format: BoxFormat = "xyxy"
) -> AnnotatedData:
    """Annotations in memory, collecting all problems. Rows are counted from 1.

    Args:
        rows: one for each image: ``image`` (a path), ``boxes`` (n x 4, may be empty), ``labels`` (n names, or
            indices into ``classes``), and perhaps ``split`` (a name) and ``difficult`` (n flags).
        classes: names of the classes, in the order of their labels; without, in the order of the rows.
        box_format: what the four numbers of a box are.

    Raises:
        DataError: a row does not have that form, or there is no image.
    """
    collector = RowCollector(classes)
    for number, row in enumerate(rows, start=1):
        try:
            path, boxes, labels, difficult = _checked(row, classes)
        except DataError as error:
            raise DataError(f"row {number}: {error}") from None
        if not path.is_file():
            what = f"row {number}: there is no such image"
            collector.findings.append(Finding("missing-image", path, what, number, path))
            continue
        image = collector.image(path, split_name(str(row.get("split") or "")), None)
        for position, (box, label, flag) in enumerate(zip(boxes, labels, difficult, strict=True), start=1):
            where = f"row {number}, box {position}"
            collector.add(image, box_to_xyxy(box, box_format), label, flag, number, where)
    return collector.finish(Path(), IN_MEMORY, "box")


def _checked(
    row: Mapping[str, Any], classes: tuple[str, ...] | None
) -> tuple[Path, list[list[float]], list[str], list[bool]]:
    """Image, boxes, names and flags of a dict."""
    if not isinstance(row, Mapping) or "image" not in row or "boxes" not in row:
        raise DataError(f"a dict with image, boxes and labels is expected, not {_shown(row)}")
    unknown = [key for key in row if key not in _KEYS]
    if unknown:
        raise DataError(f"unknown key {unknown[0]!r}; there are: {', '.join(_KEYS)}")
    if not isinstance(row["image"], str | Path):
        raise DataError(f"image must be a path, not {_shown(row['image'])}")
    try:
        boxes = np.asarray(row["boxes"], dtype=np.float64)
    except (TypeError, ValueError):
        boxes = np.full(1, np.nan)  # refused with the other shapes
    if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 4):
        raise DataError(f"boxes must be n x 4 numbers, not {_shown(row['boxes'])}")
    boxes = boxes.reshape(-1, 4)
    labels = np.asarray(row.get("labels", ()), dtype=object)
    difficult = np.asarray(row.get("difficult", np.zeros(len(boxes))), dtype=np.bool_)
    for key, values in (("labels", labels), ("difficult", difficult)):
        if values.shape != (len(boxes),):
            raise DataError(f"{len(boxes)} boxes need as many {key}, not {_shown(row.get(key))}")
    return Path(row["image"]), boxes.tolist(), [_name(label, classes) for label in labels], difficult.tolist()


def _name(label: object, classes: tuple[str, ...] | None) -> str:
    if isinstance(label, str) and label.strip():
        return label.strip()
    if not isinstance(label, int | np.integer) or classes is None:
        raise DataError(f"labels must be names, or indices where classes are given, not {_shown(label)}")
    return classes[label] if 0 <= label < len(classes) else f"index {label}"


def _shown(value: object) -> str:
    return f"{' '.join(repr(value).split()):.80}"
