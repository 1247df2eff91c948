"""Augmentation: random changes of images and their boxes, so that a detector generalises.

An image is cropped or scaled (a part of it on the whole canvas, or all of it on a part of the canvas), recoloured,
rotated and flipped. Pixels and boxes go through the same calls of torchvision's transforms, so they stay aligned.
The canvas keeps the size that the image has without augmentation, so that the network meets few shapes.

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
from fasterrcnn.ops import boxes
from fasterrcnn.ops.image import to_input

MIN_VISIBLE = 0.3
"""Share of an object that must be inside; with less, people do not recognise the class either."""

MIN_SIDE = 0.01
"""Input pixels; thinner boxes are dropped, since rounding could make their area zero."""

_SHARES_IN_CROP = (0.1, 0.3, 0.5, 0.7, 0.9)
_CROP_TRIES = 10


@dataclass(frozen=True)
class Sample:
    """An image and its objects, on the way to the network."""

    pixels: UInt8[Tensor, "3 h w"] | Float[Tensor, "3 h w"]  # RGB; 0..255 as it was read, 0..1 at the network's size
    boxes: Float[Tensor, "n 4"]  # xyxy in pixels of this image, as torchvision's `BoundingBoxes`
    labels: Int64[Tensor, " n"]  # 0..K-1
    difficult: Bool[Tensor, " n"]  # crowds and difficult objects
    visible: Float[Tensor, " n"]  # share of each object that is still in the image, 0..1

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the pixels."""
        return self.pixels.shape[-2], self.pixels.shape[-1]


@dataclass(frozen=True)
class AugmentationSettings:
    """What an augmentation does, and how often."""

    flip: float = 0.5  # probability of a horizontal flip
    colour: float = 0.0  # contrast and saturation change by up to this share, brightness by up to half of it
    scale: float = 1.0  # the image grows or shrinks by up to this factor
    reframe: float = 0.0  # probability of a closer crop or of a zoom-out, instead of the change of scale
    zoom: float = 1.0  # the largest factor of a crop, and of a zoom-out
    mosaic: float = 0.0  # probability of four images in one
    rotation: float = 0.0  # probability of a rotation
    degrees: float = 0.0  # largest angle of the rotation, either way

    @property
    def magnification(self) -> float:
        """How much larger than without augmentation an object can become."""
        return max(self.scale, self.zoom)


AUGMENTATIONS: dict[Augmentation, AugmentationSettings | None] = {
    "none": None,
    "light": AugmentationSettings(colour=0.15),
    "default": AugmentationSettings(colour=0.3, scale=4 / 3),
    "strong": AugmentationSettings(
        colour=0.4, scale=4 / 3, reframe=0.3, zoom=2.5, mosaic=0.25, rotation=0.5, degrees=5.0
    ),
}
"""The presets by name."""


class Rectangle(NamedTuple):
    """A part of an image in whole pixels, in torchvision's order."""

    top: int
    left: int
    height: int
    width: int


def make_sample(
    pixels: UInt8[Tensor, "3 h w"],
    xyxy: Float[Tensor, "n 4"],
    labels: Int64[Tensor, " n"],
    difficult: Bool[Tensor, " n"],
) -> Sample:
    """An image as it was read, with its boxes in its own pixels."""
    return Sample(
        pixels, _as_boxes(xyxy, (pixels.shape[-2], pixels.shape[-1])), labels, difficult, torch.ones(len(xyxy))
    )


def plain_sample(sample: Sample, config: InputConfig) -> Sample:
    """The image as in detection and evaluation, bit for bit."""
    to_hw = config.resized_hw(sample.size_hw)
    xyxy = _as_boxes(boxes.scale(sample.boxes, sample.size_hw, to_hw), to_hw)
    pixels = to_input(sample.pixels, to_hw, antialias=config.antialias, method=config.resize)
    return _without_invisible(_clip(replace(sample, pixels=pixels, boxes=xyxy)))


