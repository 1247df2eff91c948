"""Which class is taken for which.

Axes: k classes.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64


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
