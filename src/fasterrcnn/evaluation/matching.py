"""Overlaps of detections and objects, and who is matched with whom, as COCO's evaluation does it (Lin et al. 2014).

Axes: g objects, n detections, m pairs of the two that overlap, t IoU thresholds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from fasterrcnn.evaluation.ground_truth import GroundTruth, Predictions

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
LEAST_OVERLAP = 0.1  # detections that overlap no object by more are background (Bolya et al. 2020)

_CHUNK = 2_000_000


@dataclass(frozen=True)
class Pairs:
    """Detections and objects of the same image that overlap."""

    detections: Int64[np.ndarray, " m"]  # index of the detection of each pair, rising
    objects: Int64[np.ndarray, " m"]  # index of the object
    overlaps: Float64[np.ndarray, " m"]  # IoU; for a crowd the share of the detection that lies in it

    def take(self, chosen: Bool[np.ndarray, " m"] | Int64[np.ndarray, " _"]) -> "Pairs":
        """Some of the pairs: those that are marked, or those of these numbers in their order."""
        return Pairs(self.detections[chosen], self.objects[chosen], self.overlaps[chosen])

    def first(self) -> "Pairs":
        """The first pair of each detection."""
        new = np.ones(len(self.detections), np.bool_)
        new[1:] = self.detections[1:] != self.detections[:-1]
        return self.take(new)


def find_pairs(ground_truth: GroundTruth, predictions: Predictions, least: float = LEAST_OVERLAP) -> Pairs:
    """All pairs that overlap by ``least`` or more, those of a detection by falling overlap.

    Of equal overlaps the later object comes first: it is the one that COCO's tools take.
    """
    nothing = np.zeros(0, np.int64)
    parts = [Pairs(nothing, nothing, np.zeros(0))]
    for detections, objects in same_image(predictions.owners, ground_truth.owners, len(ground_truth.images)):
        overlaps = overlap(predictions.xywh[detections], ground_truth.xywh[objects], ground_truth.crowd[objects])
        near = overlaps >= least
        parts.append(Pairs(detections[near], objects[near], overlaps[near]))
    detections, objects, overlaps = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("detections", "objects", "overlaps")
    )
    order = np.lexsort((-objects, -overlaps, detections))
    return Pairs(detections, objects, overlaps).take(order)


def overlap(
    a: Float64[np.ndarray, "m 4"], b: Float64[np.ndarray, "m 4"], crowd: Bool[np.ndarray, " m"]
) -> Float64[np.ndarray, " m"]:
    """IoU of boxes (left, top, width, height) one by one; the share of ``a`` inside ``b`` where that is a crowd."""
    width = np.minimum(a[:, 0] + a[:, 2], b[:, 0] + b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    height = np.minimum(a[:, 1] + a[:, 3], b[:, 1] + b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    shared = width.clip(min=0) * height.clip(min=0)
    area = a[:, 2] * a[:, 3]
    union = np.where(crowd, area, area + b[:, 2] * b[:, 3] - shared)
    share: Float64[np.ndarray, " m"] = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
    return share


def match_detections(
    pairs: Pairs, crowd: Bool[np.ndarray, " g"], count: int, threshold: float
) -> Int64[np.ndarray, " n"]:
    """The object of each detection, or -1.

    By falling score, each detection takes the free object that it overlaps most; a crowd only where no other is free. A
    crowd is never taken up. The pairs are those that may be matched: those of one class, for COCO.
    """
    near = pairs.take(pairs.overlaps >= min(threshold, 1 - 1e-10))
    if crowd.any():
        near = near.take(np.lexsort((crowd[near.objects], near.detections)))  # stable: overlaps keep falling
    matched = [-1] * count
    taken = bytearray(len(crowd))
    for detection, item, is_crowd in zip(
        near.detections.tolist(), near.objects.tolist(), crowd[near.objects].tolist(), strict=True
    ):
        if matched[detection] < 0 and not taken[item]:
            matched[detection] = item
            taken[item] = not is_crowd
    return np.array(matched, np.int64)


def match_image(
    detections: Float[np.ndarray, "n 4"],
    detection_labels: Int64[np.ndarray, " n"],
    boxes: Float[np.ndarray, "g 4"],
    labels: Int64[np.ndarray, " g"],
    crowd: Bool[np.ndarray, " g"],
    *,
    min_iou: float = 0.5,
) -> Int64[np.ndarray, " n"]:
    """As `match_detections`, within each class, for the objects of one image and its detections by falling score.

    Boxes are xyxy. Objects that are crowds or difficult match any number of detections; the overlap is the share of the
    detection inside.
    """
    rows, objects = (detection_labels[:, None] == labels).nonzero()
    xywh, object_xywh = (
        np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1, dtype=np.float64)
        for xyxy in (detections, boxes)
    )
    overlaps = overlap(xywh[rows], object_xywh[objects], crowd[objects])
    pairs = Pairs(rows, objects, overlaps).take(np.lexsort((-objects, -overlaps, rows)))
    return match_detections(pairs, crowd, len(detections), min_iou)


def same_class(pairs: Pairs, ground_truth: GroundTruth, predictions: Predictions) -> Pairs:
    """The pairs whose detection has the class of its object."""
    return pairs.take(predictions.labels[pairs.detections] == ground_truth.labels[pairs.objects])


def same_image(
    detection_owners: Int64[np.ndarray, " n"], object_owners: Int64[np.ndarray, " g"], images: int
) -> Iterator[tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]]:
    """Every detection with every object of its image, some millions at a time."""
    by_image = np.argsort(detection_owners, kind="stable")
    objects = np.argsort(object_owners, kind="stable")
    starts = np.searchsorted(object_owners[objects], np.arange(images + 1))
    counts = np.diff(starts)[detection_owners[by_image]]
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.searchsorted(ends, np.arange(_CHUNK, total, _CHUNK), side="right")
    for low, high in pairwise([0, *np.unique(cuts).tolist(), len(by_image)]):
        chosen, repeats = by_image[low:high], counts[low:high]
        before = np.repeat(np.cumsum(repeats) - repeats, repeats)
        within = np.arange(len(before)) - before
        yield np.repeat(chosen, repeats), objects[np.repeat(starts[detection_owners[chosen]], repeats) + within]
