"""Anchors fitted to the objects of a training set. Needs no torch.

Axes: n boxes. Boxes are xyxy in pixels of the network input.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError

from fasterrcnn.config import AnchorConfig
from fasterrcnn.data.anchor_search import (
    SIZE_BINS,
    Floats,
    Levels,
    Objective,
    Recall,
    cell_sides,
    input_boxes,
    input_labels,
    measure_recall,
    search,
    sides_and_centres,
    size_bins,
)
from fasterrcnn.errors import UsageError
from fasterrcnn.files import write_text
from fasterrcnn.reporting import charts, html
from fasterrcnn.reporting.tables import Table

__all__ = ["AnchorFit", "Recall", "fit_anchors", "input_boxes", "input_labels", "measure_recall", "read_anchors"]

MIN_BOXES = 30
"""With fewer boxes, the anchors stay as they are."""

_MAX_BOXES = 5000  # of the search; more only cost time
_MAX_SHOWN = 1500


@dataclass(frozen=True)
class AnchorFit:
    """The result of fitting anchors."""

    given: AnchorConfig
    anchors: AnchorConfig  # the fitted ones: as many levels, sizes and ratios as given; those given where `kept`
    before: Recall
    after: Recall
    boxes: int  # how many boxes they were fitted to
    kept: bool  # whether the given anchors stay: fewer than `MIN_BOXES` boxes, or nothing better was found
    sides: Floats = field(compare=False, repr=False)  # (m, 2) width and height of some of the boxes, for the plot

    def line(self) -> str:
        """The result in one line."""
        if self.kept:
            why = f"fewer than {MIN_BOXES}" if self.boxes < MIN_BOXES else "no better ones found"
            return f"anchors: as they were ({self.boxes:,} boxes, {why})"
        at_50 = f"{self.before.at_50:.1%} -> {self.after.at_50:.1%} reach IoU 0.5"
        at_70 = f"{self.before.at_70:.1%} -> {self.after.at_70:.1%} reach IoU 0.7"
        return f"anchors: fitted to {self.boxes:,} boxes, {at_50}, {at_70}"

    def __str__(self) -> str:
        text = f"{self.line()}\nbefore\n{self.before}"
        return text if self.kept else f"{text}\nafter\n{self.after}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "given": self.given.model_dump(mode="json"),
            "anchors": self.anchors.model_dump(mode="json"),
            "before": asdict(self.before),
            "after": asdict(self.after),
            "boxes": self.boxes,
            "kept": self.kept,
        }

    def to_yaml(self) -> str:
        """The ``anchors:`` section of a model configuration, as `read_anchors` takes it."""
        settings = self.anchors.model_dump(mode="json")
        lines = [f"  {key}: {json.dumps(value)}" for key, value in settings.items()]
        return "\n".join([f"# {self.line().removeprefix('anchors: ')}", "anchors:", *lines, ""])

    def save(self, path: Path) -> None:
        """Write the anchors (.yaml) or a page with a plot and the recall (.html); another file is a `UsageError`."""
        if path.suffix in (".yaml", ".yml"):
            text = self.to_yaml()
        elif path.suffix == ".html":
            text = self._page()
        else:
            raise UsageError(f"{path}: the anchors can be written as .yaml or .html")
        write_text(path, text)

    def _page(self) -> str:
        given = ("as given", self.given, "Recall before", self.before)
        results = [given] if self.kept else [given, ("fitted", self.anchors, "Recall after", self.after)]
        marks = {
            name: np.concatenate([cell_sides(anchors, level) for level in range(len(anchors.sizes))])
            for name, anchors, _, _ in results
        }
        plot = charts.scatter(
            "Boxes and anchors", self.sides, marks, x="width (pixels of the input)", y="height (pixels of the input)"
        )
        tables = [Table(*recall.rows(), title=title) for _, _, title, recall in results]
        return html.render_parts("Anchors", self.line(), [*tables, plot, html.Listing("Configuration", self.to_yaml())])


def fit_anchors(
    boxes: NDArray[np.float32],
    anchors: AnchorConfig,
    strides: Sequence[int],
    *,
    labels: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> AnchorFit:
    """Sizes and ratios for every level that cover the boxes better than the given ones.

    K-means over widths and heights with 1 - IoU as the distance (Redmon and Farhadi 2017, section 2) gives a start;
    from there and from the given anchors, hill climbing maximises the mean reward of each box for the IoU with its best
    anchor. Boxes of a class and size bin count as the root of their number, so that rare objects matter. Sizes ascend
    from level to level and stay within the allowed multiples of the stride. The fitted anchors have as many levels,
    sizes and ratios as the given ones; the same seed gives the same anchors.

    Args:
        boxes: (n, 4), with width and height above zero, as `input_boxes` gives them.
        strides: pixels between the cells of each level, in ascending order.
        labels: (n,) classes of the boxes, as `input_labels` gives them; none: one class.

    Raises:
        UsageError: anchors and strides have different numbers of levels.
    """
    before = measure_recall(boxes, anchors, strides)
    rng = np.random.default_rng(seed)
    chosen, weights = _choose(_weights(boxes, labels), rng)
    shown = sides_and_centres(boxes[chosen[:_MAX_SHOWN]])[0]
    as_given = AnchorFit(anchors, anchors, before, before, len(boxes), kept=True, sides=shown)
    if len(boxes) < MIN_BOXES:
        return as_given
    objective = Objective.of(boxes[chosen], weights, anchors, strides)
    start = Levels(*(tuple(np.sort(np.log(level)) for level in part) for part in (anchors.sizes, anchors.ratios)))
    levels = search(objective, start, strides, rng)
    fitted = anchors.model_copy(
        update={
            "sizes": tuple(tuple(np.exp(size).round(1).tolist()) for size in levels.sizes),
            "ratios": tuple(tuple(np.exp(ratio).round(3).tolist()) for ratio in levels.ratios),
            "rounded": False,
        }
    )
    if objective.value_of(fitted) <= objective.value_of(anchors):
        return as_given
    return AnchorFit(anchors, fitted, before, measure_recall(boxes, fitted, strides), len(boxes), False, shown)


def read_anchors(path: Path) -> AnchorConfig:
    """The ``anchors:`` section of a YAML file, which may have other sections.

    Raises:
        UsageError: no such file, not YAML, no such section, or numbers that cannot be anchors; the message names them.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: not a readable YAML file ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict) or "anchors" not in content:
        raise UsageError(f'{path}: no section "anchors" with sizes and ratios')
    try:
        anchors = AnchorConfig.model_validate(content["anchors"])
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, ("anchors", *first["loc"])))
        raise UsageError(f"{path}: {place}: {first['msg']}") from None
    problem = _problem(anchors)
    if problem:
        raise UsageError(f"{path}: {problem}")
    return anchors


