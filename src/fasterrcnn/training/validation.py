"""What a run is worth so far: losses and COCO's average precision on images that it does not learn from."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage, to_coco
from fasterrcnn.data.dataset import DetectionDataset
from fasterrcnn.data.images import read_image
from fasterrcnn.data.show import draw_target
from fasterrcnn.detections import Detections
from fasterrcnn.errors import UsageError
from fasterrcnn.evaluation.metrics.coco import score_detections
from fasterrcnn.inference.detector import in_original_frame
from fasterrcnn.reporting.drawing import Mark, Pen, add_legend, add_title, contact_sheet, draw_marks
from fasterrcnn.structures import ImageBatch, Losses, RawDetections, Target
from fasterrcnn.training.data import Process, Step

SHOWN = 12
"""Images whose detections are kept to be looked at."""


class Validation:
    """Gathers one pass over the validation images, over all processes.

    Args:
        data: where classes and category ids come from.
        examples: the validation images.
        process: the part that is seen here.
    """

    def __init__(self, data: AnnotatedData, examples: DetectionDataset, process: Process) -> None:
        self.data = data
        self.examples = examples
        self.process = process
        self._ground_truth = to_coco(data, examples.records)
        self.clear()

    def clear(self) -> None:
        """Begin a new pass."""
        self._sums = torch.zeros(8, dtype=torch.float64)
        self._results: list[dict[str, object]] = []
        self._shown: dict[int, Detections] = {}

    def add(self, step: Step, losses: Losses, found: Sequence[RawDetections]) -> None:
        """A batch that was measured."""
        if not step.plan.counts:
            return
        four = torch.stack([value for _, value in losses]).double().cpu()
        weights = losses.weights.double().cpu()
        self._sums += torch.cat([four * weights, weights])
        for index, raw, input_hw in zip(step.plan.indices, found, step.batch.sizes_hw, strict=True):
            record = self.examples.records[index]
            seen = in_original_frame(raw, input_hw, record.size_hw, self.data.classes, source=record.path)
            self._results += seen.to_coco(record.image_id, list(self.data.category_ids))
            if index in self.shown_indices:
                self._shown[index] = seen

    @property
    def shown_indices(self) -> range:
        """The images that are looked at, spread over all."""
        return range(0, len(self.examples), max(1, -(-len(self.examples) // SHOWN)))

    def result(self) -> dict[str, float]:
        """Losses by name with "val_" before them, and "ap", "ap50", "ap75", 0..1, or NaN without objects."""
        parts: list[Any] = [(self._sums, self._results, self._shown)]
        if self.process.world > 1:
            parts = [None] * self.process.world
            torch.distributed.all_gather_object(parts, (self._sums, self._results, self._shown))
        sums: Tensor = torch.stack([part[0] for part in parts]).sum(dim=0)
        self._shown = {index: seen for part in parts for index, seen in part[2].items()}
        four = (sums[:4] / sums[4:].clamp(min=torch.finfo(sums.dtype).tiny)).float()
        report = score_detections(self._ground_truth, [row for part in parts for row in part[1]])
        measured = {"ap": report.ap, "ap50": report.ap50, "ap75": report.ap75}
        losses = {f"val_{name}": value for name, value in Losses(*four).as_floats().items()}
        return losses | {name: float("nan") if value is None else value for name, value in measured.items()}

    def shown(self) -> tuple[list[AnnotatedImage], list[Detections]]:
        """Some images, and what was found in them in the last pass."""
        indices = sorted(self._shown)
        return [self.examples.records[index] for index in indices], [self._shown[index] for index in indices]


_LONG_SIDE = 480
_HIT = Pen((60, 220, 90))
_INVENTED = Pen((235, 40, 40))
_MISSED = Pen((255, 220, 0), dashed=True)
_NOT_COUNTED = Pen((150, 150, 150), dashed=True)


def draw_batch(batch: ImageBatch, targets: Sequence[Target], classes: Sequence[str]) -> Image.Image:
    """The images of a batch as the network sees them, padding included, with their objects, on one sheet.

    Difficult objects and crowds are captioned "difficult".

    Args:
        batch: on any device.
        targets: one for each image, on any device.
        classes: names; label i means ``classes[i]``.
    """
    shown = batch.to("cpu")
    views = [
        draw_target(pixels, target.to("cpu"), classes) for pixels, target in zip(shown.pixels, targets, strict=True)
    ]
    return _on_sheet([ImageOps.expand(view, border=2, fill="white") for view in views])


def draw_comparison(
    records: Sequence[AnnotatedImage], detections: Sequence[Detections], classes: Sequence[str], *, score: float = 0.5
) -> Image.Image:
    """Ground truth and predictions together: what was found, what was missed and what was invented, on one sheet.

    Above each image stand the counts and the file's name. Images are shrunk to `_LONG_SIDE` pixels at most.

    Args:
        records: images and what is true of them.
        detections: what was found in each of them.
        classes: names; label i means ``classes[i]``.
        score: predictions below it are left out.

    Raises:
        UsageError: there is no image to show.
        ImageError: an image cannot be decoded; the message names it.
    """
    if not records:
        raise UsageError("no images to compare; give at least one")
    cells = [
        _draw_cell(record, found.filter(score=score), classes)
        for record, found in zip(records, detections, strict=True)
    ]
    meanings = {
        f"found (IoU 0.5, score {score:g} or more)": _HIT,
        "invented": _INVENTED,
        "missed": _MISSED,
        "difficult, not counted": _NOT_COUNTED,
    }
    return add_legend(_on_sheet(cells), meanings)


def match_predictions(
    predicted: NDArray[np.float32],
    predicted_labels: NDArray[np.int64],
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    difficult: NDArray[np.bool_],
    *,
    min_iou: float = 0.5,
) -> NDArray[np.int64]:
    """Which object each prediction is taken for, as COCO's evaluation does it (Lin et al. 2014).

    One after the other, each takes the object of its class that it overlaps most and that is not taken yet. Where there
    is none, a difficult object may excuse it, which may be a crowd: its measure is the share of the prediction that
    is inside, and it excuses any number.

    Args:
        predicted: (n, 4), by falling score.
        predicted_labels: (n,).
        boxes: (g, 4).
        labels: (g,).
        difficult: (g,) objects that are not asked for.
        min_iou: overlap that is needed.

    Returns:
        (n,) indices of objects; -1 for none.
    """
    overlaps = _overlaps(predicted.astype(np.float64), boxes.astype(np.float64), difficult)
    fits = (overlaps >= min_iou) & (predicted_labels[:, None] == labels)
    free = np.ones(len(boxes), np.bool_)
    taken = np.full(len(predicted), -1, np.int64)
    for number in range(len(predicted)) if len(boxes) else ():
        # One more for those that count: no difficult object comes before them.
        worth = np.where(fits[number] & free, overlaps[number] + ~difficult, 0)
        best = worth.argmax()
        if worth[best] > 0:
            taken[number] = best
            free[best] = difficult[best]
    return taken


def _overlaps(
    predicted: NDArray[np.float64], boxes: NDArray[np.float64], difficult: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """(n, g) IoU, and for difficult objects the share of the prediction that is inside."""
    corner = np.maximum(predicted[:, None, :2], boxes[:, :2])
    sides = np.minimum(predicted[:, None, 2:], boxes[:, 2:]) - corner
    shared = sides.clip(min=0).prod(axis=2)
    own, others = ((xyxy[:, 2:] - xyxy[:, :2]).prod(axis=1) for xyxy in (predicted, boxes))
    whole = np.where(difficult, own[:, None], own[:, None] + others - shared)
    found: NDArray[np.float64] = shared / np.maximum(whole, np.finfo(np.float64).tiny)
    return found


def _draw_cell(record: AnnotatedImage, found: Detections, classes: Sequence[str]) -> Image.Image:
    image = read_image(record.path)
    image.thumbnail((_LONG_SIDE, _LONG_SIDE))
    predicted = _scaled(found.boxes, found.image_hw, image.size)
    boxes = _scaled(record.boxes, record.size_hw, image.size)
    taken = match_predictions(predicted, found.labels, boxes, record.labels, record.difficult)
    excused = (taken >= 0) & np.append(record.difficult, False)[taken]
    hit, invented = (taken >= 0) & ~excused, taken < 0
    missed = ~record.difficult & ~np.isin(np.arange(len(boxes)), taken)
    ground_truth = [classes[label] for label in record.labels]
    said = [f"{classes[label]} {score:.2f}" for label, score in zip(found.labels, found.scores, strict=True)]
    marks = [
        *_marks(boxes, record.difficult, _NOT_COUNTED, ["difficult"] * len(boxes)),
        *_marks(predicted, excused, _NOT_COUNTED, said),
        *_marks(predicted, hit, _HIT, said),
        *_marks(boxes, missed, _MISSED, ground_truth),
        *_marks(predicted, invented, _INVENTED, said),
    ]
    title = f"{hit.sum()} found, {missed.sum()} missed, {invented.sum()} invented: {record.path.name}"
    return add_title(draw_marks(image, marks), title)


def _marks(boxes: NDArray[np.float32], keep: NDArray[np.bool_], pen: Pen, captions: Sequence[str]) -> list[Mark]:
    return [Mark(tuple(boxes[number].tolist()), pen, captions[number]) for number in np.flatnonzero(keep).tolist()]


def _scaled(boxes: NDArray[np.float32], from_hw: tuple[int, int], to_size: tuple[int, int]) -> NDArray[np.float32]:
    """Boxes in an image that was resized to this width and height."""
    x, y = to_size[0] / from_hw[1], to_size[1] / from_hw[0]
    return boxes * np.array([x, y, x, y], np.float32)


def _on_sheet(images: Sequence[Image.Image]) -> Image.Image:
    return contact_sheet(images, columns=math.ceil(math.sqrt(len(images))))
