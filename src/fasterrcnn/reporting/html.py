"""HTML pages that need nothing but a browser: one shell and style, images inside the page.

Every page extends ``base.html`` and escapes what is put into it.
"""

import base64
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from PIL import Image

from fasterrcnn.errors import ImageError
from fasterrcnn.images import stretched_rgb
from fasterrcnn.reporting.charts import Chart
from fasterrcnn.reporting.drawing import Edges
from fasterrcnn.reporting.tables import Table

_MAX_PIXELS = 178_956_970  # a header that claims more is refused before memory is taken: Pillow's own limit
_THUMBNAIL_QUALITY, _IMAGE_QUALITY = 72, 82
_FEW_COLOURS = 512  # an image with fewer is a plot: PNG shows it sharper than JPEG
PNG_EFFORT = 4  # of 9: the rest takes most of the time and saves little


@dataclass(frozen=True)
class Listing:
    """Text that stands as it is, such as a file, under a title."""

    title: str
    text: str


@dataclass(frozen=True)
class Crop:
    """A part of an image."""

    region: Edges | None  # xyxy in pixels of the upright original; may reach beyond it. None: all of it.
    side: int  # pixels that the longer side of the thumbnail may have


@dataclass(frozen=True)
class Thumbnail:
    """A small image."""

    region: Edges  # xyxy in pixels of the upright original: what it shows
    size: tuple[int, int]  # of the original: width, height
    jpeg: str  # base64


def render_page(package: str, template: str, **values: object) -> str:
    """A page from the folder ``templates`` of a package, which may use the templates of this one; texts are escaped."""
    return _environment(package).get_template(template).render(**values)


def render_parts(title: str, lead: str, parts: Sequence[Chart | Table | Listing]) -> str:
    """A page of charts, tables and listings in this order, under a title and a sentence."""
    return render_page("fasterrcnn.reporting", "parts.html", title=title, lead=lead, parts=parts)


def inline_image(image: Image.Image, *, as_jpeg: bool = False) -> str:
    """An image as a data URL: JPEG for photographs, PNG for plots of few colours unless JPEG is asked for."""
    buffer = io.BytesIO()
    kind = "jpeg" if as_jpeg or image.getcolors(_FEW_COLOURS) is None else "png"
    image.save(buffer, kind, compress_level=PNG_EFFORT, quality=_IMAGE_QUALITY)  # each writer takes its own option
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def make_thumbnails(path: Path, crops: Sequence[Crop]) -> list[Thumbnail]:
    """Small JPEGs of parts of a file, in the order asked for; the file is decoded once, no larger than needed.

    Raises:
        ImageError: the file is missing, no image, damaged or absurdly large, or a part lies outside of it.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns from half of its limit on; phones take such photographs.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return _thumbnails(image, crops)
    except Exception as error:  # every decoder has its own ways to fail
        raise ImageError(f"{path}: cannot be shown ({type(error).__name__})") from None


@lru_cache(maxsize=8)
def _environment(package: str) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in dict.fromkeys((package, "fasterrcnn.reporting"))]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline"] = inline_image
    environment.tests["chart"] = lambda part: isinstance(part, Chart)
    environment.tests["table"] = lambda part: isinstance(part, Table)
    return environment


def _thumbnails(image: Image.Image, crops: Sequence[Crop]) -> list[Thumbnail]:
    width, height = image.size
    if width * height > _MAX_PIXELS:
        raise ValueError("too large")
    whole = (0.0, 0.0, float(width), float(height))
    scale = min(1.0, max(crop.side / _longer_side(crop.region or whole) for crop in crops))
    image.draft(None, (max(1, int(width * scale)), max(1, int(height * scale))))
    divisor = max(1, round(width / image.size[0]))
    upright, _ = stretched_rgb(image)
    if (upright.width > upright.height) != (width > height):
        width, height = height, width
    return [_thumbnail(upright, divisor, (width, height), crop) for crop in crops]


def _thumbnail(image: Image.Image, divisor: int, size: tuple[int, int], crop: Crop) -> Thumbnail:
    region = _inside(crop.region or (0.0, 0.0, float(size[0]), float(size[1])), size)
    x1, y1, x2, y2 = (value / divisor for value in region)
    box = (x1, y1, min(x2, image.width), min(y2, image.height))
    scale = min(1.0, crop.side / max(box[2] - box[0], box[3] - box[1]))
    small = (max(1, round((box[2] - box[0]) * scale)), max(1, round((box[3] - box[1]) * scale)))
    buffer = io.BytesIO()
    resized = image.resize(small, Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
    resized.save(buffer, "JPEG", quality=_THUMBNAIL_QUALITY, optimize=True)
    return Thumbnail(region, size, base64.b64encode(buffer.getvalue()).decode("ascii"))


def _inside(region: Edges, size: tuple[int, int]) -> Edges:
    """A region moved into the image, and cut where it is larger than the image; whole pixels."""
    x1, y1, x2, y2 = region
    width, height = min(max(round(x2 - x1), 1), size[0]), min(max(round(y2 - y1), 1), size[1])
    left, top = min(max(round(x1), 0), size[0] - width), min(max(round(y1), 0), size[1] - height)
    return float(left), float(top), float(left + width), float(top + height)


def _longer_side(region: Edges) -> float:
    return max(region[2] - region[0], region[3] - region[1], 1.0)
