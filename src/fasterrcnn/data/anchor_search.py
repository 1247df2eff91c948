"""The search behind `anchor_fit`: k-means in IoU space, then a hill climb on what counts.

Axes: n boxes, k anchors of one level. Sides are (width, height) in pixels of the network input.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fasterrcnn.config import AnchorConfig
from fasterrcnn.data.anchor_recall import Array, best_iou, cell_sides, grid_offsets, sides_and_centres, size_bins

NEAREST, FARTHEST = 1.5, 16.0
"""An anchor's size as a multiple of its level's stride: from what one cell can tell to what its surroundings show."""

FINEST, COARSEST = 1.0, 32.0
"""The same for small anchors of the finest level and large ones of the coarsest: no other level could have them."""

RATIO_LIMIT = 8.0
"""No anchor is more than so many times as high as wide, or the other way round."""

_STEPS = (0.4, 0.2, 0.1, 0.05, 0.02)  # in the logarithm
_SHAKES = 8
_SHAKE = 0.15
_ROUNDS = 4
_UNUSED = 2e-3  # of the mean reward, which is about 2


@dataclass(frozen=True)
class Levels:
    """Logarithms of sizes and ratios (height / width) of every level, each in ascending order."""

    sizes: tuple[Array, ...]
    ratios: tuple[Array, ...]

    def sides(self, level: int) -> Array:
        """(k, 2) sides of a level's anchors, ratio by ratio and size by size."""
        size, half = self.sizes[level][None, :], self.ratios[level][:, None] / 2
        logs: Array = np.stack([size - half, size + half], axis=-1).reshape(-1, 2)
        return np.exp(logs)

    def vector(self) -> Array:
        """All numbers in a row."""
        return np.concatenate([*self.sizes, *self.ratios])

    def like(self, vector: Array) -> "Levels":
        """Levels of the same shape from other numbers."""
        parts = np.split(vector, np.cumsum([len(part) for part in (*self.sizes, *self.ratios)])[:-1])
        return Levels(tuple(parts[: len(self.sizes)]), tuple(parts[len(self.sizes) :]))


@dataclass(frozen=True)
class Objective:
    """What the search makes large: the weighted mean reward of boxes for the overlap (IoU) with their best anchor.

    One half is for IoU 0.5, under which no region is taken for an object; the other rises from there to 0.75, a little
    over the 0.7 at which the RPN learns from an anchor. A tenth of the IoU itself shows the way where nothing comes
    near. A box that falls under its floor pays a stake: objects that were within reach are not given up.

    Attributes:
        sides: (n, 2) of the boxes.
        offsets: for each level, (n, 2) from the boxes' centres to the grid.
        weights: (n,) sum to 1.
        floor: (n,) IoU that a box should keep.
        stakes: (n,) what a box pays for falling under its floor by 1.
    """

    sides: Array
    offsets: tuple[Array, ...]
    weights: Array
    floor: Array
    stakes: Array

    @classmethod
    def of(cls, boxes: NDArray[np.float32], weights: Array, given: AnchorConfig, strides: Sequence[int]) -> "Objective":
        """The objective for boxes that should keep what the given anchors offer, up to IoU 0.5."""
        sides, centres = sides_and_centres(boxes)
        offsets = tuple(grid_offsets(centres, stride) for stride in strides)
        ious = [best_iou(sides, part, cell_sides(given, level)) for level, part in enumerate(offsets)]
        bins = size_bins(sides)
        counts = np.bincount(bins)
        # The few boxes of a rare size have as much at stake, all together, as the many of another.
        shares = 1 / (counts[bins] * np.count_nonzero(counts))
        return cls(sides, offsets, weights, np.max(ious, axis=0).clip(max=0.5), 3 * np.maximum(weights, shares))

    def level(self, levels: Levels, level: int) -> Array:
        """(n,) best IoU that one level offers."""
        return best_iou(self.sides, self.offsets[level], levels.sides(level))

    def value(self, ious: Sequence[Array]) -> float:
        """The mean reward, given what each level offers."""
        iou = np.max(ious, axis=0)
        reward = np.clip((iou - 0.4) / 0.12, 0, 1) + np.clip((iou - 0.5) / 0.25, 0, 1) + 0.1 * iou
        return float(self.weights @ reward - self.stakes @ (self.floor - iou).clip(min=0))

    def value_of(self, anchors: AnchorConfig) -> float:
        """The mean reward of anchors as the detector has them, rounded or not."""
        cells = (cell_sides(anchors, level) for level in range(len(self.offsets)))
        return self.value([best_iou(self.sides, part, cell) for part, cell in zip(self.offsets, cells, strict=True)])


