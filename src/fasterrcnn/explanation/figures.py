"""What figures are made of: panels with captions, the network input at other sizes, heat maps, regions.

A figure shows itself in a notebook. Boxes are xyxy in pixels of the network input.
"""

import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fasterrcnn.explanation.trace import Trace, to_pil_image
from fasterrcnn.model.roi_pooling import as_rois
from fasterrcnn.reporting.drawing import WHITE, Colour, Mark, Pen, add_title, contact_sheet, draw_marks

PoolingMethod = Literal["pool", "align"]
POOLING_NAMES: dict[PoolingMethod, str] = {"pool": "RoIPool", "align": "RoIAlign"}

WIDTH, FULL_WIDTH = 560, 840  # of a panel beside others, and of one that stands alone, in pixels
OUTSIDE = (225, 225, 225)  # colour beyond the border of the image
# Of the levels, finest first
LEVEL_COLOURS: tuple[Colour, ...] = ((230, 75, 53), (0, 160, 135), (60, 84, 200), (240, 170, 0), (145, 80, 170))


@dataclass(frozen=True)
class Panel:
    """An image and its caption."""

    caption: str
    image: Image.Image


@dataclass(frozen=True)
class Figure:
    """The panels of one stage."""

    name: str  # for its file, without suffix
    panels: tuple[Panel, ...]  # at least one
    columns: int = 2  # how many stand side by side where there is room

    def sheet(self) -> Image.Image:
        """All panels with their captions as one image."""
        titled = [add_title(panel.image, panel.caption) for panel in self.panels]
        return contact_sheet(titled, min(self.columns, len(titled)), background="white")

    def _repr_png_(self) -> bytes:
        """For notebooks."""
        buffer = io.BytesIO()
        self.sheet().save(buffer, "PNG", compress_level=4)
        return buffer.getvalue()


def input_scale(trace: Trace, width: int = WIDTH) -> float:
    """Pixels of `input_image` for each pixel of the network input."""
    return width / trace.input_hw[1]


def input_image(trace: Trace, width: int = WIDTH, *, dimmed: bool = False) -> Image.Image:
    """The network input without padding, at another size; dimmed, it is a pale background for what is drawn on it."""
    height, input_width = trace.input_hw
    scale = input_scale(trace, width)
    image = to_pil_image(trace.batch.pixels[0, :, :height, :input_width])
    image = image.resize((width, max(1, round(height * scale))), Image.Resampling.BICUBIC)
    if not dimmed:
        return image
    grey = image.convert("L").convert("RGB")
    return Image.blend(grey, Image.new("RGB", grey.size, WHITE), 0.45)


def crop_region(trace: Trace, box: Float[Tensor, "4"]) -> Image.Image:
    """The pixels of the input inside a box, at least one."""
    height, width = trace.input_hw
    x1, y1 = (min(int(value), side - 1) for value, side in zip(box[:2].tolist(), (width, height), strict=True))
    x2, y2 = (max(low + 1, round(value)) for value, low in zip(box[2:].tolist(), (x1, y1), strict=True))
    return input_image(trace, width).crop((x1, y1, x2, y2))


def draw_on_input(
    trace: Trace,
    xyxy: Float[Tensor, "n 4"],
    pens: Sequence[Pen],
    captions: Sequence[str] | None = None,
    *,
    width: int = WIDTH,
    dimmed: bool = False,
) -> Image.Image:
    """The network input at that width with boxes on it, the last on top."""
    rows = (xyxy * input_scale(trace, width)).tolist()
    texts = captions or [""] * len(rows)
    marks = [Mark(tuple(row), pen, text) for row, pen, text in zip(rows, pens, texts, strict=True)]
    return draw_marks(input_image(trace, width, dimmed=dimmed), marks)


def draw_scores(trace: Trace, xyxy: Float[Tensor, "n 4"], scores: Float[Tensor, " n"]) -> Image.Image:
    """The input with boxes whose colour shows their score, dark purple for 0 and yellow for 1; the best are on top."""
    order = scores.argsort()
    pens = [Pen(colour) for colour in heat_colours(scores[order])]
    return draw_on_input(trace, xyxy[order], pens, dimmed=True)


def heat_colours(values: Float[Tensor, " n"]) -> list[Colour]:
    """A colour for each value in 0..1."""
    rows = _colour_table()[_table_rows(values.numpy())]
    return [(int(red), int(green), int(blue)) for red, green, blue in rows]


def heat_map(trace: Trace, values: Float[Tensor, "h w"], *, width: int = WIDTH, over: bool = False) -> Image.Image:
    """A map of values in 0..1 at the size of an `input_image`, cell by cell, padding cut off; or laid over that."""
    padded_h, padded_w = trace.batch.padded_hw
    height, input_width = trace.input_hw
    scale = input_scale(trace, width)
    size = (max(1, round(padded_h * scale)), max(1, round(padded_w * scale)))
    large = F.interpolate(values[None, None].float(), size=size, mode="nearest")[0, 0]
    large = large[: max(1, round(height * scale)), : max(1, round(input_width * scale))]
    heat = Image.fromarray(_colour_table()[_table_rows(large.numpy())])
    if not over:
        return heat
    background = input_image(trace, width).convert("L").convert("RGB").resize(heat.size)
    return Image.blend(background, heat, 0.6)


def cell_colours(values: Float[Tensor, "h w"], side: int) -> Image.Image:
    """A small map as squares of one colour each, in its own scale of colours."""
    small = Image.new("RGB", (values.shape[1], values.shape[0]))
    small.putdata(heat_colours(to_unit(values).flatten()))
    return small.resize((side, side), Image.Resampling.NEAREST)


def to_unit(values: Tensor) -> Tensor:
    """Values stretched to 0..1; all zeros where they are equal."""
    low, high = (values.min(), values.max()) if values.numel() else (values.new_zeros(()),) * 2
    return (values - low) / (high - low).clamp(min=1e-12)


def cell_norms(maps: Float[Tensor, "c h w"]) -> Float[Tensor, "h w"]:
    """How strongly each cell answers: the length of its vector of channels."""
    return maps.float().square().sum(dim=0).sqrt()


def pool_shown(trace: Trace, method: PoolingMethod) -> Float[Tensor, "s c _ _"]:
    """Pooled maps of the shown regions by that method: those of the run, or made anew by the same component."""
    component = trace.model.roi_pooling
    if method == component.method:
        return trace.pooled
    other = dataclasses.replace(component, method=method)
    pooled: Tensor = other([level[None] for level in trace.maps], as_rois([trace.proposals[trace.shown]]))
    return pooled


def levels_of_shown(trace: Trace) -> list[int]:
    """The feature map that each shown region is taken from, as RoI pooling chooses it."""
    levels: list[int] = trace.model.roi_pooling.levels(as_rois([trace.proposals[trace.shown]])).tolist()
    return levels


def count_text(number: int, noun: str) -> str:
    """A number with its noun: "1 object", "2 objects"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@lru_cache(maxsize=1)
def _colour_table() -> NDArray[np.uint8]:
    """256 colours from dark purple to yellow."""
    from matplotlib import colormaps  # noqa: PLC0415 - takes a while, and is needed for heat maps only

    table: NDArray[np.uint8] = (colormaps["plasma"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    return table


def _table_rows(values: NDArray[np.float32]) -> NDArray[np.int64]:
    return (np.nan_to_num(values).clip(0, 1) * 255).round().astype(np.int64)
