"""What became of every detection and every object: right, or which kind of error (Bolya et al. 2020); confusions.

Axes: g objects, n detections, k classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from hotcoco import metrics
from jaxtyping import Bool, Float64, Int8, Int64

from fasterrcnn.evaluation.ground_truth import GroundTruth, Predictions
from fasterrcnn.evaluation.matching import Pairs, match_detections, overlap, same_class
from fasterrcnn.evaluation.metrics.average_precision import mean_defined

RIGHT, IGNORED, CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND, MISSED = range(8)
ERROR_KINDS = ("right", "ignored", "classification", "localisation", "both", "duplicate", "background", "missed")
"""What a detection or an object can be; ``ERROR_KINDS[CLASSIFICATION]`` is its name."""

ERRORS = ERROR_KINDS[CLASSIFICATION:]  # the six errors of TIDE (Bolya et al. 2020)


@dataclass(frozen=True)
class ErrorKinds:
    """What became of every detection and every object at IoU .50.

    A detection is right when COCO's evaluation matches it with an object of its class. Any other is an error of one
    kind: classification (overlaps an object of another class by .50), localisation (overlaps one of its class by .10 to
    .50), both (one of another class by .10 to .50), duplicate (of an object that a better detection has), background.
    """

    kinds: Int8[np.ndarray, " n"]  # of each detection: RIGHT, IGNORED (in a crowd) or CLASSIFICATION to BACKGROUND
    # The object that a detection was matched with, or that its error is about, 0..g-1; -1 for background
    objects: Int64[np.ndarray, " n"]
    # IoU with it (in a crowd: the share of the detection that lies in it); 0 for background
    overlaps: Float64[np.ndarray, " n"]
    # Of each object: RIGHT (found), IGNORED (crowd), MISSED, or CLASSIFICATION or LOCALISATION where a detection of
    # that error would have found it (TIDE does not count it as missed)
    object_kinds: Int8[np.ndarray, " g"]
    # The detection that found an object, or whose error would have; -1 for missed ones and crowds
    finders: Int64[np.ndarray, " g"]


def classify_errors(
    ground_truth: GroundTruth, predictions: Predictions, pairs: Pairs, threshold: float = 0.5
) -> ErrorKinds:
    """Right, or which error, of every detection and object.

    Kinds are assigned in the order of TIDE: localisation, classification, duplicate, both, background. Detections
    that lie in a crowd of their class are ignored; other errors refer to objects that are no crowds. The pairs are all
    that overlap by .10 or more, `find_pairs`; an object counts as found from an IoU of the threshold on.
    """
    matched = match_detections(
        same_class(pairs, ground_truth, predictions), ground_truth.crowd, len(predictions), threshold
    )
    kinds = np.full(len(predictions), BACKGROUND, np.int8)
    objects, overlaps = np.full(len(predictions), -1), np.zeros(len(predictions))
    real = pairs.take(~ground_truth.crowd[pairs.objects])
    own = predictions.labels[real.detections] == ground_truth.labels[real.objects]
    # The later ones come first in TIDE, so they overwrite.
    for near, low, high, kind in (
        (real.take(~own).first(), 0.0, threshold, BOTH),
        (real.take(own).first(), threshold, np.inf, DUPLICATE),
        (real.take(~own).first(), threshold, np.inf, CLASSIFICATION),
        (real.take(own).first(), 0.0, threshold, LOCALISATION),
    ):
        between = near.take((near.overlaps >= low) & (near.overlaps < high))
        kinds[between.detections] = kind
        objects[between.detections], overlaps[between.detections] = between.objects, between.overlaps
    hit = matched >= 0
    objects[hit] = matched[hit]
    kinds[hit] = np.where(ground_truth.crowd[matched[hit]], IGNORED, RIGHT)
    overlaps[hit] = overlap(predictions.xywh[hit], ground_truth.xywh[objects[hit]], ground_truth.crowd[objects[hit]])
    object_kinds, finders = _objects(ground_truth, kinds, objects)
    return ErrorKinds(kinds, objects, overlaps, object_kinds, finders)


def _objects(
    ground_truth: GroundTruth, kinds: Int8[np.ndarray, " n"], objects: Int64[np.ndarray, " n"]
) -> tuple[Int8[np.ndarray, " g"], Int64[np.ndarray, " g"]]:
    """Kind and finder of each object; of several errors about a missed one, the best-scored counts."""
    object_kinds = np.where(ground_truth.crowd, IGNORED, MISSED).astype(np.int8)
    finders = np.full(len(ground_truth), -1)
    covering = np.isin(kinds, (CLASSIFICATION, LOCALISATION)).nonzero()[0][::-1]  # the best overwrites
    finders[objects[covering]] = covering
    right = (kinds == RIGHT).nonzero()[0]
    finders[objects[right]] = right
    found_ones = finders >= 0
    object_kinds[found_ones] = kinds[finders[found_ones]]
    return object_kinds, finders


@dataclass(frozen=True)
class ErrorCosts:
    """What each kind of error costs: AP50 if it were fixed, less AP50 as it is (Bolya et al. 2020)."""

    ap50: float | None  # as it is, over classes with objects
    # AP50 that each of `ERRORS` costs, and "false positives" and "false negatives" as a whole; None without objects
    lost: Mapping[str, float | None]
    counts: Mapping[str, int]  # how often each of `ERRORS` occurs
    # The same of each class (rows: `ERRORS`); NaN for a class without objects
    lost_per_class: Float64[np.ndarray, "6 k"]
    counts_per_class: Int64[np.ndarray, "6 k"]  # of the detections (for "missed": the objects) of each class


def price_errors(ground_truth: GroundTruth, predictions: Predictions, error_kinds: ErrorKinds) -> ErrorCosts:
    """AP50 that comes back when all errors of one kind are fixed.

    Classification and localisation errors become right where they are the best claim on a missed object, and
    vanish otherwise; duplicates, background and both vanish; missed objects are not asked for.
    The mean is over classes with objects, as COCO takes it; TIDE's own program counts a class that has only detections
    as 0.
    """
    fixed = partial(_fixed, ground_truth, predictions, error_kinds)
    base, mistakes = fixed(), tuple(range(CLASSIFICATION, MISSED))
    table = [*(fixed(removed=(kind,), claimed=(kind,)) for kind in mistakes), fixed(unasked=(MISSED,))]
    whole = {
        "false positives": fixed(removed=mistakes),
        "false negatives": fixed(unasked=(CLASSIFICATION, LOCALISATION, MISSED)),
    }
    labels = [predictions.labels[error_kinds.kinds == kind] for kind in mistakes]
    labels.append(ground_truth.labels[error_kinds.object_kinds == MISSED])
    counts = [np.bincount(of_kind, minlength=len(ground_truth.classes)) for of_kind in labels]
    return ErrorCosts(
        ap50=mean_defined(base),
        lost={name: _gain(row, base) for name, row in (*zip(ERRORS, table, strict=True), *whole.items())},
        counts={name: int(row.sum()) for name, row in zip(ERRORS, counts, strict=True)},
        lost_per_class=np.array(table) - base,
        counts_per_class=np.array(counts),
    )


def _gain(fixed: Float64[np.ndarray, " k"], base: Float64[np.ndarray, " k"]) -> float | None:
    after, before = mean_defined(fixed), mean_defined(base)
    # Below zero only where classes fall out of the mean.
    return None if after is None or before is None else max(after - before, 0.0)


def _fixed(
    ground_truth: GroundTruth,
    predictions: Predictions,
    error_kinds: ErrorKinds,
    *,
    removed: Sequence[int] = (),
    claimed: Sequence[int] = (),
    unasked: Sequence[int] = (),
) -> Float64[np.ndarray, " k"]:
    """AP50 of each class when errors are fixed.

    Detections of the removed kinds vanish; those of the claimed kinds that are the best claim on a missed object become
    right; objects of the unasked kinds are not asked for.
    """
    asked = ~ground_truth.crowd & ~np.isin(error_kinds.object_kinds, unasked)
    right, labels = error_kinds.kinds == RIGHT, predictions.labels.copy()
    kept = (error_kinds.kinds != IGNORED) & ~np.isin(error_kinds.kinds, removed)
    claims = error_kinds.finders[np.isin(error_kinds.object_kinds, claimed)]
    right[claims] = kept[claims] = True
    labels[claims] = ground_truth.labels[error_kinds.objects[claims]]
    left, all_objects = (
        np.bincount(ground_truth.labels[some], minlength=len(ground_truth.classes))
        for some in (asked, ~ground_truth.crowd)
    )
    result = _average_precisions(labels[kept], right[kept], left)
    # As in TIDE: a class that has lost all its objects is wrong where it still has detections, and else left out.
    gone = (all_objects > 0) & (left == 0)
    result[gone & (np.bincount(labels[kept], minlength=len(left)) > 0)] = 0.0
    return result


def _average_precisions(
    labels: Int64[np.ndarray, " n"], right: Bool[np.ndarray, " n"], objects: Int64[np.ndarray, " k"]
) -> Float64[np.ndarray, " k"]:
    """COCO's AP of each class at one IoU threshold, of detections by falling score; NaN for a class without objects."""
    result = np.full(len(objects), np.nan)
    for k in objects.nonzero()[0].tolist():
        hits = right[labels == k]
        result[k] = metrics.average_precision(np.arange(len(hits), 0, -1), hits, int(objects[k]))
    return result


