"""Precision against recall, and both against the score threshold.

Axes: k classes, t IoU thresholds (.50, .55 ... .95), r score levels.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64


@dataclass(frozen=True)
class OperatingPoint:
    """What a detector does when everything under a score is left out, at IoU .50.

    Attributes:
        score: the threshold.
        precision: share of the detections that are right.
        recall: share of the objects that are found.
        f1: harmonic mean of the two.
    """

    score: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Curves:
    """Precision against recall, and both against the score threshold.

    Attributes:
        precision: of each IoU threshold and class at the recalls 0, .01 ... 1; NaN for a class without objects.
        score_levels: thresholds 0, .01 ... 1.
        precision_at: of each class at each score threshold, IoU .50; NaN where nothing is left.
        recall_at: the same; NaN for a class without objects.
        f1_at: the same.
        overall_at: rows precision, recall, F1 of all classes together at each score threshold.
        best: highest F1 of each class by name; None for a class without objects or detections.
        best_overall: one threshold for all classes together.
    """

    precision: Float64[np.ndarray, "t k 101"]
    score_levels: Float64[np.ndarray, " r"]
    precision_at: Float64[np.ndarray, "k r"]
    recall_at: Float64[np.ndarray, "k r"]
    f1_at: Float64[np.ndarray, "k r"]
    overall_at: Float64[np.ndarray, "3 r"]
    best: Mapping[str, OperatingPoint | None]
    best_overall: OperatingPoint | None
