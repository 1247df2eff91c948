"""Average precision of parts: by size, by number of objects, by shape.

Axes: g objects, n detections, m either.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from fasterrcnn.evaluation.ground_truth import GroundTruth, Predictions
from fasterrcnn.evaluation.metrics.average_precision import evaluate_boxes, mean_defined

SIZES = {  # smallest sides in pixels; 32 and 96 divide COCO's small, medium and large objects
    "under 16 px": 0.0,
    "16 to 32 px": 16.0,
    "32 to 64 px": 32.0,
    "64 to 96 px": 64.0,
    "96 to 192 px": 96.0,
    "192 px and more": 192.0,
}

ASPECTS = {  # smallest width / height
    "narrower than 1:3": 0.0,
    "1:3 to 2:3": 1 / 3,
    "2:3 to 3:2": 2 / 3,
    "3:2 to 3:1": 3 / 2,
    "3:1 and wider": 3.0,
}

COUNT_BINS = {  # fewest objects in an image
    "1 object": 1.0,
    "2 to 3 objects": 2.0,
    "4 to 7 objects": 4.0,
    "8 to 15 objects": 8.0,
    "16 to 31 objects": 16.0,
    "32 to 63 objects": 32.0,
    "64 objects and more": 64.0,
}


@dataclass(frozen=True)
class Slice:
    """AP of a part of the objects or of the images."""

    name: str  # for people: "32 to 96 px", "4 to 7 objects"
    low: float  # lower bound, included: pixels (root of the area), objects in an image, or width / height
    high: float  # upper bound, not included; may be infinite
    images: int  # images with such objects
    objects: int  # how many objects
    ap: float | None  # None without objects
    ap50: float | None  # at IoU .50
    recall: float | None  # mean over IoU .50 to .95


def slice_by_size(ground_truth: GroundTruth, predictions: Predictions) -> tuple[Slice, ...]:
    """AP by the side of objects, the root of their area; like COCO's small, medium and large."""
    areas = predictions.xywh[:, 2] * predictions.xywh[:, 3]
    return _slices(ground_truth, predictions, (np.sqrt(ground_truth.areas), np.sqrt(areas.clip(min=0))), SIZES)


def slice_by_aspect(ground_truth: GroundTruth, predictions: Predictions) -> tuple[Slice, ...]:
    """AP by width / height of objects; see `slice_by_size`."""
    return _slices(ground_truth, predictions, (_aspects(ground_truth.xywh), _aspects(predictions.xywh)), ASPECTS)


def slice_by_count(ground_truth: GroundTruth, predictions: Predictions) -> tuple[Slice, ...]:
    """AP of the images with so many objects, crowds apart; images without any have no AP and no part."""
    counts = ground_truth.objects_per_image.astype(np.float64)
    return _slices(ground_truth, predictions, (counts[ground_truth.owners], counts[predictions.owners]), COUNT_BINS)


def _slices(
    ground_truth: GroundTruth,
    predictions: Predictions,
    values: tuple[Float64[np.ndarray, " g"], Float64[np.ndarray, " n"]],
    lows: Mapping[str, float],
) -> tuple[Slice, ...]:
    """Only the objects in a range are asked for, and mistakes outside of it do not count."""
    edges = [*lows.values(), np.inf]
    of_objects, of_detections = (np.searchsorted(edges, value, side="right") - 1 for value in values)
    precision, recall, _ = evaluate_boxes(
        ground_truth, predictions, [len(predictions)], (of_objects, of_detections), len(lows)
    )
    slices = []
    for part, (name, low, high) in enumerate(zip(lows, edges, edges[1:], strict=False)):
        chosen = (of_objects == part) & ~ground_truth.crowd
        if chosen.any():
            numbers = (precision[:, :, :, part], precision[0, :, :, part], recall[:, :, part])
            images = len(np.unique(ground_truth.owners[chosen]))
            slices.append(Slice(name, low, high, images, int(chosen.sum()), *map(mean_defined, numbers)))
    return tuple(slices)


def _aspects(xywh: Float64[np.ndarray, "m 4"]) -> Float64[np.ndarray, " m"]:
    width, height = xywh[:, 2], xywh[:, 3]
    ratios: Float64[np.ndarray, " m"] = np.divide(width, height, out=np.full(len(xywh), np.inf), where=height > 0)
    return ratios
