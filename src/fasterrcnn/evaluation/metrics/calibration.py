"""Whether scores are probabilities.

Axes: b bins.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from hotcoco import metrics
from jaxtyping import Bool, Float64, Int64

from fasterrcnn.evaluation.ground_truth import GroundTruth, Predictions
from fasterrcnn.evaluation.metrics.tide import IGNORED, RIGHT, ErrorKinds


@dataclass(frozen=True)
class Calibration:
    """Does a score of .8 mean right in 8 of 10 cases (Guo et al. 2017)? At IoU .50, without what lies in crowds.

    Attributes:
        ece: expected calibration error: mean gap between score and precision, weighted by detections; None without any.
        mce: the largest gap of a bin.
        per_class: ECE of each class.
        edges: of the bins, (b + 1).
        counts: detections of each bin.
        scores: mean score of each bin; NaN where it is empty.
        precisions: share that is right; NaN where it is empty.
    """

    ece: float | None
    mce: float | None
    per_class: Mapping[str, float | None]
    edges: Float64[np.ndarray, " edges"]
    counts: Int64[np.ndarray, " b"]
    scores: Float64[np.ndarray, " b"]
    precisions: Float64[np.ndarray, " b"]


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
