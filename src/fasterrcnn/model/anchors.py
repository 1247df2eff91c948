"""Component 1, the anchor box generator: reference boxes spread over the whole image.

Axes: l levels, a anchors of one level.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fasterrcnn.ops import anchors


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
            cell = anchors.cell_anchors(self.sizes[level], self.ratios[level], rounded=self.rounded).to(device)
            if self.strides is None:
                stride_hw = (padded_hw[0] // height, padded_hw[1] // width)
            else:
                stride_hw = (self.strides[level], self.strides[level])
            grids.append(anchors.grid_anchors(cell, (height, width), stride_hw))
        return grids
