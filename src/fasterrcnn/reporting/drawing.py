"""Drawing with Pillow: boxes with labels on images, bar charts, and sheets of several images.

Line width and letters scale with the image; a class keeps its colour, and the letters on it are black or
white, whichever can be read.
"""

import colorsys
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from fasterrcnn.images import upright_rgb

_GOLDEN_RATIO = 0.618034
_TEXT_SIZE = 14  # of titles and legends, which stand beside the image
Colour = tuple[int, int, int]
Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
Edges = tuple[float, float, float, float]
WHITE, BLACK, GREY = (255, 255, 255), (20, 20, 20), (150, 150, 150)


@dataclass(frozen=True)
class Pen:
    """How a box is outlined."""

    colour: Colour  # of the line, and behind the caption
    dashed: bool = False  # whether the line has gaps


@dataclass(frozen=True)
class Mark:
    """A box to draw."""

    box: Edges  # xyxy in pixels of the image
    pen: Pen  # how it is outlined
    caption: str = ""  # text on it; an empty one is not drawn


@dataclass(frozen=True)
class Bar:
    """One line of a bar chart."""

    label: str  # on the left
    share: float  # length, 0..1
    value: str  # text on the right
    colour: Colour = (60, 84, 200)  # of the bar


def colour_of(label: int) -> Colour:
    """A colour for a class: neighbours in the list are far apart on the colour wheel."""
    hue = (0.02 + label * _GOLDEN_RATIO) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, (1.0, 0.75)[label // 8 % 2])
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_boxes(
    image: Image.Image, boxes: NDArray[np.float32], labels: NDArray[np.int64], captions: Sequence[str]
) -> Image.Image:
    """As `draw_marks`, with boxes (n, 4), xyxy in pixels of the image, in the colours of their labels (n,)."""
    rows = zip(boxes.tolist(), labels.tolist(), captions, strict=True)
    return draw_marks(image, [Mark(tuple(box), Pen(colour_of(label)), caption) for box, label, caption in rows])


def draw_marks(image: Image.Image, marks: Sequence[Mark]) -> Image.Image:
    """A copy of the image, of any mode, as RGB with boxes and captions, the last on top."""
    copy = upright_rgb(image)
    copy = copy.copy() if copy is image else copy
    draw = ImageDraw.Draw(copy)
    short_side = min(copy.size)
    width, font = max(2, round(short_side / 250)), text_font(max(10, round(short_side / 36)))
    for mark in marks:
        _draw_outline(draw, mark.box, mark.pen, width)
        if mark.caption:
            _draw_caption(draw, mark, font, copy.size)
    return copy


def contact_sheet(images: Sequence[Image.Image], columns: int, *, background: str = "black") -> Image.Image:
    """Images side by side, row by row, each in the upper left of a cell that is as large as the largest."""
    width, height = (max(sides) for sides in zip(*(image.size for image in images), strict=True))
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), background)
    for number, image in enumerate(images):
        sheet.paste(image, (number % columns * width, number // columns * height))
    return sheet


def add_title(image: Image.Image, title: str) -> Image.Image:
    """The image below a line of black text, in a white frame; text that is too long is cut off."""
    framed = ImageOps.expand(image, border=(2, 2 * _TEXT_SIZE, 2, 2), fill="white")
    ImageDraw.Draw(framed).text((4, _TEXT_SIZE), title, font=text_font(_TEXT_SIZE), fill="black", anchor="lm")
    return framed


def add_legend(image: Image.Image, meanings: Mapping[str, Pen]) -> Image.Image:
    """The image below a line with the meaning of each pen, widened with white where the line is longer."""
    font, gap = text_font(_TEXT_SIZE), 2 * _TEXT_SIZE
    lengths = [math.ceil(font.getbbox(meaning)[2]) for meaning in meanings]
    needed = gap // 2 + sum(2 * gap + length for length in lengths)
    sheet = Image.new("RGB", (max(image.width, needed), image.height + 2 * gap), "white")
    sheet.paste(image, (0, 2 * gap))
    draw = ImageDraw.Draw(sheet)
    x, top = gap / 2, gap / 2
    for (meaning, pen), length in zip(meanings.items(), lengths, strict=True):
        _draw_outline(draw, (x, top, x + gap, top + gap), pen, 3)
        draw.text((x + gap + 6, gap), meaning, font=font, fill="black", anchor="lm")
        x += 2 * gap + length
    return sheet


def add_header(image: Image.Image, text: str) -> Image.Image:
    """The image below a dark band with a line of text."""
    size, band = 15, 22
    sheet = ImageOps.expand(image, (0, band, 0, 0), fill=BLACK)
    line = fit_text(text, sheet.width - 8, size)
    ImageDraw.Draw(sheet).text((5, band / 2), line, WHITE, text_font(size), anchor="lm")
    return sheet


def draw_bars(bars: Sequence[Bar], *, width: int, left: int = 190, size: int = 17) -> Image.Image:
    """A bar chart on white: labels on the left, values at the ends."""
    step = round(1.9 * size)
    image = Image.new("RGB", (width, step * max(1, len(bars)) + size // 2), WHITE)
    draw, font, right = ImageDraw.Draw(image), text_font(size), 5 * size
    for number, bar in enumerate(bars):
        middle = step * number + step / 2 + size / 4
        length = max(2.0, bar.share * (width - left - right))
        draw.text((left - 8, middle), fit_text(bar.label, left - 12, size), BLACK, font, anchor="rm")
        draw.rectangle((left, middle - 0.55 * size, left + length, middle + 0.55 * size), fill=bar.colour)
        draw.text((left + length + 6, middle), bar.value, BLACK, font, anchor="lm")
    if not bars:
        draw.text((8, step / 2), "nothing here", GREY, font, anchor="lm")
    return image


def fit_text(text: str, width: int, size: int) -> str:
    """The text, shortened until it is no wider than that many pixels."""
    font = text_font(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."


@lru_cache(maxsize=32)
def text_font(size: int) -> Font:
    """Letters of that height in pixels."""
    return ImageFont.load_default(size)


def _draw_outline(draw: ImageDraw.ImageDraw, box: Edges, pen: Pen, width: int) -> None:
    """The line lies inside the box, as Pillow's own does."""
    if not pen.dashed:
        draw.rectangle(box, outline=pen.colour, width=width)
        return
    x1, y1, x2, y2 = box
    dash, inside = 4 * width, width - 1
    for x, end in _dashes(x1, x2, dash):
        draw.rectangle((x, y1, end, y1 + inside), fill=pen.colour)
        draw.rectangle((x, y2 - inside, end, y2), fill=pen.colour)
    for y, end in _dashes(y1, y2, dash):
        draw.rectangle((x1, y, x1 + inside, end), fill=pen.colour)
        draw.rectangle((x2 - inside, y, x2, end), fill=pen.colour)


def _dashes(start: float, end: float, dash: int) -> list[tuple[float, float]]:
    """Where the dashes of a side begin and end: gaps are about as long, and there is a dash at both ends."""
    count = max(1, round((end - start) / dash / 2))
    step = (end - start) / (2 * count + 1)
    return [(start + 2 * number * step, start + (2 * number + 1) * step) for number in range(count + 1)]


def _draw_caption(draw: ImageDraw.ImageDraw, mark: Mark, font: Font, size: tuple[int, int]) -> None:
    """A filled label above the upper left corner, or below it and to the left where the image ends."""
    left, top, right, bottom = draw.textbbox((0, 0), mark.caption, font=font)
    pad = max(1, round((bottom - top) / 6))
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    x = max(0.0, min(mark.box[0], size[0] - width))
    y = mark.box[1] - height if mark.box[1] >= height else mark.box[1]
    draw.rectangle((x, y, x + width, y + height), fill=mark.pen.colour)
    red, green, blue = mark.pen.colour
    ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"  # by luminance
    draw.text((x + pad - left, y + pad - top), mark.caption, font=font, fill=ink)