def _problem(anchors: AnchorConfig) -> str | None:
    """What is wrong with these anchors, if anything."""
    sizes, ratios, strides = anchors.sizes, anchors.ratios, anchors.strides
    counts = [len(part) for part in (sizes, ratios, strides) if part is not None]
    if len(set(counts)) > 1 or not sizes:
        return f"sizes, ratios and strides must be of the same levels, not {', '.join(map(str, counts))}"
    cells = [len(size) * len(ratio) for size, ratio in zip(sizes, ratios, strict=True)]
    if len(set(cells)) > 1 or not cells[0]:
        return f"every level needs as many anchors (sizes x ratios), not {', '.join(map(str, cells))}"
    for number in (n for part in (*sizes, *ratios, strides or ()) for n in part):
        if not 0 < number < float("inf"):
            return f"sizes, ratios and strides must be above zero, not {number:g}"
    return None


def _weights(boxes: NDArray[np.float32], labels: NDArray[np.int64] | None) -> Floats:
    """(n,) 1 / sqrt(boxes of the same class and size bin), scaled to sum 1."""
    group = size_bins(sides_and_centres(boxes)[0])
    if labels is not None:
        group = labels * len(SIZE_BINS) + group
    weights = 1 / np.sqrt(np.bincount(group)[group])
    shares: Floats = weights / weights.sum()
    return shares


def _choose(weights: Floats, rng: np.random.Generator) -> tuple[NDArray[np.int64], Floats]:
    """The boxes of the search, and their weights, which sum to 1."""
    if len(weights) <= _MAX_BOXES:
        return np.arange(len(weights)), weights
    chosen = rng.choice(len(weights), _MAX_BOXES, replace=False, p=weights)
    return chosen, np.full(_MAX_BOXES, 1 / _MAX_BOXES)
