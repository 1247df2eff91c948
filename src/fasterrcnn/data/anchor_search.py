"""How well anchors cover boxes on the grid of the feature maps, and the search for anchors that cover them better.

Needs no torch.

Axes: n boxes, k anchors of one level. Boxes are xyxy in pixels of the network input; sides are (width, height).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fasterrcnn.config import AnchorConfig, InputConfig
from fasterrcnn.data.annotations import AnnotatedImage
from fasterrcnn.errors import UsageError
from fasterrcnn.reporting.tables import align_columns, three_decimals

Floats = NDArray[np.float64]

SIZE_BINS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, float("inf"))}
"""COCO's bins of the area, from (included) and to (not included); here in pixels of the network input."""

NEAREST, FARTHEST = 1.5, 16.0
"""Range of an anchor's size, as a multiple of the stride of its level."""

FINEST, COARSEST = 1.0, 32.0
"""The same for small anchors of the finest level and large ones of the coarsest, which no other level can have."""

RATIO_LIMIT = 8.0
"""Largest ratio of the longer side of an anchor to the shorter one."""

_STEPS = (0.4, 0.2, 0.1, 0.05, 0.02)  # of the hill climbing, in the logarithm
_RESTARTS = 8
_RESTART_NOISE = 0.15
_ROUNDS = 4
_UNUSED = 2e-3  # loss of mean reward (about 2) below which a level is not needed
_CHUNK = 100_000  # boxes at a time, to save memory


