"""What became of every detection and every object: right, or which kind of error (Bolya et al. 2020).

Axes: g objects, n detections.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int8, Int64

from fasterrcnn.evaluation.matching import Pairs, match, overlap, same_class
from fasterrcnn.evaluation.truth import Predictions, Truth

RIGHT, IGNORED, CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND, MISSED = range(8)
KINDS = ("right", "ignored", "classification", "localisation", "both", "duplicate", "background", "missed")
"""What a detection or an object can be; ``KINDS[CLASSIFICATION]`` is its name."""

ERRORS = KINDS[CLASSIFICATION:]
"""The six errors of TIDE (Bolya et al. 2020)."""


@dataclass(frozen=True)
class Verdicts:
    """What became of every detection and every object at IoU .50.

    A detection is right when COCO's evaluation matches it with an object of its class. Any other is an error of one
    kind: classification (overlaps an object of another class by .50), localisation (overlaps one of its class by .10 to
    .50), both (one of another class by .10 to .50), duplicate (of an object that a better detection has), background.

    Attributes:
        kinds: of each detection: RIGHT, IGNORED (in a crowd) or CLASSIFICATION to BACKGROUND.
        objects: the object that a detection was matched with, or that its error is about, 0..g-1; -1 for background.
        overlaps: IoU with it (in a crowd: the share of the detection that lies in it); 0 for background.
        object_kinds: of each object: RIGHT (found), IGNORED (crowd), MISSED, or CLASSIFICATION or LOCALISATION where a
            detection of that error would have found it (TIDE does not count it as missed).
        finders: the detection that found an object, or whose error would have; -1 for missed ones and crowds.
    """

    kinds: Int8[np.ndarray, " n"]
    objects: Int64[np.ndarray, " n"]
    overlaps: Float64[np.ndarray, " n"]
    object_kinds: Int8[np.ndarray, " g"]
    finders: Int64[np.ndarray, " g"]


def judge(truth: Truth, found: Predictions, pairs: Pairs, threshold: float = 0.5) -> Verdicts:
    """Right, or which error, of every detection and object.

    Kinds are looked for in the order of TIDE: localisation, classification, duplicate, both, background. Detections
    that lie in a crowd of their class are ignored; other errors are told from objects that are no crowds.

    Args:
        truth: the objects.
        found: the detections.
        pairs: all that overlap by .10 or more, `find_pairs`.
        threshold: IoU from which an object counts as found.
    """
    matched = match(same_class(pairs, truth, found), truth, len(found), threshold)
    kinds = np.full(len(found), BACKGROUND, np.int8)
    objects, overlaps = np.full(len(found), -1), np.zeros(len(found))
    real = pairs.take(~truth.crowd[pairs.objects])
    own = found.labels[real.detections] == truth.labels[real.objects]
    # The later ones are looked for first in TIDE, so they overwrite.
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
    kinds[hit] = np.where(truth.crowd[matched[hit]], IGNORED, RIGHT)
    overlaps[hit] = overlap(found.xywh[hit], truth.xywh[objects[hit]], truth.crowd[objects[hit]])
    object_kinds, finders = _objects(truth, kinds, objects)
    return Verdicts(kinds, objects, overlaps, object_kinds, finders)


def _objects(
    truth: Truth, kinds: Int8[np.ndarray, " n"], objects: Int64[np.ndarray, " n"]
) -> tuple[Int8[np.ndarray, " g"], Int64[np.ndarray, " g"]]:
    """Kind and finder of each object; of several errors about a missed one, the best-scored counts."""
    object_kinds = np.where(truth.crowd, IGNORED, MISSED).astype(np.int8)
    finders = np.full(len(truth), -1)
    covering = np.isin(kinds, (CLASSIFICATION, LOCALISATION)).nonzero()[0][::-1]  # the best overwrites
    finders[objects[covering]] = covering
    right = (kinds == RIGHT).nonzero()[0]
    finders[objects[right]] = right
    found_ones = finders >= 0
    object_kinds[found_ones] = kinds[finders[found_ones]]
    return object_kinds, finders
