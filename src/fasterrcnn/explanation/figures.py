"""What images are made of: panels with captions, views of the input, heat maps, bars.

A figure shows itself in a notebook. Boxes are xyxy in pixels of the network input.
"""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from fasterrcnn.explanation.trace import Trace
from fasterrcnn.reporting.drawing import Colour, Mark, Pen, add_title, contact_sheet, draw_marks

VIEW = 560
"""Width of a view of the input, in pixels."""
WIDE = 840
"""That of a view that stands alone."""
WHITE, BLACK, GREY = (255, 255, 255), (20, 20, 20), (150, 150, 150)
OUTSIDE = (225, 225, 225)
"""Beyond the border of the image."""
LEVELS: tuple[Colour, ...] = ((230, 75, 53), (0, 160, 135), (60, 84, 200), (240, 170, 0), (145, 80, 170))
"""Colours of the levels, finest first."""


@dataclass(frozen=True)
class Panel:
    """An image and the line that says what it shows."""

    caption: str
    image: Image.Image


@dataclass(frozen=True)
class Figure:
    """The images of one stage.

    Attributes:
        name: for its file, without suffix.
        panels: at least one.
        columns: how many stand side by side where there is room.
    """

    name: str
    panels: tuple[Panel, ...]
    columns: int = 2

    def sheet(self) -> Image.Image:
        """All panels with their captions as one image."""
        titled = [add_title(panel.image, panel.caption) for panel in self.panels]
        return contact_sheet(titled, min(self.columns, len(titled)), background="white")

    def _repr_png_(self) -> bytes:
        """For notebooks."""
        buffer = io.BytesIO()
        self.sheet().save(buffer, "PNG", compress_level=4)
        return buffer.getvalue()


@dataclass(frozen=True)
class Bar:
    """One line of a bar chart.

    Attributes:
        label: on the left.
        share: length, 0..1.
        shown: on the right.
        colour: of the bar.
    """

    label: str
    share: float
    shown: str
    colour: Colour = LEVELS[2]


def view_scale(trace: Trace, width: int = VIEW) -> float:
    """Pixels of a view for each pixel of the network input."""
    return width / trace.input_hw[1]


def view(trace: Trace, width: int = VIEW, *, dimmed: bool = False) -> Image.Image:
    """The network input without padding, at another size; dimmed, it steps back behind what is drawn on it."""
    height, across = trace.input_hw
    scale = view_scale(trace, width)
    image = to_pil(trace.batch.pixels[0, :, :height, :across])
    image = image.resize((width, max(1, round(height * scale))), Image.Resampling.BICUBIC)
    if not dimmed:
        return image
    grey = image.convert("L").convert("RGB")
    return Image.blend(grey, Image.new("RGB", grey.size, WHITE), 0.45)


