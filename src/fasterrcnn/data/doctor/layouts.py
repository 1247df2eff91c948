"""In which order were the four numbers of the boxes written? Told by how well all of them fit their pictures.

Axes: n boxes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Boxes = NDArray[np.float64]

OVER_BORDER = 1.0
"""Pixels that a box may reach over the border without a word: tools that count from 1 do."""

LAYOUTS = {
    "xyxy": "left, top, right, bottom",
    "xywh": "left, top, width, height",
    "cxcywh": "centre x, centre y, width, height",
    "yxyx": "top, left, bottom, right",
    "yxhw": "top, left, height, width",
    "cycxhw": "centre y, centre x, height, width",
}

# Whoever reads a table says what its numbers are, and may be wrong.
_WRITTEN = {"COCO": ("xywh",), "YOLO": ("cxcywh",), "Pascal VOC": ("xyxy",)}
_ANY = ("xyxy", "xywh", "cxcywh")

_MISFITS, _MISFIT_SHARE = 3, 0.05  # fewer are single mistakes
_UNEXPLAINED = 0.1  # of the misfits, at most so many may fit the other layout no better


@dataclass(frozen=True)
class Misreading:
    """Boxes were read as one layout and are in another; both are keys of `LAYOUTS`."""

    read_as: str
    written: str

    def reread(self, boxes: Boxes) -> Boxes:
        """xyxy boxes, as they would have been if they had been read rightly."""
        return _to_xyxy(_from_xyxy(boxes, self.read_as), self.written)


def misreadings(data_format: str) -> list[Misreading]:
    """Every way in which boxes of a data set format can have been read wrongly."""
    # Shares of the picture lie in it whichever comes first, x or y.
    written = _ANY if data_format == "YOLO" else tuple(LAYOUTS)
    return [Misreading(own, other) for own in _WRITTEN.get(data_format, _ANY) for other in written if own != other]


def find_misreading(data_format: str, boxes: Boxes, sizes: Boxes) -> Misreading | None:
    """The layout that boxes are in, if they fit their pictures clearly better so than as they were read.

    Args:
        data_format: of the data set, which says how boxes are written in it.
        boxes: (n, 4) xyxy as they were read, in pixels.
        sizes: (n, 2) width and height of their pictures.
    """
    # Flat boxes are flat for reasons of their own.
    telling = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] != boxes[:, :2]).all(axis=1)
    boxes, sizes = boxes[telling], sizes[telling]
    misfits = int((~fit(boxes, sizes)).sum())
    if misfits < max(_MISFITS, _MISFIT_SHARE * len(boxes)):
        return None
    left = {other: int((~fit(other.reread(boxes), sizes)).sum()) for other in misreadings(data_format)}
    best = min(left, key=lambda other: left[other])
    return best if left[best] <= _UNEXPLAINED * misfits else None


def fit(boxes: Boxes, sizes: Boxes) -> Mask:
    """(n,) which boxes have an area and lie in their pictures."""
    has_area: Mask = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    inside: Mask = np.abs(clip(boxes, sizes) - boxes).max(axis=1, initial=0) <= OVER_BORDER
    return has_area & inside


def clip(boxes: Boxes, sizes: Boxes) -> Boxes:
    """Boxes cut at the borders of their pictures."""
    return np.clip(boxes, 0, np.tile(sizes, 2))


def _from_xyxy(boxes: Boxes, layout: str) -> Boxes:
    near, far = boxes[:, :2], boxes[:, 2:]
    if layout == "xyxy":
        return boxes
    return np.hstack([near if layout == "xywh" else (near + far) / 2, far - near])


def _to_xyxy(numbers: Boxes, layout: str) -> Boxes:
    if layout in ("yxyx", "yxhw", "cycxhw"):
        numbers = numbers[:, [1, 0, 3, 2]]
    first, second = numbers[:, :2], numbers[:, 2:]
    if layout in ("xyxy", "yxyx"):
        return numbers
    near = first if layout in ("xywh", "yxhw") else first - second / 2
    return np.hstack([near, near + second])
