"""Average precision of any drawing of the images, from matches that were made once.

Images can count several times or not at all, so bootstrap needs no new matching.
Axes: i images, g objects, n detections, k classes, t IoU thresholds, h right detections over all thresholds.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float64, Int64

from fasterrcnn.evaluation.ground_truth import GroundTruth, Predictions
from fasterrcnn.evaluation.matching import IOU_THRESHOLDS, Pairs, match_detections

RECALL_LEVELS = np.linspace(0, 1, 101)
"""Recalls at which COCO samples the precision."""

_Count = Int64[np.ndarray, " h"]


@dataclass(frozen=True)
class Hits:
    """Right detections at all thresholds, or those that are ignored: by threshold, class and falling score.

    Attributes:
        places: where each stands among all detections, sorted by class and falling score.
        bounds: where the entries of each threshold and class begin; one more at the end.
    """

    places: _Count
    bounds: Int64[np.ndarray, " segments_and_end"]


@dataclass(frozen=True)
class Ranking:
    """Everything that average precision follows from.

    Attributes:
        owners: image of each detection, sorted by class and falling score.
        starts: where each class begins among them; one more at the end.
        right: matches.
        ignored: detections that count neither way.
        ignored_before: how many of `ignored` stand before each of `right` at its threshold.
        object_owners: image of each object that is asked for.
        object_labels: its class.
    """

    owners: Int64[np.ndarray, " n"]
    starts: Int64[np.ndarray, " k_and_end"]
    right: Hits
    ignored: Hits
    ignored_before: _Count
    object_owners: Int64[np.ndarray, " g"]
    object_labels: Int64[np.ndarray, " g"]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.starts) - 1

    def objects(self, weights: Float64[np.ndarray, " i"] | None = None) -> Float64[np.ndarray, " k"]:
        """Number of objects of each class, where image j counts ``weights[j]`` times."""
        counted = None if weights is None else weights[self.object_owners]
        return np.bincount(self.object_labels, counted, self.classes).astype(np.float64)

    def points(
        self, weights: Float64[np.ndarray, " i"] | None = None
    ) -> tuple[Float64[np.ndarray, " h"], Float64[np.ndarray, " h"]]:
        """Number of right detections, and of all that count, down to each right one of its threshold and class."""
        ones = np.ones(len(self.owners)) if weights is None else weights[self.owners]
        total = _before(ones)
        right = _before(ones[self.right.places])
        ignored = _before(ones[self.ignored.places])
        segments = np.repeat(np.arange(len(self.right.bounds) - 1), np.diff(self.right.bounds))
        hits = right[1:] - right[self.right.bounds[segments]]
        seen = total[self.right.places + 1] - total[self.starts[segments % self.classes]]
        skipped = ignored[self.ignored_before] - ignored[self.ignored.bounds[segments]]
        return hits, seen - skipped

    def precision(self, weights: Float64[np.ndarray, " i"] | None = None) -> Float64[np.ndarray, "t k 101"]:
        """Highest precision at each of COCO's 101 recalls or beyond; NaN for a class without objects."""
        hits, seen = self.points(weights)
        precision = hits / np.maximum(seen, 1)
        objects = self.objects(weights)
        bounds = self.right.bounds.tolist()
        result = np.zeros((len(bounds) - 1, len(RECALL_LEVELS)))
        for segment, (low, high) in enumerate(pairwise(bounds)):
            if low == high or not objects[segment % self.classes]:
                continue
            envelope = np.maximum.accumulate(precision[low:high][::-1])[::-1]
            at = np.searchsorted(hits[low:high] / objects[segment % self.classes], RECALL_LEVELS)
            reached = at < high - low
            result[segment, reached] = envelope[at[reached]]
        table: Float64[np.ndarray, "t k 101"] = result.reshape(-1, self.classes, len(RECALL_LEVELS))
        table[:, objects == 0] = np.nan
        return table

    def average_precision(self, weights: Float64[np.ndarray, " i"] | None = None) -> Float64[np.ndarray, "t k"]:
        """Mean of the precision over the 101 recalls; NaN for a class without objects."""
        ap: Float64[np.ndarray, "t k"] = self.precision(weights).mean(axis=2)
        return ap


def rank_matches(ground_truth: GroundTruth, predictions: Predictions, pairs: Pairs) -> Ranking:
    """Match at every threshold.

    Args:
        ground_truth: the objects.
        predictions: the detections.
        pairs: of one class each, `same_class`.
    """
    classes = len(ground_truth.classes)
    order = np.argsort(predictions.labels, kind="stable")
    right, ignored = [], []
    for threshold in IOU_THRESHOLDS:
        matched = match_detections(pairs, ground_truth, len(predictions), threshold)[order]
        hit = matched >= 0
        in_crowd = hit & np.append(ground_truth.crowd, False)[matched]
        right.append(hit & ~in_crowd)
        ignored.append(in_crowd)
    labels = predictions.labels[order]
    rights, ignoreds = _hits(right, labels, classes), _hits(ignored, labels, classes)
    return Ranking(
        owners=predictions.owners[order],
        starts=np.searchsorted(labels, np.arange(classes + 1)),
        right=rights,
        ignored=ignoreds,
        ignored_before=np.searchsorted(_keys(ignoreds, len(predictions)), _keys(rights, len(predictions))),
        object_owners=ground_truth.owners[~ground_truth.crowd],
        object_labels=ground_truth.labels[~ground_truth.crowd],
    )


def mean_over_classes(values: Float64[np.ndarray, "*rest k"]) -> float | None:
    """Mean over everything that is defined, as COCO takes it; None where nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None


def _hits(flags: list[Bool[np.ndarray, " n"]], labels: Int64[np.ndarray, " n"], classes: int) -> Hits:
    thresholds, places = np.array(flags, np.bool_).reshape(len(flags), len(labels)).nonzero()
    segments = thresholds * classes + labels[places]
    return Hits(places, np.searchsorted(segments, np.arange(len(flags) * classes + 1)))


def _keys(hits: Hits, count: int) -> _Count:
    """A number for each entry that rises with threshold, class and place."""
    segments = np.repeat(np.arange(len(hits.bounds) - 1), np.diff(hits.bounds))
    keys: _Count = segments * (count + 1) + hits.places
    return keys


def _before(weights: Float64[np.ndarray, " m"]) -> Float64[np.ndarray, " m_and_end"]:
    """Sum of the weights before each entry, and of all at the end."""
    return np.concatenate([[0.0], np.cumsum(weights)])
