"""Pascal VOC's average precision (Everingham et al. 2010)."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PascalNumbers:
    """Average precision as Pascal VOC has it, at IoU .50.

    Attributes:
        ap11: mean over classes of the mean precision at recalls 0, .1 ... 1 (VOC 2007).
        ap: mean over classes of the area under the curve (since VOC 2010).
        per_class: both of each class: {"ap11", "ap"}.
        inclusive: corners count as pixels, so that width = x2 - x1 + 1, as in VOC's own program.
    """

    ap11: float | None
    ap: float | None
    per_class: Mapping[str, Mapping[str, float | None]]
    inclusive: bool
