"""Looks at one image: whole or in tiles, as it is, mirrored or at other sizes.

Axes: h w pixels, n detections. Regions are xyxy in whole pixels of the original image.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from fasterrcnn.config import InputConfig
from fasterrcnn.data.pixels import resize_to_input
from fasterrcnn.errors import UsageError
from fasterrcnn.inference.fusion import join, pieces_of, vote
from fasterrcnn.inference.options import MergeKind
from fasterrcnn.model.postprocess import PostProcess
from fasterrcnn.ops import boxes
from fasterrcnn.structures import RawDetections

_SCALES = (0.5, 4.0)
"""Smallest and largest size, against the usual one, at which an image may be looked at again."""

_PHOTO = 3 / 4
"""Short side of a usual photograph against its long side."""

_BORDER = 0.01
"""A box that ends within this share of a tile's side from the tile's edge is taken for cut."""


@dataclass(frozen=True)
class View:
    """One look at an image.

    Attributes:
        region: the part of the image that is seen.
        input_hw: size of the network input that is made of it.
        mirrored: left and right are exchanged.
        whole: the region is the whole image.
        crowd: how many usual inputs would have the area of this one, and so as many objects; 1 for whole images.
    """

    region: tuple[int, int, int, int]
    input_hw: tuple[int, int]
    mirrored: bool = False
    whole: bool = True
    crowd: int = 1

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width of the region."""
        x1, y1, x2, y2 = self.region
        return y2 - y1, x2 - x1


@dataclass(frozen=True)
class Looks:
    """How images are looked at, chosen at each call.

    Attributes:
        tile: side of square tiles in pixels of the image; None looks at the whole image only.
        overlap: share of a tile's side that it has in common with its neighbour, 0..0.9.
        mirror: look at the mirror image too.
        scales: further sizes to look at, against the usual one.
    """

    tile: int | None = None
    overlap: float = 0.2
    mirror: bool = False
    scales: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.tile is not None and self.tile < 1:
            raise UsageError(f"tile must be at least 1 pixel, not {self.tile}")
        if not 0 <= self.overlap <= 0.9:
            raise UsageError(f"overlap must lie in 0..0.9, not {self.overlap}")
        for scale in self.scales:
            if not _SCALES[0] <= scale <= _SCALES[1]:
                raise UsageError(f"augment: a size must lie in {_SCALES[0]}..{_SCALES[1]}, not {scale}")

    @property
    def views_of_a_region(self) -> int:
        """How often each region is looked at."""
        return (1 + self.mirror) * (1 + len(self.scales))

    def __call__(self, image_hw: tuple[int, int], size: InputConfig) -> list[View]:
        """All looks at an image of that height and width; those at one region follow each other.

        The whole image comes first, and alone where it is no larger than a tile.
        """
        height, width = image_hw
        whole = View((0, 0, width, height), size.resized_hw(image_hw))
        regions = [whole, *self._tiles(image_hw, size)]
        factors = (1.0, *self.scales)
        sides = (False, True) if self.mirror else (False,)
        return [
            View(view.region, _scaled(view.input_hw, factor), mirrored, view.whole, view.crowd)
            for view, factor, mirrored in itertools.product(regions, factors, sides)
        ]

    def _tiles(self, image_hw: tuple[int, int], size: InputConfig) -> list[View]:
        """Tiles of one size, spread evenly."""
        if self.tile is None or max(image_hw) <= self.tile:
            return []
        scale = _tile_scale(self.tile, size)
        rows, columns = (self._starts(side) for side in image_hw)
        hw = (min(self.tile, image_hw[0]), min(self.tile, image_hw[1]))
        input_hw = _scaled(hw, scale)
        crowd = math.ceil(math.prod(input_hw) / (size.short_side * min(size.long_side, size.short_side / _PHOTO)))
        return [
            View((x, y, x + hw[1], y + hw[0]), input_hw, whole=False, crowd=crowd)
            for y, x in itertools.product(rows, columns)
        ]

    def _starts(self, side: int) -> list[int]:
        """Where tiles begin along one side of the image: the first at its start, the last at its end."""
        tile = self.tile or side
        if side <= tile:
            return [0]
        step = max(1, math.floor(tile * (1 - self.overlap)))
        count = math.ceil((side - tile) / step) + 1
        return [round(number * (side - tile) / (count - 1)) for number in range(count)]


