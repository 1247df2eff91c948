"""Tiling and test-time augmentation: an image as a whole and in tiles, unchanged, mirrored or at other sizes.

Axes: h w pixels, n detections. Regions are xyxy in whole pixels of the original image.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from fasterrcnn.config import InputConfig
from fasterrcnn.errors import UsageError
from fasterrcnn.inference.fusion import join, pieces_of, vote
from fasterrcnn.inference.options import MergeKind
from fasterrcnn.model.postprocess import PostProcess, to_frame
from fasterrcnn.ops import boxes
from fasterrcnn.ops.image import to_input
from fasterrcnn.structures import RawDetections

_SCALES = (0.5, 4.0)
"""Smallest and largest factor of test-time augmentation, relative to the default size of the network input."""

_PHOTO = 3 / 4
"""Short side of a typical photograph divided by its long side."""

_BORDER = 0.01
"""A box that ends within this share of a tile's side from the tile's edge counts as cut."""


@dataclass(frozen=True)
class Tile:
    """A region of an image, a tile or the whole image, and the network input that is made of it."""

    region: tuple[int, int, int, int]  # the part of the image that the network sees
    input_hw: tuple[int, int]  # size of the network input that is made of it
    mirrored: bool = False  # the network input is flipped left to right
    whole: bool = True  # the region is the whole image
    # area of the network input divided by that of a default input, rounded up: a tile with N times the area may hold N
    # times as many objects. 1 for the whole image
    capacity: int = 1

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width of the region."""
        x1, y1, x2, y2 = self.region
        return y2 - y1, x2 - x1


