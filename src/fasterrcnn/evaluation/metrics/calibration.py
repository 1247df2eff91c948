"""Whether scores are probabilities.

Axes: b bins.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
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
    number, mean_scores, precisions = _in_bins(scores, right, bins)
    gaps = np.abs(mean_scores - precisions)[number > 0]
    return Calibration(
        ece=_expected(number, mean_scores, precisions),
        mce=float(gaps.max()) if len(gaps) else None,
        per_class={
            name: _expected(*_in_bins(scores[labels == k], right[labels == k], bins))
            for k, name in enumerate(ground_truth.classes)
        },
        edges=np.linspace(0, 1, bins + 1),
        counts=number,
        scores=mean_scores,
        precisions=precisions,
    )


def _in_bins(
    scores: Float64[np.ndarray, " n"], right: Bool[np.ndarray, " n"], bins: int
) -> tuple[Int64[np.ndarray, " b"], Float64[np.ndarray, " b"], Float64[np.ndarray, " b"]]:
    """Number, mean score and share of right ones of each bin; bins include their lower edge."""
    places = np.floor(scores * bins).astype(np.int64).clip(0, bins - 1)
    number = np.bincount(places, minlength=bins)
    sums = (np.bincount(places, values, minlength=bins) for values in (scores, right))
    empty = np.full(bins, np.nan)
    mean_scores, precisions = (np.divide(s, number, out=empty.copy(), where=number > 0) for s in sums)
    return number, mean_scores, precisions


def _expected(
    number: Int64[np.ndarray, " b"], scores: Float64[np.ndarray, " b"], precisions: Float64[np.ndarray, " b"]
) -> float | None:
    if not number.sum():
        return None
    return float(np.nansum(np.abs(scores - precisions) * number) / number.sum())
