"""Anchor boxes: a few shapes around the origin, repeated over the cells of a feature map.

Axes: a anchors (cells in row order, and in each cell ratio by ratio, size by size).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float], *, rounded: bool) -> Float[Tensor, "a 4"]:
    """Boxes of every ratio and size, centred on (0, 0), in pixels of the network input.

    Args:
        sizes: side of a square of the same area.
        ratios: height / width.
        rounded: round the corners to whole pixels, as torchvision does (Detectron2 does not).
    """
    # Rounded ones are computed as torchvision does, which decides ties; the others as exactly as can be.
    dtype = torch.float32 if rounded else torch.float64
    root = torch.tensor(ratios, dtype=dtype).sqrt()
    size = torch.tensor(sizes, dtype=dtype)
    height = (root[:, None] * size).flatten()
    width = ((1 / root)[:, None] * size).flatten()
    boxes = torch.stack([-width, -height, width, height], dim=1) / 2
    return boxes.round() if rounded else boxes.float()


def grid_anchors(
    cell: Float[Tensor, "k 4"], grid_hw: tuple[int, int], stride_hw: tuple[int, int]
) -> Float[Tensor, "a 4"]:
    """The anchors of one cell, repeated over a grid whose cells lie ``stride_hw`` pixels apart."""
    y = torch.arange(grid_hw[0], device=cell.device) * stride_hw[0]
    x = torch.arange(grid_hw[1], device=cell.device) * stride_hw[1]
    y, x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
    return (shifts + cell).reshape(-1, 4)
