"""What is measured, as columns: the objects of the images, and what a detector found in them. Needs no torch.

Axes: i images, g objects, n detections, k classes. Boxes are in pixels of the upright original image, continuous.
They are kept as left, top, width, height, as COCO writes them: overlaps then are those of COCO's tools to the last bit.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import NDArray

from fasterrcnn.data.findings import unseen_difference
from fasterrcnn.detections import match_names
from fasterrcnn.errors import DataError, UsageError
from fasterrcnn.evaluation.options import MAX_DETS


@dataclass(frozen=True)
class Images:
    """Which images were measured, and where each can be seen again."""

    ids: Int64[np.ndarray, " i"]  # of each image in the data set, rising
    files: tuple[Path, ...]  # path of each; a bare name for a COCO file that is measured without its images
    sizes_hw: Int64[np.ndarray, "i 2"]  # height and width of each upright image; 0 where the data set does not have it
    original_ids: tuple[int | str, ...] = ()  # as the data set writes them, where some are no whole numbers

    def __len__(self) -> int:
        return len(self.ids)

    def original_id(self, image: int) -> int | str:
        """The id of an image (0..i-1) as the data set writes it."""
        return self.original_ids[image] if self.original_ids else int(self.ids[image])


@dataclass(frozen=True)
class GroundTruth:
    """The objects of all images."""

    images: Images  # where they are
    classes: tuple[str, ...]  # names; label j means ``classes[j]``. In the order of their category ids.
    category_ids: tuple[int, ...]  # of each class in the data set, rising
    owners: Int64[np.ndarray, " g"]  # image of each object, 0..i-1
    labels: Int64[np.ndarray, " g"]  # 0..k-1
    xywh: Float64[np.ndarray, "g 4"]  # left, top, width, height
    areas: Float64[np.ndarray, " g"]  # square pixels, of the mask where the data set has one
    crowd: Bool[np.ndarray, " g"]  # crowds, difficult and ignored objects: neither asked for nor counted as a mistake
    numbers: Int64[np.ndarray, " g"]  # id of each annotation in the data set

    def __len__(self) -> int:
        return len(self.owners)

    @property
    def boxes(self) -> Float64[np.ndarray, "g 4"]:
        """Boxes as xyxy."""
        return to_xyxy(self.xywh)

    @property
    def objects_per_class(self) -> Int64[np.ndarray, " k"]:
        """Number of objects of each class, crowds apart."""
        return np.bincount(self.labels[~self.crowd], minlength=len(self.classes))

    @property
    def objects_per_image(self) -> Int64[np.ndarray, " i"]:
        """Number of objects in each image, crowds apart."""
        return np.bincount(self.owners[~self.crowd], minlength=len(self.images))


@dataclass(frozen=True)
class Predictions:
    """All detections by falling score; equal scores in the order of images, and then in the order they came in."""

    owners: Int64[np.ndarray, " n"]  # image of each detection, 0..i-1
    labels: Int64[np.ndarray, " n"]  # 0..k-1
    scores: Float64[np.ndarray, " n"]  # any numbers; only their order counts
    xywh: Float64[np.ndarray, "n 4"]  # left, top, width, height

    def __len__(self) -> int:
        return len(self.owners)

    @property
    def boxes(self) -> Float64[np.ndarray, "n 4"]:
        """Boxes as xyxy."""
        return to_xyxy(self.xywh)

    def take(self, chosen: Bool[np.ndarray, " n"] | Int64[np.ndarray, " _"]) -> "Predictions":
        """Some of the detections: those that are marked, or those of these numbers in their order."""
        return Predictions(self.owners[chosen], self.labels[chosen], self.scores[chosen], self.xywh[chosen])


def to_xyxy(xywh: Float64[np.ndarray, "m 4"]) -> Float64[np.ndarray, "m 4"]:
    """Left, top, right, bottom of boxes given as left, top, width, height."""
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


_FARTHEST = 1e9  # pixels beyond which no image reaches; the area of such a box is still a number. NaN is not below it

Rows = Sequence[Mapping[str, Any]]


def read_ground_truth(dataset: Mapping[str, Any], files: Sequence[Path] | None = None) -> GroundTruth:
    """The objects of a COCO data set, and the path of each image; default is its file_name.

    Raises:
        DataError: an annotation names an image or a category that does not exist, a box is not finite, or an id is
            there twice.
    """
    image_rows, categories, rows = (list(dataset[name]) for name in ("images", "categories", "annotations"))
    image_ids, category_ids = _ids(image_rows, "id", "image"), _ids(categories, "id", "category")
    for what, ids in (("image", image_ids), ("category", category_ids)):
        if len(np.unique(ids)) < len(ids):
            twice = next(a for a, b in pairwise(np.sort(ids).tolist()) if a == b)
            raise DataError(f"two entries of the data set have the {what} id {twice}")
    order = np.argsort(image_ids)
    paths = [Path(str(image.get("file_name", ""))) for image in image_rows] if files is None else files
    sizes = np.array([(image.get("height") or 0, image.get("width") or 0) for image in image_rows], np.int64)
    images = Images(image_ids[order], tuple(paths[i] for i in order), sizes.reshape(-1, 2)[order])
    by_id = np.argsort(category_ids)
    xywh = _boxes(rows, "annotation")
    numbers = np.array([row.get("id", 0) for row in rows], np.int64)
    areas = xywh[:, 2] * xywh[:, 3]
    for number, row in enumerate(rows):
        areas[number] = areas[number] if row.get("area") is None else row["area"]
    bad = ~((np.abs(xywh) <= _FARTHEST).all(axis=1) & np.isfinite(areas))
    if bad.any():
        row = int(bad.argmax())
        box = rows[row]["bbox"]
        raise DataError(f"annotation {numbers[row]}: its box is not finite, or beyond any image: {box}")
    if not categories:
        raise DataError("the data set has no categories; there is nothing to measure")
    return GroundTruth(
        images=images,
        classes=tuple(str(categories[i]["name"]) for i in by_id),
        category_ids=tuple(category_ids[by_id].tolist()),
        owners=_position(rows, images.ids, "image_id", "annotation"),
        labels=_position(rows, category_ids[by_id], "category_id", "annotation"),
        xywh=xywh,
        areas=areas,
        crowd=np.array([bool(row.get("iscrowd", 0)) for row in rows], np.bool_),
        numbers=numbers,
    )


def read_results(ground_truth: GroundTruth, results: Rows, max_dets: int = MAX_DETS) -> Predictions:
    """The detections of COCO results: image_id, category_id, bbox (left, top, width, height) and score of each.

    No more of an image and class than ``max_dets`` count; weaker ones are left out. Instead of a number, image_id may
    be text that stands for it: the id as the data set writes it, or the name of the image with or without extension;
    and category_id the name of the class.

    Raises:
        DataError: a result is not finite, or names an image or a category that the ground truth does not have; the
            message suggests it where all ids are off by one.
    """
    xywh = _boxes(results, "result")
    try:
        scores = np.array([row["score"] for row in results], np.float64).reshape(len(results))
    except (KeyError, TypeError, ValueError):
        raise DataError("a result has no score, or one that is not a number") from None
    images, category_ids = ground_truth.images, ground_truth.category_ids
    classes = dict(zip(ground_truth.classes, category_ids, strict=True)) | {str(i): i for i in category_ids}
    by_image = _with_numbers(results, "image_id", _image_names(images), numbers_too=bool(images.original_ids))
    owners = _position(by_image, images.ids, "image_id", "result")
    by_class = _with_numbers(results, "category_id", classes)
    labels = _position(by_class, np.array(category_ids, np.int64), "category_id", "result")
    bad = ~((np.abs(xywh) <= _FARTHEST).all(axis=1) & np.isfinite(scores))
    if bad.any():  # a box with NaN would count as a perfect match
        row = int(bad.argmax())
        which, what = f"result {row} of image {images.original_id(int(owners[row]))}", xywh[row].tolist()
        raise DataError(f"{which} is not finite, or beyond any image: {what}, {scores[row]}")
    return rank(Predictions(owners, labels, scores, xywh), max_dets)


def _image_names(images: Images) -> dict[Any, int]:
    """The id of every image by what may stand for it in results: its id in the data set, or its name."""
    numbers = images.ids.tolist()
    counts = Counter(name for file in images.files for name in {file.name, file.stem})
    named = zip(images.files, numbers, strict=True)
    names = {name: n for file, n in named for name in (file.name, file.stem) if counts[name] == 1}
    originals = {images.original_id(position): n for position, n in enumerate(numbers)}
    as_numbers = {n: n for original, n in originals.items() if str(original).isdecimal() and int(original) == n}
    return names | {str(original): n for original, n in originals.items()} | as_numbers | originals


def _with_numbers(rows: Rows, name: str, number_of: Mapping[Any, int], *, numbers_too: bool = False) -> Rows:
    """The rows with whole numbers in a column of ids, where they have text that stands for them.

    Args:
        numbers_too: whether numbers stand for others, too.

    Raises:
        DataError: a value stands for nothing.
    """
    if not numbers_too and not any(isinstance(row.get(name), str) for row in rows):
        return rows
    changed = []
    for index, row in enumerate(rows):
        value = row.get(name)
        number: Any = value
        if isinstance(value, str) or numbers_too:
            number = number_of.get(value) if isinstance(value, str | int | np.integer) else None
            if number is None and isinstance(value, str) and value.isdecimal() and len(value) < 20:
                number = number_of.get(str(int(value)))  # zeros stand before it
            if number is None:
                what = name.removesuffix("_id")
                raise DataError(
                    f"result {index}: {name} {value!r} is neither an id nor the name of any {what} of the data set"
                )
        changed.append({**row, name: number})
    return changed


def rank(predictions: Predictions, max_dets: int = MAX_DETS) -> Predictions:
    """Detections by falling score, and no more of an image and class than count."""
    predictions = predictions.take(np.lexsort((predictions.owners, -predictions.scores)))
    place = place_in_group(predictions.owners * (predictions.labels.max(initial=0) + 1) + predictions.labels)
    return predictions if not len(predictions) or place.max() < max_dets else predictions.take(place < max_dets)


def place_in_group(groups: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
    """How many of the same group stand before each."""
    together = np.argsort(groups, kind="stable")
    sorted_groups = groups[together]
    place = np.empty(len(groups), np.int64)
    place[together] = np.arange(len(groups)) - np.searchsorted(sorted_groups, sorted_groups)
    return place


def _boxes(rows: Rows, what: str) -> Float64[np.ndarray, "m 4"]:
    try:
        return np.array([row["bbox"] for row in rows], np.float64).reshape(len(rows), 4)
    except (KeyError, TypeError, ValueError):
        number = next((i for i, row in enumerate(rows) if not _is_box(row)), 0)
        value = rows[number].get("bbox", "missing") if isinstance(rows[number], Mapping) else rows[number]
        raise DataError(f"{what} {number}: bbox must be four numbers (left, top, width, height), not {value}") from None


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
    whole = int | float | np.integer
    given = [row.get(name) for row in rows]
    number = next((i for i, it in enumerate(given) if not isinstance(it, whole) or it != int(it)), 0)
    value = rows[number].get(name, "missing")
    raise DataError(f"{what} {number}: {name} must be a whole number, not {value!r}")


def _position(rows: Rows, dataset_ids: NDArray[np.int64], name: str, what: str) -> Int64[np.ndarray, " m"]:
    """Position of the id in one column among those of the data set, which rise."""
    ids = _ids(rows, name, what)
    at = np.searchsorted(dataset_ids, ids).clip(max=max(len(dataset_ids) - 1, 0))
    strange = dataset_ids[at] != ids if len(dataset_ids) else np.ones(len(ids), np.bool_)
    if strange.any():
        raise DataError(_unknown(int(strange.argmax()), ids, dataset_ids, name, what))
    return at


def _unknown(row: int, ids: NDArray[np.int64], dataset_ids: NDArray[np.int64], name: str, what: str) -> str:
    """Words for an id that is not in the data set."""
    missing = f"{what} {row}: {name} {ids[row]} is not in the data set"
    if not len(dataset_ids):
        return f"{missing}, which has none at all"
    given = np.unique(ids)
    missing += f" (its ids are {_range(dataset_ids)}, those of the {what}s {_range(given)})"
    for shift, change in ((1, "add 1 to"), (-1, "subtract 1 from")):
        if np.isin(given + shift, dataset_ids).all():
            return f"{missing}: the ids seem off by one; {change} each {name}"
    if not np.isin(given, dataset_ids).any():
        return f"{missing}: they have none in common, so these {what}s belong to another data set or numbering"
    share = np.isin(ids, dataset_ids).mean()
    return f"{missing}; {share:.0%} of the {what}s have one that is"


def _range(ids: NDArray[np.int64]) -> str:
    return ", ".join(str(i) for i in ids) if len(ids) <= 4 else f"{ids[0]}, {ids[1]} ... {ids[-1]}"


def load_results(path: str | Path, ground_truth: GroundTruth, max_dets: int = MAX_DETS) -> Predictions:
    """Detections of a COCO results file, or of the one in the folder (or beside the metrics.json) of a report.

    Where every row has a ``file_name``, as those of ``fasterrcnn predict``, it identifies the image, and image_id is
    ignored.

    Raises:
        DataError: the file cannot be read or does not fit the data set; the message names the file.
    """
    path = Path(path)
    if path.is_dir() or path.name == "metrics.json":
        path = (path if path.is_dir() else path.parent) / "results.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; COCO results are wanted, a JSON list of detections") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: COCO results are a list of objects with image_id, category_id, bbox and score")
    try:
        return read_results(ground_truth, _by_name(rows, ground_truth), max_dets)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _by_name(rows: list[dict[str, Any]], ground_truth: GroundTruth) -> Rows:
    """The rows with the data set's image ids of the files that they name, where all do."""
    if not rows or not all(isinstance(row.get("file_name"), str) for row in rows):
        return rows
    by_name: dict[str, int | None] = {}
    by_path: dict[str, int] = {}
    images = ground_truth.images
    original_of = {number: images.original_id(position) for position, number in enumerate(images.ids.tolist())}
    for image_id, file in zip(original_of, images.files, strict=True):
        by_name[file.name] = None if file.name in by_name else image_id  # None: two images are called so
        by_path[str(file)] = image_id
    predictions = []
    for number, row in enumerate(rows):
        name = row["file_name"]
        image_id = by_path.get(name, by_name.get(Path(name).name))
        if image_id is None:
            twice = Path(name).name in by_name
            raise DataError(f"result {number}: {'several images are' if twice else 'no image is'} called {name}")
        predictions.append({**row, "image_id": original_of[image_id]})
    return predictions


def common_classes(classes: Sequence[str], data_classes: Sequence[str]) -> dict[str, str]:
    """Class of a detector -> that of a data set, by name (`match_names`); a UsageError if they have none in common."""
    matched = match_names(classes, data_classes)
    if not matched:
        ours, theirs = ", ".join(classes[:10]), ", ".join(data_classes[:10])
        unseen = (unseen_difference(own, other) for own in classes for other in data_classes)
        reason = next((f"; {words}" for words in unseen if words), "")
        raise UsageError(f"detector and data set have no class in common: {ours} against {theirs}{reason}")
    return matched
