"""Component 1, the anchor box generator: reference boxes spread over the whole image.

Axes: l levels, a anchors of one level (cells in row order, and in each cell ratio by ratio, size by size), k of a cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class AnchorGenerator:
    """Anchors of several sizes and ratios around every cell of every feature map (Ren et al. 2015, section 3.1.1).

    Attributes:
        sizes: for each level, the sides of squares of the anchors' areas, in pixels of the network input.
        ratios: for each level, height / width.
        strides: pixels between cells for each level; None takes padded image // map size, as torchvision does.
        rounded: round the anchors of a cell to whole pixels, as torchvision does.
    """

    sizes: tuple[tuple[float, ...], ...]
    ratios: tuple[tuple[float, ...], ...]
    strides: tuple[int, ...] | None = None
    rounded: bool = True

    def __post_init__(self) -> None:
        levels = {len(self.sizes), len(self.ratios), len(self.strides or self.sizes)}
        if len(levels) != 1:
            raise ValueError(f"sizes, ratios and strides describe different numbers of levels: {sorted(levels)}")
        if len({len(s) * len(r) for s, r in zip(self.sizes, self.ratios, strict=True)}) != 1:
            raise ValueError("every level needs the same number of anchors per cell: one RPN head serves all levels")

    @property
    def per_cell(self) -> int:
        """Anchors around one cell; the width of the RPN head follows from it."""
        return len(self.sizes[0]) * len(self.ratios[0])

    def __call__(
        self, map_sizes_hw: Sequence[tuple[int, int]], padded_hw: tuple[int, int], device: torch.device
    ) -> list[Float[Tensor, "_ 4"]]:
        """Anchors of each level, in row order of the cells; they may reach over the border of the image."""
        if len(map_sizes_hw) != len(self.sizes):
            raise ValueError(f"{len(map_sizes_hw)} feature maps for anchors of {len(self.sizes)} levels")
        grids = []
        for level, (height, width) in enumerate(map_sizes_hw):
            cell = cell_anchors(self.sizes[level], self.ratios[level], rounded=self.rounded).to(device)
            if self.strides is None:
                stride_hw = (padded_hw[0] // height, padded_hw[1] // width)
            else:
                stride_hw = (self.strides[level], self.strides[level])
            grids.append(grid_anchors(cell, (height, width), stride_hw))
        return grids


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
