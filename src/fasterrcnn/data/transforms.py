"""Augmentation: other views of the same image, so that a detector learns objects and not pixels by heart.

A view is framed (a part of the image on the whole canvas, or the whole image on a part of it), recoloured,
turned and mirrored. Pixels and boxes go through the same calls of torchvision's transforms, so they cannot part.
The canvas keeps the size that the image has without augmentation: the network sees few shapes.

Axes: n objects, h w pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import BoundingBoxes

from fasterrcnn.config import Augmentation, InputConfig
from fasterrcnn.data.pixels import to_input
from fasterrcnn.ops import boxes

MIN_VISIBLE = 0.3
"""Share of an object that must be left for it to be asked for: of less, people cannot tell the class either."""

MIN_SIDE = 0.01
"""Input pixels; thinner boxes are dropped, for rounding could make them flat."""

_SHARES_IN_CROP = (0.1, 0.3, 0.5, 0.7, 0.9)
_CROP_TRIES = 10


@dataclass(frozen=True)
class Scene:
    """An image and its objects, on the way to the network.

    Attributes:
        pixels: RGB; 0..255 as it was read, 0..1 at the network's size.
        boxes: xyxy in pixels of this image, as torchvision's `BoundingBoxes`.
        labels: 0..K-1.
        difficult: crowds and difficult objects.
        visible: share of each object that is still in the image, 0..1.
    """

    pixels: UInt8[Tensor, "3 h w"] | Float[Tensor, "3 h w"]
    boxes: Float[Tensor, "n 4"]
    labels: Int64[Tensor, " n"]
    difficult: Bool[Tensor, " n"]
    visible: Float[Tensor, " n"]

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the pixels."""
        return self.pixels.shape[-2], self.pixels.shape[-1]


@dataclass(frozen=True)
class Recipe:
    """What an augmentation does, and how often.

    Attributes:
        flip: chance to be mirrored left to right.
        colour: contrast and saturation change by up to this share, brightness by up to half of it.
        scale: the image grows or shrinks by up to this factor.
        reframe: chance of a closer crop or of a zoom-out, instead of the change of scale.
        zoom: the largest factor of a crop, and of a zoom-out.
        mosaic: chance of four images in one.
        rotation: chance to be turned.
        degrees: by up to so much, either way.
    """

    flip: float = 0.5
    colour: float = 0.0
    scale: float = 1.0
    reframe: float = 0.0
    zoom: float = 1.0
    mosaic: float = 0.0
    rotation: float = 0.0
    degrees: float = 0.0

    @property
    def magnification(self) -> float:
        """How much larger than without augmentation an object may appear."""
        return max(self.scale, self.zoom)


RECIPES: dict[Augmentation, Recipe | None] = {
    "none": None,
    "light": Recipe(colour=0.15),
    "default": Recipe(colour=0.3, scale=4 / 3),
    "strong": Recipe(colour=0.4, scale=4 / 3, reframe=0.3, zoom=2.5, mosaic=0.25, rotation=0.5, degrees=5.0),
}
"""The presets by name."""


class Rectangle(NamedTuple):
    """A part of an image in whole pixels, in torchvision's order."""

    top: int
    left: int
    height: int
    width: int


def make_scene(
    pixels: UInt8[Tensor, "3 h w"],
    xyxy: Float[Tensor, "n 4"],
    labels: Int64[Tensor, " n"],
    difficult: Bool[Tensor, " n"],
) -> Scene:
    """An image as it was read, with its boxes in its own pixels."""
    return Scene(
        pixels, _as_boxes(xyxy, (pixels.shape[-2], pixels.shape[-1])), labels, difficult, torch.ones(len(xyxy))
    )


def plain_view(scene: Scene, config: InputConfig) -> Scene:
    """What detection and evaluation see of the image, to the last bit."""
    to_hw = config.resized_hw(scene.size_hw)
    xyxy = _as_boxes(boxes.scale(scene.boxes, scene.size_hw, to_hw), to_hw)
    return _without_invisible(_cut(replace(scene, pixels=to_input(scene.pixels, config), boxes=xyxy)))


