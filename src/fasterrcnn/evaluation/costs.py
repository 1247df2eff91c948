"""What each kind of error costs (TIDE, Bolya et al. 2020).

Axes: k classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float64, Int64

from fasterrcnn.evaluation.ranking import RECALL_LEVELS, mean_over_classes
from fasterrcnn.evaluation.truth import Predictions, Truth
from fasterrcnn.evaluation.verdicts import CLASSIFICATION, ERRORS, IGNORED, LOCALISATION, MISSED, RIGHT, Verdicts


@dataclass(frozen=True)
class ErrorCosts:
    """What each kind of error costs: AP50 if it were mended, less AP50 as it is (Bolya et al. 2020).

    Attributes:
        ap50: as it is, over classes with objects.
        lost: AP50 that each of `ERRORS` costs, and "false positives" and "false negatives" as a whole; None
            without truth.
        counts: how often each of `ERRORS` occurs.
        lost_per_class: the same of each class (rows: `ERRORS`); NaN for a class without objects.
        counts_per_class: of the detections (for "missed": the objects) of each class.
    """

    ap50: float | None
    lost: Mapping[str, float | None]
    counts: Mapping[str, int]
    lost_per_class: Float64[np.ndarray, "6 k"]
    counts_per_class: Int64[np.ndarray, "6 k"]


def price_errors(truth: Truth, found: Predictions, verdicts: Verdicts) -> ErrorCosts:
    """AP50 that comes back when all errors of one kind are mended.

    Classification and localisation errors become right where they are the best claim on a missed object, and
    vanish otherwise; duplicates, background and both vanish; missed objects are not asked for.
    The mean is over classes with objects, as COCO takes it; TIDE's own program counts a class that has only detections
    as 0.
    """
    base = _mended(truth, found, verdicts)
    table = [_mended(truth, found, verdicts, (kind,)) for kind in range(CLASSIFICATION, MISSED + 1)]
    mistakes = tuple(range(CLASSIFICATION, MISSED))
    whole = {
        "false positives": _mended(truth, found, verdicts, mistakes, claim=False),
        "false negatives": _mended(truth, found, verdicts, (CLASSIFICATION, LOCALISATION, MISSED), keep=True),
    }
    counts = [
        np.bincount(truth.labels[verdicts.object_kinds == kind], minlength=len(truth.classes))
        if kind == MISSED
        else np.bincount(found.labels[verdicts.kinds == kind], minlength=len(truth.classes))
        for kind in range(CLASSIFICATION, MISSED + 1)
    ]
    return ErrorCosts(
        ap50=mean_over_classes(base),
        lost={name: _gain(row, base) for name, row in (*zip(ERRORS, table, strict=True), *whole.items())},
        counts={name: int(row.sum()) for name, row in zip(ERRORS, counts, strict=True)},
        lost_per_class=np.array(table) - base,
        counts_per_class=np.array(counts),
    )


def _gain(mended: Float64[np.ndarray, " k"], base: Float64[np.ndarray, " k"]) -> float | None:
    after, before = mean_over_classes(mended), mean_over_classes(base)
    # Below zero only where classes fall out of the mean.
    return None if after is None or before is None else max(after - before, 0.0)


def _mended(
    truth: Truth,
    found: Predictions,
    verdicts: Verdicts,
    kinds: Sequence[int] = (),
    *,
    claim: bool = True,
    keep: bool = False,
) -> Float64[np.ndarray, " k"]:
    """AP50 of each class without errors of these kinds.

    Args:
        truth: the objects.
        found: the detections.
        verdicts: on both.
        kinds: to be mended.
        claim: detections whose error is about a missed object become right.
        keep: only the objects are mended: none is asked for that is not found; detections stay as they are.
    """
    asked = ~truth.crowd
    right, kept, labels = verdicts.kinds == RIGHT, verdicts.kinds != IGNORED, found.labels.copy()
    if keep:
        asked &= ~np.isin(verdicts.object_kinds, kinds)
    else:
        asked &= (verdicts.object_kinds != MISSED) if MISSED in kinds else True
        kept &= ~np.isin(verdicts.kinds, kinds)
    if claim and not keep:
        claims = verdicts.finders[np.isin(verdicts.object_kinds, [k for k in kinds if k != MISSED])]
        right[claims] = kept[claims] = True
        labels[claims] = truth.labels[verdicts.objects[claims]]
    left, all_objects = (
        np.bincount(truth.labels[some], minlength=len(truth.classes)) for some in (asked, ~truth.crowd)
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
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(len(objects) + 1)).tolist()
    for k, (low, high) in enumerate(pairwise(bounds)):
        if objects[k]:
            hits = np.cumsum(right[order][low:high])
            precision = hits / np.arange(1, high - low + 1)
            envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
            result[k] = envelope[np.searchsorted(hits / objects[k], RECALL_LEVELS)].mean()
    return result
