"""Validation: losses and COCO's average precision after each epoch, and images of batches and of detections."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage, to_coco
from fasterrcnn.data.dataset import DetectionDataset, draw_target
from fasterrcnn.detections import Detections
from fasterrcnn.errors import UsageError
from fasterrcnn.evaluation.matching import match_image
from fasterrcnn.evaluation.report import score_detections
from fasterrcnn.images import read_stretched
from fasterrcnn.inference.detector import as_detections
from fasterrcnn.reporting.drawing import Mark, Pen, add_legend, add_title, contact_sheet, draw_marks
from fasterrcnn.structures import ImageBatch, Losses, RawDetections, Target
from fasterrcnn.training.data import Process, Step

_MAX_SAMPLES = 12


class Validation:
    """Collects the results of one pass over the validation images; each process adds its part."""

    def __init__(self, data: AnnotatedData, dataset: DetectionDataset, process: Process) -> None:
        self.data = data
        self.dataset = dataset
        self.process = process
        self._ground_truth = to_coco(data, dataset.images)
        self._sampled = range(0, len(dataset), max(1, -(-len(dataset) // _MAX_SAMPLES)))
        self.clear()

    def clear(self) -> None:
        """Begin a new pass."""
        self._sums = torch.zeros(8, dtype=torch.float64)
        self._results: list[dict[str, object]] = []
        self._samples: dict[int, Detections] = {}

    def add(self, step: Step, losses: Losses, detections: Sequence[RawDetections]) -> None:
        """Add the losses and detections of a batch."""
        if not step.plan.counts:
            return
        # Float64 from here on, on the CPU: Apple's GPUs have none.
        measured = torch.cat([torch.stack([value for _, value in losses]), losses.weights])
        values, weights = torch.split(measured.cpu().double(), 4)
        self._sums += torch.cat([values * weights, weights])
        for index, raw, input_hw in zip(step.plan.indices, detections, step.batch.sizes_hw, strict=True):
            image = self.dataset.images[index]
            original = as_detections(raw, input_hw, image.size_hw, self.data.classes, source=image.path)
            self._results += original.to_coco(image.image_id, list(self.data.category_ids))
            if index in self._sampled:
                self._samples[index] = original

    def result(self) -> dict[str, float]:
        """Losses by name with "val_" before them, and "ap", "ap50", "ap75", 0..1, or NaN without objects."""
        parts: list[Any] = [(self._sums, self._results, self._samples)]
        if self.process.world_size > 1:
            parts = [None] * self.process.world_size
            torch.distributed.all_gather_object(parts, (self._sums, self._results, self._samples))
        sums: Tensor = torch.stack([part[0] for part in parts]).sum(dim=0)
        self._samples = {index: detections for part in parts for index, detections in part[2].items()}
        losses = (sums[:4] / sums[4:].clamp(min=torch.finfo(sums.dtype).tiny)).float()
        report = score_detections(self._ground_truth, [row for part in parts for row in part[1]])
        precisions = {"ap": report.ap, "ap50": report.ap50, "ap75": report.ap75}
        return {f"val_{name}": value for name, value in Losses(*losses).as_floats().items()} | {
            name: math.nan if value is None else value for name, value in precisions.items()
        }

    def samples(self) -> tuple[list[AnnotatedImage], list[Detections]]:
        """At most 12 images, spread over all, and their detections in the last pass."""
        indices = sorted(self._samples)
        return [self.dataset.images[index] for index in indices], [self._samples[index] for index in indices]


_LONG_SIDE = 480
_FOUND = Pen((60, 220, 90))
_FALSE_POSITIVE = Pen((235, 40, 40))
_MISSED = Pen((255, 220, 0), dashed=True)
_NOT_COUNTED = Pen((150, 150, 150), dashed=True)


def draw_batch(batch: ImageBatch, targets: Sequence[Target], classes: Sequence[str]) -> Image.Image:
    """The images of a batch as the network gets them, padding included, with their objects, on one sheet.

    Difficult objects and crowds are captioned "difficult". Batch and targets may lie on any device.
    """
    cells = [
        draw_target(pixels, target.to("cpu"), classes)
        for pixels, target in zip(batch.to("cpu").pixels, targets, strict=True)
    ]
    return _on_sheet([ImageOps.expand(cell, border=2, fill="white") for cell in cells])


def draw_comparison(
    images: Sequence[AnnotatedImage], detections: Sequence[Detections], classes: Sequence[str], *, score: float = 0.5
) -> Image.Image:
    """Ground truth and detections together: found and missed objects and false positives, on one sheet.

    Each image has a title with the counts and the file's name. Images are shrunk to 480 pixels at most. Detections
    below the score are left out.
    """
    if not images:
        raise UsageError("no images to compare; give at least one")
    cells = [
        _draw_cell(image, detected.filter(score=score), classes)
        for image, detected in zip(images, detections, strict=True)
    ]
    meanings = {
        f"found (IoU 0.5, score {score:g} or more)": _FOUND,
        "false positive": _FALSE_POSITIVE,
        "missed": _MISSED,
        "difficult, not counted": _NOT_COUNTED,
    }
    return add_legend(_on_sheet(cells), meanings)


def _draw_cell(image: AnnotatedImage, detections: Detections, classes: Sequence[str]) -> Image.Image:
    pil_image, _ = read_stretched(image.path)
    pil_image.thumbnail((_LONG_SIDE, _LONG_SIDE))
    detected = _scaled(detections.boxes, detections.image_hw, pil_image.size)
    boxes = _scaled(image.boxes, image.size_hw, pil_image.size)
    matched = match_image(detected, detections.labels, boxes, image.labels, image.difficult)
    not_counted = (matched >= 0) & np.append(image.difficult, False)[matched]
    true_positive, false_positive = (matched >= 0) & ~not_counted, matched < 0
    missed = ~image.difficult & ~np.isin(np.arange(len(boxes)), matched)
    names = [classes[label] for label in image.labels]
    captions = [f"{classes[label]} {s:.2f}" for label, s in zip(detections.labels, detections.scores, strict=True)]
    marks = [
        *_marks(boxes, image.difficult, _NOT_COUNTED, ["difficult"] * len(boxes)),
        *_marks(detected, not_counted, _NOT_COUNTED, captions),
        *_marks(detected, true_positive, _FOUND, captions),
        *_marks(boxes, missed, _MISSED, names),
        *_marks(detected, false_positive, _FALSE_POSITIVE, captions),
    ]
    title = (
        f"{true_positive.sum()} found, {missed.sum()} missed, {false_positive.sum()} false positive: {image.path.name}"
    )
    return add_title(draw_marks(pil_image, marks), title)


def _marks(boxes: NDArray[np.float32], keep: NDArray[np.bool_], pen: Pen, captions: Sequence[str]) -> list[Mark]:
    return [Mark(tuple(boxes[number].tolist()), pen, captions[number]) for number in np.flatnonzero(keep).tolist()]


def _scaled(boxes: NDArray[np.float32], from_hw: tuple[int, int], to_size: tuple[int, int]) -> NDArray[np.float32]:
    """Boxes in an image that was resized to this width and height."""
    x, y = to_size[0] / from_hw[1], to_size[1] / from_hw[0]
    return boxes * np.array([x, y, x, y], np.float32)


def _on_sheet(images: Sequence[Image.Image]) -> Image.Image:
    return contact_sheet(images, columns=math.ceil(math.sqrt(len(images))))
