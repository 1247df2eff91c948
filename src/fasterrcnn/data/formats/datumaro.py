"""Datumaro JSON: a file for each subset in annotations/, the images in images/ or images/<subset>/."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fasterrcnn.data.annotations import NO_SPLIT, AnnotatedData, split_of
from fasterrcnn.data.formats.base import CollectedImage, Collector, DataFormat, ReadOptions
from fasterrcnn.data.formats.claims import ImageClaims
from fasterrcnn.data.formats.cvat import is_difficult
from fasterrcnn.data.formats.reading import files_below, read_json, split_name
from fasterrcnn.data.formats.shapes import box_of_runs, numbers_of, points_of, rotated_corners, shortened
from fasterrcnn.data.image_finder import ImageFinder
from fasterrcnn.errors import DataError

_WITHOUT_BOX = {
    "label": "image label",
    "caption": "caption",
    "points": "point",
    "polyline": "line",
    "skeleton": "skeleton",
    "cuboid_3d": "3D cuboid",
    "feature_vector": "feature vector",
    "hash_key": "hash key",
    "tabular": "table row",
}
_SHAPES = {"bbox": "rotated box", "polygon": "polygon", "mask": "mask", "ellipse": "ellipse", "cuboid_2d": "cuboid"}


class Datumaro(DataFormat):
    """Datumaro JSON, as Datumaro, CVAT and OpenVINO's tools export it."""

    title = "Datumaro"
    layout = 'Datumaro (.json files with "categories" and "items")'
    box_format = "xywh"

    def recognise(self, root: Path, options: ReadOptions = ReadOptions()) -> list[Path]:
        """The annotation file itself, or the folder with the files of all subsets."""
        return [root] if files_below(root, (".json",), _is_datumaro) else []

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read one annotation file, or all of a folder.

        Annotations are counted through a file, for their ids may repeat.

        Raises:
            DataError: no file can be read, or there is no image.
        """
        root = place.parent if place.is_file() else place
        contents, errors = _load(files_below(place, (".json",), _is_datumaro))
        if not contents:
            raise next(iter(errors.values()), DataError(f"{place}: no annotation file of Datumaro"))
        classes = tuple(dict.fromkeys(name for content in contents.values() for name in _classes(content) if name))
        collector = Collector(place, self.title, "annotation", classes)
        for file, error in errors.items():
            collector.unreadable(file, error)
        claims = ImageClaims(collector)
        reader = _Reader(collector, ImageFinder(root, options.images), claims)
        several = len(contents) > 1
        for file, content in contents.items():
            reader.read_file(file, content, NO_SPLIT if place.is_file() else _split(file, root, several))
        claims.report_unlisted()
        return collector.finish()


class _Reader:
    """Reads annotation files, one after the other, into a collector."""

    def __init__(self, collector: Collector, finder: ImageFinder, claims: ImageClaims) -> None:
        self._collector, self._finder, self._claims = collector, finder, claims

    def read_file(self, file: Path, content: dict[str, Any], split: str) -> None:
        """Read all items of a subset."""
        items = [item for item in content["items"] if _is_item(item, file)]
        names = [name for item in items for name in _names(item, file)]
        matches = self._finder.find(names, file, split)
        if names and not any(matches.values()):
            self._collector.problem("missing-image", file, self._finder.nothing_found(names))
            return
        if not content["items"]:
            self._collector.problem("empty-split", file, "lists no item")
        for position, item in enumerate(content["items"], start=1):
            if not _is_item(item, file):
                what = f"item {position} must have an id and a list of annotations, not {shortened(item)}"
                self._collector.problem("unreadable-annotations", file, what)
        classes = _classes(content)
        number = 0
        for item in items:
            name = min(
                _names(item, file), key=lambda name: abs(len(matches[name]) - 1)
            )  # that of a single image, if any
            path = self._collector.only_one(
                matches[name], name, file, self._finder, f"item {shortened(item.get('id'))}"
            )
            image = path and self._claims.image(path, split, file, name, _size_hw(item))
            for annotation in item["annotations"]:
                number += 1
                if image:
                    self._read_annotation(annotation, number, classes, image, file)

    def _read_annotation(
        self, annotation: object, number: int, classes: Sequence[str], image: CollectedImage, file: Path
    ) -> None:
        try:
            if not isinstance(annotation, dict):
                raise DataError(f"an annotation is expected, not {shortened(annotation)}")
            kind = str(annotation.get("type"))
            if kind in _WITHOUT_BOX:
                self._collector.leave_out(_WITHOUT_BOX[kind])
                return
            label = _label(annotation, classes)
            attributes = annotation.get("attributes")
            attributes = attributes if isinstance(attributes, dict) else {}
            difficult = is_difficult(attributes)
            points = _points(kind, annotation, attributes)
        except DataError as error:
            what = f"item {image.path.name}, annotation {number}: {error}"
            self._collector.problem("unreadable-annotations", file, what, number, image=image.path)
            return
        if kind == "bbox" and len(points) == 2:
            self._collector.add(image, [*points[0], *points[1]], label, number, difficult=difficult)
        elif points:
            self._collector.add_outline(image, points, label, number, shape=_SHAPES[kind], difficult=difficult)
        else:
            self._collector.leave_out("empty mask")


def _is_datumaro(content: bytes) -> bool:
    return b'"items"' in content and re.search(rb'"dm_format_version"|"categories"\s*:\s*\{', content) is not None


def _load(files: list[Path]) -> tuple[dict[Path, dict[str, Any]], dict[Path, DataError]]:
    """The content of every file that can be read, and why the others cannot."""
    contents, errors = {}, {}
    for file in files:
        try:
            content = read_json(file)
            if not isinstance(content, dict) or not isinstance(content.get("items"), list):
                raise DataError(f'{file}: not of Datumaro: it has no list "items"')
            if not any(_classes(content)):
                raise DataError(f'{file}: it has no names of classes (a list "labels" in "label" in "categories")')
            contents[file] = content
        except DataError as error:
            errors[file] = error
    return contents, errors


def _split(file: Path, root: Path, several: bool) -> str:
    """The split of a subset, which the file is called after; one that tools do not know only beside others."""
    split = split_of(file, root)
    is_subset = several and split == NO_SPLIT and file.stem.lower() != "default"
    return split_name(file.stem) if is_subset else split


def _classes(content: Mapping[str, Any]) -> list[str]:
    """The names of the labels, in the order of their ids; empty where one has no name."""
    labels: Any = content
    for key in ("categories", "label", "labels"):
        labels = labels.get(key) if isinstance(labels, dict) else None
    names = [label.get("name") if isinstance(label, dict) else None for label in labels or ()]
    return [name.strip() if isinstance(name, str) else "" for name in names]


def _label(annotation: Mapping[str, Any], classes: Sequence[str]) -> str:
    """The class of an annotation.

    Raises:
        DataError: it has none.
    """
    number = annotation.get("label_id")
    if type(number) is not int or not 0 <= number < len(classes) or not classes[number]:
        raise DataError(f"no label has the number {shortened(number)} (label_id)")
    return classes[number]


def _names(item: Mapping[str, Any], file: Path) -> list[str]:
    """What an item calls its image: its path, where the images were exported, and its id, which has no extension.

    Both are in the folder of the subset, which the file is called after.
    """
    media = [value for key in ("image", "media") if isinstance(value := item.get(key), dict)]
    names = [*(value.get("path") for value in media), item.get("id")]
    paths = [name.strip() for name in names if isinstance(name, str) and name.strip()]
    return [path if path.startswith("/") or "://" in path else f"{file.stem}/{path}" for path in paths]


def _is_item(item: object, file: Path) -> bool:
    """Whether an item has what reading needs."""
    return isinstance(item, dict) and bool(_names(item, file)) and isinstance(item.get("annotations"), list)


def _size_hw(item: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width as an item states them; 0 where it does not."""
    for key in ("image", "media"):
        media = item.get(key)
        size = media.get("size") if isinstance(media, dict) else None
        if isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size):
            return size[0], size[1]
    return 0, 0


def _points(kind: str, annotation: Mapping[str, Any], attributes: Mapping[str, Any]) -> list[list[float]]:
    """The two corners of an upright box; points around any other shape; none of an empty mask.

    Raises:
        DataError: it is no shape, or has no numbers where they are expected.
    """
    if kind == "bbox":
        x, y, width, height = numbers_of(annotation.get("bbox"), 4)
        rotation = attributes.get("rotation")  # where CVAT puts the angle of a box, in degrees
        degrees = float(rotation) if isinstance(rotation, float) or type(rotation) is int else 0.0
        corners = [x, y, x + width, y + height]
        return rotated_corners(corners, degrees) if degrees % 360 else [corners[:2], corners[2:]]
    if kind == "mask":
        rle = annotation.get("rle")
        if not isinstance(rle, dict):
            raise DataError(f"a mask needs run lengths (rle), not {shortened(rle)}")
        box = box_of_runs(rle.get("counts"), rle.get("size"))
        return [box[:2], box[2:]] if box else []
    if kind not in _SHAPES:
        raise DataError(f"there is no type {shortened(kind)} of annotations")
    return points_of(annotation.get("points"))
