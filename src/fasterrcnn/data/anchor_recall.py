"""How well anchors cover objects, on the grid where they stand. Needs no torch.

Axes: n boxes, k anchors of one level. Boxes are xyxy in pixels of the network input; sides are (width, height).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fasterrcnn.config import AnchorConfig, InputConfig
from fasterrcnn.data import charts
from fasterrcnn.data.records import Record
from fasterrcnn.errors import UsageError

Array = NDArray[np.float64]

SIZE_BINS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, float("inf"))}
"""COCO's bins of the area, from (included) and to (not included); here in pixels of the network input."""

_CHUNK = 100_000


def has_area(boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(n,) which boxes are finite and have width and height above zero."""
    good: NDArray[np.bool_] = np.all(np.isfinite(boxes), axis=1, keepdims=False)
    good[good] = (boxes[good, 2:] > boxes[good, :2]).all(axis=1)
    return good


def learnt(record: Record) -> NDArray[np.bool_]:
    """(n,) which boxes of a record a detector learns from: those with an area that are not difficult."""
    return has_area(record.boxes) & ~record.difficult


def input_boxes(records: Sequence[Record], config: InputConfig) -> NDArray[np.float32]:
    """(n, 4) boxes of all records in the frame of the network input, as training resizes them; n may be 0.

    Difficult boxes and those without an area are left out.
    """
    found = [np.zeros((0, 4), np.float32)]
    for record in records:
        boxes = record.boxes[learnt(record)]
        if len(boxes):
            to_hw = config.resized_hw(record.size_hw)
            y, x = (np.float32(to) / np.float32(old) for to, old in zip(to_hw, record.size_hw, strict=True))
            found.append(boxes * np.array([x, y, x, y], np.float32))
    return np.concatenate(found)


def input_labels(records: Sequence[Record]) -> NDArray[np.int64]:
    """(n,) labels of the boxes that `input_boxes` gives, in the same order."""
    return np.concatenate([np.zeros(0, np.int64), *(record.labels[learnt(record)] for record in records)])


@dataclass(frozen=True)
class Recall:
    """How well anchors cover boxes, each judged by the anchor that overlaps it most.

    Attributes:
        boxes: how many there are.
        at_50: share of them, 0..1, whose best anchor has IoU 0.5 or more; None where there are no boxes.
        at_70: the same for 0.7, at which the RPN takes an anchor for an object.
        mean_iou: of the best anchors.
        by_size: the same for small, medium and large boxes (see `SIZE_BINS`); empty in the parts themselves.
    """

    boxes: int
    at_50: float | None
    at_70: float | None
    mean_iou: float | None
    by_size: dict[str, "Recall"]

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Names of the columns and the cells of a table: all boxes, then those of each size."""
        cells = [
            [
                name,
                f"{part.boxes:,}",
                _said(part.at_50, "{:.1%}"),
                _said(part.at_70, "{:.1%}"),
                _said(part.mean_iou, "{:.3f}"),
            ]
            for name, part in (("all", self), *self.by_size.items())
        ]
        return ["boxes", "count", "reach IoU 0.5", "reach IoU 0.7", "mean IoU"], cells

    def __str__(self) -> str:
        return "\n".join(charts.align(*self.rows()))


def measure_recall(boxes: NDArray[np.float32], anchors: AnchorConfig, strides: Sequence[int]) -> Recall:
    """How well anchors cover boxes when they stand on the real grid, where only some positions exist.

    The grid of a level is taken to go on as far as the boxes do. Where a picture is not padded, a box whose centre lies
    within half a stride of the right or lower border has its nearest cell a little farther off than that.

    Args:
        boxes: (n, 4), with width and height above zero, as `input_boxes` gives them.
        anchors: sizes and ratios of each level.
        strides: pixels between the cells of each level.

    Raises:
        UsageError: anchors and strides are not of as many levels.
    """
    cells = [cell_sides(anchors, level) for level in range(_count_levels(anchors, strides))]
    sides, centres = sides_and_centres(boxes)
    iou = np.zeros(len(boxes))
    for start in range(0, len(boxes), _CHUNK):
        part = slice(start, start + _CHUNK)
        for cell, stride in zip(cells, strides, strict=True):
            offsets = grid_offsets(centres[part], stride)
            iou[part] = np.maximum(iou[part], best_iou(sides[part], offsets, cell))
    bins = size_bins(sides)
    parts = {name: _recall(iou[bins == number], {}) for number, name in enumerate(SIZE_BINS)}
    return _recall(iou, parts)


def sides_and_centres(boxes: NDArray[np.float32]) -> tuple[Array, Array]:
    """(n, 2) width and height, and (n, 2) x and y of the centre."""
    corners = boxes.astype(np.float64)
    return corners[:, 2:] - corners[:, :2], (corners[:, 2:] + corners[:, :2]) / 2


def size_bins(sides: Array) -> NDArray[np.int64]:
    """(n,) number of the size bin, 0..2, of boxes with those (n, 2) sides."""
    lower = [low for low, _ in SIZE_BINS.values()]
    bins: NDArray[np.int64] = np.searchsorted(lower[1:], sides.prod(axis=1), side="right")
    return bins


def cell_sides(anchors: AnchorConfig, level: int) -> Array:
    """(k, 2) sides of the anchors around a cell, as `ops.anchors.cell_anchors` makes them."""
    # float32 like there: a half is rounded up or down by its last bit.
    root = np.sqrt(np.array(anchors.ratios[level], np.float32))
    size = np.array(anchors.sizes[level], np.float32)
    half = np.stack([np.outer(1 / root, size).ravel(), np.outer(root, size).ravel()], axis=1) / 2
    return 2 * (half.round() if anchors.rounded else half).astype(np.float64)


def grid_offsets(centres: Array, stride: int) -> Array:
    """(n, 2) distances from the centres of boxes to the nearest point of a grid that starts at (0, 0)."""
    nearest: Array = np.rint(centres / stride).clip(min=0) * stride
    return np.abs(centres - nearest)


def best_iou(sides: Array, offsets: Array, anchor_sides: Array) -> Array:
    """(n,) overlap, 0..1, of each box with that anchor of one level which fits best at the nearest grid point.

    No other grid point can do better: the overlap falls with the distance along either axis.

    Args:
        sides: (n, 2) of the boxes, positive.
        offsets: (n, 2) as `grid_offsets` gives them.
        anchor_sides: (k, 2), k at least 1.
    """
    shared: Array = np.ones((len(anchor_sides), len(sides)))
    for axis in (0, 1):
        box, anchor = sides[:, axis], anchor_sides[:, axis, None]
        overlap = (box + anchor) / 2 - offsets[:, axis]
        np.minimum(overlap, np.minimum(box, anchor), out=overlap)
        shared *= overlap.clip(min=0)
    union = sides.prod(axis=1) + anchor_sides.prod(axis=1)[:, None] - shared
    best: Array = (shared / union).max(axis=0)
    return best


def _count_levels(anchors: AnchorConfig, strides: Sequence[int]) -> int:
    counts = {len(anchors.sizes), len(anchors.ratios), len(strides)}
    if len(counts) > 1:
        raise UsageError(
            f"anchors of {len(anchors.sizes)} levels (ratios of {len(anchors.ratios)}) for {len(strides)} strides"
        )
    return len(strides)


def _recall(iou: Array, parts: dict[str, Recall]) -> Recall:
    if not len(iou):
        return Recall(0, None, None, None, parts)
    # The overlaps of boxes and anchors that are made of round numbers may miss a round limit by the last bit.
    at_50, at_70 = (float((iou >= limit - 1e-6).mean()) for limit in (0.5, 0.7))
    return Recall(len(iou), at_50, at_70, float(iou.mean()), parts)


def _said(number: float | None, form: str) -> str:
    return "n/a" if number is None else form.format(number)
