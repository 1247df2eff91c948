"""Overlaps of boxes in numpy, without torch; `fasterrcnn.ops.boxes` has the same for tensors.

Axes: n boxes. Boxes are xyxy in continuous pixels of one frame, width = x2 - x1. Leading axes are broadcast: two arrays
of equal length are compared row by row, ``a[:, None]`` and ``b`` give every pair.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray


def box_areas(boxes: Float[np.ndarray, "*n 4"]) -> NDArray[np.floating]:
    """Width times height, in square pixels."""
    areas: NDArray[np.floating] = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    return areas


def box_intersections(a: Float[np.ndarray, "*#n 4"], b: Float[np.ndarray, "*#n 4"]) -> NDArray[np.floating]:
    """Area that both boxes share, in square pixels."""
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    shared: NDArray[np.floating] = width.clip(min=0) * height.clip(min=0)
    return shared


def box_iou(a: Float[np.ndarray, "*#n 4"], b: Float[np.ndarray, "*#n 4"]) -> NDArray[np.floating]:
    """Intersection over union, 0..1; two boxes without area have 0."""
    shared = box_intersections(a, b)
    union = box_areas(a) + box_areas(b) - shared
    iou: NDArray[np.floating] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou


def box_nms(
    boxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, " n"], groups: Int[np.ndarray, " n"], threshold: float
) -> Bool[np.ndarray, " n"]:
    """Which boxes stay after non-maximum suppression: those that no better box of their group overlaps by more.

    Args:
        boxes: xyxy.
        scores: of equal ones the first is the better.
        groups: class of each box; all equal to let boxes of all classes suppress each other.
        threshold: IoU above which the box with the lower score goes, 0..1.
    """
    keep = np.zeros(len(boxes), np.bool_)
    order = np.argsort(-scores, kind="stable")
    while len(order):
        best, others = order[:1], order[1:]
        keep[best] = True
        suppressed = (box_iou(boxes[best], boxes[others]) > threshold) & (groups[others] == groups[best])
        order = others[~suppressed]
    return keep
