"""Images of a report with boxes over them: whole images, ground truth beside detections, a crop for every error.

Boxes are drawn by the browser, in pixels of the upright original image.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from fasterrcnn.errors import ImageError
from fasterrcnn.evaluation.analysis import Analysis
from fasterrcnn.evaluation.ground_truth import GroundTruth
from fasterrcnn.evaluation.metrics.tide import CLASSIFICATION, ERROR_KINDS, IGNORED, RIGHT
from fasterrcnn.evaluation.page.mistakes import (
    ErrorExample,
    ImageErrors,
    choose_examples,
    classes_in_error,
    count_errors,
    worst_images,
)
from fasterrcnn.reporting.charts import shorten
from fasterrcnn.reporting.drawing import Edges
from fasterrcnn.reporting.html import Crop, Thumbnail, make_thumbnails

IMAGE_SIDE, EXAMPLE_SIDE = 640, 200
MAX_LETTERS = 16_000_000
"""Of all thumbnails of a page together, as base64; the costliest come first."""

_MAX_BOXES = 150  # of a panel; errors come last, and are kept
_MARGIN, _MIN_SIDE = 1.7, 40.0  # of a crop: times the boxes in it, and in pixels
_MAX_COORDINATE = 1e6  # boxes of other people's detectors may be of any size
_NAME_LETTERS = 48  # a name that fills a page would be there a thousand times


@dataclass(frozen=True)
class OverlayBox:
    """A box over an image.

    Attributes:
        box: xyxy in pixels of the original.
        style: "right", "wrong", "confused", "missed", "object" or "ignored".
        caption: beside it; may be empty.
        tip: what the mouse shows.
    """

    box: Edges
    style: str
    caption: str
    tip: str


@dataclass(frozen=True)
class Card:
    """One image with its errors, or one error.

    Attributes:
        file: name of the image's file.
        thumbnail: number of the thumbnail in the page.
        region: xyxy of the original that is shown.
        panels: boxes; for whole images those of ground truth and those of detections.
        lines: text below.
        labels: classes that are concerned.
        counts: cost, false positives, misses and confusions of a whole image.
        kind: of an error; empty for a whole image.
    """

    file: str
    thumbnail: int
    region: Edges
    panels: Sequence[Sequence[OverlayBox]]
    lines: Sequence[str]
    labels: Sequence[int]
    counts: Mapping[str, float] = field(default_factory=dict)
    kind: str = ""


@dataclass(frozen=True)
class Cards:
    """All images of a page.

    Attributes:
        images: whole ones by falling cost.
        galleries: kind of error -> single errors by falling cost.
        thumbnails: base64 of the thumbnails that cards refer to.
        unreadable: names of files that are missing or cannot be read.
        left_out: cards for which there was no room.
        errors: of each image, at the threshold.
    """

    images: Sequence[Card]
    galleries: Mapping[str, Sequence[Card]]
    thumbnails: Sequence[str]
    unreadable: Sequence[str]
    left_out: int
    errors: ImageErrors


def make_cards(analysis: Analysis, max_letters: int = MAX_LETTERS) -> Cards:
    """The costliest images and errors, as far as there is room and their files can be read."""
    files = analysis.ground_truth.images.files
    is_there = np.array([_is_file(file) for file in files], np.bool_).reshape(len(files))
    errors = count_errors(analysis)
    whole, galleries = worst_images(analysis, errors, is_there), choose_examples(analysis, is_there)
    examples = [example for gallery in galleries.values() for example in gallery]
    requests = [(image, Crop(None, IMAGE_SIDE)) for image in whole]
    requests += [(example.image, Crop(_region(analysis, example), EXAMPLE_SIDE)) for example in examples]
    thumbnails, damaged = _read_all(files, requests)
    kept, left_out = _fitting(thumbnails, max_letters)
    labels = classes_in_error(analysis, errors)
    image_cards, example_cards = list[Card](), {kind: list[Card]() for kind in galleries}
    for number, (place, thumbnail) in enumerate(kept):
        if place < len(whole):
            image = whole[place]
            image_cards.append(_image_card(analysis, errors, image, number, thumbnail, labels[image]))
        else:
            example = examples[place - len(whole)]
            example_cards[example.kind].append(_example_card(analysis, example, number, thumbnail))
    unreadable = [str(files[image]) for image in sorted({*np.flatnonzero(~is_there).tolist(), *damaged})]
    jpegs = [thumbnail.jpeg for _, thumbnail in kept]
    return Cards(image_cards, example_cards, jpegs, unreadable, left_out, errors)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _fitting(thumbnails: Sequence[Thumbnail | None], max_letters: int) -> tuple[list[tuple[int, Thumbnail]], int]:
    """The thumbnails that there is room for, with their places, and how many there are besides."""
    kept, letters, left_out = list[tuple[int, Thumbnail]](), 0, 0
    for place, thumbnail in enumerate(thumbnails):
        if thumbnail is None:
            continue
        letters += len(thumbnail.jpeg)
        if letters <= max_letters:
            kept.append((place, thumbnail))
        else:
            left_out += 1
    return kept, left_out


def _read_all(files: Sequence[Path], requests: Sequence[tuple[int, Crop]]) -> tuple[list[Thumbnail | None], list[int]]:
    """Thumbnails in the order of the requests, and the images that could not be read."""
    by_image: dict[int, list[int]] = {}
    for place, (image, _) in enumerate(requests):
        by_image.setdefault(image, []).append(place)
    thumbnails: list[Thumbnail | None] = [None] * len(requests)
    damaged = []
    for image, places in by_image.items():
        try:
            made = make_thumbnails(files[image], [requests[place][1] for place in places])
        except ImageError:
            damaged.append(image)
            continue
        for place, thumbnail in zip(places, made, strict=True):
            thumbnails[place] = thumbnail
    return thumbnails, damaged


def _region(analysis: Analysis, example: ErrorExample) -> Edges:
    """A square around the boxes of an error."""
    boxes = []
    if example.detection >= 0:
        boxes.append(analysis.predictions.xywh[example.detection])
    if example.object >= 0:
        boxes.append(analysis.ground_truth.xywh[example.object])
    xywh = np.clip(boxes, -_MAX_COORDINATE, _MAX_COORDINATE)
    low, high = xywh[:, :2].min(axis=0), (xywh[:, :2] + xywh[:, 2:]).max(axis=0)
    (x, y), half = ((low + high) / 2).tolist(), max(float((high - low).max()) * _MARGIN, _MIN_SIDE) / 2
    return x - half, y - half, x + half, y + half


def _image_card(
    analysis: Analysis, errors: ImageErrors, image: int, number: int, thumbnail: Thumbnail, labels: Sequence[int]
) -> Card:
    counts = {
        "cost": round(float(errors.cost[image]), 3),
        "false positives": int(errors.false_positives[image]),
        "misses": int(errors.misses[image]),
        "confusions": int(errors.confusions[image]),
    }
    panels = (
        list(_object_boxes(analysis, errors, image))[-_MAX_BOXES:],
        list(_detection_boxes(analysis, errors, image))[-_MAX_BOXES:],
    )
    file = analysis.ground_truth.images.files[image].name
    return Card(file, number, thumbnail.region, panels, (), labels, counts)


def _object_boxes(analysis: Analysis, errors: ImageErrors, image: int) -> Iterator[OverlayBox]:
    """Objects of an image, those that are not found last, so that they lie on top."""
    ground_truth = analysis.ground_truth
    here = (ground_truth.owners == image).nonzero()[0]
    for item in here[np.argsort(errors.unfound[here], kind="stable")].tolist():
        name = _name(ground_truth, ground_truth.labels[item])
        if ground_truth.crowd[item]:
            style, caption, state = "ignored", "", "crowd or difficult: not counted"
        elif errors.unfound[item]:
            style, caption, state = "missed", name, "not found"
        else:
            style, caption, state = "right", "", "found"
        tip = f"{name}: {state} (annotation {ground_truth.numbers[item]})"
        yield OverlayBox(_edges(ground_truth.xywh[item]), style, caption, tip)


def _detection_boxes(analysis: Analysis, errors: ImageErrors, image: int) -> Iterator[OverlayBox]:
    """Detections of an image that reach the threshold, the errors last."""
    detections, ground_truth, error_kinds = analysis.predictions, analysis.ground_truth, analysis.error_kinds
    here = ((detections.owners == image) & (detections.scores >= errors.score)).nonzero()[0]
    for row in here[np.argsort(errors.wrong[here], kind="stable")].tolist():
        name, kind, about = (
            _name(ground_truth, detections.labels[row]),
            int(error_kinds.kinds[row]),
            error_kinds.objects[row],
        )
        style = {RIGHT: "right", IGNORED: "ignored", CLASSIFICATION: "confused"}.get(kind, "wrong")
        tip = f"{name} {detections.scores[row]:.3f}: {ERROR_KINDS[kind]}"
        if about >= 0:
            tip += f", {_name(ground_truth, ground_truth.labels[about])} at IoU {error_kinds.overlaps[row]:.2f}"
        caption = f"{name} {detections.scores[row]:.2f}" if errors.wrong[row] else ""
        yield OverlayBox(_edges(detections.xywh[row]), style, caption, tip)


def _example_card(analysis: Analysis, example: ErrorExample, number: int, thumbnail: Thumbnail) -> Card:
    ground_truth, detections, error_kinds = analysis.ground_truth, analysis.predictions, analysis.error_kinds
    boxes, lines, labels = [], [], [example.label]
    object_name = ""
    if example.object >= 0:
        label = int(ground_truth.labels[example.object])
        labels += [] if label == example.label else [label]
        object_name = _name(ground_truth, label)
        style = "missed" if example.detection < 0 else "object"
        boxes.append(OverlayBox(_edges(ground_truth.xywh[example.object]), style, "", f"object: {object_name}"))
    if example.detection >= 0:
        kind = int(error_kinds.kinds[example.detection])
        style = {RIGHT: "right", CLASSIFICATION: "confused"}.get(kind, "wrong")
        score = detections.scores[example.detection]
        line = f"{_name(ground_truth, detections.labels[example.detection])} {score:.2f}"
        boxes.append(OverlayBox(_edges(detections.xywh[example.detection]), style, "", f"detection: {line}"))
        lines.append(line)
        if example.object >= 0:
            lines.append(f"object: {object_name}, IoU {error_kinds.overlaps[example.detection]:.2f}")
    else:
        width, height = ground_truth.xywh[example.object, 2:].tolist()
        lines += [_name(ground_truth, example.label), f"{width:.0f} x {height:.0f} pixels"]
    file = ground_truth.images.files[example.image].name
    return Card(file, number, thumbnail.region, (boxes,), lines, labels, {}, example.kind)


def _name(ground_truth: GroundTruth, label: int | np.int64) -> str:
    return shorten(ground_truth.classes[label], _NAME_LETTERS)


def _edges(xywh: Float64[np.ndarray, "4"]) -> Edges:
    left, top, width, height = xywh.tolist()
    return round(left, 1), round(top, 1), round(left + width, 1), round(top + height, 1)
