"""In which order were the four numbers of the boxes written? Told by how well all of them fit their images.

Axes: n boxes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fasterrcnn.config import InputConfig
from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.data.findings import Finding

Mask = NDArray[np.bool_]
Boxes = NDArray[np.float64]

OVER_BORDER = 1.0
"""Pixels that a box may reach over the border without a word: tools that count from 1 do."""

LAYOUTS = {
    "xyxy": "left, top, right, bottom",
    "xywh": "left, top, width, height",
    "cxcywh": "centre x, centre y, width, height",
    "yxyx": "top, left, bottom, right",
    "yxhw": "top, left, height, width",
    "cycxhw": "centre y, centre x, height, width",
}

# Whoever reads a table says what its numbers are, and may be wrong.
_WRITTEN = {"COCO": ("xywh",), "YOLO": ("cxcywh",), "Pascal VOC": ("xyxy",)}
_ANY = ("xyxy", "xywh", "cxcywh")

_MISFITS, _MISFIT_SHARE = 3, 0.05  # fewer are single mistakes
_UNEXPLAINED = 0.1  # of the misfits, at most so many may fit the other layout no better


@dataclass(frozen=True)
class Misreading:
    """Boxes were read as one layout and are in another; both are keys of `LAYOUTS`."""

    read_as: str
    written: str

    def reread(self, boxes: Boxes) -> Boxes:
        """xyxy boxes, as they would have been if they had been read rightly."""
        return _to_xyxy(_from_xyxy(boxes, self.read_as), self.written)


def misreadings(data_format: str) -> list[Misreading]:
    """Every way in which boxes of a data set format can have been read wrongly."""
    # Shares of the image lie in it whichever comes first, x or y.
    written = _ANY if data_format == "YOLO" else tuple(LAYOUTS)
    return [Misreading(own, other) for own in _WRITTEN.get(data_format, _ANY) for other in written if own != other]


def find_misreading(data_format: str, boxes: Boxes, sizes: Boxes) -> Misreading | None:
    """The layout that boxes are in, if they fit their images clearly better so than as they were read.

    Args:
        data_format: of the data set, which says how boxes are written in it.
        boxes: (n, 4) xyxy as they were read, in pixels.
        sizes: (n, 2) width and height of their images.
    """
    # Flat boxes are flat for reasons of their own.
    telling = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] != boxes[:, :2]).all(axis=1)
    boxes, sizes = boxes[telling], sizes[telling]
    misfits = int((~fit(boxes, sizes)).sum())
    if misfits < max(_MISFITS, _MISFIT_SHARE * len(boxes)):
        return None
    left = {other: int((~fit(other.reread(boxes), sizes)).sum()) for other in misreadings(data_format)}
    best = min(left, key=lambda other: left[other])
    return best if left[best] <= _UNEXPLAINED * misfits else None


def fit(boxes: Boxes, sizes: Boxes) -> Mask:
    """(n,) which boxes have an area and lie in their images."""
    has_area: Mask = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    inside: Mask = np.abs(clip(boxes, sizes) - boxes).max(axis=1, initial=0) <= OVER_BORDER
    return has_area & inside


def clip(boxes: Boxes, sizes: Boxes) -> Boxes:
    """Boxes cut at the borders of their images."""
    return np.clip(boxes, 0, np.tile(sizes, 2))


def _from_xyxy(boxes: Boxes, layout: str) -> Boxes:
    near, far = boxes[:, :2], boxes[:, 2:]
    if layout == "xyxy":
        return boxes
    return np.hstack([near if layout == "xywh" else (near + far) / 2, far - near])


def _to_xyxy(numbers: Boxes, layout: str) -> Boxes:
    if layout in ("yxyx", "yxhw", "cycxhw"):
        numbers = numbers[:, [1, 0, 3, 2]]
    first, second = numbers[:, :2], numbers[:, 2:]
    if layout in ("xyxy", "yxyx"):
        return numbers
    near = first if layout in ("xywh", "yxhw") else first - second / 2
    return np.hstack([near, near + second])


SMALLEST_SIDE = 8.0
"""Square root of the smallest area, in pixels of the network input, that a map of stride 4 or 8 tells from noise."""

SMALLEST_ORIGINAL = 2.0
"""Pixels of the original: if both sides are no longer, or one not half as long, there is nothing to recognise."""

_WHOLE = 0.99  # of the image's area
_SAME = 0.9  # IoU of boxes that were drawn around one object


@dataclass(frozen=True)
class BoxTable:
    """Every box of a data set in flat arrays.

    Attributes:
        data: the data set.
        records: its images.
        boxes: (n, 4) xyxy in pixels.
        labels: (n,).
        owners: (n,) index of the record of each box.
        indices: (n,) index of each box in its record.
        sizes: (n, 2) width and height of the image of each box.
    """

    data: AnnotatedData
    records: Sequence[AnnotatedImage]
    boxes: Boxes
    labels: NDArray[np.int64]
    owners: NDArray[np.int64]
    indices: NDArray[np.int64]
    sizes: Boxes

    def __len__(self) -> int:
        return len(self.boxes)

    def finding(self, kind: str, row: int, words: str) -> Finding:
        """A finding about a box; it shows the values that were read."""
        return self.data.finding(kind, self.records[self.owners[row]], int(self.indices[row]), words)

    def clipped(self) -> Boxes:
        """The boxes cut at the borders of their images."""
        return clip(self.boxes, self.sizes)


@dataclass(frozen=True)
class Meant:
    """Boxes as they were probably meant, where all or many are written in another way than expected.

    Attributes:
        table: the boxes in pixels and in the right layout.
        shares: (n,) those that were shares of the image instead of pixels.
        misread: (n,) those of a data set, or of a split, whose boxes are in another layout than its format says.
        findings: what was wrong.
    """

    table: BoxTable
    shares: Mask
    misread: Mask
    findings: list[Finding]


def tabulate(data: AnnotatedData) -> BoxTable:
    """Lay all boxes of a data set into one table."""
    records = data.records
    counts = [len(record.boxes) for record in records]
    owners = np.repeat(np.arange(len(records)), counts)
    sizes = np.array([record.size_hw[::-1] for record in records], dtype=np.float64).reshape(-1, 2)
    return BoxTable(
        data,
        records,
        np.concatenate([np.zeros((0, 4)), *(record.boxes for record in records)]),
        np.concatenate([np.zeros(0, np.int64), *(record.labels for record in records)]),
        owners,
        np.concatenate([np.zeros(0, np.int64), *(np.arange(count) for count in counts)]),
        sizes[owners],
    )


def interpret(table: BoxTable) -> Meant:
    """Find boxes that are shares of the image, then the layout that all of them are in."""
    shares = _find_shares(table)
    sizes = np.tile(table.sizes, 2)
    pixels = replace(table, boxes=np.where(shares[:, None], table.boxes * sizes, table.boxes))
    findings = []
    for row in np.flatnonzero(shares).tolist():
        width, height = table.sizes[row]
        words = f"looks like shares of the image of {width:g} x {height:g}"
        findings.append(table.finding("normalised-box", row, words))
    boxes, misread = pixels.boxes.copy(), np.zeros(len(table), dtype=np.bool_)
    for rows, misreading in _find_misreadings(pixels):
        boxes[rows] = misreading.reread(boxes[rows])
        misread[rows] = True
        findings.append(_describe_misreading(pixels, rows, misreading))
    return Meant(replace(pixels, boxes=boxes), shares, misread, findings)


def _find_misreadings(table: BoxTable) -> Iterator[tuple[NDArray[np.int64], Misreading]]:
    """The rows whose boxes are in another layout: all of them or, as files differ, those of some splits."""
    data = table.data
    everything = np.arange(len(table))
    whole = find_misreading(data.format, table.boxes, table.sizes)
    if whole is not None:
        yield everything, whole
        return
    splits = {id(record): name for name, records in reversed(data.splits.items()) for record in records}
    names = np.array([splits[id(record)] for record in table.records])
    for name in dict.fromkeys(names.tolist()):
        rows = np.flatnonzero((names == name)[table.owners])
        misreading = find_misreading(data.format, table.boxes[rows], table.sizes[rows])
        if misreading is not None:
            yield rows, misreading


def _describe_misreading(table: BoxTable, rows: NDArray[np.int64], misreading: Misreading) -> Finding:
    boxes = table.boxes[rows]
    misfits = np.isfinite(boxes).all(axis=1) & ~fit(boxes, table.sizes[rows])
    first = table.finding("wrong-format", int(rows[misfits.argmax()]), "")
    what = (
        f"{misfits.sum()} of {len(rows)} boxes do not fit their images as {LAYOUTS[misreading.read_as]}, but they "
        f"do as {LAYOUTS[misreading.written]}; for example {first.what.strip()}"
    )
    return replace(first, what=what)


def _find_shares(table: BoxTable) -> Mask:
    # A real box like that would lie in the first pixel of the image.
    small: Mask = np.all(np.abs(table.boxes) <= 1.5, axis=1) & np.all(table.sizes > 4, axis=1)
    broken: Mask = np.any(np.where(small[:, None], table.boxes, 0.0) % 1 != 0, axis=1)
    # Where most are shares, 0,0,1,1 is the whole image.
    shares = small if broken.sum() > len(table) / 2 else broken
    return shares if table.data.format != "YOLO" else np.zeros_like(shares)


def classify(table: BoxTable) -> dict[str, Mask]:
    """Which boxes cannot be learned from as they stand; every box is in one of the masks at most.

    Kinds: not-finite, point-box, inverted-box, flat-box, outside-box, over-border; all but the last are of no use.
    """
    finite: Mask = np.all(np.isfinite(table.boxes), axis=1)
    boxes = np.where(finite[:, None], table.boxes, 0.0)
    sides = boxes[:, 2:] - boxes[:, :2]
    inverted = finite & (sides < 0).any(axis=1)
    point = finite & (sides == 0).all(axis=1)
    sound = finite & (sides > 0).all(axis=1)
    cut = clip(boxes, table.sizes)
    over = sound & (np.abs(cut - boxes).max(axis=1, initial=0) > OVER_BORDER)
    # Less than a pixel of it in the image shows nothing of it.
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
    """Everything about boxes that a person should know.

    Args:
        data: as read.
        config: of the network input, which decides what is too small to be seen.
    """
    meant = interpret(tabulate(data))
    masks = classify(meant.table)
    sound = ~np.any([mask for kind, mask in masks.items() if kind != "over-border"], axis=0)
    return [
        *meant.findings,
        *_describe(meant.table, masks),
        *_check_sizes(meant.table, sound, config),
        *_check_copies(meant.table, sound),
    ]


def check_values(data: AnnotatedData) -> list[Finding]:
    """Only what decides whether boxes can be learned from."""
    meant = interpret(tabulate(data))
    return meant.findings + _describe(meant.table, classify(meant.table))


def _describe(table: BoxTable, masks: dict[str, Mask]) -> list[Finding]:
    findings = []
    for kind, mask in masks.items():
        for row in np.flatnonzero(mask).tolist():
            size = "{:g} x {:g}".format(*table.sizes[row])
            words = {
                "not-finite": "is not finite",
                "point-box": "is a point",
                "inverted-box": "has its second corner before the first",
                "flat-box": "has no area",
                "outside-box": f"lies outside the image of {size}",
                "over-border": f"reaches over the image of {size}",
            }[kind]
            if kind in ("inverted-box", "outside-box", "over-border"):
                words += _hint(table, row)
            findings.append(table.finding(kind, row, words))
    return findings


def _hint(table: BoxTable, row: int) -> str:
    """In which layout a single box would fit."""
    box, size = table.boxes[row : row + 1], table.sizes[row : row + 1]
    fitting = (other for other in misreadings(table.data.format) if fit(other.reread(box), size)[0])
    other = next(fitting, None)
    return "" if other is None else f" (as {LAYOUTS[other.written]} it would fit)"


def _check_sizes(table: BoxTable, sound: Mask, config: InputConfig) -> list[Finding]:
    cut = table.clipped()
    sides = cut[:, 2:] - cut[:, :2]
    areas = np.where(sound, sides.prod(axis=1), 1.0)
    whole = sound & (areas >= _WHOLE * table.sizes.prod(axis=1))
    scale = np.minimum(config.short_side / table.sizes.min(axis=1), config.long_side / table.sizes.max(axis=1))
    seen = np.sqrt(areas) * scale
    thin = (sides <= SMALLEST_ORIGINAL).all(axis=1) | (sides <= SMALLEST_ORIGINAL / 2).any(axis=1)
    tiny = sound & ((seen < SMALLEST_SIDE) | thin)
    findings = []
    for row in np.flatnonzero(whole).tolist():
        words = "covers the whole image of {:g} x {:g}".format(*table.sizes[row])
        findings.append(table.finding("whole-image", row, words))
    for row in np.flatnonzero(tiny).tolist():
        words = f"is {seen[row]:.1f} pixels wide and high (in the mean) in the network input"
        findings.append(table.finding("tiny-box", row, words))
    return findings


def find_copies(table: BoxTable, sound: Mask) -> dict[int, int]:
    """Rows of boxes that were drawn around the same object as one before them in their image, and the row of that."""
    rows = np.flatnonzero(sound)
    boxes = table.clipped()
    rows = rows[np.lexsort((boxes[rows, 0], table.owners[rows]))]
    found: dict[int, int] = {}
    places = np.arange(len(rows))
    for step in range(1, len(rows)):
        # Sorted by the left side, whatever is too far for one box stays too far in the next step.
        places = places[places < len(rows) - step]
        left, right = rows[places], rows[places + step]
        near = boxes[right, 0] - boxes[left, 0] <= (1 - _SAME) * (boxes[left, 2] - boxes[left, 0])
        near &= table.owners[left] == table.owners[right]
        places, left, right = places[near], left[near], right[near]
        if not len(places):
            break
        same = _iou(boxes[left], boxes[right]) >= _SAME
        for a, b in zip(left[same].tolist(), right[same].tolist(), strict=True):
            found[max(a, b)] = min(a, b, found.get(max(a, b), a))
    return dict(sorted(found.items()))


def _iou(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    shared = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    both = shared.clip(min=0).prod(axis=1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    iou: NDArray[np.float64] = both / (areas[0] + areas[1] - both)
    return iou


def _check_copies(table: BoxTable, sound: Mask) -> list[Finding]:
    findings = []
    for later, earlier in find_copies(table, sound).items():
        other = table.data.where(table.records[table.owners[later]], int(table.indices[earlier]))
        same = table.labels[later] == table.labels[earlier]
        kind, words = ("duplicate-box", f"repeats {other}") if same else ("contradiction", f"is that of {other} too")
        findings.append(table.finding(kind, later, words))
    return findings