@dataclass(frozen=True)
class Confusion:
    """Which class was taken for which; detections and objects are paired by falling score, whatever their classes."""

    # Row: class of the object; column: class of the detection; the last of each is background. The sum is the number
    # of objects plus that of the detections on background.
    matrix: Int64[np.ndarray, "k_and_background k_and_background"]
    score: float  # detections below it are left out
    iou: float  # overlap that a pair needs


def count_confusions(
    ground_truth: GroundTruth, predictions: Predictions, pairs: Pairs, *, score: float = 0.0, threshold: float = 0.5
) -> Confusion:
    """Pair detections and objects whatever their classes, and count.

    By falling score, each detection takes the free object that it overlaps most, of equals one of its own class.
    Detections that are left and lie in a crowd of their class are not counted, nor are those below the score. The pairs
    are all that overlap, `find_pairs`.
    """
    background, crowd = len(ground_truth.classes), ground_truth.crowd
    kept = predictions.scores >= score
    own = predictions.labels[pairs.detections] == ground_truth.labels[pairs.objects]
    possible = kept[pairs.detections] & (own | ~crowd[pairs.objects])
    order = np.lexsort((~own, -pairs.overlaps, pairs.detections))
    matched = match_detections(pairs.take(order[possible[order]]), crowd, len(predictions), threshold)
    counted = kept & ~np.append(crowd, False)[matched]  # -1, no object, is the last
    rows = np.append(ground_truth.labels, background)[matched[counted]]
    missed = ~crowd
    missed[matched[counted & (matched >= 0)]] = False
    matrix = np.zeros((background + 1, background + 1), np.int64)
    np.add.at(matrix, (rows, predictions.labels[counted]), 1)
    matrix[:background, background] = np.bincount(ground_truth.labels[missed], minlength=background)
    return Confusion(matrix, score, threshold)
