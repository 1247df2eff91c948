"""Whether scores are probabilities.

Axes: b bins.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64


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