def augment(
    sample: Sample,
    settings: AugmentationSettings,
    config: InputConfig,
    canvas_hw: tuple[int, int],
    rng: Random,
    another: Callable[[], Sample],
) -> Sample:
    """An image as it was read with random changes, on a canvas of the network's size; pixels 0..1.

    The space around an image is filled with the mean pixel of the config; ``another`` reads some other image, for
    mosaics. Boxes lie within the canvas. Objects of which less than `MIN_VISIBLE` is left are dropped; parts of a crowd
    stay, however small, since they are crowds too. The box of a rotated object is the box around its rotated corners,
    and thus larger: by up to 18 % of its area for a square at 5 degrees.
    """
    if rng.random() < settings.mosaic and min(canvas_hw) > 1:
        result = _mosaic([sample, another(), another(), another()], settings, config, canvas_hw, rng)
    else:
        source, place = _random_frame(sample, settings, canvas_hw, rng)
        result = _place(sample, source, place, canvas_hw, config, _random_colour(settings, rng))
    if rng.random() < settings.rotation:
        result = _rotate(result, rng.uniform(-settings.degrees, settings.degrees), config.mean)
    if rng.random() < settings.flip:
        pixels = F.horizontal_flip(result.pixels)
        result = replace(result, pixels=pixels, boxes=F.horizontal_flip(result.boxes))
    return _without_invisible(result)


def recolour(
    pixels: UInt8[Tensor, "3 h w"], brightness: float, contrast: float, saturation: float
) -> Float[Tensor, "3 h w"]:
    """An RGB image of 0..255 as floats 0..1 with its colours changed: torchvision's three adjustments, clipped once.

    They are factors: of all values, of their distance to the mean grey, and of their distance to their own grey. The
    same bits come out whatever the number of threads, unlike torchvision's: each step is one multiplication or
    addition, and the mean is a sum of whole numbers.
    """
    values = pixels.float() / 255
    grey = values[0] * 0.299 + values[1] * 0.587 + values[2] * 0.114
    red, green, blue = pixels.sum(dim=(1, 2)).tolist()
    mean = (0.299 * red + 0.587 * green + 0.114 * blue) / (255 * pixels[0].numel())
    gain = brightness * contrast
    common = grey * (gain * (1 - saturation)) + brightness * (1 - contrast) * mean
    return torch.clamp(values * (gain * saturation) + common, 0, 1)


def _random_frame(
    sample: Sample, settings: AugmentationSettings, canvas_hw: tuple[int, int], rng: Random
) -> tuple[Rectangle, Rectangle]:
    """Which part of the image is placed on which part of the canvas."""
    whole = Rectangle(0, 0, *canvas_hw)
    if rng.random() < settings.reframe:
        if rng.random() < 0.5:
            return _random_crop(sample, settings.zoom, rng), whole
        factor = rng.uniform(1 / settings.zoom, 1)
    else:
        factor = settings.scale ** rng.uniform(-1, 1)
    return _random_part(sample.size_hw, 1 / factor, rng), _random_part(canvas_hw, factor, rng)


def _random_part(size_hw: tuple[int, int], share: float, rng: Random) -> Rectangle:
    """A random rectangle in an image, with that share of both sides; the whole image for shares of 1 and more."""
    height, width = (max(1, round(side * min(1.0, share))) for side in size_hw)
    return Rectangle(rng.randint(0, size_hw[0] - height), rng.randint(0, size_hw[1] - width), height, width)


def _random_crop(sample: Sample, zoom: float, rng: Random) -> Rectangle:
    """A part of the image that shows enough of some object; the whole image if no try finds one.

    After SSD (Liu et al. 2016, section 2.2), but it keeps the aspect ratio of the image, and measures the share of the
    object that is inside: small objects never reach SSD's IoU with the crop.
    """
    enough = rng.choice(_SHARES_IN_CROP)
    for _ in range(_CROP_TRIES):
        part = _random_part(sample.size_hw, 1 / rng.uniform(1, zoom), rng)
        edges = torch.tensor([[part.left, part.top, part.left + part.width, part.top + part.height]]).float()
        inside = boxes.intersection_over_area(sample.boxes, edges)
        if not len(inside) or inside.max() >= enough:
            return part
    return Rectangle(0, 0, *sample.size_hw)


def _random_colour(settings: AugmentationSettings, rng: Random) -> tuple[float, float, float]:
    brightness, contrast, saturation = (rng.uniform(-settings.colour, settings.colour) for _ in range(3))
    return 1 + brightness / 2, 1 + contrast, 1 + saturation