def to_pil(pixels: Float[Tensor, "3 h w"]) -> Image.Image:
    """RGB in 0..1 as a Pillow image."""
    return Image.fromarray((pixels * 255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy())


def marks(
    xyxy: Float[Tensor, "n 4"], pens: Sequence[Pen], captions: Sequence[str] | None = None, *, scale: float
) -> list[Mark]:
    """Boxes of the input, ready to be drawn on a view."""
    texts = captions or [""] * len(xyxy)
    rows = (xyxy * scale).tolist()
    return [Mark(tuple(row), pen, text) for row, pen, text in zip(rows, pens, texts, strict=True)]


def draw_scores(trace: Trace, xyxy: Float[Tensor, "n 4"], scores: Float[Tensor, " n"]) -> Image.Image:
    """A view with boxes whose colour tells their score, dark purple for 0 and yellow for 1; the best are on top."""
    order = scores.argsort()
    pens = [Pen(colour) for colour in heat_colours(scores[order])]
    return draw_marks(view(trace, dimmed=True), marks(xyxy[order], pens, scale=view_scale(trace)))


def heat_colours(values: Float[Tensor, " n"]) -> list[Colour]:
    """A colour for each value in 0..1."""
    rows = _table()[_steps(values.numpy())]
    return [(int(red), int(green), int(blue)) for red, green, blue in rows]


def heat_map(trace: Trace, values: Float[Tensor, "h w"], *, width: int = VIEW, over: bool = False) -> Image.Image:
    """A map of values in 0..1 at the size of a view, cell by cell, padding cut off; or laid over the view."""
    padded_h, padded_w = trace.batch.padded_hw
    height, across = trace.input_hw
    scale = view_scale(trace, width)
    size = (max(1, round(padded_h * scale)), max(1, round(padded_w * scale)))
    large = F.interpolate(values[None, None].float(), size=size, mode="nearest")[0, 0]
    large = large[: max(1, round(height * scale)), : max(1, round(across * scale))]
    heat = Image.fromarray(_table()[_steps(large.numpy())])
    if not over:
        return heat
    ground = view(trace, width).convert("L").convert("RGB").resize(heat.size)
    return Image.blend(ground, heat, 0.6)


def to_unit(values: Tensor) -> Tensor:
    """Values stretched to 0..1; all zeros where they are equal."""
    low, high = (values.min(), values.max()) if values.numel() else (values.new_zeros(()),) * 2
    return (values - low) / (high - low).clamp(min=1e-12)


def norms(maps: Float[Tensor, "c h w"]) -> Float[Tensor, "h w"]:
    """How strongly each cell answers: the length of its vector of channels."""
    return maps.float().square().sum(dim=0).sqrt()


def draw_bars(bars: Sequence[Bar], *, width: int = VIEW, left: int = 190, size: int = 17) -> Image.Image:
    """A bar chart on white: labels on the left, numbers at the ends."""
    step = round(1.9 * size)
    image = Image.new("RGB", (width, step * max(1, len(bars)) + size // 2), WHITE)
    draw = ImageDraw.Draw(image)
    right = 5 * size
    for number, bar in enumerate(bars):
        middle = step * number + step / 2 + size / 4
        length = max(2.0, bar.share * (width - left - right))
        draw.text((left - 8, middle), fitted(bar.label, left - 12, size), BLACK, font(size), anchor="rm")
        draw.rectangle((left, middle - 0.55 * size, left + length, middle + 0.55 * size), fill=bar.colour)
        draw.text((left + length + 6, middle), bar.shown, BLACK, font(size), anchor="lm")
    if not bars:
        draw.text((8, step / 2), "nothing here", GREY, font(size), anchor="lm")
    return image


def headed(image: Image.Image, text: str, *, size: int = 15) -> Image.Image:
    """The image below a dark band with a line of text."""
    band = round(1.5 * size)
    sheet = Image.new("RGB", (image.width, image.height + band), BLACK)
    sheet.paste(image, (0, band))
    ImageDraw.Draw(sheet).text((5, band / 2), fitted(text, sheet.width - 8, size), WHITE, font(size), anchor="lm")
    return sheet


def fitted(text: str, width: int, size: int) -> str:
    """The text, shortened until it is no wider than that many pixels."""
    if font(size).getlength(text) <= width:
        return text
    while text and font(size).getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."


def each(count: int, make: Callable[[int], Panel], otherwise: Panel) -> tuple[Panel, ...]:
    """A panel for each number below the count, or the one that says that there is nothing."""
    return tuple(make(number) for number in range(count)) or (otherwise,)


def counted(number: int, thing: str) -> str:
    """Words for a number of things."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def log_share(count: int, largest: int) -> float:
    """Length of a bar on a logarithmic scale, 0..1."""
    return math.log1p(count) / math.log1p(max(1, largest))


@lru_cache(maxsize=32)
def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Letters of that height."""
    return ImageFont.load_default(size)


@lru_cache(maxsize=1)
def _table() -> NDArray[np.uint8]:
    """256 colours from dark purple to yellow."""
    from matplotlib import colormaps  # noqa: PLC0415 - takes a while, and is needed for heat only

    table: NDArray[np.uint8] = (colormaps["plasma"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    return table


def _steps(values: NDArray[np.float32]) -> NDArray[np.int64]:
    return (np.nan_to_num(values).clip(0, 1) * 255).round().astype(np.int64)
