"""Which images and which single errors a report shows: the costliest, and some of every class.

Axes: i images, g objects, n detections.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from fasterrcnn.evaluation.analysis import Analysis
from fasterrcnn.evaluation.metrics.tide import BACKGROUND, CLASSIFICATION, ERROR_KINDS, ERRORS, MISSED, RIGHT

OUT_OF_REACH = "out of reach"
"""The gallery of objects that the first stage does not propose."""

MAX_IMAGES, FIRST_IMAGES = 140, 80
MAX_EXAMPLES, FIRST_EXAMPLES, EXAMPLES_OF_CLASS = 120, 48, 3


@dataclass(frozen=True)
class ImageErrors:
    """Errors of each image when detections under a score are left out, at IoU .50.

    A wrong detection costs its score; an object that is not found costs 1.

    Attributes:
        score: the threshold.
        cost: of each image.
        false_positives: wrong detections, but for confusions.
        misses: objects that are not found, but for confused ones.
        confusions: detections that lie right but have another class.
        wrong: which detections are an error that counts here.
        unfound: which objects no right detection of that score has.
    """

    score: float
    cost: Float64[np.ndarray, " i"]
    false_positives: Int64[np.ndarray, " i"]
    misses: Int64[np.ndarray, " i"]
    confusions: Int64[np.ndarray, " i"]
    wrong: Bool[np.ndarray, " n"]
    unfound: Bool[np.ndarray, " g"]


@dataclass(frozen=True)
class ErrorExample:
    """One error of a gallery.

    Attributes:
        kind: one of `ERRORS`, or `OUT_OF_REACH`.
        image: 0..i-1.
        label: class of the detection, or of the object where there is no detection.
        detection: 0..n-1, or -1.
        object: the object that it is about, 0..g-1, or -1.
    """

    kind: str
    image: int
    label: int
    detection: int
    object: int


def count_errors(analysis: Analysis) -> ImageErrors:
    """Errors of each image at the threshold of the confusion matrix: the one with the best F1."""
    ground_truth, detections, error_kinds = analysis.ground_truth, analysis.predictions, analysis.error_kinds
    images, score = len(ground_truth.images), analysis.confusion.score
    kept = detections.scores >= score
    wrong = kept & (error_kinds.kinds >= CLASSIFICATION)
    confused = wrong & (error_kinds.kinds == CLASSIFICATION)
    right = kept & (error_kinds.kinds == RIGHT)
    unfound = ~ground_truth.crowd
    unfound[error_kinds.objects[right]] = False
    missed = unfound.copy()
    missed[error_kinds.objects[confused]] = False

    def per_image(owners: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " i"]:
        return np.bincount(owners, minlength=images).astype(np.int64)

    # A score may be any number; one that is not finite or below zero costs nothing.
    prices = np.nan_to_num(detections.scores[wrong], posinf=0.0, neginf=0.0).clip(min=0)
    return ImageErrors(
        score=score,
        cost=np.bincount(detections.owners[wrong], prices, images).astype(float)
        + per_image(ground_truth.owners[unfound]),
        false_positives=per_image(detections.owners[wrong & ~confused]),
        misses=per_image(ground_truth.owners[missed]),
        confusions=per_image(detections.owners[confused]),
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
    for owner, label in zip(*(column.tolist() for column in _owners_and_labels(analysis, errors)), strict=True):
        classes.setdefault(owner, set()).add(label)
    return {owner: sorted(labels) for owner, labels in classes.items()}


def choose_examples(analysis: Analysis, is_there: Bool[np.ndarray, " i"]) -> dict[str, list[ErrorExample]]:
    """Of each kind of error the costliest of all, and of each class, in images whose files exist.

    Detections come by falling score: the higher it is, the more the error costs. Objects come by falling area.
    """
    detections, error_kinds = analysis.predictions, analysis.error_kinds
    galleries = {}
    for kind in range(CLASSIFICATION, BACKGROUND + 1):
        rows = ((error_kinds.kinds == kind) & is_there[detections.owners]).nonzero()[0]
        galleries[ERROR_KINDS[kind]] = [
            ErrorExample(
                ERROR_KINDS[kind], int(detections.owners[d]), int(detections.labels[d]), d, int(error_kinds.objects[d])
            )
            for d in _choose(rows, detections.labels[rows])
        ]
    galleries[ERROR_KINDS[MISSED]] = list(
        _of_objects(analysis, ERROR_KINDS[MISSED], error_kinds.object_kinds == MISSED, is_there)
    )
    if analysis.proposals is not None:
        unreached = np.zeros(len(analysis.ground_truth), np.bool_)
        unreached[analysis.proposals.unreached] = True
        galleries[OUT_OF_REACH] = list(_of_objects(analysis, OUT_OF_REACH, unreached, is_there))
    return galleries


def count_examples(analysis: Analysis) -> dict[str, int]:
    """How many errors of each kind there are in all."""
    reach = {} if analysis.proposals is None else {OUT_OF_REACH: len(analysis.proposals.unreached)}
    return {**{name: analysis.costs.counts[name] for name in ERRORS}, **reach}


def _owners_and_labels(
    analysis: Analysis, errors: ImageErrors
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """Image and class of every wrong detection and every object that is not found."""
    ground_truth, detections, wrong, unfound = analysis.ground_truth, analysis.predictions, errors.wrong, errors.unfound
    return (
        np.concatenate([detections.owners[wrong], ground_truth.owners[unfound]]),
        np.concatenate([detections.labels[wrong], ground_truth.labels[unfound]]),
    )


def _of_objects(
    analysis: Analysis, kind: str, wanted: Bool[np.ndarray, " g"], is_there: Bool[np.ndarray, " i"]
) -> Iterator[ErrorExample]:
    ground_truth, finders = analysis.ground_truth, analysis.error_kinds.finders
    chosen = (wanted & is_there[ground_truth.owners]).nonzero()[0]
    chosen = chosen[np.argsort(-ground_truth.areas[chosen], kind="stable")]
    for item in _choose(chosen, ground_truth.labels[chosen]):
        yield ErrorExample(
            kind, int(ground_truth.owners[item]), int(ground_truth.labels[item]), int(finders[item]), item
        )


def _choose(ranked: Int64[np.ndarray, " m"], labels: Int64[np.ndarray, " m"]) -> Sequence[int]:
    """The first of all, and the first few of each class, in the order given."""
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], labels[order])  # where the class of each begins
    place_in_class = np.empty(len(ranked), np.int64)
    place_in_class[order] = np.arange(len(ranked)) - starts
    places = np.arange(len(ranked))
    wanted = (places < FIRST_EXAMPLES) | (place_in_class < EXAMPLES_OF_CLASS)
    chosen: list[int] = ranked[wanted][:MAX_EXAMPLES].tolist()
    return chosen