def _mosaic(
    samples: list[Sample], settings: AugmentationSettings, config: InputConfig, canvas_hw: tuple[int, int], rng: Random
) -> Sample:
    """Four images around a point near the middle, each filling its corner (Bochkovskiy et al. 2020, section 3.3)."""
    height, width = canvas_hw
    y, x = (min(max(1, round(side * rng.uniform(0.35, 0.65))), side - 1) for side in canvas_hw)
    rows, columns = ((0, y), (y, height - y)), ((0, x), (x, width - x))
    corners = [Rectangle(top, left, high, wide) for top, high in rows for left, wide in columns]
    parts = []
    for sample, corner in zip(samples, corners, strict=True):
        shrink = max(corner.height / sample.size_hw[0], corner.width / sample.size_hw[1])
        needed_hw = (corner.height / shrink, corner.width / shrink)
        shares = [needed / side for needed, side in zip(needed_hw, sample.size_hw, strict=True)]
        vertical, horizontal = (_random_part(sample.size_hw, share, rng) for share in shares)
        source = Rectangle(vertical.top, horizontal.left, vertical.height, horizontal.width)
        parts.append(_place(sample, source, corner, canvas_hw, config, _random_colour(settings, rng)))
    pixels = parts[0].pixels
    for sample, (top, left, rows_high, columns_wide) in zip(parts, corners, strict=True):
        part = (slice(None), slice(top, top + rows_high), slice(left, left + columns_wide))
        pixels[part] = sample.pixels[part]
    return Sample(
        pixels,
        _as_boxes(torch.cat([sample.boxes for sample in parts]), canvas_hw),
        torch.cat([sample.labels for sample in parts]),
        torch.cat([sample.difficult for sample in parts]),
        torch.cat([sample.visible for sample in parts]),
    )


def _place(
    sample: Sample,
    source: Rectangle,
    place: Rectangle,
    canvas_hw: tuple[int, int],
    config: InputConfig,
    colour: tuple[float, float, float],
) -> Sample:
    """A part of an image, resized and recoloured, on a canvas that is filled with the mean pixel."""
    to_hw = [place.height, place.width]
    resized = F.resized_crop(sample.pixels, *source, to_hw, InterpolationMode.BILINEAR, antialias=config.antialias)
    part = _clip(replace(sample, pixels=recolour(resized, *colour), boxes=F.resized_crop(sample.boxes, *source, to_hw)))
    right, bottom = canvas_hw[1] - place.left - place.width, canvas_hw[0] - place.top - place.height
    padding = [place.left, place.top, right, bottom]
    pixels = F.pad(part.pixels, padding, fill=list(config.mean))
    return replace(part, pixels=pixels, boxes=F.pad(part.boxes, padding))


def _rotate(sample: Sample, degrees: float, mean: tuple[float, float, float]) -> Sample:
    # The mean is subtracted before, since torchvision's ``fill`` would draw a dark line along the old border.
    offset = torch.tensor(mean)[:, None, None]
    pixels = F.rotate(sample.pixels - offset, degrees, InterpolationMode.BILINEAR) + offset
    return _clip(replace(sample, pixels=pixels.clamp_(0, 1), boxes=F.rotate(sample.boxes, degrees)))


def _clip(sample: Sample) -> Sample:
    """Clip the boxes at the border, and update the visible share of each object."""
    xyxy = sample.boxes
    inside = boxes.clip(xyxy, sample.size_hw)
    inside_share = torch.where(boxes.areas(inside) > 0, boxes.areas(inside) / boxes.areas(xyxy), 0.0)
    return replace(sample, boxes=_as_boxes(inside, sample.size_hw), visible=sample.visible * inside_share)


def _without_invisible(sample: Sample) -> Sample:
    xyxy = sample.boxes
    keep = (sample.difficult | (sample.visible >= MIN_VISIBLE)) & boxes.at_least(xyxy, MIN_SIDE)
    kept = _as_boxes(xyxy[keep], sample.size_hw)
    return Sample(sample.pixels, kept, sample.labels[keep], sample.difficult[keep], sample.visible[keep])


def _as_boxes(xyxy: Float[Tensor, "n 4"], size_hw: tuple[int, int]) -> BoundingBoxes:
    # No clamping by torchvision: `_clip` must know the boxes before, to measure the visible share.
    return BoundingBoxes(xyxy, format="XYXY", canvas_size=size_hw, clamping_mode=None)