def random_view(
    scene: Scene,
    recipe: Recipe,
    config: InputConfig,
    canvas_hw: tuple[int, int],
    draws: Random,
    another: Callable[[], Scene],
) -> Scene:
    """Another view of the image, on a canvas of the network's size; pixels 0..1.

    Args:
        scene: the image as it was read.
        recipe: what may be done to it.
        config: of the input; room around an image is filled with its mean pixel.
        canvas_hw: size of the view.
        draws: decide everything; no other generator is touched.
        another: reads some other image, for mosaics.

    Returns:
        The view. Its boxes lie within the canvas. Objects of which less than `MIN_VISIBLE` is left are dropped; parts
        of a crowd stay, however small: they are crowds too. The box of a turned object is the box around its
        turned corners, and thus larger: by up to 18 % of its area for a square at 5 degrees.
    """
    if draws.random() < recipe.mosaic and min(canvas_hw) > 1:
        view = _mosaic([scene, another(), another(), another()], recipe, config, canvas_hw, draws)
    else:
        source, place = _frame(scene, recipe, canvas_hw, draws)
        view = _lay(scene, source, place, canvas_hw, config, _draw_colour(recipe, draws))
    if draws.random() < recipe.rotation:
        view = _turn(view, draws.uniform(-recipe.degrees, recipe.degrees), config.mean)
    if draws.random() < recipe.flip:
        pixels = F.horizontal_flip(view.pixels)
        view = replace(view, pixels=pixels, boxes=F.horizontal_flip(view.boxes))
    return _without_invisible(view)


def recolour(
    pixels: UInt8[Tensor, "3 h w"], brightness: float, contrast: float, saturation: float
) -> Float[Tensor, "3 h w"]:
    """An image as floats 0..1 with its colours changed: torchvision's three adjustments, clipped once, at the end.

    The same bits come out whatever the number of threads, unlike torchvision's: each step is one multiplication or
    addition, and the mean is a sum of whole numbers.

    Args:
        pixels: RGB, 0..255.
        brightness: factor of all values.
        contrast: factor of their distance to the mean grey.
        saturation: factor of their distance to their own grey.
    """
    values = pixels.float() / 255
    grey = values[0] * 0.299 + values[1] * 0.587 + values[2] * 0.114
    red, green, blue = pixels.sum(dim=(1, 2)).tolist()
    mean = (0.299 * red + 0.587 * green + 0.114 * blue) / (255 * pixels[0].numel())
    gain = brightness * contrast
    common = grey * (gain * (1 - saturation)) + brightness * (1 - contrast) * mean
    return torch.clamp(values * (gain * saturation) + common, 0, 1)


def _frame(scene: Scene, recipe: Recipe, canvas_hw: tuple[int, int], draws: Random) -> tuple[Rectangle, Rectangle]:
    """Which part of the image comes on which part of the canvas."""
    whole = Rectangle(0, 0, *canvas_hw)
    if draws.random() < recipe.reframe:
        if draws.random() < 0.5:
            return _draw_crop(scene, recipe.zoom, draws), whole
        factor = draws.uniform(1 / recipe.zoom, 1)
    else:
        factor = recipe.scale ** draws.uniform(-1, 1)
    return _draw_part(scene.size_hw, 1 / factor, draws), _draw_part(canvas_hw, factor, draws)


def _draw_part(size_hw: tuple[int, int], share: float, draws: Random) -> Rectangle:
    """A rectangle somewhere in an image, with that share of both sides; everything for shares of 1 and more."""
    height, width = (max(1, round(side * min(1.0, share))) for side in size_hw)
    return Rectangle(draws.randint(0, size_hw[0] - height), draws.randint(0, size_hw[1] - width), height, width)


def _draw_crop(scene: Scene, zoom: float, draws: Random) -> Rectangle:
    """A part of the image that holds enough of some object; the whole image where none was found in time.

    After SSD (Liu et al. 2016, section 2.2), but it keeps the image's proportions, and the measure is the share of
    the object that is inside: small objects never reach SSD's IoU with the crop.
    """
    enough = draws.choice(_SHARES_IN_CROP)
    for _ in range(_CROP_TRIES):
        part = _draw_part(scene.size_hw, 1 / draws.uniform(1, zoom), draws)
        edges = torch.tensor([[part.left, part.top, part.left + part.width, part.top + part.height]]).float()
        inside = boxes.intersection_over_area(scene.boxes, edges)
        if not len(inside) or inside.max() >= enough:
            return part
    return Rectangle(0, 0, *scene.size_hw)


def _draw_colour(recipe: Recipe, draws: Random) -> tuple[float, float, float]:
    brightness, contrast, saturation = (draws.uniform(-recipe.colour, recipe.colour) for _ in range(3))
    return 1 + brightness / 2, 1 + contrast, 1 + saturation


