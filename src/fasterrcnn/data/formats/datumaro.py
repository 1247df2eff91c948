"""Datumaro JSON: a file for each subset in annotations/, the images in images/ or images/<subset>/."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fasterrcnn.data.annotations import NO_SPLIT, AnnotatedData, split_of
from fasterrcnn.data.formats.base import DataFormat, ReadOptions
from fasterrcnn.data.formats.collector import CollectedImage, Collector
from fasterrcnn.data.formats.cvat import is_difficult
from fasterrcnn.data.formats.reading import read_json, split_name
from fasterrcnn.data.formats.shapes import box_of_runs, rotated_corners, rotation_of
from fasterrcnn.data.formats.values import numbers_of, points_of, shortened, side_of_image
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
    suffixes = (".json",)

    def fits(self, content: bytes) -> bool:
        """Whether there are items, and a version or categories."""
        return b'"items"' in content and re.search(rb'"dm_format_version"|"categories"\s*:\s*\{', content) is not None

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read one annotation file, or all of a folder.

        Annotations are counted through a file, for their ids may repeat.

        Raises:
            DataError: no file can be read, or there is no image.
        """
        collector = Collector(place, self.title, "annotation", images=options.images)
        contents: dict[Path, dict[str, Any]] = {}
        for file in self.annotation_files(place):
            with collector.report_errors(file):
                contents[file] = _load(file)
        classes = dict.fromkeys(name for content in contents.values() for name in _classes(content) if name)
        collector.list_classes(tuple(classes))
        several = len(contents) > 1
        for file, content in contents.items():
            split = NO_SPLIT if place.is_file() else _split(file, collector.root, several)
            _read_file(file, content, split, collector)
        collector.report_unlisted("no annotation file names it")
        return collector.finish()


def _load(file: Path) -> dict[str, Any]:
    """The content of a file.

    Raises:
        DataError: it cannot be read, or has no items, or no names of classes.
    """
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("items"), list):
        raise DataError(f'{file}: not of Datumaro: it has no list "items"')
    if not any(_classes(content)):
        raise DataError(f'{file}: it has no names of classes (a list "labels" in "label" in "categories")')
    return content


def _read_file(file: Path, content: dict[str, Any], split: str, collector: Collector) -> None:
    """Read all items of a subset."""
    items = [item for item in content["items"] if _is_item(item, file)]
    matches = collector.find_images([name for item in items for name in _names(item, file)], file, split)
    if items and not matches:
        return
    if not content["items"]:
        collector.problem("empty-split", file, "lists no item")
    for position, item in enumerate(content["items"], start=1):
        if not _is_item(item, file):
            what = f"item {position} must have an id and a list of annotations, not {shortened(item)}"
            collector.problem("unreadable-annotations", file, what)
    classes = _classes(content)
    number = 0
    for item in items:
        # The name of a single image, if any.
        name = min(_names(item, file), key=lambda name: abs(len(matches[name]) - 1))
        path = collector.only_one(matches[name], name, file, f"item {shortened(item.get('id'))}")
        image = collector.claim(path, split, file, name, _size_hw(item))
        for annotation in item["annotations"]:
            number += 1
            if image:
                what = f"item {image.path.name}, annotation {number}"
                with collector.report_errors(file, what, number, image=image.path):
                    _read_annotation(annotation, number, classes, image, collector)


def _read_annotation(
    annotation: object, number: int, classes: Sequence[str], image: CollectedImage, collector: Collector
) -> None:
    """Collect an annotation.

    Raises:
        DataError: it cannot be read.
    """
    if not isinstance(annotation, dict):
        raise DataError(f"an annotation is expected, not {shortened(annotation)}")
    kind = str(annotation.get("type"))
    if kind in _WITHOUT_BOX:
        collector.leave_out(_WITHOUT_BOX[kind])
        return
    label = _label(annotation, classes)
    attributes = annotation.get("attributes")
    attributes = attributes if isinstance(attributes, dict) else {}
    difficult = is_difficult(attributes)
    points = _points(kind, annotation, attributes)
    if kind == "bbox" and len(points) == 2:
        collector.add(image, [*points[0], *points[1]], label, number, difficult=difficult)
    elif points:
        collector.add_outline(image, points, label, number, shape=_SHAPES[kind], difficult=difficult)
    else:
        collector.leave_out("empty mask")


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
    names = [
        label.get("name") if isinstance(label, dict) else None for label in (labels if isinstance(labels, list) else ())
    ]
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
        if isinstance(size, list) and len(size) == 2 and all(map(side_of_image, size)):
            return side_of_image(size[0]), side_of_image(size[1])
    return 0, 0


def _points(kind: str, annotation: Mapping[str, Any], attributes: Mapping[str, Any]) -> list[list[float]]:
    """The two corners of an upright box; points around any other shape; none of an empty mask.

    Raises:
        DataError: it is no shape, or has no numbers where they are expected.
    """
    if kind == "bbox":
        x, y, width, height = numbers_of(annotation.get("bbox"), 4)
        degrees = rotation_of(attributes)
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
