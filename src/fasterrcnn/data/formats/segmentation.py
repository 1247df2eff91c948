"""The box around a segmentation of COCO: polygons, or runs of pixels (RLE), as text or as numbers."""

import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from fasterrcnn.errors import DataError

_MAX_GROUPS = 12  # of five bits, for a number in the text of an RLE


def segmentation_bounds(segmentation: object) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a segmentation, in pixels; those of an RLE are the edges of its pixels.

    Args:
        segmentation: a list of polygons, each a list x, y, x, y...; or an RLE, a dict with ``size`` (height, width)
            and ``counts``: the lengths of the runs of background and object in turn, column by column, as a list, or
            as the text that pycocotools makes of them.

    Raises:
        DataError: it is none of these, or has no pixel of an object; the message names the value.
    """
    try:
        return _rle_bounds(segmentation) if isinstance(segmentation, Mapping) else _polygon_bounds(segmentation)
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        shown = reprlib.repr(segmentation)
        raise DataError(f"segmentation must be polygons or an RLE, not {shown} ({error})") from None


def _polygon_bounds(polygons: Any) -> tuple[float, float, float, float]:
    nested = polygons if isinstance(polygons[0], list) else [polygons]  # a single polygon may stand alone
    points = np.concatenate([np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in nested])
    (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return x1, y1, x2, y2


def _rle_bounds(rle: Mapping[str, Any]) -> tuple[float, float, float, float]:
    height, width = map(int, rle["size"])
    counts = rle["counts"]
    runs = np.array(_numbers_of_text(counts) if isinstance(counts, str) else counts, np.int64)
    if height < 1 or width < 1 or runs.ndim != 1 or (runs < 0).any() or sum(runs.tolist()) != height * width:
        raise ValueError(f"its runs are not those of {width} x {height} pixels")
    ends = np.cumsum(runs)
    is_object = (np.arange(len(runs)) % 2 == 1) & (runs > 0)
    first, last = (ends - runs)[is_object], ends[is_object] - 1  # pixels of each run of the object
    if not len(first):
        raise ValueError("it is empty")
    if (first // height < last // height).any():  # a run that goes on in the next column
        top, bottom = 0, height - 1
    else:
        top, bottom = int((first % height).min()), int((last % height).max())
    return float(first[0] // height), float(top), float(last[-1] // height + 1), float(bottom + 1)


def _numbers_of_text(text: str) -> list[int]:
    """The numbers that an RLE has as text.

    Each is written in groups of five bits, the lowest first; bit 6 of a character means that another follows, bit 5 of
    the last one that the number is negative. From the fourth on, numbers are differences to the last but one.
    """
    numbers: list[int] = []
    value = shift = 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64 or shift > 5 * _MAX_GROUPS:
            raise ValueError(f"its text has {character!r}")
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            if group & 16:
                value -= 1 << shift
            numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("its text is cut short")
    return numbers
