"""Component 4, RoI pooling: from regions of any size to feature maps of one size.

Axes: b images, c channels, r regions, s output side, l levels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchvision.ops import roi_pool

from fasterrcnn.errors import UsageError
from fasterrcnn.ops.roi_align import pool_by_level, pyramid_roi_align


@dataclass(frozen=True)
class RoIPooling:
    """Pools every region of the feature maps to a fixed size.

    Attributes:
        output_size: side of the pooled maps, in bins.
        strides: pixels per cell of each feature map that regions are taken from, finest first.
        method: "align" is RoIAlign (He et al. 2017, section 3), "pool" is RoIPool with its rounding
            (Girshick 2015, section 2.1).
        sampling_ratio: samples per bin side of RoIAlign; 0 adapts it to the region.
        aligned: RoIAlign with the half-cell correction (Detectron2); torchvision's detectors go without.
        canonical_size: a region of that side belongs to stride 16 (Lin et al. 2017, equation 1).
        levels_of: whose small number, and where it is added, keeps a region at the border between two maps from falling
            to the finer one: "torchvision", "detectron2" or "mmdetection".
    """

    output_size: int
    strides: tuple[int, ...]
    method: Literal["align", "pool"] = "align"
    sampling_ratio: int = 2
    aligned: bool = False
    canonical_size: float = 224.0
    levels_of: Literal["torchvision", "detectron2", "mmdetection"] = "torchvision"

    def __post_init__(self) -> None:
        octaves = [math.log2(stride / self.strides[0]) for stride in self.strides]
        if any(octaves) and octaves != list(range(len(octaves))):
            raise UsageError(f"regions need maps whose strides double from level to level, not {self.strides}")

    def __call__(
        self, features: Sequence[Float[Tensor, "b c _ _"]], rois: Float[Tensor, "r 5"]
    ) -> Float[Tensor, "r c s s"]:
        """Pooled features of each region, in the regions' order.

        Args:
            features: maps finest first; those beyond ``strides`` are not used.
            rois: image index, x1, y1, x2, y2 in pixels of the network input.
        """
        levels = self.levels(rois)
        if self.method == "align":
            return pyramid_roi_align(
                features[: len(self.strides)],
                rois,
                levels,
                output_size=self.output_size,
                spatial_scales=[1 / stride for stride in self.strides],
                sampling_ratio=self.sampling_ratio,
                aligned=self.aligned,
            )

        def pool(level: int, own: Tensor) -> Tensor:
            exact = roi_pool(features[level].float(), own.float(), self.output_size, 1 / self.strides[level])
            return torch.as_tensor(exact).to(features[level].dtype)

        return pool_by_level(pool, rois, levels, len(self.strides))

    def levels(self, rois: Float[Tensor, "r 5"]) -> Int64[Tensor, " r"]:
        """Index of the feature map that each region is taken from (Lin et al. 2017, equation 1)."""
        sides = rois[:, 3:] - rois[:, 1:3]
        size = sides.prod(dim=1).sqrt()
        octave = torch.floor(self._octave(size))
        finest, coarsest = (round(math.log2(stride)) for stride in (self.strides[0], self.strides[-1]))
        return (octave.clamp(finest, coarsest) - finest).nan_to_num(0.0).long()  # a NaN region must not harm others

    def _octave(self, size: Float[Tensor, " r"]) -> Float[Tensor, " r"]:
        """Base-2 logarithm of the stride that suits a region of that side, with the family's own small number."""
        if self.levels_of == "detectron2":
            return 4 + torch.log2(size / self.canonical_size + 1e-8)
        if self.levels_of == "mmdetection":
            return 2 + torch.floor(torch.log2(size / (self.canonical_size / 4) + 1e-6))
        return 4 + torch.log2(size / self.canonical_size) + 1e-6


def as_rois(boxes: Sequence[Float[Tensor, "_ 4"]]) -> Float[Tensor, "r 5"]:
    """Boxes of several images as one tensor of regions, the index of the image first."""
    numbered = [torch.cat([b.new_full((len(b), 1), i), b], dim=1) for i, b in enumerate(boxes)]
    return torch.cat(numbered)
