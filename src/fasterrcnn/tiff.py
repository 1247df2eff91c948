"""TIFF files that Pillow cannot read, of many bands or of colours with 16 bits: by tifffile, an extra.

Axes: h w pixels, c bands.
"""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fasterrcnn.errors import require
from fasterrcnn.pixel_options import PixelOptions
from fasterrcnn.pixel_values import PixelError

_BITS_PER_SAMPLE, _ORIENTATION, _SAMPLES_PER_PIXEL = 258, 274, 277


def loses_values(image: Image.Image, options: PixelOptions) -> bool:
    """Whether Pillow would read less of an opened TIFF than the options ask for: other bands, or all 16 bits."""
    tags: Any = getattr(image, "tag_v2", {})
    is_deep_colour = len(image.getbands()) > 1 and max(tags.get(_BITS_PER_SAMPLE, (8,))) > 8
    if is_deep_colour and options.value_range is not None:
        return True
    bands = len(image.getbands())
    return options.bands is not None and max(options.bands) > bands and tags.get(_SAMPLES_PER_PIXEL, 1) > bands


def read_size(source: Path | BinaryIO) -> tuple[tuple[int, int], int]:
    """Height and width of the first page as it is stored, and its EXIF orientation.

    Raises:
        MissingExtraError: tifffile is not installed.
        Exception: of many types where the file is damaged.
    """
    with require("tifffile", "tiff").TiffFile(source) as file:
        page = file.pages[0]
        return (int(page.imagelength), int(page.imagewidth)), _orientation(page)


def read_bands(source: Path | BinaryIO) -> tuple[NDArray[Any], int]:
    """All values of the first page, (h, w) or (h, w, c), as it is stored, and its EXIF orientation.

    Raises:
        MissingExtraError: tifffile is not installed, or for some compressions imagecodecs.
        PixelError: its values are no numbers of a plane.
        Exception: of many types where the file is damaged.
    """
    with require("tifffile", "tiff").TiffFile(source) as file:
        page = file.pages[0]
        values = np.asarray(page.asarray())
        axes, orientation = str(page.axes), _orientation(page)
    if axes == "SYX":  # each band is stored by itself
        values = np.moveaxis(values, 0, -1)
    elif axes not in ("YX", "YXS"):
        raise PixelError(f"it has the axes {axes}, not height, width and bands")
    if values.dtype.kind == "b":
        values = values.astype(np.uint8) * 255
    if values.dtype.kind not in "uif":
        raise PixelError(f"it holds values of type {values.dtype}")
    return values, orientation


def _orientation(page: Any) -> int:
    tag = page.tags.get(_ORIENTATION)
    return int(tag.value) if tag is not None else 1
