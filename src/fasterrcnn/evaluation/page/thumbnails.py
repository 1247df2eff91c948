"""Small JPEGs of images and of their parts, as text for a page.

Each file is opened once, and decoded no larger than needed.
"""

import base64
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fasterrcnn.errors import ImageError
from fasterrcnn.reporting.drawing import Edges, upright_rgb

MAX_PIXELS = 178_956_970
"""A header that claims more is refused before memory is taken: Pillow's own limit."""

_QUALITY = 72


@dataclass(frozen=True)
class Wanted:
    """A part of an image.

    Attributes:
        region: xyxy in pixels of the upright original; may reach beyond it. None: all of it.
        side: pixels that the longer side of the small image may have.
    """

    region: Edges | None
    side: int


@dataclass(frozen=True)
class Thumbnail:
    """A small image.

    Attributes:
        region: xyxy in pixels of the upright original: what it shows.
        size: of the original: width, height.
        jpeg: base64.
    """

    region: Edges
    size: tuple[int, int]
    jpeg: str


def cut(path: Path, parts: Sequence[Wanted]) -> list[Thumbnail]:
    """Small images of parts of a file, in the order asked for.

    Raises:
        ImageError: the file is missing, no image, damaged or absurdly large, or a part lies outside of it.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns from half of its limit on; phones take such photographs.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return _cut(image, parts)
    except Exception as error:  # every decoder has its own ways to fail
        raise ImageError(f"{path}: cannot be shown ({type(error).__name__})") from None


def _cut(image: Image.Image, parts: Sequence[Wanted]) -> list[Thumbnail]:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError("too large")
    everything = (0.0, 0.0, float(width), float(height))
    scale = min(1.0, max(part.side / _longest(part.region or everything) for part in parts))
    image.draft(None, (max(1, int(width * scale)), max(1, int(height * scale))))
    divisor = max(1, round(width / image.size[0]))
    turned = upright_rgb(image)
    if (turned.width > turned.height) != (width > height):
        width, height = height, width
    return [_shrink(turned, divisor, (width, height), part) for part in parts]


def _shrink(image: Image.Image, divisor: int, size: tuple[int, int], part: Wanted) -> Thumbnail:
    region = _inside(part.region or (0.0, 0.0, float(size[0]), float(size[1])), size)
    x1, y1, x2, y2 = (value / divisor for value in region)
    box = (x1, y1, min(x2, image.width), min(y2, image.height))
    scale = min(1.0, part.side / max(box[2] - box[0], box[3] - box[1]))
    small = (max(1, round((box[2] - box[0]) * scale)), max(1, round((box[3] - box[1]) * scale)))
    stream = io.BytesIO()
    resized = image.resize(small, Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
    resized.save(stream, "JPEG", quality=_QUALITY, optimize=True)
    return Thumbnail(region, size, base64.b64encode(stream.getvalue()).decode("ascii"))


def _inside(region: Edges, size: tuple[int, int]) -> Edges:
    """A region moved into the image, and cut where it is larger than the image; whole pixels.

    Raises:
        ValueError: the region has no area.
    """
    edges = []
    for low, high, limit in ((region[0], region[2], size[0]), (region[1], region[3], size[1])):
        length = min(max(round(high - low), 1), limit)
        start = min(max(round(low), 0), limit - length)
        edges.append((start, start + length))
    (x1, x2), (y1, y2) = edges
    return float(x1), float(y1), float(x2), float(y2)


def _longest(region: Edges) -> float:
    return max(region[2] - region[0], region[3] - region[1], 1.0)
