"""Pictures in Pillow: any mode to upright RGB, and boxes with labels on top.

Line width and letters scale with the picture; a class keeps its colour, and the letters on it are black or
white, whichever can be read.
"""

import colorsys
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

_GOLDEN_RATIO = 0.618034
Colour = tuple[int, int, int]


def colour_of(label: int) -> Colour:
    """A colour for a class: neighbours in the list are far apart on the colour wheel."""
    hue = (0.02 + label * _GOLDEN_RATIO) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, (1.0, 0.75)[label // 8 % 2])
    return round(255 * red), round(255 * green), round(255 * blue)


def upright_rgb(picture: Image.Image) -> Image.Image:
    """Any Pillow picture as RGB with its EXIF orientation applied.

    Palettes and grey values become colours, transparency is dropped, 16 bits become 8 by scaling.

    Raises:
        ValueError: float pixels, whose range nobody knows.
    """
    upright = ImageOps.exif_transpose(picture)
    if upright.mode == "F":
        raise ValueError("32-bit float pixels; save it with 8 or 16 bits")
    if upright.mode.startswith("I"):
        # Pillow's own conversion of 16-bit grey would clip nearly all of it to white.
        values = np.asarray(upright).astype(np.int64)
        # Mode "I" has 32 bits and may hold either range; I;16 always means 16 bits.
        is_16_bit = upright.mode.startswith("I;16") or values.max(initial=0) > 255
        grey = values.clip(0, 65535) // 257 if is_16_bit else values.clip(0, 255)
        upright = Image.fromarray(grey.astype(np.uint8))
    return upright.convert("RGB")


def draw_boxes(
    picture: Image.Image, boxes: NDArray[np.float32], labels: NDArray[np.int64], captions: Sequence[str]
) -> Image.Image:
    """A copy of the picture with a box and a caption for each detection, the last on top.

    Args:
        picture: any mode; the copy is RGB.
        boxes: (n, 4) xyxy in pixels of the picture.
        labels: (n,) choose the colours.
        captions: n texts; an empty one is not drawn.
    """
    copy = upright_rgb(picture)
    copy = copy.copy() if copy is picture else copy
    draw = ImageDraw.Draw(copy)
    short_side = min(copy.size)
    width = max(2, round(short_side / 250))
    font = _font(max(10, round(short_side / 36)))
    for box, label, caption in zip(boxes.tolist(), labels.tolist(), captions, strict=True):
        colour = colour_of(label)
        draw.rectangle(box, outline=colour, width=width)
        if caption:
            _draw_caption(draw, caption, (box[0], box[1]), font, colour, copy.size)
    return copy


def contact_sheet(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Pictures of one size side by side, row by row."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height))
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % columns * width, number // columns * height))
    return sheet


def _draw_caption(
    draw: ImageDraw.ImageDraw,
    caption: str,
    corner: tuple[float, float],
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    colour: Colour,
    size: tuple[int, int],
) -> None:
    """A filled label above the corner, or below it and to the left where the picture ends."""
    left, top, right, bottom = draw.textbbox((0, 0), caption, font=font)
    pad = max(1, round((bottom - top) / 6))
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    x = max(0.0, min(corner[0], size[0] - width))
    y = corner[1] - height if corner[1] >= height else corner[1]
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    ink = (0, 0, 0) if luminance > 140 else (255, 255, 255)
    draw.text((x + pad - left, y + pad - top), caption, font=font, fill=ink)


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
