"""Pixel values of more than 8 bits, or of many bands, as the RGB of 256 levels that a network is shown.

Cameras and scanners write 12 or 14 bits into files of 16, thermal cameras and maps 32-bit numbers. A range states
which values become black and white. Needs numpy and Pillow only.

Axes: h w pixels, c bands.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fasterrcnn.pixel_options import PixelOptions, ValueRange

FULL_RANGE: ValueRange = (0.0, 65535.0)
"""Of 16 bits."""

FEW_LEVELS = 32
"""An image that uses less than so many of the 256 levels has lost its contrast."""

_PERCENTILES = (0.1, 99.9)
"""Ends of the range of an image: a dead or a hot pixel does not move them."""

_SAMPLED = 1_000_000
"""Pixels of an image that its range is taken of, evenly spread."""


class PixelError(ValueError):
    """The options do not state how the values of an image become RGB."""


def to_rgb(values: NDArray[Any], options: PixelOptions) -> Image.Image:
    """Values of one band (h, w) or of several (h, w, c) as an RGB image; 8 bits keep their values.

    Raises:
        PixelError: there is no such band, or the range is needed and not given.
    """
    chosen = choose_bands(values, options.bands)
    if chosen.dtype != np.uint8:
        chosen = to_levels(chosen, options.value_range or default_range(chosen))
    return Image.fromarray(np.ascontiguousarray(chosen)).convert("RGB")


def choose_bands(values: NDArray[Any], bands: tuple[int, int, int] | None) -> NDArray[Any]:
    """(h, w) or (h, w, 3) values of the given bands; without them, of one, or of the first three of up to four.

    Raises:
        PixelError: there is no such band, or they have to be named.
    """
    count = 1 if values.ndim == 2 else values.shape[2]
    if bands is not None:
        if not all(1 <= band <= count for band in bands):
            raise PixelError(
                f"it has {count} band{'s'[: count != 1]}, not those of --bands {' '.join(map(str, bands))}"
            )
        return values.reshape(*values.shape[:2], count)[..., [band - 1 for band in bands]]
    if count > 4:
        raise PixelError(f"it has {count} bands; name those for red, green and blue: --bands 3 2 1")
    if count < 3:  # grey, and alpha
        return values.reshape(*values.shape[:2], count)[..., 0]
    return values[..., :3]


def to_levels(values: NDArray[Any], value_range: ValueRange) -> NDArray[np.uint8]:
    """Values as levels 0..255, rounded down: the range becomes 0 to 255, missing values (NaN) become 0."""
    low, high = value_range
    # float32 holds every product of 16 bits and 255.
    levels: NDArray[Any] = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    with np.errstate(all="ignore"):  # a hostile file may hold any number
        np.subtract(levels, low, out=levels)
        np.multiply(levels, 255, out=levels)
        np.divide(levels, high - low or 1, out=levels)
    np.nan_to_num(levels, copy=False, nan=0, posinf=255, neginf=0)
    return levels.clip(0, 255).astype(np.uint8)


def default_range(values: NDArray[Any]) -> ValueRange:
    """The range of values of which nothing is known: all that 16 bits can hold, or 0..255 or 0..1 where they fit.

    Raises:
        PixelError: they fit none; the message names the option that gives it.
    """
    if values.dtype.itemsize == 2 and values.dtype.kind == "u":
        return FULL_RANGE
    finite = values[np.isfinite(values)]
    least, largest = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    candidates = [(0.0, 1.0), (0.0, 255.0)] if values.dtype.kind == "f" else [(0.0, 255.0), FULL_RANGE]
    for candidate in candidates:
        if least >= 0 and largest <= candidate[1]:
            return candidate
    kind = "float" if values.dtype.kind == "f" else "integer"
    low, high = own_range(values) or (least, largest)
    raise PixelError(
        f"{kind} values from {least:g} to {largest:g}; name those that become black and white: "
        f"--pixel-range {low:g} {high:g}"
    )


def own_range(values: NDArray[Any]) -> ValueRange | None:
    """The range that nearly all finite values lie in; None where there is none or all are equal."""
    flat = values.reshape(-1)[:: max(1, values.size // _SAMPLED)]
    flat = flat[np.isfinite(flat)].astype(np.float64)
    if not flat.size:
        return None
    low = float(np.percentile(flat, _PERCENTILES[0], method="lower"))
    high = float(np.percentile(flat, _PERCENTILES[1], method="higher"))
    return (low, high) if low < high else None


class ValueFacts(NamedTuple):
    """What is measured of the values of one image with more than 8 bits."""

    low: float
    high: float  # nearly all values lie from low to high
    default: ValueRange | None  # the range by which they are read if nothing else is known; None: not at all

    @property
    def levels(self) -> int:
        """How many of the 256 levels they get by default; 0 if they are not read at all."""
        return 0 if self.default is None else levels_used((self.low, self.high), self.default)


def measure(values: NDArray[Any]) -> ValueFacts | None:
    """Facts about the values of an image; None where all are equal or missing."""
    value_range = own_range(values)
    if value_range is None:
        return None
    try:
        return ValueFacts(*value_range, default_range(values))
    except PixelError:
        return ValueFacts(*value_range, None)


def common_range(facts: Sequence[ValueFacts]) -> ValueRange:
    """The range of several images, rounded to 6 digits; of more than a hundred, the most extreme one each do not count.

    Percentiles are those of images: a single frame of zeros among thousands would take the contrast of all.
    """
    low = np.percentile([each.low for each in facts], 1, method="lower")
    high = np.percentile([each.high for each in facts], 99, method="higher")
    return float(f"{low:.6g}"), float(f"{high:.6g}")


def levels_used(value_range: ValueRange, shown_range: ValueRange) -> int:
    """How many of the 256 levels the values of one range get where another one becomes 0 to 255."""
    ends = to_levels(np.array(value_range, np.float64), shown_range)
    return int(ends[1]) - int(ends[0]) + 1
