"""Rows of a trained RPN for other anchors: its last layers have one row (objectness) or four (deltas) for each.

Axes: a anchors around a cell, ratio by ratio and size by size, as `ops.anchors.cell_anchors` orders them.
"""

import math

import torch

from fasterrcnn.config import AnchorConfig
from fasterrcnn.weights.checkpoint import State

_ROWS_OF_ANCHOR = {"rpn.objectness.": 1, "rpn.deltas.": 4}


def nearest_anchors(old: AnchorConfig, new: AnchorConfig) -> list[int]:
    """For each new anchor of a cell, the number of the old one whose shape is most similar on all levels together.

    One row serves an anchor on every level, so shapes are compared level by level: by the squared distances of the
    logarithms of width and height, summed. Unlike IoU this ranks shapes of which one holds the other, and where all
    sizes of a level grow by one factor, the ratio alone decides. The first of equals is taken.

    Both must have as many levels, and on each level as many anchors as on the others.
    """
    old_shapes, new_shapes = _shapes(old), _shapes(new)
    distances = torch.cdist(new_shapes, old_shapes, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.argmin(dim=1).tolist()


def rearrange(state: State, old: AnchorConfig, new: AnchorConfig) -> State:
    """The tensors of a detector with the RPN's rows chosen for other anchors; every other tensor is the same.

    Rows that do not belong to the old anchors stay as they are, as does everything where levels differ in number.
    """
    if (old.sizes, old.ratios) == (new.sizes, new.ratios) or len(old.sizes) != len(new.sizes):
        return state
    nearest = nearest_anchors(old, new)
    count = len(old.sizes[0]) * len(old.ratios[0])
    chosen = dict(state)
    for key, value in state.items():
        rows = next((rows for prefix, rows in _ROWS_OF_ANCHOR.items() if key.startswith(prefix)), 0)
        if rows and len(value) == rows * count:
            chosen[key] = value.reshape(count, rows, *value.shape[1:])[nearest].flatten(0, 1)
    return chosen


def _shapes(anchors: AnchorConfig) -> torch.Tensor:
    """(a, 2 l) logarithms of width and height of each anchor of a cell, level after level."""
    levels = [
        [
            (math.log(size) - math.log(ratio) / 2, math.log(size) + math.log(ratio) / 2)
            for ratio in ratios
            for size in sizes
        ]
        for sizes, ratios in zip(anchors.sizes, anchors.ratios, strict=True)
    ]
    return torch.tensor(levels, dtype=torch.float64).transpose(0, 1).flatten(1)
