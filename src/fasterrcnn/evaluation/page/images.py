"""The images of a report: the costliest with ground truth beside detections, and a crop for every single error.

Boxes are drawn by the browser, in pixels of the upright original image.
Axes: i images, g objects, n detections, m either.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from fasterrcnn.errors import ImageError
from fasterrcnn.evaluation.analysis import Analysis
from fasterrcnn.evaluation.ground_truth import GroundTruth, place_in_group
from fasterrcnn.evaluation.metrics.error_kinds import BACKGROUND, CLASSIFICATION, ERROR_KINDS, IGNORED, MISSED, RIGHT
from fasterrcnn.reporting.charts import shorten
from fasterrcnn.reporting.drawing import Edges
from fasterrcnn.reporting.html import Crop, Thumbnail, make_thumbnails

OUT_OF_REACH = "out of reach"  # the gallery of objects that the first stage does not propose

MAX_IMAGES, FIRST_IMAGES = 140, 80
MAX_EXAMPLES, FIRST_EXAMPLES, EXAMPLES_OF_CLASS = 120, 48, 3
IMAGE_SIDE, EXAMPLE_SIDE = 640, 200
MAX_LETTERS = 16_000_000  # of all thumbnails of a page together, as base64; the costliest come first

_MAX_BOXES = 150  # of a panel; errors come last, and are kept
_MARGIN, _MIN_SIDE = 1.7, 40.0  # of a crop: times the boxes in it, and in pixels
_MAX_COORDINATE = 1e6  # boxes of other people's detectors may be of any size
_NAME_LETTERS = 48  # a name that fills a page would be there a thousand times


@dataclass(frozen=True)
class ImageErrors:
    """Errors of each image when detections under a score are left out, at IoU .50.

    A wrong detection costs its score; an object that is not found costs 1.
    """

    score: float  # the threshold
    cost: Float64[np.ndarray, " i"]  # of each image
    false_positives: Int64[np.ndarray, " i"]  # wrong detections, but for confusions
    misses: Int64[np.ndarray, " i"]  # objects that are not found, but for confused ones
    confusions: Int64[np.ndarray, " i"]  # detections that lie right but have another class
    wrong: Bool[np.ndarray, " n"]  # which detections are an error that counts here
    unfound: Bool[np.ndarray, " g"]  # which objects no right detection of that score has


@dataclass(frozen=True)
class ErrorExample:
    """One error of a gallery."""

    kind: str  # one of `ERRORS`, or `OUT_OF_REACH`
    image: int  # 0..i-1
    label: int  # class of the detection, or of the object where there is no detection
    detection: int  # 0..n-1, or -1
    object: int  # the object that it is about, 0..g-1, or -1


@dataclass(frozen=True)
class OverlayBox:
    """A box over an image."""

    box: Edges  # xyxy in pixels of the original
    style: str  # "right", "wrong", "confused", "missed", "object" or "ignored"
    caption: str  # beside it; may be empty
    tip: str  # what the mouse shows


@dataclass(frozen=True)
class Card:
    """One image with its errors, or one error."""

    file: str  # name of the image's file
    thumbnail: int  # number of the thumbnail in the page
    region: Edges  # xyxy of the original that is shown
    panels: Sequence[Sequence[OverlayBox]]  # boxes; for whole images those of ground truth and those of detections
    lines: Sequence[str]  # text below
    labels: Sequence[int]  # classes that are concerned
    # Cost, false positives, misses and confusions of a whole image
    counts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Cards:
    """All images of a page."""

    images: Sequence[Card]  # whole ones by falling cost
    galleries: Mapping[str, Sequence[Card]]  # kind of error -> single errors by falling cost
    thumbnails: Sequence[str]  # base64 of the thumbnails that cards refer to
    unreadable: Sequence[str]  # names of files that are missing or cannot be read
    left_out: int  # cards for which there was no room
    errors: ImageErrors  # of each image, at the threshold


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
    labels = classes_in_error(analysis, errors)
    image_cards, example_cards = list[Card](), {kind: list[Card]() for kind in galleries}
    jpegs, letters, left_out = list[str](), 0, 0
    for place, thumbnail in enumerate(thumbnails):
        if thumbnail is None:
            continue
        letters += len(thumbnail.jpeg)
        if letters > max_letters:
            left_out += 1
        elif place < len(whole):
            image = whole[place]
            image_cards.append(_image_card(analysis, errors, image, len(jpegs), thumbnail, labels[image]))
            jpegs.append(thumbnail.jpeg)
        else:
            example = examples[place - len(whole)]
            example_cards[example.kind].append(_example_card(analysis, example, len(jpegs), thumbnail))
            jpegs.append(thumbnail.jpeg)
    unreadable = [str(files[image]) for image in sorted({*np.flatnonzero(~is_there).tolist(), *damaged})]
    return Cards(image_cards, example_cards, jpegs, unreadable, left_out, errors)


def count_errors(analysis: Analysis) -> ImageErrors:
    """Errors of each image at the threshold of the confusion matrix: the one with the best F1."""
    ground_truth, detections, error_kinds = analysis.ground_truth, analysis.predictions, analysis.error_kinds
    images, score = len(ground_truth.images), analysis.confusion.score
    kept = detections.scores >= score
    wrong = kept & (error_kinds.kinds >= CLASSIFICATION)
    confused = wrong & (error_kinds.kinds == CLASSIFICATION)
    unfound = ~ground_truth.crowd
    unfound[error_kinds.objects[kept & (error_kinds.kinds == RIGHT)]] = False
    missed = unfound.copy()
    missed[error_kinds.objects[confused]] = False
    # A score may be any number; one that is not finite or below zero costs nothing.
    prices = np.nan_to_num(detections.scores[wrong], posinf=0.0, neginf=0.0).clip(min=0)
    cost_of_wrong = np.bincount(detections.owners[wrong], prices, images).astype(float)
    return ImageErrors(
        score=score,
        cost=cost_of_wrong + np.bincount(ground_truth.owners[unfound], minlength=images),
        false_positives=np.bincount(detections.owners[wrong & ~confused], minlength=images),
        misses=np.bincount(ground_truth.owners[missed], minlength=images),
        confusions=np.bincount(detections.owners[confused], minlength=images),
        wrong=wrong,
        unfound=unfound,
    )


def worst_images(analysis: Analysis, errors: ImageErrors, is_there: Bool[np.ndarray, " i"]) -> list[int]:
    """The costliest of the images whose files exist, and the costliest of each class, by falling cost."""
    costs = np.where(is_there, errors.cost, 0.0)
    order = np.argsort(-costs, kind="stable")
    order = order[costs[order] > 0]
    chosen = dict.fromkeys(order[:FIRST_IMAGES].tolist())
    owners, labels = _owners_and_labels(analysis, errors)
    places = np.empty(len(costs), np.int64)
    places[order] = np.arange(len(order))
    has_cost = costs[owners] > 0
    owners, labels = owners[has_cost], labels[has_cost]
    by_class = np.lexsort((places[owners], labels))
    first = np.unique(labels[by_class], return_index=True)[1]
    for image in owners[by_class][first].tolist():
        if len(chosen) < MAX_IMAGES:
            chosen[image] = None
    return sorted(chosen, key=lambda image: int(places[image]))


def classes_in_error(analysis: Analysis, errors: ImageErrors) -> dict[int, list[int]]:
    """Classes of the errors of each image."""
    classes: dict[int, set[int]] = {}
    for owner, label in _owners_and_labels(analysis, errors).T.tolist():
        classes.setdefault(owner, set()).add(label)
    return {owner: sorted(labels) for owner, labels in classes.items()}


def choose_examples(analysis: Analysis, is_there: Bool[np.ndarray, " i"]) -> dict[str, list[ErrorExample]]:
    """Of each kind of error the costliest of all, and of each class, in images whose files exist.

    Detections come by falling score: the higher it is, the more the error costs. Objects come by falling area.
    """
    detections, ground_truth, error_kinds = analysis.predictions, analysis.ground_truth, analysis.error_kinds
    galleries = {}
    for kind in range(CLASSIFICATION, BACKGROUND + 1):
        rows = ((error_kinds.kinds == kind) & is_there[detections.owners]).nonzero()[0]
        galleries[ERROR_KINDS[kind]] = [
            ErrorExample(ERROR_KINDS[kind], int(detections.owners[d]), int(detections.labels[d]), d, int(about))
            for d, about in ((d, error_kinds.objects[d]) for d in _choose(rows, detections.labels[rows]))
        ]
    of_objects = {ERROR_KINDS[MISSED]: error_kinds.object_kinds == MISSED}
    if analysis.proposals is not None:
        of_objects[OUT_OF_REACH] = np.isin(np.arange(len(ground_truth)), analysis.proposals.unreached)
    for name, wanted in of_objects.items():
        rows = (wanted & is_there[ground_truth.owners]).nonzero()[0]
        rows = rows[np.argsort(-ground_truth.areas[rows], kind="stable")]
        galleries[name] = [
            ErrorExample(name, int(ground_truth.owners[g]), int(ground_truth.labels[g]), int(finder), g)
            for g, finder in ((g, error_kinds.finders[g]) for g in _choose(rows, ground_truth.labels[rows]))
        ]
    return galleries


def _owners_and_labels(analysis: Analysis, errors: ImageErrors) -> Int64[np.ndarray, "2 m"]:
    """Image and class of every wrong detection and every object that is not found."""
    places = ((analysis.predictions, errors.wrong), (analysis.ground_truth, errors.unfound))
    return np.concatenate([(boxes_of.owners[chosen], boxes_of.labels[chosen]) for boxes_of, chosen in places], axis=1)


def _choose(ranked: Int64[np.ndarray, " m"], labels: Int64[np.ndarray, " m"]) -> Sequence[int]:
    """The first of all, and the first few of each class, in the order given."""
    wanted = (np.arange(len(ranked)) < FIRST_EXAMPLES) | (place_in_group(labels) < EXAMPLES_OF_CLASS)
    chosen: list[int] = ranked[wanted][:MAX_EXAMPLES].tolist()
    return chosen


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


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
    places = ((analysis.predictions, example.detection), (analysis.ground_truth, example.object))
    boxes = [boxes_of.xywh[place] for boxes_of, place in places if place >= 0]
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
    boxes = (_object_boxes(analysis, errors, image), _detection_boxes(analysis, errors, image))
    panels = [list(of_panel)[-_MAX_BOXES:] for of_panel in boxes]
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
        name, kind = _name(ground_truth, detections.labels[row]), int(error_kinds.kinds[row])
        about = error_kinds.objects[row]
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
    return Card(file, number, thumbnail.region, (boxes,), lines, labels)


def _name(ground_truth: GroundTruth, label: int | np.int64) -> str:
    return shorten(ground_truth.classes[label], _NAME_LETTERS)


def _edges(xywh: Float64[np.ndarray, "4"]) -> Edges:
    left, top, width, height = xywh.tolist()
    return round(left, 1), round(top, 1), round(left + width, 1), round(top + height, 1)