def take(
    pixels: UInt8[Tensor, "3 h w"] | Float[Tensor, "3 h w"], view: View, size: InputConfig
) -> Float[Tensor, "3 th tw"]:
    """The network input that shows a view of an image."""
    x1, y1, x2, y2 = view.region
    seen = resize_to_input(pixels[:, y1:y2, x1:x2], size, view.input_hw)
    return seen.flip(-1) if view.mirrored else seen


def to_image(found: RawDetections, view: View) -> RawDetections:
    """What was found in a view, in the pixels of the whole image, clipped to the view's region."""
    xyxy = found.boxes.float()
    if view.mirrored:
        xyxy = boxes.flip_horizontal(xyxy, view.input_hw[1])
    xyxy = boxes.clip(boxes.scale(xyxy, view.input_hw, view.hw), view.hw)
    shift = xyxy.new_tensor(view.region[:2] * 2)
    return RawDetections(xyxy + shift, found.scores.float(), found.labels)


def cut_sides(xyxy: Float[Tensor, "n 4"], view: View, image_hw: tuple[int, int]) -> Bool[Tensor, "n 4"]:
    """Which sides of each box, left, top, right and bottom, lie on an edge of the view that is none of the image."""
    x1, y1, x2, y2 = view.region
    edges = xyxy.new_tensor(view.region)
    near = xyxy.new_tensor([x2 - x1, y2 - y1, x2 - x1, y2 - y1]) * _BORDER
    inner = torch.tensor([x1 > 0, y1 > 0, x2 < image_hw[1], y2 < image_hw[0]], device=xyxy.device)
    return ((xyxy - edges).abs() <= near) & inner


def combine(
    detections: Sequence[RawDetections],
    views: Sequence[View],
    image_hw: tuple[int, int],
    looks: Looks,
    postprocess: PostProcess,
    merge: MergeKind,
    limit: int | None,
) -> RawDetections:
    """The detections of one image from those of all views of it: views of one region vote, then regions are joined.

    Beside tiles, the view of the whole image counts for objects that are too large for the overlap of two tiles:
    of every smaller object, some tile shows the whole, and at a larger size.

    Args:
        detections: of each view, in pixels of the image.
        views: those of one region follow each other, that of the whole image comes first.
        image_hw: height and width of the image.
        looks: what made the views.
        postprocess: how detections are selected.
        merge: how tiles are put together.
        limit: largest number of detections of an image in tiles; None is no limit.
    """
    repeats = looks.views_of_a_region
    regions = [
        detections[start] if repeats == 1 else vote(detections[start : start + repeats], postprocess)
        for start in range(0, len(detections), repeats)
    ]
    if len(regions) == 1:
        return regions[0]
    whole, *tiles = regions
    overlap = looks.overlap * (looks.tile or 0)
    large = (whole.boxes[:, 2:] - whole.boxes[:, :2]).amax(dim=1) > overlap
    regions = [RawDetections(whole.boxes[large], whole.scores[large], whole.labels[large]), *tiles]
    cut = [cut_sides(region.boxes, view, image_hw) for region, view in zip(regions, views[::repeats], strict=True)]
    return join(pieces_of(regions, cut), postprocess, merge, limit=limit)


def _tile_scale(tile: int, size: InputConfig) -> float:
    """The factor by which tiles are resized.

    It is that of the training images, so that the network sees objects at the size that it knows. Where that is not
    known, or would leave less than half the usual short side of a tile, because the training images were as large as
    those that are cut up now, it is that of a photograph as wide as a tile.
    """
    if size.scale is not None and size.scale * tile >= size.short_side / 2:
        return size.scale
    return min(size.short_side / (_PHOTO * tile), size.long_side / tile)


def _scaled(hw: Sequence[int], factor: float) -> tuple[int, int]:
    height, width = (max(1, round(side * factor)) for side in hw)
    return height, width
