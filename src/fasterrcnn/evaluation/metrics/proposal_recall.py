"""How many objects the first stage reaches.

Axes: u objects that it does not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from fasterrcnn.evaluation.ground_truth import GroundTruth, Predictions
from fasterrcnn.evaluation.matching import IOU_THRESHOLDS, find_pairs, match_detections
from fasterrcnn.evaluation.metrics.average_precision import mean_defined


@dataclass(frozen=True)
class ProposalRecall:
    """Share of the objects that the region proposal network reaches: what it does not propose, no head can find."""

    images: int  # images that were measured: at most 500, spread over all
    limits: tuple[int, ...]  # numbers of proposals an image: 100, 300, 1,000
    ar: tuple[float | None, ...]  # recall with so many, mean over IoU .50 to .95
    recall50: tuple[float | None, ...]  # the same at IoU .50
    per_size: Mapping[str, float | None]  # AR of "small", "medium" and "large" objects with the last limit
    per_class: Mapping[str, float | None]  # AR of each class with the last limit
    unreached: Int64[np.ndarray, " u"]  # objects without a proposal of IoU .50 in all of them, as indices 0..g-1


LIMITS = (100, 300, 1000)
_SIDES = {"small": (0, 32), "medium": (32, 96), "large": (96, np.inf)}


def measure_proposals(
    ground_truth: GroundTruth, images: Sequence[int], proposals: Sequence[Float64[np.ndarray, "_ 4"]]
) -> ProposalRecall:
    """Recall of proposals, whatever the class of the objects; each proposal reaches one object (Hosang et al. 2016).

    Each of the images has its proposals, xyxy by falling score: as many as the largest of `LIMITS`, if there are.
    """
    counts = [len(boxes) for boxes in proposals]
    places = np.concatenate([np.arange(count) for count in counts]) if counts else np.zeros(0, np.int64)
    xyxy = np.concatenate(proposals) if counts else np.zeros((0, 4))
    owners = np.repeat(np.array(images, np.int64), counts)
    order = np.lexsort((owners, places))
    xyxy, owners, places = xyxy[order], owners[order], places[order]
    xywh = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)
    predictions = Predictions(owners, np.zeros(len(owners), np.int64), -places.astype(np.float64), xywh)
    pairs = find_pairs(ground_truth, predictions, IOU_THRESHOLDS[0])
    asked = ~ground_truth.crowd & np.isin(ground_truth.owners, images)
    hits = np.zeros((len(LIMITS), len(IOU_THRESHOLDS), len(ground_truth)))
    for row, limit in enumerate(LIMITS):
        allowed = pairs.take(places[pairs.detections] < limit)
        for column, threshold in enumerate(IOU_THRESHOLDS.tolist()):
            matched = match_detections(allowed, ground_truth.crowd, len(predictions), threshold)
            hits[row, column, matched[matched >= 0]] = 1
    sides, last = np.sqrt(ground_truth.areas), hits[-1].mean(axis=0)
    unreached = asked.copy()
    unreached[pairs.objects] = False
    return ProposalRecall(
        images=len(images),
        limits=LIMITS,
        ar=tuple(mean_defined(by_limit.mean(axis=0)[asked]) for by_limit in hits),
        recall50=tuple(mean_defined(by_limit[0][asked]) for by_limit in hits),
        per_size={n: mean_defined(last[asked & (sides >= low) & (sides < high)]) for n, (low, high) in _SIDES.items()},
        per_class={
            name: mean_defined(last[asked & (ground_truth.labels == k)]) for k, name in enumerate(ground_truth.classes)
        },
        unreached=unreached.nonzero()[0],
    )
