"""Detections of one image as plain numpy: what people get. Needs no torch.

Axes: n detections. Boxes are xyxy in pixels of the original image, upright, continuous.
"""

import io
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image

from fasterrcnn.boxes import box_nms
from fasterrcnn.errors import ImageError, UsageError, require
from fasterrcnn.files import atomic_write
from fasterrcnn.images import read_image, upright_rgb
from fasterrcnn.pixel_options import AS_STORED, PixelOptions
from fasterrcnn.reporting.drawing import draw_boxes

if TYPE_CHECKING:
    import supervision

_NOTEBOOK_SIDE = 1024
"""Longest side, in pixels, of the image that a notebook shows."""


class Detection(NamedTuple):
    """One element of `Detections`: ``for box, score, label, name in detections``.

    Attributes:
        box: xyxy in pixels of the original image.
        score: 0..1.
        label: 0..K-1.
        name: of the class.
    """

    box: Float[np.ndarray, "4"]
    score: float
    label: int
    name: str


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects that were detected in one image; `predict` gives them sorted by falling score.

    It behaves as a sequence: ``len``, iteration over `Detection` tuples, and ``[]``, which gives `Detections` again.
    Two are equal where all values are, those of the arrays included; ``image`` and ``options`` are not compared.

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
        options: how the image becomes RGB where it has more than 8 bits or more than three bands.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    image_hw: tuple[int, int]
    source: Path | None = None
    image: Image.Image | None = field(default=None, repr=False)
    frame: int | None = None
    seconds: float | None = None
    options: PixelOptions = field(default=AS_STORED, repr=False)

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[Detection]:
        return map(Detection, self.boxes, self.scores.tolist(), self.labels.tolist(), self.names)

    def __getitem__(self, index: Any) -> "Detections":
        """Some of the detections, in the order of the index.

        Args:
            index: a number, a slice, a list or array of numbers, or a mask with True for each detection to keep:
                ``detections[0]``, ``detections[:10]``, ``detections[detections.scores > 0.5]``.

        Raises:
            IndexError: a number is out of range, a mask has another length, or the index is of another kind.
        """
        rows = np.atleast_1d(np.arange(len(self))[index])
        if rows.ndim != 1:
            raise IndexError("detections have one axis: give a number, a slice, a list or a mask")
        return replace(self, boxes=self.boxes[rows], scores=self.scores[rows], labels=self.labels[rows])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Detections):
            return NotImplemented
        names = (item.name for item in fields(self) if item.name not in ("image", "options"))
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in names)

    __hash__ = None  # type: ignore[assignment]  # arrays can change

    def __str__(self) -> str:
        counts = [(int((self.labels == i).sum()), name) for i, name in enumerate(self.classes)]
        objects = " ".join(f"{count} {name}" for count, name in sorted(counts, reverse=True) if count)
        frame = "" if self.frame is None else f" frame {self.frame}"
        return f"{self.source or 'image'}{frame}: {objects or 'nothing'}"

    @property
    def names(self) -> list[str]:
        """Class name of each detection."""
        return [self.classes[label] for label in self.labels]

    @classmethod
    def merge(cls, parts: Sequence["Detections"]) -> "Detections":
        """All detections of several, one after the other, for example those of two detectors in one image.

        Args:
            parts: at least one, of the same image and classes. Source, frame and time stay where all agree.

        Raises:
            UsageError: there is none, or image sizes or classes differ.
        """
        if not parts:
            raise UsageError("there is nothing to merge: give at least one Detections")
        first = parts[0]
        for name in ("classes", "image_hw"):
            values = list(dict.fromkeys(getattr(part, name) for part in parts))
            if len(values) > 1:
                raise UsageError(f"detections of different {name} cannot be merged: {values[0]} and {values[1]}")
        merged: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in ("boxes", "scores", "labels")
        }
        for name in ("source", "image", "frame", "seconds"):
            if any(getattr(part, name) != getattr(first, name) for part in parts):
                merged[name] = None
        return replace(first, **merged)

    def with_nms(self, threshold: float = 0.5, class_agnostic: bool = False) -> "Detections":
        """The detections that no better one overlaps too much; their order stays.

        Args:
            threshold: IoU above which the detection with the lower score goes, 0..1.
            class_agnostic: whether detections of different classes suppress each other.

        Raises:
            UsageError: the threshold does not lie in 0..1.
        """
        if not 0 <= threshold <= 1:
            raise UsageError(f"threshold must lie in 0..1, not {threshold}")
        groups = np.zeros_like(self.labels) if class_agnostic else self.labels
        return self[box_nms(self.boxes, self.scores, groups, threshold)]

    def filter(self, *, score: float = 0.0, classes: Sequence[str] | None = None) -> "Detections":
        """Only the detections with at least that score, and of those classes.

        Raises:
            UsageError: a class does not exist.
        """
        keep = self.scores >= score
        if classes is not None:
            keep &= np.isin(self.labels, labels_of(classes, self.classes))
        return self[keep]

    def load_image(self) -> Image.Image:
        """The image that belongs to these detections, upright RGB.

        Raises:
            UsageError: there is none.
            ImageError: the file is no longer there, or cannot be decoded.
        """
        if self.image is not None:
            return upright_rgb(self.image, self.options)
        if self.source is None or self.frame is not None:
            raise UsageError("these detections have no image of their own: plot(image)")
        return read_image(self.source, self.options)

    def plot(self, image: Image.Image | None = None) -> Image.Image:
        """The image with boxes, names and scores drawn on it.

        Args:
            image: drawn on instead of the image that was given to `predict`, or the source file.

        Raises:
            UsageError: there is no image.
        """
        image = self._rgb_of(image)
        captions = [f"{detection.name} {detection.score:.2f}" for detection in self]
        order = np.argsort(-self.scores, kind="stable")[::-1]  # the best is drawn last, on top
        return draw_boxes(image, self.boxes[order], self.labels[order], [captions[i] for i in order])

    def save(self, path: str | Path) -> None:
        """Write the image with boxes (.jpg, .png...), or the records (.json)."""
        with atomic_write(Path(path)) as temporary:
            if temporary.suffix.lower() == ".json":
                temporary.write_text(json.dumps(self.to_records(), indent=1), encoding="utf-8")
            else:
                self.plot().save(temporary)

    def to_records(self) -> list[dict[str, Any]]:
        """A dict for each detection: box (xyxy), score, label, name."""
        rows = zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), self.names, strict=True)
        return [{"box": box, "score": score, "label": label, "name": name} for box, score, label, name in rows]

    def to_coco(self, image_id: int | str, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
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
        """As the library supervision has them, for its annotators, zones and trackers.

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
        """The part of the image inside each box, at least one pixel.

        Raises:
            UsageError: there is no image.
        """
        image = self._rgb_of(image)
        low = np.minimum(np.floor(self.boxes[:, :2]), np.array(image.size) - 1)
        high = np.maximum(np.ceil(self.boxes[:, 2:]), low + 1)
        return [image.crop(tuple(edges)) for edges in np.hstack([low, high]).astype(int).tolist()]

    def _rgb_of(self, image: Image.Image | None) -> Image.Image:
        """The given image as RGB, or the one of these detections."""
        return self.load_image() if image is None else upright_rgb(image, PixelOptions(self.options.value_range))

    def _repr_png_(self) -> bytes | None:
        """The image with boxes for a notebook, where there is an image."""
        try:
            drawn = self.plot()
        except (UsageError, ImageError, ValueError):
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
        raise UsageError(f"classes must be a list of names, not the text {names!r}")
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise UsageError(f"no class is called {unknown[0]!r}; there are: {', '.join(classes)}")
    return [list(classes).index(name) for name in names]


def match_names(names: Sequence[str], others: Sequence[str]) -> dict[str, str]:
    """Name of a class -> the one of the others that means the same; each of these is given at most once.

    Equal names go first. Then upper and lower case are the same, as are blanks, "-" and "_", and the two ways in which
    Unicode writes an accent.
    """
    matched = {name: name for name in names if name in others}
    left = {_plain_name(other): other for other in reversed(others) if other not in matched}
    for name in names:
        if name not in matched and _plain_name(name) in left:
            matched[name] = left.pop(_plain_name(name))
    return matched


def _plain_name(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name).casefold()).strip()
