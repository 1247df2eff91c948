"""Pascal VOC's average precision (Everingham et al. 2010)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool

from fasterrcnn.evaluation.ground_truth import GroundTruth, Predictions
from fasterrcnn.evaluation.matching import find_pairs, same_class
from fasterrcnn.evaluation.metrics.ranking import mean_over_classes


@dataclass(frozen=True)
class PascalNumbers:
    """Average precision as Pascal VOC has it, at IoU .50.

    Attributes:
        ap11: mean over classes of the mean precision at recalls 0, .1 ... 1 (VOC 2007).
        ap: mean over classes of the area under the curve (since VOC 2010).
        per_class: both of each class: {"ap11", "ap"}.
        inclusive: corners count as pixels, so that width = x2 - x1 + 1, as in VOC's own program.
    """

    ap11: float | None
    ap: float | None
    per_class: Mapping[str, Mapping[str, float | None]]
    inclusive: bool


def pascal_numbers(
    ground_truth: GroundTruth, predictions: Predictions, *, inclusive: bool = False, threshold: float = 0.5
) -> PascalNumbers:
    """AP of VOC's development kit: 11 points (2007) and area under the curve (since 2010).

    Each detection, by falling score, is classified by the object of its class that it overlaps most: right when that is
    free, a duplicate when it is taken, nothing at all when it is difficult. (COCO would try another free one.)

    Args:
        ground_truth: the objects; crowds are VOC's difficult ones.
        predictions: the detections.
        inclusive: corners count as pixels: width = x2 - x1 + 1.
        threshold: IoU that a match needs.
    """
    if inclusive:
        pixel = np.array([0.0, 0.0, 1.0, 1.0])
        ground_truth, predictions = (
            replace(ground_truth, xywh=ground_truth.xywh + pixel),
            replace(predictions, xywh=predictions.xywh + pixel),
        )
    flat = replace(
        ground_truth, crowd=np.zeros(len(ground_truth), np.bool_)
    )  # VOC measures IoU with difficult objects too
    nearest = same_class(find_pairs(flat, predictions), flat, predictions).first()
    nearest = nearest.take(nearest.overlaps >= threshold)
    right, kept = np.zeros(len(predictions), np.bool_), np.ones(len(predictions), np.bool_)
    kept[nearest.detections[ground_truth.crowd[nearest.objects]]] = False
    asked = ~ground_truth.crowd[nearest.objects]
    _, first = np.unique(nearest.objects[asked], return_index=True)
    right[nearest.detections[asked][first]] = True
    objects = np.bincount(ground_truth.labels[~ground_truth.crowd], minlength=len(ground_truth.classes))
    per_class = {}
    for k, name in enumerate(ground_truth.classes):
        of_class = kept & (predictions.labels == k)
        per_class[name] = dict(zip(("ap11", "ap"), _average_precisions(right[of_class], int(objects[k])), strict=True))
    ap11, ap = (_mean([row[which] for row in per_class.values()]) for which in ("ap11", "ap"))
    return PascalNumbers(ap11, ap, per_class, inclusive)


def _average_precisions(right: Bool[np.ndarray, " n"], objects: int) -> tuple[float | None, float | None]:
    """Of one class, 11 points and area, from right or wrong by falling score."""
    if not objects:
        return None, None
    hits = np.cumsum(right)
    recall, precision = hits / objects, hits / np.arange(1, len(hits) + 1)
    eleven = [precision[recall >= level].max(initial=0.0) for level in np.linspace(0, 1, 11)]
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.mean(eleven)), float((envelope * np.diff(recall, prepend=0.0)).sum())


def _mean(values: list[float | None]) -> float | None:
    return mean_over_classes(np.array([np.nan if value is None else value for value in values], np.float64))