@dataclass(frozen=True)
class TilingOptions:
    """Into which tiles and augmented versions images are taken apart, chosen at each call."""

    tile: int | None = None  # side of square tiles in pixels of the image; None: the whole image only
    overlap: float = 0.2  # share of a tile's side that it has in common with the next tile, 0..0.9
    mirror: bool = False  # add each region flipped left to right
    scales: tuple[float, ...] = ()  # add each region at these factors of the default size

    def __post_init__(self) -> None:
        if self.tile is not None and self.tile < 1:
            raise UsageError(f"tile must be at least 1 pixel, not {self.tile}")
        if not 0 <= self.overlap <= 0.9:
            raise UsageError(f"overlap must lie in 0..0.9, not {self.overlap}")
        for scale in self.scales:
            if not _SCALES[0] <= scale <= _SCALES[1]:
                raise UsageError(f"augment: a size must lie in {_SCALES[0]}..{_SCALES[1]}, not {scale}")

    @property
    def passes_per_region(self) -> int:
        """Augmented versions of each region, the unchanged one included."""
        return (1 + self.mirror) * (1 + len(self.scales))

    def tiles(self, image_hw: tuple[int, int], input_config: InputConfig) -> list[Tile]:
        """All tiles of an image of that height and width; the augmented versions of one region follow each other.

        The whole image comes first. It is alone if it is no larger than a tile.
        """
        height, width = image_hw
        whole = Tile((0, 0, width, height), input_config.resized_hw(image_hw))
        regions = [whole, *self._cut(image_hw, input_config)]
        factors = (1.0, *self.scales)
        sides = (False, True) if self.mirror else (False,)
        return [
            Tile(tile.region, _scaled(tile.input_hw, factor), mirrored, tile.whole, tile.capacity)
            for tile, factor, mirrored in itertools.product(regions, factors, sides)
        ]

    def _cut(self, image_hw: tuple[int, int], input_config: InputConfig) -> list[Tile]:
        """Tiles of one size, spread evenly."""
        if self.tile is None or max(image_hw) <= self.tile:
            return []
        scale = _tile_scale(self.tile, input_config)
        rows, columns = (self._starts(side) for side in image_hw)
        hw = (min(self.tile, image_hw[0]), min(self.tile, image_hw[1]))
        input_hw = _scaled(hw, scale)
        short_side = input_config.short_side
        default_area = short_side * min(input_config.long_side, short_side / _PHOTO)
        capacity = math.ceil(math.prod(input_hw) / default_area)
        return [
            Tile((x, y, x + hw[1], y + hw[0]), input_hw, whole=False, capacity=capacity)
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


def crop_tile(
    pixels: UInt8[Tensor, "3 h w"] | Float[Tensor, "3 h w"],
    tile: Tile,
    input_config: InputConfig,
    device: torch.device | None = None,
) -> Float[Tensor, "3 th tw"]:
    """The network input that is made of a tile, on the device."""
    x1, y1, x2, y2 = tile.region
    crop = pixels[:, y1:y2, x1:x2]
    crop = to_input(crop, tile.input_hw, antialias=input_config.antialias, method=input_config.resize, device=device)
    return crop.flip(-1) if tile.mirrored else crop


def to_image_coordinates(detections: RawDetections, tile: Tile) -> RawDetections:
    """The detections of a tile, in pixels of the whole image, clipped to the region of the tile."""
    xyxy = detections.boxes.float()
    if tile.mirrored:
        xyxy = boxes.flip_horizontal(xyxy, tile.input_hw[1])
    in_region = to_frame(replace(detections, boxes=xyxy), tile.input_hw, tile.hw)
    shift = xyxy.new_tensor(tile.region[:2] * 2)
    return replace(in_region, boxes=in_region.boxes + shift)


def cut_sides(xyxy: Float[Tensor, "n 4"], tile: Tile, image_hw: tuple[int, int]) -> Bool[Tensor, "n 4"]:
    """Which sides of each box, left, top, right and bottom, lie on an edge of the tile inside the image."""
    x1, y1, x2, y2 = tile.region
    edges = xyxy.new_tensor(tile.region)
    near = xyxy.new_tensor([x2 - x1, y2 - y1, x2 - x1, y2 - y1]) * _BORDER
    inner = torch.tensor([x1 > 0, y1 > 0, x2 < image_hw[1], y2 < image_hw[0]], device=xyxy.device)
    return ((xyxy - edges).abs() <= near) & inner


def combine(
    detections: Sequence[RawDetections],
    tiles: Sequence[Tile],
    image_hw: tuple[int, int],
    tiling: TilingOptions,
    postprocess: PostProcess,
    merge: MergeKind,
    limit: int | None,
) -> RawDetections:
    """The detections of one image from those of all its tiles.

    First the augmented versions of each region vote, then the regions are joined. Where there are tiles, the whole
    image only adds objects that are larger than the overlap of two tiles: every smaller object lies completely inside
    some tile, at a larger size.

    Args:
        detections: of each tile, in pixels of the image.
        tiles: as `TilingOptions.tiles` gives them.
        image_hw: height and width of the image.
        tiling: the options that made the tiles.
        postprocess: how detections are selected.
        merge: how tiles are put together.
        limit: largest number of detections of an image in tiles; None is no limit.
    """
    repeats = tiling.passes_per_region
    regions = [
        detections[start] if repeats == 1 else vote(detections[start : start + repeats], postprocess)
        for start in range(0, len(detections), repeats)
    ]
    if len(regions) == 1:
        return regions[0]
    whole = regions[0]
    overlap = tiling.overlap * (tiling.tile or 0)
    large = (whole.boxes[:, 2:] - whole.boxes[:, :2]).amax(dim=1) > overlap
    regions = [RawDetections(whole.boxes[large], whole.scores[large], whole.labels[large]), *regions[1:]]
    cut = [cut_sides(region.boxes, tile, image_hw) for region, tile in zip(regions, tiles[::repeats], strict=True)]
    return join(pieces_of(regions, cut), postprocess, merge, limit=limit)


def _tile_scale(tile: int, input_config: InputConfig) -> float:
    """The factor by which tiles are resized.

    It is the factor of the training images, so that objects have the size that the network was trained on. Where that
    is not known, it is the factor of a photograph as wide as a tile; also where the training images were so large that
    a tile would become smaller than half of the default short side.
    """
    if input_config.scale is not None and input_config.scale * tile >= input_config.short_side / 2:
        return input_config.scale
    return min(input_config.short_side / (_PHOTO * tile), input_config.long_side / tile)


def _scaled(hw: Sequence[int], factor: float) -> tuple[int, int]:
    height, width = (max(1, round(side * factor)) for side in hw)
    return height, width
