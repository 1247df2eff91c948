"""Which class is taken for which.

Axes: k classes.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from fasterrcnn.evaluation.ground_truth import GroundTruth, Predictions
from fasterrcnn.evaluation.matching import Pairs, match_detections


@dataclass(frozen=True)
class Confusion:
    """Which class was taken for which; detections and objects are paired by falling score, whatever their classes.

    Attributes:
        matrix: row: class of the object; column: class of the detection; the last of each is background. The sum is the
            number of objects plus that of the detections on background.
        score: detections below it are left out.
        iou: overlap that a pair needs.
    """

    matrix: Int64[np.ndarray, "k_and_background k_and_background"]
    score: float
    iou: float


def count_confusions(
    ground_truth: GroundTruth, predictions: Predictions, pairs: Pairs, *, score: float = 0.0, threshold: float = 0.5
) -> Confusion:
    """Pair detections and objects whatever their classes, and count.

    By falling score, each detection takes the free object that it overlaps most, of equals one of its own class.
    Detections that are left and lie in a crowd of their class are not counted.

    Args:
        ground_truth: the objects.
        predictions: the detections.
        pairs: all that overlap, `find_pairs`.
        score: detections below it are left out.
        threshold: IoU that a pair needs.
    """
    background = len(ground_truth.classes)
    kept = predictions.scores >= score
    own = predictions.labels[pairs.detections] == ground_truth.labels[pairs.objects]
    possible = kept[pairs.detections] & (own | ~ground_truth.crowd[pairs.objects])
    order = np.lexsort((~own, -pairs.overlaps, pairs.detections))
    order = order[possible[order]]
    matched = match_detections(
        Pairs(pairs.detections[order], pairs.objects[order], pairs.overlaps[order]),
        ground_truth,
        len(predictions),
        threshold,
    )
    in_crowd = (
        (matched >= 0) & ground_truth.crowd[matched] if len(ground_truth) else np.zeros(len(predictions), np.bool_)
    )
    counted = kept & ~in_crowd
    rows = np.append(ground_truth.labels, background)[matched[counted]]  # -1 is the last
    missed = ~ground_truth.crowd
    missed[matched[counted & (matched >= 0)]] = False
    matrix = np.zeros((background + 1, background + 1), np.int64)
    np.add.at(matrix, (rows, predictions.labels[counted]), 1)
    matrix[:background, background] = np.bincount(ground_truth.labels[missed], minlength=background)
    return Confusion(matrix, score, threshold)
