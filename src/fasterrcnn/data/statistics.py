"""Statistics of a data set: images, classes, and the sizes of objects in the network input. Needs no torch.

Axes: n boxes.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasterrcnn.config import InputConfig
from fasterrcnn.data.anchor_search import (
    SIZE_BINS,
    Floats,
    has_area,
    input_boxes,
    input_labels,
    sides_and_centres,
    size_bins,
)
from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.data.findings import count_of, shorten_middle
from fasterrcnn.errors import UsageError
from fasterrcnn.files import write_text
from fasterrcnn.reporting import charts, html
from fasterrcnn.reporting.tables import Table, align_columns

_QUANTILES = {"least": 0.0, "tenth": 0.1, "median": 0.5, "nine_tenths": 0.9, "most": 1.0}
_MAX_CLASSES, _RARE_CLASSES = 12, 4  # shown in the text, and how many of these are the rarest; the page has all
_MAX_NAME = 60  # letters of a class name
_MAX_SIZES = 4  # of images, in the text
_BAR = 24


@dataclass(frozen=True)
class Counts:
    """Numbers of a split, or of the whole data set."""

    images: int
    negatives: int  # images without any annotation
    boxes: int  # those that are trained on; ``by_class`` counts them by class
    difficult: int  # crowds, difficult and ignored objects
    left_out: int  # boxes that are not finite or have no area
    by_class: tuple[int, ...]

    @classmethod
    def of(cls, images: Sequence[AnnotatedImage], classes: int) -> "Counts":
        """Count images and boxes."""
        labels = input_labels(images)
        sound = [has_area(image.boxes) for image in images]
        return cls(
            images=len(images),
            negatives=sum(not len(image.boxes) for image in images),
            boxes=len(labels),
            difficult=sum(int((good & r.difficult).sum()) for good, r in zip(sound, images, strict=True)),
            left_out=sum(int((~good).sum()) for good in sound),
            by_class=tuple(np.bincount(labels, minlength=classes).tolist()),
        )


@dataclass(frozen=True, eq=False)
class Statistics:
    """Numbers of a data set. Boxes that are difficult or have no area are counted, and in nothing else."""

    name: str
    format: str
    classes: tuple[str, ...]
    input: InputConfig  # the size of the network input that sizes are measured at
    splits: dict[str, Counts]
    total: Counts  # numbers of the whole data set; an image in several splits counts once
    per_image: NDArray[np.int64]  # how many boxes each image has
    image_sizes: dict[tuple[int, int], int]  # how many images have which (height, width), the most frequent first
    sides: Floats  # (n, 2) width and height of the boxes, in pixels of the network input
    labels: NDArray[np.int64]  # (n,) their classes

    @property
    def sizes(self) -> Floats:
        """(n,) roots of the areas."""
        sizes: Floats = np.sqrt(self.sides.prod(axis=1))
        return sizes

    @property
    def ratios(self) -> Floats:
        """(n,) height / width."""
        ratios: Floats = self.sides[:, 1] / self.sides[:, 0]
        return ratios

    @property
    def shares(self) -> dict[str, float]:
        """Shares, 0..1, of small, medium and large boxes in COCO's sense; none without boxes."""
        if not len(self.sides):
            return {}
        bins = size_bins(self.sides)
        return {name: float((bins == number).mean()) for number, name in enumerate(SIZE_BINS)}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "format": self.format,
            "classes": list(self.classes),
            "input": {"short_side": self.input.short_side, "long_side": self.input.long_side},
            "all": self._counted(self.total),
            "splits": {name: self._counted(counts) for name, counts in self.splits.items()},
            "boxes_per_image": _quantiles(self.per_image),
            "image_sizes": [{"height": h, "width": w, "images": n} for (h, w), n in self.image_sizes.items()],
            "box_size": _quantiles(self.sizes),
            "box_ratio": _quantiles(self.ratios),
            "size_shares": self.shares,
            "box_size_by_class": {
                name: _quantiles(self.sizes[self.labels == label]) for label, name in enumerate(self.classes)
            },
        }

    def _counted(self, counts: Counts) -> dict[str, Any]:
        return {**asdict(counts), "by_class": dict(zip(self.classes, counts.by_class, strict=True))}

    def __str__(self) -> str:
        order = self._classes_by_count()
        lines = [self._lead(), "", *align_columns(*self._split_rows())]
        middle = slice(_MAX_CLASSES - _RARE_CLASSES, -_RARE_CLASSES) if len(order) > _MAX_CLASSES + 1 else slice(0)
        hidden = order[middle]
        shown = [label for label in order if label not in hidden]
        bars = _bars({shorten_middle(self.classes[i], _MAX_NAME): self.total.by_class[i] for i in shown})
        if hidden:
            largest, smallest = self.total.by_class[hidden[0]], self.total.by_class[hidden[-1]]
            bars.insert(middle.start, f"  ... and {len(hidden)} more classes of {smallest:,} to {largest:,} boxes")
        lines += ["", "Boxes of each class", *bars]
        sizes = ", ".join(f"{w} x {h} ({n:,})" for (h, w), n in list(self.image_sizes.items())[:_MAX_SIZES]) or "none"
        more = len(self.image_sizes) - _MAX_SIZES
        lines += ["", "Images", f"  boxes in one: {_spread(self.per_image)}"]
        lines.append(f"  width x height: {sizes}" + (f" and {more:,} other sizes" if more > 0 else ""))
        lines += ["", f"Boxes in the network input ({self._input()})"]
        lines.append(f"  size, root of the area: {_spread(self.sizes)}")
        lines.append(f"  height / width: {_spread(self.ratios)}")
        percents = {name: round(value, 1) for name, value in self._percents().items()}
        return "\n".join([*lines, *_bars(percents, "%")])

    def save(self, path: Path) -> None:
        """Write the numbers (.json) or a page with charts (.html); another kind of file is a `UsageError`."""
        if path.suffix == ".json":
            text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False)
        elif path.suffix == ".html":
            text = html.render_parts(self.name, self._lead(), self._parts())
        else:
            raise UsageError(f"{path}: statistics can be written as .json or .html")
        write_text(path, text)

    def _parts(self) -> list[charts.Chart | Table]:
        """What stands on the page."""
        order = self._classes_by_count()
        names, counts = [self.classes[label] for label in order], [self.total.by_class[label] for label in order]
        columns = {**self.splits, "all": self.total}
        by_split = [[self.classes[i], *(f"{part.by_class[i]:,}" for part in columns.values())] for i in order]
        some = np.linspace(0, len(self.sides) - 1, min(len(self.sides), 1500)).astype(int)
        percents = self._percents()
        longer = np.repeat([max(size) for size in self.image_sizes], list(self.image_sizes.values()))
        size = f"root of the area (pixels of the network input, {self._input()})"
        return [
            Table(*self._split_rows(), title="Images and boxes"),
            charts.bars("Boxes of each class", names, counts),
            charts.histogram("Boxes in an image", self.per_image, x="boxes"),
            charts.histogram("Sizes of boxes", self.sizes, x=size, log=True),
            charts.histogram("Shapes of boxes", self.ratios, x="height / width", log=True),
            charts.scatter("Width and height of boxes", self.sides[some], {}, x="width", y="height"),
            charts.bars("Sizes in COCO's sense (%)", list(percents), list(percents.values())),
            charts.histogram("Longer side of images", longer, x="pixels"),
            Table(["class", *columns], by_split, title="Boxes of each class in each split"),
        ]

    def _lead(self) -> str:
        text = f"{self.name}: {self.format}, {count_of(self.total.images, 'image')}, {self.total.boxes:,} boxes"
        left_out = self.total.left_out
        return text + (f"; {left_out:,} without an area or not finite are left out" if left_out else "")

    def _input(self) -> str:
        return f"short side {self.input.short_side}, long side at most {self.input.long_side}"

    def _split_rows(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows of the table of splits."""
        rows = [
            [name, *(f"{n:,}" for n in (c.images, c.negatives, c.boxes, c.difficult, c.left_out))]
            for name, c in {**self.splits, "all": self.total}.items()
        ]
        return ["split", "images", "without boxes", "boxes", "difficult", "left out"], rows

    def _classes_by_count(self) -> list[int]:
        """Labels, the most frequent first."""
        counts = self.total.by_class
        return sorted(range(len(counts)), key=lambda label: -counts[label])

    def _percents(self) -> dict[str, float]:
        """`shares` in percent, by names with the sides of the bins."""
        names = {}
        for name, share in self.shares.items():
            low, high = (side**0.5 for side in SIZE_BINS[name])
            limit = f"from {low:.0f}" if high == float("inf") else f"under {high:.0f}"
            names[f"{name} ({limit})"] = 100 * share
        return names


def compute_statistics(data: AnnotatedData, config: InputConfig) -> Statistics:
    """Count a data set as it was read, however small or empty, and measure its boxes at the network's input size."""
    images = data.images
    sides, _ = sides_and_centres(input_boxes(images, config))
    return Statistics(
        name=data.root.name or str(data.root),
        format=data.format,
        classes=data.classes,
        input=config,
        splits={name: Counts.of(part, len(data.classes)) for name, part in data.splits.items()},
        total=Counts.of(images, len(data.classes)),
        per_image=np.array([len(image.boxes) for image in images], np.int64),
        image_sizes=dict(Counter(image.size_hw for image in images).most_common()),
        sides=sides,
        labels=input_labels(images),
    )


def _quantiles(numbers: NDArray[Any]) -> dict[str, float]:
    """Least, a tenth, median, nine tenths and most; empty without numbers."""
    if not len(numbers):
        return {}
    return {name: float(np.quantile(numbers, share)) for name, share in _QUANTILES.items()}


def _spread(numbers: NDArray[Any]) -> str:
    quantiles = _quantiles(numbers)
    if not quantiles:
        return "none"
    least, low, median, high, largest = (charts.format_number(round(value, 2)) for value in quantiles.values())
    return f"median {median}, most from {low} to {high}, all from {least} to {largest}"


def _bars(values: Mapping[str, charts.Number], unit: str = "") -> list[str]:
    """Lines of text, each with a bar in eighths of a letter."""
    if not values:
        return ["  none"]
    left, top = max(map(len, values)), max(values.values()) or 1
    numbers = {name: f"{value:,}{unit}" for name, value in values.items()}
    right = max(map(len, numbers.values()))
    lines = []
    for name, value in values.items():
        eighths = round(8 * _BAR * value / top)
        bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
        lines.append(f"  {name:<{left}}  {numbers[name]:>{right}}  {bar}".rstrip())
    return lines
