"""Detections of one image as plain numpy: what people get. Needs no torch.

Axes: n detections. Boxes are xyxy in pixels of the original image, upright, continuous.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fasterrcnn.errors import UsageError, require
from fasterrcnn.files import atomic_write
from fasterrcnn.reporting.drawing import draw_boxes, upright_rgb

if TYPE_CHECKING:
    import supervision

_NOTEBOOK_SIDE = 1024
"""Longest side, in pixels, of the image that a notebook shows."""


@dataclass(frozen=True)
class Detections:
    """What was found in one image, sorted by falling score.

    Attributes:
        boxes: (n, 4) float32 xyxy in pixels of the original image.
        scores: (n,) float32, 0..1.
        labels: (n,) int64, 0..K-1.
        classes: names; label i means ``classes[i]``.
        image_hw: height and width of the original image, upright.
        source: the file, where there is one.
        image: the image itself, where it did not come from an image file.
        frame: number of the frame in a video or of a camera, from 0.
        seconds: when the frame is shown, from the start of the video.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    image_hw: tuple[int, int]
    source: Path | None = None
    image: Image.Image | None = field(default=None, repr=False, compare=False)
    frame: int | None = None
    seconds: float | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __str__(self) -> str:
        counts = [(int((self.labels == i).sum()), name) for i, name in enumerate(self.classes)]
        found = " ".join(f"{count} {name}" for count, name in sorted(counts, reverse=True) if count)
        frame = "" if self.frame is None else f" frame {self.frame}"
        return f"{self.source or 'image'}{frame}: {found or 'nothing'}"

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
        return replace(self, boxes=self.boxes[keep], scores=self.scores[keep], labels=self.labels[keep])

    def load_image(self) -> Image.Image:
        """The image that these were found in, upright RGB.

        Raises:
            UsageError: there is none at hand.
        """
        if self.image is not None:
            return upright_rgb(self.image)
        if self.source is None or self.frame is not None:
            raise UsageError("these detections have no image of their own: plot(image)")
        with Image.open(self.source) as file:
            return upright_rgb(file)

    def plot(self, image: Image.Image | None = None) -> Image.Image:
        """The image with boxes, names and scores drawn on it.

        Args:
            image: what to draw on; default is the image that was given to `predict`, or the source file.

        Raises:
            UsageError: there is no image at hand.
        """
        image = image or self.load_image()
        captions = [f"{name} {score:.2f}" for name, score in zip(self.names, self.scores, strict=True)]
        # The best detection is drawn last, on top.
        return draw_boxes(image, self.boxes[::-1], self.labels[::-1], captions[::-1])

    def save(self, path: str | Path) -> None:
        """Write the image with boxes (.jpg, .png...), or the records (.json)."""
        with atomic_write(Path(path)) as temporary:
            if temporary.suffix.lower() == ".json":
                temporary.write_text(json.dumps(self.to_records(), indent=1), encoding="utf-8")
            else:
                self.plot().save(temporary)

    def to_records(self) -> list[dict[str, Any]]:
        """One dict per detection: box (xyxy), score, label, name."""
        rows = zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), self.names, strict=True)
        return [{"box": box, "score": score, "label": label, "name": name} for box, score, label, name in rows]

    def to_coco(self, image_id: int, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """COCO results: bbox as left, top, width, height.

        Args:
            image_id: of the image, in the COCO file.
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

    def to_yolo(self) -> list[str]:
        """A line per detection: label, centre x, centre y, width, height as shares of the image, score."""
        height, width = self.image_hw
        shares = self.boxes / np.array([width, height, width, height], dtype=np.float32)
        middles, sides = (shares[:, :2] + shares[:, 2:]) / 2, shares[:, 2:] - shares[:, :2]
        rows = zip(self.labels.tolist(), np.hstack([middles, sides]).tolist(), self.scores.tolist(), strict=True)
        return [f"{label} {' '.join(f'{x:.6f}' for x in box)} {score:.6f}" for label, box, score in rows]

    def to_supervision(self) -> "supervision.Detections":
        """As the library supervision has them: for its annotators, zones and trackers.

        Raises:
            MissingExtraError: supervision is not installed.
        """
        library = require("supervision", "viz")
        names = np.array(self.names, dtype=str)
        detections: supervision.Detections = library.Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy(),
            class_id=self.labels.copy(),
            data={"class_name": names},
        )
        return detections

    def crops(self, image: Image.Image | None = None) -> list[Image.Image]:
        """What is inside each box, cut out of the image; at least one pixel of it.

        Raises:
            UsageError: there is no image at hand.
        """
        image = upright_rgb(image or self.load_image())
        low = np.minimum(np.floor(self.boxes[:, :2]), np.array(image.size) - 1)
        high = np.maximum(np.ceil(self.boxes[:, 2:]), low + 1)
        return [image.crop(tuple(edges)) for edges in np.hstack([low, high]).astype(int).tolist()]

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows: the image with boxes, where there is an image."""
        try:
            drawn = self.plot()
        except (UsageError, OSError, ValueError):
            return None
        drawn.thumbnail((_NOTEBOOK_SIDE, _NOTEBOOK_SIDE))
        content = io.BytesIO()
        drawn.save(content, format="PNG")
        return content.getvalue()


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
