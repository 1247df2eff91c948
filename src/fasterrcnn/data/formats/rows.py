"""For readers whose files do not come image by image: collects boxes, one after the other, and builds the data set."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from fasterrcnn.data.annotations import NO_SPLIT, SPLITS, AnnotatedData, AnnotatedImage
from fasterrcnn.data.findings import Finding, size_mismatch, unreadable_image
from fasterrcnn.data.formats.base import BoxFormat
from fasterrcnn.data.images import read_size_hw
from fasterrcnn.errors import DataError, ImageError, UsageError

Box = Sequence[float]


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
