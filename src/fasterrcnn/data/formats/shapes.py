"""Boxes as formats write them, and those around what annotation tools draw: rotated boxes, ellipses, masks, polygons.

Points are x, y in pixels; boxes are xyxy; y points downwards, so that positive angles turn clockwise, as they are seen.
"""

import base64
import io
import math
import warnings
import zlib
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from fasterrcnn.data.formats.values import numbers_of, points_of, shortened, to_number
from fasterrcnn.errors import DataError, UsageError

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]
"""Order of the four numbers of a box: two corners; left, top, width, height; or centre, width, height."""

Box = Sequence[int | float]

_MAX_MASK_PIXELS = 2**27
_MAX_MASK_BYTES = 2**26  # of a mask as PNG


def box_to_xyxy(box: Box, box_format: BoxFormat) -> Box:
    """A box of some format as two corners.

    Raises:
        UsageError: there is no such format.
    """
    x, y, width, height = box
    if box_format == "xywh":
        return x, y, x + width, y + height
    if box_format == "cxcywh":
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if box_format != "xyxy":
        raise UsageError(f"no box format {box_format!r}; there are: {', '.join(get_args(BoxFormat))}")
    return box


def rotated_corners(
    xyxy: Sequence[float], degrees: float, centre: tuple[float, float] | None = None
) -> list[list[float]]:
    """The four corners of a box that is rotated around a point; default: its own centre."""
    x1, y1, x2, y2 = xyxy
    centre_x, centre_y = centre or ((x1 + x2) / 2, (y1 + y2) / 2)
    cos, sin = _cos_and_sin(degrees)
    offsets = [(x - centre_x, y - centre_y) for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))]
    return [[centre_x + x * cos - y * sin, centre_y + x * sin + y * cos] for x, y in offsets]


def rotation_of(attributes: object) -> float:
    """The degrees by which a box is rotated around its centre, where CVAT exports them; 0 where there are none.

    Raises:
        DataError: the number is too large.
    """
    rotation = attributes.get("rotation") if isinstance(attributes, dict) else None
    is_number = isinstance(rotation, int | float) and not isinstance(rotation, bool)  # not an attribute of the user
    return to_number(rotation, "rotation") if is_number else 0.0


def ellipse_corners(
    centre_x: float, centre_y: float, radius_x: float, radius_y: float, degrees: float = 0
) -> list[list[float]]:
    """Two opposite corners of the box around an ellipse that is rotated around its centre."""
    cos, sin = _cos_and_sin(degrees)
    half_width = math.hypot(radius_x * cos, radius_y * sin)
    half_height = math.hypot(radius_x * sin, radius_y * cos)
    return [[centre_x - half_width, centre_y - half_height], [centre_x + half_width, centre_y + half_height]]


def box_of_segmentation(segmentation: object) -> list[float]:
    """The box around a segmentation of COCO.

    Args:
        segmentation: a list of polygons, each a list x, y, x, y..., a single one of them, or an RLE: a dict with
            ``size`` and ``counts``, see `box_of_runs`.

    Raises:
        DataError: it is none of these, or has no pixel of an object.
    """
    try:
        if isinstance(segmentation, dict):
            box = box_of_runs(segmentation.get("counts"), segmentation.get("size"))
            if box is None:
                raise DataError("it is empty")
            return box
        is_nested = isinstance(segmentation, list) and segmentation and isinstance(segmentation[0], list)
        polygons: Any = segmentation if is_nested else [segmentation]
        points = np.array([point for polygon in polygons for point in points_of(polygon)])
    except DataError as error:
        raise DataError(f"segmentation must be polygons or an RLE, not {shortened(segmentation)} ({error})") from None
    return [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()]


def box_of_runs(counts: object, size: object) -> list[float] | None:
    """The box around a mask in COCO's run lengths, as a list or as text; None if the mask is empty.

    Args:
        counts: lengths of the runs of background and mask in turn, column by column.
        size: height and width of the mask.

    Raises:
        DataError: they are no such mask.
    """
    height, width = (int(side) if 0 < side < 2**31 else 0 for side in numbers_of(size, 2))
    runs: Any = _decoded_runs(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        raise DataError(f"run lengths of a mask are expected, not {shortened(counts)}")
    if sum(runs) != height * width or height * width == 0:
        raise DataError(f"run lengths of {height * width} pixels are expected, those of the mask are {sum(runs)}")
    ends = np.cumsum([0, *runs])
    is_filled = np.array(runs, np.int64)[1::2] > 0
    starts, lasts = ends[1:-1:2][is_filled], ends[2::2][is_filled] - 1
    if not len(starts):
        return None
    columns = [int(starts.min() // height), int(lasts.max() // height) + 1]
    is_tall = bool((starts // height != lasts // height).any())  # a run that goes on in the next column
    rows = [0, height] if is_tall else [int((starts % height).min()), int((lasts % height).max()) + 1]
    return [float(columns[0]), float(rows[0]), float(columns[1]), float(rows[1])]


def _decoded_runs(text: str) -> list[int]:
    """COCO's compressed run lengths: five bits a character, and from the fourth on the difference to the last but one.

    Raises:
        DataError: it is no such text.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            raise DataError(f"compressed run lengths of a mask are expected, not {shortened(text)}")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:  # the last character of a number
            value -= (code & 16) << (shift - 4)  # its sign
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise DataError(f"compressed run lengths of a mask are cut off: {shortened(text)}")
    return runs


def box_of_png(text: object) -> list[float] | None:
    """The box around the pixels of a mask as Supervisely stores it, within the mask; None if the mask is empty.

    Args:
        text: base64 of a PNG file that is compressed once more; the mask is its transparency, or its grey value.

    Raises:
        DataError: it is no such mask, or a huge one.
    """
    if not isinstance(text, str):
        raise DataError(f"a mask is expected as text in base64, not {shortened(text)}")
    try:
        content = zlib.decompressobj().decompress(base64.b64decode(text), _MAX_MASK_BYTES)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is checked here
            with Image.open(io.BytesIO(content), formats=["PNG"]) as png:
                if png.width * png.height > _MAX_MASK_PIXELS:
                    raise DataError(f"a mask of {png.width} x {png.height} pixels is too large")
                box = (png.getchannel("A") if "A" in png.getbands() else png).getbbox()
    except DataError:
        raise
    except Exception as error:  # decoders raise many types on damaged data
        raise DataError(f"a mask as PNG in base64 cannot be read ({str(error).partition(chr(10))[0]})") from None
    return None if box is None else [float(side) for side in box]


def _cos_and_sin(degrees: float) -> tuple[float, float]:
    """NaN where the angle is not finite."""
    angle = math.radians(degrees) if math.isfinite(degrees) else math.nan
    return math.cos(angle), math.sin(angle)
