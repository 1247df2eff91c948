"""What is measured, as columns: the objects of the pictures, and what a detector found in them. Needs no torch.

Axes: i pictures, g objects, n detections, k classes. Boxes are in pixels of the upright original picture, continuous.
They are kept as left, top, width, height, as COCO writes them: overlaps then are those of COCO's tools to the last bit.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64


@dataclass(frozen=True)
class Pictures:
    """Which pictures were measured, and where each can be seen again.

    Attributes:
        ids: of each picture in the data set, rising.
        files: path of each; a bare name where the data set is a COCO file whose pictures were not looked for.
        sizes_hw: height and width of each upright picture; 0 where the data set does not say it.
    """

    ids: Int64[np.ndarray, " i"]
    files: tuple[Path, ...]
    sizes_hw: Int64[np.ndarray, "i 2"]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Truth:
    """The objects of all pictures.

    Attributes:
        pictures: where they are.
        classes: names; label j means ``classes[j]``. In the order of their category ids.
        category_ids: of each class in the data set, rising.
        owners: picture of each object, 0..i-1.
        labels: 0..k-1.
        xywh: left, top, width, height.
        areas: square pixels, of the mask where the data set says so.
        crowd: crowds, difficult and ignored objects: neither asked for nor counted as a mistake.
        numbers: id of each annotation in the data set.
    """

    pictures: Pictures
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    owners: Int64[np.ndarray, " g"]
    labels: Int64[np.ndarray, " g"]
    xywh: Float64[np.ndarray, "g 4"]
    areas: Float64[np.ndarray, " g"]
    crowd: Bool[np.ndarray, " g"]
    numbers: Int64[np.ndarray, " g"]

    def __len__(self) -> int:
        return len(self.owners)

    @property
    def boxes(self) -> Float64[np.ndarray, "g 4"]:
        """Boxes as xyxy."""
        return to_xyxy(self.xywh)


@dataclass(frozen=True)
class Predictions:
    """All detections by falling score; equal scores in the order of pictures, and then in the order they came in.

    Attributes:
        owners: picture of each detection, 0..i-1.
        labels: 0..k-1.
        scores: usually 0..1, but any order is measured.
        xywh: left, top, width, height.
    """

    owners: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    scores: Float64[np.ndarray, " n"]
    xywh: Float64[np.ndarray, "n 4"]

    def __len__(self) -> int:
        return len(self.owners)

    @property
    def boxes(self) -> Float64[np.ndarray, "n 4"]:
        """Boxes as xyxy."""
        return to_xyxy(self.xywh)

    def take(self, chosen: Bool[np.ndarray, " n"]) -> "Predictions":
        """Some of the detections, in the same order."""
        return Predictions(self.owners[chosen], self.labels[chosen], self.scores[chosen], self.xywh[chosen])


def to_xyxy(xywh: Float64[np.ndarray, "m 4"]) -> Float64[np.ndarray, "m 4"]:
    """Left, top, right, bottom of boxes given as left, top, width, height."""
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
