"""How the values of an image file become RGB: the options. `fasterrcnn.pixel_values` follows them."""

from typing import NamedTuple

ValueRange = tuple[float, float]
"""The values that become black and white; those beyond become black and white too."""


class PixelOptions(NamedTuple):
    """How values become RGB where a file has more than 8 bits or more than three bands; others are read as they are."""

    value_range: ValueRange | None = None  # None: the full range of 16 bits; of float values 0..1 or 0..255
    bands: tuple[int, int, int] | None = None  # shown as red, green and blue, counted from 1; None: as the file states


AS_STORED = PixelOptions()
"""Of an image of which nothing is known."""
