"""How many objects the first stage reaches.

Axes: u objects that it does not.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64


@dataclass(frozen=True)
class ProposalRecall:
    """Share of the objects that the region proposal network reaches: what it does not propose, no head can find.

    Attributes:
        limits: numbers of proposals a picture: 100, 300, 1,000.
        ar: recall with so many, mean over IoU .50 to .95.
        recall50: the same at IoU .50.
        per_size: AR of "small", "medium" and "large" objects with the last limit.
        per_class: AR of each class with the last limit.
        unreached: objects without a proposal of IoU .50 in all of them, as indices 0..g-1.
    """

    limits: tuple[int, ...]
    ar: tuple[float | None, ...]
    recall50: tuple[float | None, ...]
    per_size: Mapping[str, float | None]
    per_class: Mapping[str, float | None]
    unreached: Int64[np.ndarray, " u"]
