"""What became of every detection and every object: right, or which kind of error (Bolya et al. 2020).

Axes: g objects, n detections.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int8, Int64

RIGHT, IGNORED, CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND, MISSED = range(8)
KINDS = ("right", "ignored", "classification", "localisation", "both", "duplicate", "background", "missed")
"""What a detection or an object can be; ``KINDS[CLASSIFICATION]`` is its name."""

ERRORS = KINDS[CLASSIFICATION:]
"""The six errors of TIDE (Bolya et al. 2020), in the order in which they are looked for."""


@dataclass(frozen=True)
class Verdicts:
    """What became of every detection and every object at IoU .50.

    A detection is right when COCO's evaluation matches it with an object of its class. Any other is an error of one
    kind: classification (overlaps an object of another class by .50), localisation (overlaps one of its class by .10 to
    .50), both (one of another class by .10 to .50), duplicate (of an object that a better detection has), background.

    Attributes:
        kinds: of each detection: RIGHT, IGNORED (in a crowd) or CLASSIFICATION to BACKGROUND.
        objects: the object that a detection was matched with, or that its error is about, 0..g-1; -1 for background.
        overlaps: IoU with it; the highest with any object for background.
        object_kinds: of each object: RIGHT (found), IGNORED (crowd), MISSED, or CLASSIFICATION or LOCALISATION where a
            detection of that error would have found it (TIDE does not count it as missed).
        finders: the detection that found an object, or whose error would have; -1 for missed ones and crowds.
    """

    kinds: Int8[np.ndarray, " n"]
    objects: Int64[np.ndarray, " n"]
    overlaps: Float64[np.ndarray, " n"]
    object_kinds: Int8[np.ndarray, " g"]
    finders: Int64[np.ndarray, " g"]
