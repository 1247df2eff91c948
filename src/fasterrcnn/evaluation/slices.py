"""Average precision of parts: by size, by number of objects, by shape."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Slice:
    """AP of a part of the objects or of the pictures.

    Attributes:
        name: for people: "32 to 96 px", "4 to 7 objects".
        low: lower bound, included: pixels (root of the area), objects in a picture, or width / height.
        high: upper bound, not included; may be infinite.
        images: pictures with such objects.
        objects: how many objects.
        ap: None without objects.
        ap50: at IoU .50.
        recall: mean over IoU .50 to .95.
    """

    name: str
    low: float
    high: float
    images: int
    objects: int
    ap: float | None
    ap50: float | None
    recall: float | None