def search(objective: Objective, given: Levels, strides: Sequence[int], rng: np.random.Generator) -> Levels:
    """Anchors of as many levels, sizes and ratios as those given, fitted to the boxes of the objective.

    The climb starts from the given anchors and from k-means, goes on from the better end, and shakes it a few times.
    """
    count = sum(len(given.sides(level)) for level in range(len(strides)))
    clustered = _factorise(_cluster(objective, count, rng), given)
    ends = [_climb(objective, start, strides, rng) for start in (given, clustered)]
    best, top = max(ends, key=lambda end: end[1])
    for _ in range(_SHAKES):
        vector = best.vector()
        shaken = best.like(vector + rng.normal(0, _SHAKE, len(vector)))
        found, value = _climb(objective, shaken, strides, rng, _STEPS[2:])
        if value > top:
            best, top = found, value
    return _rest_unused(objective, best, given, strides)


def legalise(levels: Levels, strides: Sequence[int]) -> Levels:
    """The nearest anchors that are in order, level after level, and within a sensible multiple of their stride."""
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
    best = legalise(start, strides)
    ious = [objective.level(best, level) for level in range(len(strides))]
    top = objective.value(ious)
    for step in steps:
        for _ in range(_ROUNDS):
            before = top
            for number in rng.permutation(len(best.vector())):
                for change in (step, -step):
                    vector = best.vector()
                    vector[number] += change
                    moved = legalise(best.like(vector), strides)
                    offered = [
                        iou if _same(moved, best, level) else objective.level(moved, level)
                        for level, iou in enumerate(ious)
                    ]
                    if (value := objective.value(offered)) > top:
                        best, ious, top = moved, offered, value
                        break
            if top == before:
                break
    return best, top


def _same(one: Levels, other: Levels, level: int) -> bool:
    return np.array_equal(one.sizes[level], other.sizes[level]) and np.array_equal(
        one.ratios[level], other.ratios[level]
    )


def _rest_unused(objective: Objective, best: Levels, given: Levels, strides: Sequence[int]) -> Levels:
    """The same anchors, but levels that hardly a box needs keep those they were given, as far as the order allows."""
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


def _cluster(objective: Objective, count: int, rng: np.random.Generator) -> Array:
    """(count, 2) sides that stand for the boxes: k-means with 1 - IoU of centred boxes as the distance."""
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


def _factorise(sides: Array, given: Levels) -> Levels:
    """Sizes and ratios of levels that come close to the sides: small ones on the first level, and so on."""
    size, ratio = np.log(sides).mean(axis=1), np.log(sides[:, 1] / sides[:, 0])
    order = np.argsort(size)
    new_sizes, new_ratios = [], []
    for sizes, ratios in zip(given.sizes, given.ratios, strict=True):
        mine, order = np.split(order, [len(sizes) * len(ratios)])
        new_sizes.append(np.array([part.mean() for part in np.array_split(np.sort(size[mine]), len(sizes))]))
        new_ratios.append(np.array([part.mean() for part in np.array_split(np.sort(ratio[mine]), len(ratios))]))
    return Levels(tuple(new_sizes), tuple(new_ratios))
