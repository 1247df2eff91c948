"""The range of values of a data set with more than 8 bits: which values the network sees as black and as white.

It is measured on the training images and kept in the checkpoint, so that all images are read alike. Needs no torch.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

from fasterrcnn.data.findings import Finding
from fasterrcnn.errors import ImageError
from fasterrcnn.images import has_deep_pixels, read_stretched
from fasterrcnn.pixel_options import ValueRange
from fasterrcnn.pixel_values import FEW_LEVELS, FULL_RANGE, ValueFacts, common_range, levels_used

_WORKERS = 4
_HEADERS = 20_000  # images whose header is read
_MEASURED = 500  # images whose values are read
_ENOUGH_LEVELS = 128  # of 256, by default: the values then need no range of their own


@dataclass(frozen=True)
class FittedPixelRange:
    """The range of a data set."""

    value_range: ValueRange | None  # None: images are read without one
    measured: int  # images with more than 8 bits that it was measured on
    faint: tuple[Path, ...] = ()  # those that have few levels all the same

    def lines(self) -> list[str]:
        """What to log; nothing about a data set of 8 bits."""
        if not self.measured:
            return []
        of = f"{self.measured} image{'' if self.measured == 1 else 's'} with more than 8 bits"
        if self.value_range is None:
            lines = [f"pixel range: {of}, all values as they are"]
        else:
            low, high = self.value_range
            lines = [f"pixel range: {low:g} becomes black and {high:g} white, measured on {of} (--pixel-range)"]
        if self.faint:
            counts = f"{len(self.faint)} of them use less than {FEW_LEVELS} of 256 grey levels in it"
            lines.append(f"note: {counts}, first {self.faint[0]}: do they belong here? --pixel-range LOW HIGH")
        return lines


def fit_pixel_range(paths: Sequence[Path], bands: tuple[int, int, int] | None = None) -> FittedPixelRange:
    """The range of image files; those of 8 bits and those that cannot be read do not count.

    Of very many, some are measured, evenly spread; of a TIFF with many bands, the given ones.
    """
    with ThreadPoolExecutor(_WORKERS) as pool:
        spread = paths[:: -(-len(paths) // _HEADERS) or 1]
        deep = [path for path, is_deep in zip(spread, pool.map(has_deep_pixels, spread), strict=True) if is_deep]
        chosen = deep[:: -(-len(deep) // _MEASURED) or 1]
        measured = {
            path: facts for path, facts in zip(chosen, pool.map(_measure, chosen, repeat(bands)), strict=False) if facts
        }
    if not measured:
        return FittedPixelRange(None, 0)
    value_range: ValueRange | None = common_range(list(measured.values()))
    assert value_range is not None
    if all(each.default and levels_used(value_range, each.default) >= _ENOUGH_LEVELS for each in measured.values()):
        value_range = None
    faint = tuple(path for path, each in measured.items() if _levels(each, value_range) < FEW_LEVELS)
    return FittedPixelRange(value_range, len(measured), faint)


def check_pixel_values(facts: Mapping[Path, ValueFacts]) -> list[Finding]:
    """At most one finding for a whole data set, with one image as the example: images that lose their contrast."""
    faint = {path: each for path, each in facts.items() if each.levels < FEW_LEVELS}
    if not faint:
        return []
    path, first = next(iter(faint.items()))
    low, high = common_range(list(faint.values()))
    values = f"values {first.low:g} to {first.high:g}"
    if first.default is None:
        what = f"{values}, of which none is known to be black or white"
    elif first.default == FULL_RANGE:
        what = f"uses {first.levels} of 256 grey levels ({values}, as of 12-bit data in a 16-bit file)"
    else:
        what = f"uses {first.levels} of 256 grey levels ({values})"
    others = len(faint) - 1
    more = "" if not others else ", and so does 1 other image" if others == 1 else f", and so do {others} other images"
    return [Finding("few-levels", path, f"{what}{more}; --pixel-range {low:g} {high:g} shows them", image=path)]


def _levels(facts: ValueFacts, value_range: ValueRange | None) -> int:
    return facts.levels if value_range is None else levels_used((facts.low, facts.high), value_range)


def _measure(path: Path, bands: tuple[int, int, int] | None) -> ValueFacts | None:
    try:
        return read_stretched(path, bands)[1]
    except ImageError:
        return None
