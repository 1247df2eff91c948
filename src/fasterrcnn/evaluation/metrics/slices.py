"""Average precision of parts: by size, by number of objects, by shape."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float64

from fasterrcnn.evaluation.ground_truth import GroundTruth, Predictions
from fasterrcnn.evaluation.matching import Pairs
from fasterrcnn.evaluation.metrics.ranking import Ranking, mean_over_classes, rank_matches

SIZES = (0.0, 16.0, 32.0, 64.0, 96.0, 192.0, np.inf)
"""Sides in pixels; 32 and 96 divide COCO's small, medium and large objects."""

ASPECTS = (0.0, 1 / 3, 2 / 3, 3 / 2, 3.0, np.inf)
"""Width / height."""

COUNT_BINS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, np.inf)
"""Objects in an image."""


@dataclass(frozen=True)
class Slice:
    """AP of a part of the objects or of the images.

    Attributes:
        name: for people: "32 to 96 px", "4 to 7 objects".
        low: lower bound, included: pixels (root of the area), objects in an image, or width / height.
        high: upper bound, not included; may be infinite.
        images: images with such objects.
        objects: how many objects.
        ap: None without objects.
        ap50: at IoU .50.
        recall: mean over IoU .50 to .95.
    """

    name: str
    low: float
    high: float
    images: int
    objects: int
    ap: float | None
    ap50: float | None
    recall: float | None


def slice_by_size(ground_truth: GroundTruth, predictions: Predictions, pairs: Pairs) -> tuple[Slice, ...]:
    """AP by the side of objects, the root of their area; like COCO's small, medium and large.

    Args:
        ground_truth: the objects.
        predictions: the detections.
        pairs: of one class each, `same_class`.
    """
    sides, found_sides = (
        np.sqrt(ground_truth.areas),
        np.sqrt((predictions.xywh[:, 2] * predictions.xywh[:, 3]).clip(min=0)),
    )
    return _by_object(
        ground_truth, predictions, pairs, (sides, found_sides), SIZES, "{} to {} px", ("under {} px", "{} px and more")
    )


def slice_by_aspect(ground_truth: GroundTruth, predictions: Predictions, pairs: Pairs) -> tuple[Slice, ...]:
    """AP by width / height of objects; see `slice_by_size`."""
    shapes = _aspects(ground_truth.xywh), _aspects(predictions.xywh)
    words = ("narrower than {}", "{} and wider")
    return _by_object(ground_truth, predictions, pairs, shapes, ASPECTS, "{} to {}", words)


def slice_by_count(ground_truth: GroundTruth, ranking: Ranking) -> tuple[Slice, ...]:
    """AP of the images with so many objects, crowds apart; images without any have no AP and no part."""
    counts = np.bincount(ground_truth.owners[~ground_truth.crowd], minlength=len(ground_truth.images))
    slices = []
    for low, high in pairwise(COUNT_BINS):
        chosen = (counts >= low) & (counts < high)
        first, last = f"{low:g}", f"{high - 1:g}"
        name = f"{first} to {last} objects" if first != last else f"{first} object"
        name = f"{first} objects and more" if high == np.inf else name
        if chosen.any():
            slices.append(_slice(name, (low, high), chosen, int(counts[chosen].sum()), ranking, chosen.astype(float)))
    return tuple(slices)


def _by_object(
    ground_truth: GroundTruth,
    predictions: Predictions,
    pairs: Pairs,
    values: tuple[Float64[np.ndarray, " g"], Float64[np.ndarray, " n"]],
    bounds: Sequence[float],
    between: str,
    outer: tuple[str, str],
) -> tuple[Slice, ...]:
    """Only the objects in a range are asked for, and mistakes outside of it do not count."""
    slices = []
    for low, high in pairwise(bounds):
        chosen, near = ((value >= low) & (value < high) for value in values)
        chosen &= ~ground_truth.crowd
        if not chosen.any():
            continue
        first, last = _short(low), _short(high)
        name = outer[0].format(last) if low == 0 else outer[1].format(first) if high == np.inf else None
        ranking = rank_matches(ground_truth, predictions, pairs, counted=chosen, in_range=near)
        images = np.bincount(ground_truth.owners[chosen], minlength=len(ground_truth.images)) > 0
        slices.append(
            _slice(name or between.format(first, last), (low, high), images, int(chosen.sum()), ranking, None)
        )
    return tuple(slices)


def _slice(
    name: str,
    bounds: tuple[float, float],
    images: Bool[np.ndarray, " i"],
    objects: int,
    ranking: Ranking,
    weights: Float64[np.ndarray, " i"] | None,
) -> Slice:
    ap = ranking.average_precision(weights)
    return Slice(
        name=name,
        low=float(bounds[0]),
        high=float(bounds[1]),
        images=int(images.sum()),
        objects=objects,
        ap=mean_over_classes(ap),
        ap50=mean_over_classes(ap[0]),
        recall=mean_over_classes(ranking.recall(weights)),
    )


def _aspects(xywh: Float64[np.ndarray, "m 4"]) -> Float64[np.ndarray, " m"]:
    width, height = xywh[:, 2], xywh[:, 3]
    ratios: Float64[np.ndarray, " m"] = np.divide(width, height, out=np.full(len(xywh), np.inf), where=height > 0)
    return ratios


def _short(value: float) -> str:
    return {1 / 3: "1:3", 2 / 3: "2:3", 3 / 2: "3:2", 3: "3:1"}.get(value, f"{value:g}")
