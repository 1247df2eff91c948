"""Detections of one picture as plain numpy: what people get. Needs no torch.

Axes: n detections. Boxes are xyxy in pixels of the original picture, upright, continuous.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fasterrcnn.drawing import draw_boxes, upright_rgb
from fasterrcnn.errors import UsageError


@dataclass(frozen=True)
class Detections:
    """What was found in one picture, sorted by falling score.

    Attributes:
        boxes: (n, 4) float32 xyxy in pixels of the original picture.
        scores: (n,) float32, 0..1.
        labels: (n,) int64, 0..K-1.
        classes: names; label i means ``classes[i]``.
        image_hw: height and width of the original picture, upright.
        source: the file, where there is one.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    image_hw: tuple[int, int]
    source: Path | None = None
    image: Image.Image | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.boxes)

    def __str__(self) -> str:
        counts = [(int((self.labels == i).sum()), name) for i, name in enumerate(self.classes)]
        found = " ".join(f"{count} {name}" for count, name in sorted(counts, reverse=True) if count)
        return f"{self.source or 'picture'}: {found or 'nothing'}"

    @property
    def names(self) -> list[str]:
        """Class name of each detection."""
        return [self.classes[label] for label in self.labels]

    def filter(self, *, score: float = 0.0, classes: Sequence[str] | None = None) -> "Detections":
        """Only the detections with at least that score, and of those classes.

        Raises:
            UsageError: a class does not exist.
        """
        keep = self.scores >= score
        if classes is not None:
            keep &= np.isin(self.labels, labels_of(classes, self.classes))
        return Detections(
            self.boxes[keep],
            self.scores[keep],
            self.labels[keep],
            self.classes,
            self.image_hw,
            self.source,
            self.image,
        )

    def plot(self, picture: Image.Image | None = None) -> Image.Image:
        """The picture with boxes, names and scores drawn on it.

        Args:
            picture: what to draw on; default is the picture that was given to `predict`, or the source file.

        Raises:
            UsageError: there is no picture at hand.
        """
        picture = picture or self.image
        if picture is None and self.source is not None:
            with Image.open(self.source) as file:
                picture = upright_rgb(file)
        if picture is None:
            raise UsageError("these detections have no picture of their own: plot(picture)")
        captions = [f"{name} {score:.2f}" for name, score in zip(self.names, self.scores, strict=True)]
        # The best detection is drawn last, on top.
        return draw_boxes(picture, self.boxes[::-1], self.labels[::-1], captions[::-1])

    def save(self, path: str | Path) -> None:
        """Write the picture with boxes (.jpg, .png...), or the records (.json)."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".json":
            path.write_text(json.dumps(self.to_records(), indent=1), encoding="utf-8")
        else:
            self.plot().save(path)

    def to_records(self) -> list[dict[str, Any]]:
        """One dict per detection: box (xyxy), score, label, name."""
        rows = zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), self.names, strict=True)
        return [{"box": box, "score": score, "label": label, "name": name} for box, score, label, name in rows]

    def to_coco(self, image_id: int, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """COCO results: bbox as left, top, width, height.

        Args:
            image_id: of the picture, in the COCO file.
            category_ids: of each class; default is label + 1.
        """
        ids = category_ids or range(1, len(self.classes) + 1)
        return [
            {
                "image_id": image_id,
                "category_id": int(ids[row["label"]]),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": row["score"],
            }
            for row in self.to_records()
            for x1, y1, x2, y2 in [row["box"]]
        ]


def labels_of(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Labels of classes by name.

    Raises:
        UsageError: a name is unknown; the message lists the classes.
    """
    if isinstance(names, str):
        raise UsageError(f"classes must be a list of names, not the one text {names!r}")
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise UsageError(f"no class is called {unknown[0]!r}; there are: {', '.join(classes)}")
    return [list(classes).index(name) for name in names]
