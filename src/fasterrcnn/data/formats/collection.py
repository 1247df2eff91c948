"""Images and boxes gathered one by one, for the readers whose files do not come image by image."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from fasterrcnn.data.annotations import SPLITS, WHOLE, AnnotatedData, AnnotatedImage
from fasterrcnn.data.findings import Finding, unreadable_image
from fasterrcnn.data.images import read_size_hw
from fasterrcnn.errors import DataError, ImageError, UsageError

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]
Box = Sequence[float]


@dataclass(frozen=True)
class Draft:
    """What was read so far about an image of one split."""

    path: Path
    split: str
    source: Path | None
    said_hw: tuple[int, int] | None = None
    boxes: list[Box] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)


class Collection:
    """The images of a data set while its rows are read."""

    def __init__(self, classes: tuple[str, ...] | None) -> None:
        self.findings: list[Finding] = []
        self._drafts: dict[tuple[Path, str, Path | None], Draft] = {}
        self._labels = {name: label for label, name in enumerate(classes or ())}
        self._complete = classes is not None

    def draft(self, path: Path, split: str, source: Path | None, said_hw: tuple[int, int] | None = None) -> Draft:
        """The image, which is a new one if it was not named before."""
        return self._drafts.setdefault((path, split, source), Draft(path, split, source, said_hw))

    def add(self, draft: Draft, box: Box, name: str, difficult: bool, number: int, where: str) -> None:
        """One more box of an image, unless its class is unknown."""
        if name not in self._labels:
            if self._complete:
                what = f"{where}: {name!r} is none of the classes {', '.join(self._labels)}"
                self.findings.append(Finding("unknown-class", draft.source or draft.path, what, number, draft.path))
                return
            self._labels[name] = len(self._labels)
        draft.boxes.append(box)
        draft.labels.append(self._labels[name])
        draft.difficult.append(difficult)
        draft.numbers.append(number)

    def finish(self, root: Path, name: str, counted: str) -> AnnotatedData:
        """The data set.

        Raises:
            DataError: there is no image.
        """
        sizes_hw: dict[Path, tuple[int, int] | None] = {}
        splits: dict[str, list[AnnotatedImage]] = {}
        for number, draft in enumerate(self._drafts.values(), start=1):
            if draft.path not in sizes_hw:
                sizes_hw[draft.path] = self._size_hw(draft.path)
            size_hw = sizes_hw[draft.path]
            if size_hw is not None:
                if draft.said_hw is not None and draft.said_hw != size_hw:
                    self.findings.append(size_mismatch(draft.path, draft.source or draft.path, draft.said_hw, size_hw))
                    size_hw = draft.said_hw
                splits.setdefault(draft.split, []).append(_record(draft, number, size_hw))
        if not splits:
            first = f"; first: {self.findings[0]}" if self.findings else ""
            raise DataError(f"{name} ({root}): no image that could be used{first}")
        order = [*dict.fromkeys(SPLITS.values()), *splits]
        splits = {split: splits[split] for split in dict.fromkeys(order) if split in splits}
        return AnnotatedData(root, name, tuple(self._labels), splits, self.findings, counted=counted)

    def _size_hw(self, path: Path) -> tuple[int, int] | None:
        try:
            return read_size_hw(path)
        except ImageError as error:
            self.findings.append(unreadable_image(path, error))
            return None


def _record(draft: Draft, image_id: int, size_hw: tuple[int, int]) -> AnnotatedImage:
    with np.errstate(over="ignore"):
        boxes = np.array(draft.boxes, dtype=np.float64).reshape(-1, 4).astype(np.float32)
    return AnnotatedImage(
        draft.path,
        image_id,
        size_hw,
        boxes,
        np.array(draft.labels, dtype=np.int64),
        np.array(draft.difficult, dtype=np.bool_),
        draft.source,
        None if draft.source is None else np.array(draft.numbers, dtype=np.int64),
    )


def size_mismatch(path: Path, file: Path, said_hw: tuple[int, int], size_hw: tuple[int, int]) -> Finding:
    """A finding about a file that says another size than the image has."""
    turned = "; it may have been annotated before it was turned upright" if size_hw == said_hw[::-1] else ""
    what = (
        f"says {said_hw[1]} x {said_hw[0]} for {path.name}, the image has {size_hw[1]} x {size_hw[0]} "
        f"(width x height){turned}"
    )
    return Finding("size-mismatch", file, what, image=path)


def to_xyxy(box: Box, box_format: BoxFormat) -> Box:
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
    """What a split is called here, by what it is called there; "all" where it has no name."""
    return SPLITS.get(text.strip().lower(), text.strip()) or WHOLE