def _mosaic(
    scenes: list[Scene], recipe: Recipe, config: InputConfig, canvas_hw: tuple[int, int], draws: Random
) -> Scene:
    """Four images around a point near the middle, each filling its corner (Bochkovskiy et al. 2020, section 3.3)."""
    height, width = canvas_hw
    y, x = (min(max(1, round(side * draws.uniform(0.35, 0.65))), side - 1) for side in canvas_hw)
    corners = [
        Rectangle(0, 0, y, x),
        Rectangle(0, x, y, width - x),
        Rectangle(y, 0, height - y, x),
        Rectangle(y, x, height - y, width - x),
    ]
    laid = []
    for scene, corner in zip(scenes, corners, strict=True):
        shrink = max(corner.height / scene.size_hw[0], corner.width / scene.size_hw[1])
        needed_hw = (corner.height / shrink, corner.width / shrink)
        shares = [needed / side for needed, side in zip(needed_hw, scene.size_hw, strict=True)]
        rows, columns = (_draw_part(scene.size_hw, share, draws) for share in shares)
        source = Rectangle(rows.top, columns.left, rows.height, columns.width)
        laid.append(_lay(scene, source, corner, canvas_hw, config, _draw_colour(recipe, draws)))
    pixels = laid[0].pixels
    for scene, (top, left, rows_high, columns_wide) in zip(laid, corners, strict=True):
        part = (slice(None), slice(top, top + rows_high), slice(left, left + columns_wide))
        pixels[part] = scene.pixels[part]
    return Scene(
        pixels,
        _as_boxes(torch.cat([scene.boxes for scene in laid]), canvas_hw),
        torch.cat([scene.labels for scene in laid]),
        torch.cat([scene.difficult for scene in laid]),
        torch.cat([scene.visible for scene in laid]),
    )


def _lay(
    scene: Scene,
    source: Rectangle,
    place: Rectangle,
    canvas_hw: tuple[int, int],
    config: InputConfig,
    colour: tuple[float, float, float],
) -> Scene:
    """A part of an image, resized and recoloured, on a place of a canvas of the mean pixel."""
    to_hw = [place.height, place.width]
    resized = F.resized_crop(scene.pixels, *source, to_hw, InterpolationMode.BILINEAR, antialias=config.antialias)
    part = _cut(replace(scene, pixels=recolour(resized, *colour), boxes=F.resized_crop(scene.boxes, *source, to_hw)))
    right, bottom = canvas_hw[1] - place.left - place.width, canvas_hw[0] - place.top - place.height
    padding = [place.left, place.top, right, bottom]
    pixels = F.pad(part.pixels, padding, fill=list(config.mean))
    return replace(part, pixels=pixels, boxes=F.pad(part.boxes, padding))


def _turn(scene: Scene, degrees: float, mean: tuple[float, float, float]) -> Scene:
    # Around zero, and not with torchvision's ``fill``, which draws a dark line along the old border.
    offset = torch.tensor(mean)[:, None, None]
    pixels = F.rotate(scene.pixels - offset, degrees, InterpolationMode.BILINEAR) + offset
    return _cut(replace(scene, pixels=pixels.clamp_(0, 1), boxes=F.rotate(scene.boxes, degrees)))


def _cut(scene: Scene) -> Scene:
    """Cut the boxes at the border, and note what share of each object that leaves."""
    xyxy = scene.boxes
    inside = boxes.clip(xyxy, scene.size_hw)
    left = torch.where(boxes.areas(inside) > 0, boxes.areas(inside) / boxes.areas(xyxy), 0.0)
    return replace(scene, boxes=_as_boxes(inside, scene.size_hw), visible=scene.visible * left)


def _without_invisible(scene: Scene) -> Scene:
    xyxy = scene.boxes
    keep = (scene.difficult | (scene.visible >= MIN_VISIBLE)) & boxes.at_least(xyxy, MIN_SIDE)
    kept = _as_boxes(xyxy[keep], scene.size_hw)
    return Scene(scene.pixels, kept, scene.labels[keep], scene.difficult[keep], scene.visible[keep])


def _as_boxes(xyxy: Float[Tensor, "n 4"], size_hw: tuple[int, int]) -> BoundingBoxes:
    # Without clamping: what torchvision would cut off itself could not be measured any more.
    return BoundingBoxes(xyxy, format="XYXY", canvas_size=size_hw, clamping_mode=None)
