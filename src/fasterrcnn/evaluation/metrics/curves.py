"""Precision against recall, both against the score threshold, and whether scores are probabilities.

Axes: k classes, t IoU thresholds (.50, .55 ... .95), r score levels, b bins.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from hotcoco import metrics
from jaxtyping import Bool, Float64, Int64

from fasterrcnn.evaluation.ground_truth import GroundTruth, Predictions
from fasterrcnn.evaluation.metrics.average_precision import Ranking
from fasterrcnn.evaluation.metrics.error_kinds import IGNORED, RIGHT, ErrorKinds

SCORE_LEVELS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class OperatingPoint:
    """What a detector does when everything under a score is left out, at IoU .50."""

    score: float  # the threshold
    precision: float  # share of the detections that are right
    recall: float  # share of the objects that are found
    f1: float  # harmonic mean of the two


@dataclass(frozen=True)
class Curves:
    """Precision against recall, and both against the score threshold."""

    # Of each IoU threshold and class at the recalls 0, .01 ... 1; NaN for a class without objects.
    precision: Float64[np.ndarray, "t k 101"]
    score_levels: Float64[np.ndarray, " r"]  # thresholds 0, .01 ... 1.
    # Rows precision, recall, F1 of each class at each score threshold, IoU .50. NaN: precision where nothing is left,
    # the others for a class without objects.
    at: Float64[np.ndarray, "k 3 r"]
    overall_at: Float64[np.ndarray, "3 r"]  # the same of all classes together
    # Highest F1 of each class by name; None for a class without objects or detections
    best: Mapping[str, OperatingPoint | None]
    best_overall: OperatingPoint | None  # one threshold for all classes together


def measure_curves(
    ground_truth: GroundTruth, predictions: Predictions, error_kinds: ErrorKinds, ranking: Ranking
) -> Curves:
    """All curves; the error kinds are those at IoU .50."""
    counts = error_kinds.kinds != IGNORED
    right, labels, scores = (error_kinds.kinds == RIGHT)[counts], predictions.labels[counts], predictions.scores[counts]
    objects = ground_truth.objects_per_class.tolist()
    tables, best = [], {}
    for k, name in enumerate(ground_truth.classes):
        of_class = labels == k
        tables.append(_against_score(scores[of_class], right[of_class], objects[k]))
        best[name] = best_point(scores[of_class], right[of_class], objects[k])
    return Curves(
        precision=ranking.precision(),
        score_levels=SCORE_LEVELS,
        at=np.array(tables).reshape(len(ground_truth.classes), 3, len(SCORE_LEVELS)),
        overall_at=_against_score(scores, right, sum(objects)),
        best=best,
        best_overall=best_point(scores, right, sum(objects)),
    )


def best_point(scores: Float64[np.ndarray, " n"], right: Bool[np.ndarray, " n"], objects: int) -> OperatingPoint | None:
    """The threshold of the highest F1, the higher one of equals; None without objects or detections. Scores fall."""
    if not objects or not len(scores):
        return None
    hits = np.cumsum(right)
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + objects)
    f1[:-1][scores[1:] == scores[:-1]] = -1  # a threshold cannot part equal scores
    at = int(f1.argmax())
    return OperatingPoint(float(scores[at]), float(hits[at] / (at + 1)), float(hits[at] / objects), float(f1[at]))


def _against_score(
    scores: Float64[np.ndarray, " n"], right: Bool[np.ndarray, " n"], objects: int
) -> Float64[np.ndarray, "3 r"]:
    """Precision, recall and F1 of the detections that reach each of the score levels."""
    kept: Int64[np.ndarray, " r"] = len(scores) - np.searchsorted(scores[::-1], SCORE_LEVELS)
    hits = np.append(0, np.cumsum(right))[kept].astype(np.float64)
    undefined = np.full(len(kept), np.nan)
    precision = np.divide(hits, kept, out=undefined.copy(), where=kept > 0)
    if not objects:
        return np.stack([precision, undefined, undefined])
    return np.stack([precision, hits / objects, 2 * hits / (kept + objects)])


@dataclass(frozen=True)
class Calibration:
    """Does a score of .8 mean right in 8 of 10 cases (Guo et al. 2017)? At IoU .50, without what lies in crowds."""

    # Expected calibration error: mean gap between score and precision, weighted by detections; None without any
    ece: float | None
    mce: float | None  # the largest gap of a bin
    per_class: Mapping[str, float | None]  # ECE of each class
    edges: Float64[np.ndarray, " edges"]  # of the bins, (b + 1)
    counts: Int64[np.ndarray, " b"]  # detections of each bin
    scores: Float64[np.ndarray, " b"]  # mean score of each bin; NaN where it is empty
    precisions: Float64[np.ndarray, " b"]  # share that is right; NaN where it is empty


def measure_calibration(
    ground_truth: GroundTruth, predictions: Predictions, error_kinds: ErrorKinds, bins: int = 10
) -> Calibration:
    """Expected calibration error in bins of equal width; scores outside 0..1 count in the outer bins."""
    counts = error_kinds.kinds != IGNORED
    scores, right, labels = predictions.scores[counts], (error_kinds.kinds == RIGHT)[counts], predictions.labels[counts]
    ece, mce = _errors(scores, right, bins)
    curve = metrics.calibration_curve(scores, right, bins)
    number, mean_scores, precisions = (
        np.array([row[key] for row in curve]) for key in ("count", "avg_confidence", "avg_accuracy")
    )
    return Calibration(
        ece=ece,
        mce=mce,
        per_class={
            name: _errors(scores[labels == k], right[labels == k], bins)[0]
            for k, name in enumerate(ground_truth.classes)
        },
        edges=np.linspace(0, 1, bins + 1),
        counts=number,
        scores=np.where(number, mean_scores, np.nan),
        precisions=np.where(number, precisions, np.nan),
    )


def _errors(
    scores: Float64[np.ndarray, " n"], right: Bool[np.ndarray, " n"], bins: int
) -> tuple[float, float] | tuple[None, None]:
    """Expected and largest calibration error; None without detections, where hotcoco gives 0."""
    return metrics.calibration_error(scores, right, bins) if len(scores) else (None, None)
