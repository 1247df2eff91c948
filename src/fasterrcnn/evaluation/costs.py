"""What each kind of error costs (TIDE, Bolya et al. 2020).

Axes: k classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64


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
