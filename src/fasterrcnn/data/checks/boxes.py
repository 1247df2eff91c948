"""Checks of boxes: layout (in which order the four numbers were written), values, sizes and duplicates.

Axes: n boxes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from fasterrcnn.boxes import box_iou
from fasterrcnn.config import InputConfig
from fasterrcnn.data.annotations import AnnotatedData
from fasterrcnn.data.findings import Finding
from fasterrcnn.data.formats import data_format_of
from fasterrcnn.data.formats.base import DataFormat
from fasterrcnn.data.formats.shapes import BoxFormat

Mask = NDArray[np.bool_]
Boxes = NDArray[np.float64]

OVER_BORDER = 1.0
"""Pixels that a box may reach over the border: boxes of tools that count from 1 do."""

LAYOUTS = {
    "xyxy": "left, top, right, bottom",
    "xywh": "left, top, width, height",
    "cxcywh": "centre x, centre y, width, height",
    "yxyx": "top, left, bottom, right",
    "yxhw": "top, left, height, width",
    "cycxhw": "centre y, centre x, height, width",
}

_ANY = get_args(BoxFormat)  # of a table or list, where the user may have stated the wrong one

_MISFITS, _MISFIT_SHARE = 3, 0.05  # fewer are mistakes in single boxes
_UNEXPLAINED = 0.1  # share of the misfits that may not fit the other layout either

SMALLEST_SIDE = 8.0
"""Square root of the area in pixels of the network input; maps of stride 4 or 8 hardly show smaller objects."""

SMALLEST_ORIGINAL = 2.0
"""Pixels of the original: a box with both sides up to this, or one up to half of it, shows nothing."""

_WHOLE = 0.99  # of the image's area
_SAME = 0.9  # IoU of boxes that were drawn around one object


@dataclass(frozen=True)
class Misreading:
    """Boxes were read in one layout and written in another; both are keys of `LAYOUTS`."""

    read_as: str
    written: str

    def reread(self, boxes: Boxes) -> Boxes:
        """xyxy boxes, converted to what they are in the layout in which they were written."""
        return _to_xyxy(_from_xyxy(boxes, self.read_as), self.written)


def misreadings(form: DataFormat | None) -> list[Misreading]:
    """Every way in which boxes of a data format can have been read wrongly; None stands for data in memory."""
    read_as = (form.box_format,) if form is not None and form.box_format is not None else _ANY
    # Relative boxes lie in their image even if x and y are exchanged, so that cannot be detected.
    written = _ANY if form is not None and form.relative_boxes else tuple(LAYOUTS)
    return [Misreading(own, other) for own in read_as for other in written if own != other]


def find_misreading(form: DataFormat | None, boxes: Boxes, sizes: Boxes) -> Misreading | None:
    """The layout that (n, 4) boxes are in, if they fit their images clearly better in it than as they were read.

    They were read as xyxy in pixels; sizes are (n, 2) width and height of their images.
    """
    # Boxes without area are another problem.
    usable = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] != boxes[:, :2]).all(axis=1)
    boxes, sizes = boxes[usable], sizes[usable]
    misfits = int((~fit_images(boxes, sizes)).sum())
    if misfits < max(_MISFITS, _MISFIT_SHARE * len(boxes)):
        return None
    remaining = {other: int((~fit_images(other.reread(boxes), sizes)).sum()) for other in misreadings(form)}
    best = min(remaining, key=lambda other: remaining[other])
    return best if remaining[best] <= _UNEXPLAINED * misfits else None


def fit_images(boxes: Boxes, sizes: Boxes) -> Mask:
    """(n,) which boxes have an area and lie in their images."""
    has_area: Mask = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    inside: Mask = np.abs(clip_to_images(boxes, sizes) - boxes).max(axis=1, initial=0) <= OVER_BORDER
    return has_area & inside


def clip_to_images(boxes: Boxes, sizes: Boxes) -> Boxes:
    """Boxes cut at the borders of their images."""
    return np.clip(boxes, 0, np.tile(sizes, 2))


def _from_xyxy(boxes: Boxes, layout: str) -> Boxes:
    if layout == "xyxy":
        return boxes
    near, far = boxes[:, :2], boxes[:, 2:]
    return np.hstack([near if layout == "xywh" else (near + far) / 2, far - near])


def _to_xyxy(numbers: Boxes, layout: str) -> Boxes:
    if layout in ("yxyx", "yxhw", "cycxhw"):
        numbers = numbers[:, [1, 0, 3, 2]]
    if layout in ("xyxy", "yxyx"):
        return numbers
    first, second = numbers[:, :2], numbers[:, 2:]
    near = first if layout in ("xywh", "yxhw") else first - second / 2
    return np.hstack([near, near + second])


@dataclass(frozen=True)
class BoxTable:
    """Every box of a data set in flat arrays."""

    data: AnnotatedData
    boxes: Boxes  # (n, 4) xyxy in pixels
    labels: NDArray[np.int64]
    owners: NDArray[np.int64]  # (n,) index of the image of each box in ``data.images``
    indices: NDArray[np.int64]  # (n,) index of each box in its image
    sizes: Boxes  # (n, 2) width and height of the image of each box

    def finding(self, kind: str, row: int, words: str) -> Finding:
        """A finding about a box: the values that were read, then the words; {size} is that of the image."""
        words = words.replace("{size}", "{:g} x {:g}".format(*self.sizes[row]))
        return self.data.box_finding(kind, self.data.images[self.owners[row]], int(self.indices[row]), words)

    def findings(self, kind: str, mask: Mask, words: str | Callable[[int], str]) -> list[Finding]:
        """A finding about each box of the mask; the words are the same for all, or depend on the row."""
        rows = np.flatnonzero(mask).tolist()
        return [self.finding(kind, row, words if isinstance(words, str) else words(row)) for row in rows]

    def clipped(self) -> Boxes:
        """The boxes cut at the borders of their images."""
        return clip_to_images(self.boxes, self.sizes)


@dataclass(frozen=True)
class InterpretedBoxes:
    """Boxes after converting those that were written in another way than the format demands."""

    table: BoxTable  # the boxes in pixels and in the right layout
    shares: Mask  # (n,) those that were shares of the image instead of pixels
    misread: Mask  # (n,) those of a data set, or of a split, whose boxes are in another layout than its format demands
    findings: list[Finding]


def tabulate(data: AnnotatedData) -> BoxTable:
    """Lay all boxes of a data set into one table."""
    images = data.images
    counts = [len(image.boxes) for image in images]
    owners = np.repeat(np.arange(len(images)), counts)
    sizes = np.array([image.size_hw[::-1] for image in images], dtype=np.float64).reshape(-1, 2)
    return BoxTable(
        data,
        np.concatenate([np.zeros((0, 4)), *(image.boxes for image in images)]),
        np.concatenate([np.zeros(0, np.int64), *(image.labels for image in images)]),
        owners,
        np.concatenate([np.zeros(0, np.int64), *(np.arange(count) for count in counts)]),
        sizes[owners],
    )


def interpret(table: BoxTable) -> InterpretedBoxes:
    """Find boxes that are shares of the image, then the layout that all of them are in."""
    shares = _find_shares(table)
    pixels = np.where(shares[:, None], table.boxes * np.tile(table.sizes, 2), table.boxes)
    table = replace(table, boxes=pixels)
    findings = table.findings("normalised-box", shares, "seems to be in shares of the image of {size}")
    boxes, misread = pixels.copy(), np.zeros(len(pixels), dtype=np.bool_)
    for rows, misreading in _find_misreadings(table):
        boxes[rows] = misreading.reread(boxes[rows])
        misread[rows] = True
        findings.append(_describe_misreading(table, rows, misreading))
    return InterpretedBoxes(replace(table, boxes=boxes), shares, misread, findings)


def _find_misreadings(table: BoxTable) -> Iterator[tuple[NDArray[np.int64], Misreading]]:
    """The rows whose boxes are in another layout: all, or those of some splits, which may come from other tools."""
    data = table.data
    form = data_format_of(data)
    misreading = find_misreading(form, table.boxes, table.sizes)
    if misreading is not None:
        yield np.arange(len(table.boxes)), misreading
        return
    split_of = {id(image): name for name, images in reversed(data.splits.items()) for image in images}
    splits = np.array([split_of[id(image)] for image in data.images])
    for name in dict.fromkeys(splits.tolist()):
        rows = np.flatnonzero((splits == name)[table.owners])
        misreading = find_misreading(form, table.boxes[rows], table.sizes[rows])
        if misreading is not None:
            yield rows, misreading


def _describe_misreading(table: BoxTable, rows: NDArray[np.int64], misreading: Misreading) -> Finding:
    boxes = table.boxes[rows]
    misfits = np.isfinite(boxes).all(axis=1) & ~fit_images(boxes, table.sizes[rows])
    first = table.finding("wrong-format", int(rows[misfits.argmax()]), "")
    what = (
        f"{misfits.sum()} of {len(rows)} boxes do not fit their images as {LAYOUTS[misreading.read_as]}, but they "
        f"do as {LAYOUTS[misreading.written]}; for example {first.what.strip()}"
    )
    return replace(first, what=what)


def _find_shares(table: BoxTable) -> Mask:
    # In pixels, such a box would lie in the first pixel of the image.
    small: Mask = np.all(np.abs(table.boxes) <= 1.5, axis=1) & np.all(table.sizes > 4, axis=1)
    broken: Mask = np.any(np.where(small[:, None], table.boxes, 0.0) % 1 != 0, axis=1)
    # If most are shares, 0,0,1,1 is one too: the whole image.
    shares = small if broken.sum() > len(broken) / 2 else broken
    form = data_format_of(table.data)
    return np.zeros_like(shares) if form is not None and form.relative_boxes else shares


def classify(table: BoxTable) -> dict[str, Mask]:
    """Which boxes cannot be trained on as they are; a box is in one of the masks at most.

    Kinds: not-finite, point-box, inverted-box, flat-box, outside-box, over-border; all but the last are invalid.
    """
    finite: Mask = np.all(np.isfinite(table.boxes), axis=1)
    boxes = np.where(finite[:, None], table.boxes, 0.0)
    sides = boxes[:, 2:] - boxes[:, :2]
    inverted = finite & (sides < 0).any(axis=1)
    point = finite & (sides == 0).all(axis=1)
    sound = finite & (sides > 0).all(axis=1)
    cut = clip_to_images(boxes, table.sizes)
    over = sound & (np.abs(cut - boxes).max(axis=1, initial=0) > OVER_BORDER)
    # Less than a pixel inside the image shows nothing of the object.
    outside = sound & (cut[:, 2:] - cut[:, :2] < np.minimum(sides, 1)).any(axis=1) & over
    outside |= sound & (cut[:, 2:] <= cut[:, :2]).any(axis=1)
    return {
        "not-finite": ~finite,
        "point-box": point,
        "inverted-box": inverted,
        "flat-box": finite & ~point & ~inverted & (sides == 0).any(axis=1),
        "outside-box": outside,
        "over-border": over & ~outside,
    }


def check_boxes(data: AnnotatedData, config: InputConfig) -> list[Finding]:
    """All findings about boxes as they were read; those that are too small in the network input are reported."""
    interpreted = interpret(tabulate(data))
    masks = classify(interpreted.table)
    sound = ~np.any([mask for kind, mask in masks.items() if kind != "over-border"], axis=0)
    return [
        *interpreted.findings,
        *_describe(interpreted.table, masks),
        *_check_sizes(interpreted.table, sound, config),
        *_check_duplicates(interpreted.table, sound),
    ]


def check_values(data: AnnotatedData) -> list[Finding]:
    """Only findings that decide whether boxes can be trained on."""
    interpreted = interpret(tabulate(data))
    return interpreted.findings + _describe(interpreted.table, classify(interpreted.table))


_WORDS = {
    "not-finite": "is not finite",
    "point-box": "is a point",
    "inverted-box": "has its second corner before the first{hint}",
    "flat-box": "has no area",
    "outside-box": "lies outside the image of {size}{hint}",
    "over-border": "reaches over the image of {size}{hint}",
}
"""What messages state of the kinds of `classify`; {hint} names the layout in which a single box would fit."""


def _describe(table: BoxTable, masks: dict[str, Mask]) -> list[Finding]:
    misread_as = misreadings(data_format_of(table.data))
    # Many boxes reach a little over the border, and fit in any layout where images are nearly square.
    agreed = _layouts_of_many(table, misread_as)

    def words(kind: str, row: int) -> str:
        box, size = table.boxes[row : row + 1], table.sizes[row : row + 1]
        others = () if "{hint}" not in _WORDS[kind] else agreed if kind == "over-border" else misread_as
        other = next((other for other in others if fit_images(other.reread(box), size)[0]), None)
        return _WORDS[kind].replace("{hint}", f" (as {LAYOUTS[other.written]} it would fit)" if other else "")

    return [finding for kind, mask in masks.items() for finding in table.findings(kind, mask, partial(words, kind))]


def _layouts_of_many(table: BoxTable, misread_as: Sequence[Misreading]) -> list[Misreading]:
    """The layouts in which so many boxes fit better, all in all, that they are no mistakes in single ones."""
    finite = np.isfinite(table.boxes).all(axis=1)
    boxes, sizes = table.boxes[finite], table.sizes[finite]
    fitting = int(fit_images(boxes, sizes).sum())
    needed = fitting + max(_MISFITS, _MISFIT_SHARE * len(boxes))
    if needed > len(boxes):
        return []
    return [other for other in misread_as if fit_images(other.reread(boxes), sizes).sum() >= needed]


def _check_sizes(table: BoxTable, sound: Mask, config: InputConfig) -> list[Finding]:
    cut = table.clipped()
    sides = cut[:, 2:] - cut[:, :2]
    areas = np.where(sound, sides.prod(axis=1), 1.0)
    whole = sound & (areas >= _WHOLE * table.sizes.prod(axis=1))
    scale = np.minimum(config.short_side / table.sizes.min(axis=1), config.long_side / table.sizes.max(axis=1))
    input_sides = np.sqrt(areas) * scale
    thin: Mask = np.all(sides <= SMALLEST_ORIGINAL, axis=1) | np.any(sides <= SMALLEST_ORIGINAL / 2, axis=1)
    tiny = sound & ((input_sides < SMALLEST_SIDE) | thin)

    def words(row: int) -> str:
        width, height = sides[row]
        if thin[row]:
            return f"is {width:.3g} pixels wide and {height:.3g} high in the original image"
        return f"is {input_sides[row]:.1f} pixels wide and high (in the mean) in the network input"

    return [
        *table.findings("whole-image", whole, "covers the whole image of {size}"),
        *table.findings("tiny-box", tiny, words),
    ]


def find_duplicate_boxes(table: BoxTable, sound: Mask) -> dict[int, int]:
    """Rows of boxes around the same object as an earlier box of their image, and the row of that one."""
    rows = np.flatnonzero(sound)
    boxes = table.clipped()
    rows = rows[np.lexsort((boxes[rows, 0], table.owners[rows]))]
    earlier_of: dict[int, int] = {}
    places = np.arange(len(rows))
    for step in range(1, len(rows)):
        # Sorted by the left side: a box too far away in this step is too far away in all later ones.
        places = places[places < len(rows) - step]
        left, right = rows[places], rows[places + step]
        near = boxes[right, 0] - boxes[left, 0] <= (1 - _SAME) * (boxes[left, 2] - boxes[left, 0])
        near &= table.owners[left] == table.owners[right]
        places, left, right = places[near], left[near], right[near]
        if not len(places):
            break
        same = box_iou(boxes[left], boxes[right]) >= _SAME
        for a, b in zip(left[same].tolist(), right[same].tolist(), strict=True):
            earlier_of[max(a, b)] = min(a, b, earlier_of.get(max(a, b), a))
    return dict(sorted(earlier_of.items()))


def _check_duplicates(table: BoxTable, sound: Mask) -> list[Finding]:
    findings = []
    for later, earlier in find_duplicate_boxes(table, sound).items():
        image = table.data.images[table.owners[later]]
        other = table.data.describe_box(image, int(table.indices[earlier]))
        same = table.labels[later] == table.labels[earlier]
        kind, words = ("duplicate-box", f"repeats {other}") if same else ("contradiction", f"is that of {other} too")
        findings.append(table.finding(kind, later, words))
    return findings
