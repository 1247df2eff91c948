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
from fasterrcnn.evaluation.metrics.tide import CLASSIFICATION, IGNORED, KINDS, RIGHT
from fasterrcnn.evaluation.page.charts import short
from fasterrcnn.evaluation.page.mistakes import (
    Example,
    ImageErrors,
    classes_in_error,
    count_errors,
    examples,
    worst_images,
)
from fasterrcnn.evaluation.page.thumbnails import Thumbnail, Wanted, cut
from fasterrcnn.reporting.drawing import Edges

IMAGE_SIDE, EXAMPLE_SIDE = 640, 200
MAX_LETTERS = 16_000_000
"""Of all small images of a page together, as base64; the costliest come first."""

_MAX_SHAPES = 150  # of a panel; errors come last, and are kept
_MARGIN, _LEAST_SIDE = 1.7, 40.0  # of a cut-out: times the boxes in it, and in pixels
_FARTHEST = 1e6  # boxes of other people's detectors may be of any size


@dataclass(frozen=True)
class Shape:
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
        thumbnail: number of the small image in the page.
        region: xyxy of the original that is shown.
        panels: boxes; for whole images those of ground truth and those of detections.
        lines: what is said below.
        labels: classes that are concerned.
        counts: cost, false positives, misses and confusions of a whole image.
        kind: of an error; empty for a whole image.
    """

    file: str
    thumbnail: int
    region: Edges
    panels: Sequence[Sequence[Shape]]
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
        thumbnails: base64 of the small images that cards refer to.
        gone: names of files that are not there or cannot be read.
        left_out: cards for which there was no room.
        errors: of each image, at the threshold.
    """

    images: Sequence[Card]
    galleries: Mapping[str, Sequence[Card]]
    thumbnails: Sequence[str]
    gone: Sequence[str]
    left_out: int
    errors: ImageErrors


def make_cards(analysis: Analysis, max_letters: int = MAX_LETTERS) -> Cards:
    """The costliest images and errors, as far as there is room and their files can be read."""
    files = analysis.ground_truth.images.files
    visible = np.array([_is_file(file) for file in files], np.bool_).reshape(len(files))
    errors = count_errors(analysis)
    whole, galleries = worst_images(analysis, errors, visible), examples(analysis, visible)
    singles = [example for gallery in galleries.values() for example in gallery]
    requests = [(image, Wanted(None, IMAGE_SIDE)) for image in whole]
    requests += [(one.image, Wanted(_region(analysis, one), EXAMPLE_SIDE)) for one in singles]
    small, damaged = _cut_all(files, requests)
    kept, left_out = _fitting(small, max_letters)
    concerned = classes_in_error(analysis, errors)
    images, cards = list[Card](), {kind: list[Card]() for kind in galleries}
    for number, (place, thumbnail) in enumerate(kept):
        if place < len(whole):
            image = whole[place]
            images.append(_image(analysis, errors, image, number, thumbnail, concerned[image]))
        else:
            one = singles[place - len(whole)]
            cards[one.kind].append(_example(analysis, one, number, thumbnail))
    gone = [str(files[image]) for image in sorted({*np.flatnonzero(~visible).tolist(), *damaged})]
    return Cards(images, cards, [thumbnail.jpeg for _, thumbnail in kept], gone, left_out, errors)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _fitting(small: Sequence[Thumbnail | None], max_letters: int) -> tuple[list[tuple[int, Thumbnail]], int]:
    """The small images that there is room for, with their places, and how many there are besides."""
    kept, letters, left_out = list[tuple[int, Thumbnail]](), 0, 0
    for place, thumbnail in enumerate(small):
        if thumbnail is None:
            continue
        letters += len(thumbnail.jpeg)
        if letters <= max_letters:
            kept.append((place, thumbnail))
        else:
            left_out += 1
    return kept, left_out


def _cut_all(files: Sequence[Path], requests: Sequence[tuple[int, Wanted]]) -> tuple[list[Thumbnail | None], list[int]]:
    """Small images in the order of the requests, and the images that could not be read."""
    by_image: dict[int, list[int]] = {}
    for place, (image, _) in enumerate(requests):
        by_image.setdefault(image, []).append(place)
    small: list[Thumbnail | None] = [None] * len(requests)
    damaged = []
    for image, places in by_image.items():
        try:
            made = cut(files[image], [requests[place][1] for place in places])
        except ImageError:
            damaged.append(image)
            continue
        for place, thumbnail in zip(places, made, strict=True):
            small[place] = thumbnail
    return small, damaged


def _region(analysis: Analysis, one: Example) -> Edges:
    """A square around the boxes of an error."""
    boxes = []
    if one.detection >= 0:
        boxes.append(analysis.predictions.xywh[one.detection])
    if one.object >= 0:
        boxes.append(analysis.ground_truth.xywh[one.object])
    xywh = np.clip(boxes, -_FARTHEST, _FARTHEST)
    low, high = xywh[:, :2].min(axis=0), (xywh[:, :2] + xywh[:, 2:]).max(axis=0)
    (x, y), half = ((low + high) / 2).tolist(), max(float((high - low).max()) * _MARGIN, _LEAST_SIDE) / 2
    return x - half, y - half, x + half, y + half


