"""From COCO's data sets and results to columns, with an error for everything that cannot be measured.

Axes: g objects, n detections.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import NDArray

from fasterrcnn.errors import DataError
from fasterrcnn.evaluation.truth import Pictures, Predictions, Truth

MAX_DETS = 100
"""Detections of a picture and class that count, by falling score, unless more are asked for."""

_FARTHEST = 1e9
"""Pixels beyond which no picture reaches; the area of such a box is still a number."""

Rows = Sequence[Mapping[str, Any]]


def read_truth(dataset: Mapping[str, Any], files: Sequence[Path] | None = None) -> Truth:
    """The objects of a COCO data set.

    Args:
        dataset: images, annotations and categories, as COCO has them; ids of annotations are of no importance.
        files: path of each image; default is its file_name.

    Raises:
        DataError: an annotation names an image or a category that does not exist, a box is not finite, or an id is
            there twice.
    """
    images, categories, rows = (list(dataset[name]) for name in ("images", "categories", "annotations"))
    image_ids, category_ids = _ids(images, "id", "image"), _ids(categories, "id", "category")
    for what, ids in (("image", image_ids), ("category", category_ids)):
        if len(np.unique(ids)) < len(ids):
            twice = next(a for a, b in pairwise(np.sort(ids).tolist()) if a == b)
            raise DataError(f"two entries of the data set have the {what} id {twice}")
    order = np.argsort(image_ids)
    paths = [Path(str(image.get("file_name", ""))) for image in images] if files is None else files
    sizes = np.array([(image.get("height") or 0, image.get("width") or 0) for image in images], np.int64)
    pictures = Pictures(image_ids[order], tuple(paths[i] for i in order), sizes.reshape(-1, 2)[order])
    by_id = np.argsort(category_ids)
    xywh = _boxes(rows, "annotation")
    numbers = np.array([row.get("id", 0) for row in rows], np.int64)
    areas = np.array([_or(row.get("area"), w * h) for row, (_, _, w, h) in zip(rows, xywh, strict=True)], np.float64)
    bad = ~(_sane(xywh) & np.isfinite(areas))
    if bad.any():
        raise DataError(
            f"annotation {numbers[bad.argmax()]}: its box is not finite, or beyond any picture: "
            f"{rows[bad.argmax()]['bbox']}"
        )
    if not categories:
        raise DataError("the data set has no categories; there is nothing to measure")
    return Truth(
        pictures=pictures,
        classes=tuple(str(categories[i]["name"]) for i in by_id),
        category_ids=tuple(category_ids[by_id].tolist()),
        owners=_position(_ids(rows, "image_id", "annotation"), pictures.ids, _unknown("annotation", "image_id")),
        labels=_position(
            _ids(rows, "category_id", "annotation"), category_ids[by_id], _unknown("annotation", "category_id")
        ),
        xywh=xywh,
        areas=areas,
        crowd=np.array([bool(row.get("iscrowd", 0)) for row in rows], np.bool_),
        numbers=numbers,
    )


def read_results(truth: Truth, results: Rows, max_dets: int = MAX_DETS) -> Predictions:
    """The detections of COCO results: image_id, category_id, bbox (left, top, width, height) and score of each.

    Args:
        truth: what they are measured against.
        results: the rows.
        max_dets: most detections of a picture and class that count; weaker ones are left out.

    Raises:
        DataError: a result is not finite, or names an image or a category that the truth does not have; the message
            says so where all ids look off by one.
    """
    xywh = _boxes(results, "result")
    try:
        scores = np.array([row["score"] for row in results], np.float64).reshape(len(results))
    except (KeyError, TypeError, ValueError):
        raise DataError("a result has no score, or one that is not a number") from None
    image_ids, category_ids = _ids(results, "image_id", "result"), _ids(results, "category_id", "result")
    known = np.array(truth.category_ids, np.int64)
    owners = _position(image_ids, truth.pictures.ids, _unknown("result", "image_id"))
    labels = _position(category_ids, known, _unknown("result", "category_id"))
    bad = ~(_sane(xywh) & np.isfinite(scores))
    if bad.any():  # a box with NaN would count as a perfect match
        row = int(bad.argmax())
        what = f"{xywh[row].tolist()}, {scores[row]}"
        raise DataError(f"result {row} of image {image_ids[row]} is not finite, or beyond any picture: {what}")
    return rank(Predictions(owners, labels, scores, xywh), max_dets)


def _sane(xywh: Float64[np.ndarray, "n 4"]) -> Bool[np.ndarray, " n"]:
    """Which boxes are finite, and so near that their areas are too."""
    sane: Bool[np.ndarray, " n"] = (np.abs(xywh) <= _FARTHEST).all(axis=1)  # NaN is not
    return sane


def rank(found: Predictions, max_dets: int = MAX_DETS) -> Predictions:
    """Detections by falling score, and no more of a picture and class than count."""
    order = np.lexsort((found.owners, -found.scores))
    found = Predictions(found.owners[order], found.labels[order], found.scores[order], found.xywh[order])
    groups = found.owners * (found.labels.max(initial=0) + 1) + found.labels
    together = np.argsort(groups, kind="stable")
    sorted_groups = groups[together]
    place = np.empty(len(found), np.int64)
    place[together] = np.arange(len(found)) - np.searchsorted(sorted_groups, sorted_groups)
    return found if not len(found) or place.max() < max_dets else found.take(place < max_dets)


def _boxes(rows: Rows, what: str) -> Float64[np.ndarray, "m 4"]:
    try:
        return np.array([row["bbox"] for row in rows], np.float64).reshape(len(rows), 4)
    except (KeyError, TypeError, ValueError):
        number = next((i for i, row in enumerate(rows) if not _is_box(row)), 0)
        said = rows[number].get("bbox", "missing") if isinstance(rows[number], Mapping) else rows[number]
        raise DataError(f"{what} {number}: bbox must be four numbers (left, top, width, height), not {said}") from None


def _is_box(row: Any) -> bool:
    try:
        return len([float(value) for value in row["bbox"]]) == 4
    except (KeyError, TypeError, ValueError):
        return False


def _ids(rows: Rows, name: str, what: str) -> Int64[np.ndarray, " m"]:
    """Whole numbers of one column."""
    try:
        ids = [row[name] for row in rows]
        numbers = np.array(ids, np.int64)
        if numbers.shape == (len(ids),) and (numbers == np.array(ids)).all():
            return numbers
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    number = next((i for i, row in enumerate(rows) if not _is_whole(row.get(name))), 0)
    said = rows[number].get(name, "missing")
    raise DataError(f"{what} {number}: {name} must be a whole number, not {said!r}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int | float | np.integer) and value == int(value)


def _or(value: Any, otherwise: float) -> float:
    return otherwise if value is None else float(value)


def _position(
    ids: NDArray[np.int64], known: NDArray[np.int64], error: Callable[[int, NDArray[np.int64], NDArray[np.int64]], str]
) -> Int64[np.ndarray, " m"]:
    """Where each id stands among the known ones, which rise."""
    if not len(known):
        if len(ids):
            raise DataError(error(0, ids, known))
        return np.zeros(0, np.int64)
    at = np.searchsorted(known, ids).clip(max=len(known) - 1)
    strange = known[at] != ids
    if strange.any():
        raise DataError(error(int(strange.argmax()), ids, known))
    return at


def _unknown(what: str, name: str) -> Callable[[int, NDArray[np.int64], NDArray[np.int64]], str]:
    """Words for an id that is not in the data set."""

    def words(row: int, ids: NDArray[np.int64], known: NDArray[np.int64]) -> str:
        missing = f"{what} {row}: {name} {ids[row]} is not in the data set"
        if not len(known):
            return f"{missing}, which has none at all"
        given = np.unique(ids)
        missing += f" (its ids are {_range(known)}, those of the {what}s {_range(given)})"
        for shift in (1, -1):
            if np.isin(given + shift, known).all():
                change = "add 1 to" if shift == 1 else "subtract 1 from"
                return f"{missing}: the ids look off by one; {change} each {name}"
        if not np.isin(given, known).any():
            return f"{missing}: they have none in common, so these {what}s belong to another data set or numbering"
        share = np.isin(ids, known).mean()
        return f"{missing}; {share:.0%} of the {what}s have one that is"

    return words


def _range(ids: NDArray[np.int64]) -> str:
    return ", ".join(str(i) for i in ids) if len(ids) <= 4 else f"{ids[0]}, {ids[1]} ... {ids[-1]}"