def has_area(boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(n,) which boxes are finite and have width and height above zero."""
    good: NDArray[np.bool_] = np.all(np.isfinite(boxes), axis=1, keepdims=False)
    good &= (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return good


def is_trained_on(image: AnnotatedImage) -> NDArray[np.bool_]:
    """(n,) which boxes of an image are trained on: those with an area that are not difficult."""
    return has_area(image.boxes) & ~image.difficult


def input_boxes(images: Sequence[AnnotatedImage], config: InputConfig) -> NDArray[np.float32]:
    """(n, 4) boxes of all images in the frame of the network input, as training resizes them; n may be 0.

    Difficult boxes and those without an area are left out.
    """
    parts = [np.zeros((0, 4), np.float32)]
    for image in images:
        boxes = image.boxes[is_trained_on(image)]
        if len(boxes):
            to_hw = config.resized_hw(image.size_hw)
            y, x = (np.float32(to) / np.float32(old) for to, old in zip(to_hw, image.size_hw, strict=True))
            parts.append(boxes * np.array([x, y, x, y], np.float32))
    return np.concatenate(parts)


def input_labels(images: Sequence[AnnotatedImage]) -> NDArray[np.int64]:
    """(n,) labels of the boxes that `input_boxes` gives, in the same order."""
    return np.concatenate([np.zeros(0, np.int64), *(image.labels[is_trained_on(image)] for image in images)])


@dataclass(frozen=True)
class Recall:
    """How well anchors cover boxes: the IoU of each box with its best anchor."""

    boxes: int
    at_50: float | None  # share of them, 0..1, whose best anchor has IoU 0.5 or more; None where there are no boxes
    at_70: float | None  # the same for 0.7, at which an anchor is positive in the RPN's training
    mean_iou: float | None  # of the best anchors
    by_size: dict[str, "Recall"]  # the same for each of `SIZE_BINS`; empty in the parts themselves

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows of a table: all boxes, then those of each size."""
        rows = [
            [name, f"{part.boxes:,}", _percent(part.at_50), _percent(part.at_70), three_decimals(part.mean_iou)]
            for name, part in (("all", self), *self.by_size.items())
        ]
        return ["boxes", "count", "reach IoU 0.5", "reach IoU 0.7", "mean IoU"], rows

    def __str__(self) -> str:
        return "\n".join(align_columns(*self.rows()))


def measure_recall(boxes: NDArray[np.float32], anchors: AnchorConfig, strides: Sequence[int]) -> Recall:
    """How well anchors cover boxes with an area, as `input_boxes` gives them, from the cells of the feature maps.

    The grid of a level is assumed to reach as far as the boxes do. In an image without padding, a box whose centre is
    less than half a stride from the right or lower border has its nearest cell a little farther away.

    Raises:
        UsageError: anchors and strides have different numbers of levels.
    """
    if not len(anchors.sizes) == len(anchors.ratios) == len(strides):
        raise UsageError(
            f"anchors of {len(anchors.sizes)} levels (ratios of {len(anchors.ratios)}) for {len(strides)} strides"
        )
    cells = [cell_sides(anchors, level) for level in range(len(strides))]
    sides, centres = sides_and_centres(boxes)
    iou = np.zeros(len(boxes))
    for start in range(0, len(boxes), _CHUNK):
        part = slice(start, start + _CHUNK)
        for cell, stride in zip(cells, strides, strict=True):
            offsets = grid_offsets(centres[part], stride)
            iou[part] = np.maximum(iou[part], best_iou(sides[part], offsets, cell))
    bins = size_bins(sides)
    parts = {name: _recall(iou[bins == number], {}) for number, name in enumerate(SIZE_BINS)}
    return _recall(iou, parts)


def sides_and_centres(boxes: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """(n, 2) width and height, and (n, 2) x and y of the centre."""
    near, far = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    return far - near, (far + near) / 2


def size_bins(sides: Floats) -> NDArray[np.int64]:
    """(n,) number of the size bin, 0..2, of boxes with those (n, 2) sides."""
    lower = [low for low, _ in SIZE_BINS.values()]
    bins: NDArray[np.int64] = np.searchsorted(lower[1:], sides.prod(axis=1), side="right")
    return bins


def cell_sides(anchors: AnchorConfig, level: int) -> Floats:
    """(k, 2) sides of the anchors around a cell, as `model.anchors.cell_anchors` makes them."""
    # In float32, as there: its last bit decides whether a half is rounded up or down.
    root = np.sqrt(np.array(anchors.ratios[level], np.float32))
    size = np.array(anchors.sizes[level], np.float32)
    half = np.stack([np.outer(1 / root, size).ravel(), np.outer(root, size).ravel()], axis=1) / 2
    return 2 * (half.round() if anchors.rounded else half).astype(np.float64)


def grid_offsets(centres: Floats, stride: int) -> Floats:
    """(n, 2) distances from the centres of boxes to the nearest point of a grid that starts at (0, 0)."""
    nearest: Floats = np.rint(centres / stride).clip(min=0) * stride
    return np.abs(centres - nearest)


def best_iou(sides: Floats, offsets: Floats, anchor_sides: Floats) -> Floats:
    """(n,) IoU of each box with the best of the k >= 1 anchors of one level, at the nearest grid point.

    Sides are (n, 2) and (k, 2), above zero; offsets (n, 2) as `grid_offsets` gives them. No other grid point is better:
    the overlap decreases with the distance along either axis.
    """
    shared: Floats = np.ones((len(anchor_sides), len(sides)))
    for axis in (0, 1):
        box, anchor = sides[:, axis], anchor_sides[:, axis, None]
        overlap = (box + anchor) / 2 - offsets[:, axis]
        np.minimum(overlap, np.minimum(box, anchor), out=overlap)
        shared *= overlap.clip(min=0)
    union = sides.prod(axis=1) + anchor_sides.prod(axis=1)[:, None] - shared
    best: Floats = (shared / union).max(axis=0)
    return best


def _recall(iou: Floats, parts: dict[str, Recall]) -> Recall:
    if not len(iou):
        return Recall(0, None, None, None, parts)
    # IoUs of boxes and anchors with round numbers may miss the limit by the last bit.
    at_50, at_70 = (float((iou >= limit - 1e-6).mean()) for limit in (0.5, 0.7))
    return Recall(len(iou), at_50, at_70, float(iou.mean()), parts)


def _percent(share: float | None) -> str:
    return "n/a" if share is None else f"{share:.1%}"


@dataclass(frozen=True)
class Levels:
    """Logarithms of sizes and ratios (height / width) of every level, each in ascending order."""

    sizes: tuple[Floats, ...]
    ratios: tuple[Floats, ...]

    def sides(self, level: int) -> Floats:
        """(k, 2) sides of a level's anchors, ratio by ratio and size by size."""
        size, half = self.sizes[level][None, :], self.ratios[level][:, None] / 2
        logs: Floats = np.stack([size - half, size + half], axis=-1).reshape(-1, 2)
        return np.exp(logs)

    def vector(self) -> Floats:
        """All numbers in a row."""
        return np.concatenate([*self.sizes, *self.ratios])

    def like(self, vector: Floats) -> "Levels":
        """Levels of the same shape from other numbers."""
        parts = np.split(vector, np.cumsum([len(part) for part in (*self.sizes, *self.ratios)])[:-1])
        return Levels(tuple(parts[: len(self.sizes)]), tuple(parts[len(self.sizes) :]))


@dataclass(frozen=True)
class Objective:
    """What the search maximises: the weighted mean reward of boxes for the IoU with their best anchor.

    The reward is 1 for IoU 0.5, the least of a positive region, and rises by 1 up to 0.75, a little over the 0.7 of a
    positive anchor. A tenth of the IoU is added, which gives a direction where all anchors are far away. A box under
    its floor costs a penalty, so that objects which the given anchors cover stay covered.
    """

    sides: Floats  # (n, 2) of the boxes
    offsets: tuple[Floats, ...]  # for each level, (n, 2) from the boxes' centres to the grid
    weights: Floats  # (n,) sum to 1
    floor: Floats  # (n,) IoU that a box should keep
    penalties: Floats  # (n,) cost of falling under the floor by 1

    @classmethod
    def of(
        cls, boxes: NDArray[np.float32], weights: Floats, given: AnchorConfig, strides: Sequence[int]
    ) -> "Objective":
        """The objective for boxes that should keep what the given anchors offer, up to IoU 0.5."""
        sides, centres = sides_and_centres(boxes)
        offsets = tuple(grid_offsets(centres, stride) for stride in strides)
        ious = [best_iou(sides, part, cell_sides(given, level)) for level, part in enumerate(offsets)]
        bins = size_bins(sides)
        counts = np.bincount(bins)
        # All boxes of a size bin together have the same penalty, however few they are.
        shares = 1 / (counts[bins] * np.count_nonzero(counts))
        return cls(sides, offsets, weights, np.max(ious, axis=0).clip(max=0.5), 3 * np.maximum(weights, shares))

    def level(self, levels: Levels, level: int) -> Floats:
        """(n,) best IoU with the anchors of one level."""
        return best_iou(self.sides, self.offsets[level], levels.sides(level))

    def value(self, ious: Sequence[Floats]) -> float:
        """The mean reward, given the best IoU with each level."""
        iou = np.max(ious, axis=0)
        reward = np.clip((iou - 0.4) / 0.12, 0, 1) + np.clip((iou - 0.5) / 0.25, 0, 1) + 0.1 * iou
        return float(self.weights @ reward - self.penalties @ (self.floor - iou).clip(min=0))

    def value_of(self, anchors: AnchorConfig) -> float:
        """The mean reward of anchors in the form the detector uses, rounded or not."""
        cells = (cell_sides(anchors, level) for level in range(len(self.offsets)))
        return self.value([best_iou(self.sides, part, cell) for part, cell in zip(self.offsets, cells, strict=True)])


def search(objective: Objective, given: Levels, strides: Sequence[int], rng: np.random.Generator) -> Levels:
    """Anchors of as many levels, sizes and ratios as those given, fitted to the boxes of the objective.

    Hill climbing starts from the given anchors and from k-means; the better result is changed at random a few times,
    and climbs again.
    """
    count = sum(len(given.sides(level)) for level in range(len(strides)))
    clustered = _factorise(_cluster(objective, count, rng), given)
    results = [_climb(objective, start, strides, rng) for start in (given, clustered)]
    best, top = max(results, key=lambda result: result[1])
    for _ in range(_RESTARTS):
        vector = best.vector()
        start = best.like(vector + rng.normal(0, _RESTART_NOISE, len(vector)))
        levels, value = _climb(objective, start, strides, rng, _STEPS[2:])
        if value > top:
            best, top = levels, value
    return _restore_unused(objective, best, given, strides)


def constrain(levels: Levels, strides: Sequence[int]) -> Levels:
    """The nearest anchors with sizes that ascend from level to level, within the allowed multiples of the stride."""
    sizes = []
    floor = -np.inf
    for level, stride in enumerate(strides):
        low, high = _bounds(level, strides)
        size = np.sort(levels.sizes[level]).clip(np.log(low * stride), np.log(high * stride))
        sizes.append(size.clip(min=floor))
        floor = sizes[-1][-1]
    limit = np.log(RATIO_LIMIT)
    return Levels(tuple(sizes), tuple(np.sort(ratios).clip(-limit, limit) for ratios in levels.ratios))


def _bounds(level: int, strides: Sequence[int]) -> tuple[float, float]:
    return FINEST if level == 0 else NEAREST, COARSEST if level == len(strides) - 1 else FARTHEST


def _climb(
    objective: Objective,
    start: Levels,
    strides: Sequence[int],
    rng: np.random.Generator,
    steps: Sequence[float] = _STEPS,
) -> tuple[Levels, float]:
    """Move one size or ratio at a time, by smaller and smaller steps, as long as that helps."""
    best = constrain(start, strides)
    ious = [objective.level(best, level) for level in range(len(strides))]
    top = objective.value(ious)
    for step in steps:
        for _ in range(_ROUNDS):
            before = top
            for number in rng.permutation(len(best.vector())):
                for change in (step, -step):
                    vector = best.vector()
                    vector[number] += change
                    moved = constrain(best.like(vector), strides)
                    offered = [
                        iou if np.array_equal(moved.sides(level), best.sides(level)) else objective.level(moved, level)
                        for level, iou in enumerate(ious)
                    ]
                    if (value := objective.value(offered)) > top:
                        best, ious, top = moved, offered, value
                        break
            if top == before:
                break
    return best, top


def _restore_unused(objective: Objective, best: Levels, given: Levels, strides: Sequence[int]) -> Levels:
    """The same anchors, but levels that hardly any box needs get back those given, as far as the order allows."""
    sizes, ratios = list(best.sizes), list(best.ratios)
    ious = [objective.level(best, level) for level in range(len(strides))]
    for level, stride in enumerate(strides):
        others = [np.zeros_like(objective.weights), *ious[:level], *ious[level + 1 :]]
        if objective.value(others) >= objective.value(ious) - _UNUSED:
            low, high = (np.log(bound * stride) for bound in _bounds(level, strides))
            low = max(low, sizes[level - 1][-1]) if level else low
            high = min(high, sizes[level + 1][0]) if level + 1 < len(strides) else high
            sizes[level], ratios[level] = given.sizes[level].clip(low, high), given.ratios[level]
            ious[level] = objective.level(Levels(tuple(sizes), tuple(ratios)), level)
    return Levels(tuple(sizes), tuple(ratios))


def _cluster(objective: Objective, count: int, rng: np.random.Generator) -> Floats:
    """(count, 2) sides of typical boxes: k-means with 1 - IoU of centred boxes as the distance."""
    sides = objective.sides
    centres = sides[rng.choice(len(sides), count, p=objective.weights)]
    offsets = np.zeros_like(sides)
    for _ in range(30):
        nearest = np.argmax([best_iou(sides, offsets, centre[None]) for centre in centres], axis=0)
        moved = centres.copy()
        for number in np.unique(nearest):
            mine = nearest == number
            moved[number] = np.exp(np.average(np.log(sides[mine]), axis=0, weights=objective.weights[mine]))
        if np.allclose(moved, centres):
            break
        centres = moved
    return centres


def _factorise(sides: Floats, given: Levels) -> Levels:
    """Sizes and ratios of levels that approximate the sides, the smallest on the first level."""
    size, ratio = np.log(sides).mean(axis=1), np.log(sides[:, 1] / sides[:, 0])
    order = np.argsort(size)
    new_sizes, new_ratios = [], []
    for sizes, ratios in zip(given.sizes, given.ratios, strict=True):
        mine, order = np.split(order, [len(sizes) * len(ratios)])
        new_sizes.append(np.array([part.mean() for part in np.array_split(np.sort(size[mine]), len(sizes))]))
        new_ratios.append(np.array([part.mean() for part in np.array_split(np.sort(ratio[mine]), len(ratios))]))
    return Levels(tuple(new_sizes), tuple(new_ratios))
