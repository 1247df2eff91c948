"""Boxes around what annotation tools draw: rotated boxes, ellipses and masks.

Points are x, y in pixels; boxes are xyxy; y points downwards, so that positive angles turn clockwise, as they are seen.
"""

import base64
import io
import math
import warnings
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from fasterrcnn.errors import DataError

_MAX_MASK_PIXELS = 2**27
_MAX_MASK_BYTES = 2**26  # of a mask as PNG


def rotated_corners(xyxy: Sequence[float], degrees: float) -> list[list[float]]:
    """The four corners of a box that is rotated around its centre."""
    x1, y1, x2, y2 = xyxy
    centre_x, centre_y = (x1 + x2) / 2, (y1 + y2) / 2
    cos, sin = _cos_and_sin(degrees)
    offsets = [(x - centre_x, y - centre_y) for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))]
    return [[centre_x + x * cos - y * sin, centre_y + x * sin + y * cos] for x, y in offsets]


def ellipse_corners(
    centre_x: float, centre_y: float, radius_x: float, radius_y: float, degrees: float = 0
) -> list[list[float]]:
    """Two opposite corners of the box around an ellipse that is rotated around its centre."""
    cos, sin = _cos_and_sin(degrees)
    half_width = math.hypot(radius_x * cos, radius_y * sin)
    half_height = math.hypot(radius_x * sin, radius_y * cos)
    return [[centre_x - half_width, centre_y - half_height], [centre_x + half_width, centre_y + half_height]]


def points_of(value: object) -> list[list[float]]:
    """The points of a JSON list of pairs, or of a flat list: x, y, x, y...

    Raises:
        DataError: it is no such list, or is empty.
    """
    if not isinstance(value, list) or not value:
        raise DataError(f"points must be pairs of numbers, not {shortened(value)}")
    pairs = value if isinstance(value[0], list) else [value[i : i + 2] for i in range(0, len(value), 2)]
    return [numbers_of(pair, 2) for pair in pairs]


def numbers_of(value: object, count: int) -> list[float]:
    """The numbers of a JSON list.

    Raises:
        DataError: it is no list of so many numbers.
    """
    numbers = value if isinstance(value, list) and len(value) == count else []
    try:
        if numbers and all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
            return [float(number) for number in numbers]
    except OverflowError:  # whole numbers may have hundreds of digits
        pass
    raise DataError(f"{count} numbers are expected, not {shortened(value)}")


def shortened(value: object) -> str:
    """A value from a file in one short line, for a message."""
    return f"{' '.join(repr(value)[:1000].split()):.80}"


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
