"""What a run shows of its pictures: what it learns from, and what it finds in pictures it did not learn from.

Axes: n predictions, g objects. Boxes are xyxy; the frame of predictions and objects is the same.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fasterrcnn.data.images import read_picture
from fasterrcnn.data.records import Record
from fasterrcnn.data.show import draw_target
from fasterrcnn.detections import Detections
from fasterrcnn.drawing import Mark, Pen, add_legend, add_title, contact_sheet, draw_marks
from fasterrcnn.errors import UsageError
from fasterrcnn.structures import ImageBatch, Target

_LONG_SIDE = 480
_HIT = Pen((60, 220, 90))
_INVENTED = Pen((235, 40, 40))
_MISSED = Pen((255, 220, 0), dashed=True)
_NOT_COUNTED = Pen((150, 150, 150), dashed=True)


def draw_batch(batch: ImageBatch, targets: Sequence[Target], classes: Sequence[str]) -> Image.Image:
    """The pictures of a batch as the network sees them, padding included, with their objects, on one sheet.

    Difficult objects and crowds are captioned "difficult".

    Args:
        batch: on any device.
        targets: one for each picture, on any device.
        classes: names; label i means ``classes[i]``.
    """
    shown = batch.to("cpu")
    views = [
        draw_target(pixels, target.to("cpu"), classes) for pixels, target in zip(shown.pixels, targets, strict=True)
    ]
    return _on_sheet([ImageOps.expand(view, border=2, fill="white") for view in views])


def draw_comparison(
    records: Sequence[Record], detections: Sequence[Detections], classes: Sequence[str], *, score: float = 0.5
) -> Image.Image:
    """Truth and predictions together: what was found, what was missed and what was invented, on one sheet.

    Above each picture stand the counts and the file's name. Pictures are shrunk to `_LONG_SIDE` pixels at most.

    Args:
        records: pictures and what is true of them.
        detections: what was found in each of them.
        classes: names; label i means ``classes[i]``.
        score: predictions below it are left out.

    Raises:
        UsageError: there is no picture to show.
        ImageError: a picture cannot be decoded; the message names it.
    """
    if not records:
        raise UsageError("no pictures to compare; give at least one")
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


def _draw_cell(record: Record, found: Detections, classes: Sequence[str]) -> Image.Image:
    picture = read_picture(record.path)
    picture.thumbnail((_LONG_SIDE, _LONG_SIDE))
    predicted = _scaled(found.boxes, found.image_hw, picture.size)
    boxes = _scaled(record.boxes, record.size_hw, picture.size)
    taken = match_predictions(predicted, found.labels, boxes, record.labels, record.difficult)
    excused = (taken >= 0) & np.append(record.difficult, False)[taken]
    hit, invented = (taken >= 0) & ~excused, taken < 0
    missed = ~record.difficult & ~np.isin(np.arange(len(boxes)), taken)
    truth = [classes[label] for label in record.labels]
    said = [f"{classes[label]} {score:.2f}" for label, score in zip(found.labels, found.scores, strict=True)]
    marks = [
        *_marks(boxes, record.difficult, _NOT_COUNTED, ["difficult"] * len(boxes)),
        *_marks(predicted, excused, _NOT_COUNTED, said),
        *_marks(predicted, hit, _HIT, said),
        *_marks(boxes, missed, _MISSED, truth),
        *_marks(predicted, invented, _INVENTED, said),
    ]
    title = f"{hit.sum()} found, {missed.sum()} missed, {invented.sum()} invented: {record.path.name}"
    return add_title(draw_marks(picture, marks), title)


def _marks(boxes: NDArray[np.float32], keep: NDArray[np.bool_], pen: Pen, captions: Sequence[str]) -> list[Mark]:
    return [Mark(tuple(boxes[number].tolist()), pen, captions[number]) for number in np.flatnonzero(keep).tolist()]


def _scaled(boxes: NDArray[np.float32], from_hw: tuple[int, int], to_size: tuple[int, int]) -> NDArray[np.float32]:
    """Boxes in a picture that was resized to this width and height."""
    x, y = to_size[0] / from_hw[1], to_size[1] / from_hw[0]
    return boxes * np.array([x, y, x, y], np.float32)


def _on_sheet(pictures: Sequence[Image.Image]) -> Image.Image:
    return contact_sheet(pictures, columns=math.ceil(math.sqrt(len(pictures))))