def _image(
    analysis: Analysis, errors: ImageErrors, image: int, number: int, small: Thumbnail, labels: Sequence[int]
) -> Card:
    counts = {
        "cost": round(float(errors.cost[image]), 3),
        "false positives": int(errors.false_positives[image]),
        "misses": int(errors.misses[image]),
        "confusions": int(errors.confusions[image]),
    }
    panels = (
        list(_ground_truth_shapes(analysis, errors, image))[-_MAX_SHAPES:],
        list(_found_shapes(analysis, errors, image))[-_MAX_SHAPES:],
    )
    return Card(analysis.ground_truth.images.files[image].name, number, small.region, panels, (), labels, counts)


def _ground_truth_shapes(analysis: Analysis, errors: ImageErrors, image: int) -> Iterator[Shape]:
    """Objects of an image, those that are not found last, so that they lie on top."""
    ground_truth = analysis.ground_truth
    here = (ground_truth.owners == image).nonzero()[0]
    for one in here[np.argsort(errors.unfound[here], kind="stable")].tolist():
        name = _name(ground_truth, ground_truth.labels[one])
        if ground_truth.crowd[one]:
            style, caption, said = "ignored", "", "crowd or difficult: not counted"
        elif errors.unfound[one]:
            style, caption, said = "missed", name, "not found"
        else:
            style, caption, said = "right", "", "found"
        yield Shape(
            _edges(ground_truth.xywh[one]), style, caption, f"{name}: {said} (annotation {ground_truth.numbers[one]})"
        )


def _found_shapes(analysis: Analysis, errors: ImageErrors, image: int) -> Iterator[Shape]:
    """Detections of an image that reach the threshold, the errors last."""
    found, ground_truth, verdicts = analysis.predictions, analysis.ground_truth, analysis.verdicts
    here = ((found.owners == image) & (found.scores >= errors.score)).nonzero()[0]
    for one in here[np.argsort(errors.wrong[here], kind="stable")].tolist():
        name, kind, about = _name(ground_truth, found.labels[one]), int(verdicts.kinds[one]), int(verdicts.objects[one])
        style = {RIGHT: "right", IGNORED: "ignored", CLASSIFICATION: "confused"}.get(kind, "wrong")
        near = (
            ""
            if about < 0
            else f", {_name(ground_truth, ground_truth.labels[about])} at IoU {verdicts.overlaps[one]:.2f}"
        )
        caption = f"{name} {found.scores[one]:.2f}" if errors.wrong[one] else ""
        yield Shape(_edges(found.xywh[one]), style, caption, f"{name} {found.scores[one]:.3f}: {KINDS[kind]}{near}")


def _example(analysis: Analysis, one: Example, number: int, small: Thumbnail) -> Card:
    ground_truth, found, verdicts = analysis.ground_truth, analysis.predictions, analysis.verdicts
    shapes, lines, labels = [], [], [one.label]
    name = _name(ground_truth, one.label)
    if one.object >= 0:
        true_label = int(ground_truth.labels[one.object])
        labels += [] if true_label == one.label else [true_label]
        style = "missed" if one.detection < 0 else "object"
        shapes.append(
            Shape(_edges(ground_truth.xywh[one.object]), style, "", f"object: {_name(ground_truth, true_label)}")
        )
    if one.detection >= 0:
        style = {RIGHT: "right", CLASSIFICATION: "confused"}.get(int(verdicts.kinds[one.detection]), "wrong")
        said = f"{_name(ground_truth, found.labels[one.detection])} {found.scores[one.detection]:.2f}"
        shapes.append(Shape(_edges(found.xywh[one.detection]), style, "", f"detection: {said}"))
        lines.append(said)
        if one.object >= 0:
            lines.append(f"object: {_name(ground_truth, true_label)}, IoU {verdicts.overlaps[one.detection]:.2f}")
    else:
        width, height = ground_truth.xywh[one.object, 2:].tolist()
        lines += [name, f"{width:.0f} x {height:.0f} pixels"]
    file = ground_truth.images.files[one.image].name
    return Card(file, number, small.region, (shapes,), lines, labels, {}, one.kind)


def _name(ground_truth: GroundTruth, label: int | np.int64) -> str:
    """A class as it is named beside boxes: a name that fills a page would be there a thousand times."""
    return short(ground_truth.classes[label], 48)


def _edges(xywh: Float64[np.ndarray, "4"]) -> Edges:
    left, top, width, height = xywh.tolist()
    return round(left, 1), round(top, 1), round(left + width, 1), round(top + height, 1)
