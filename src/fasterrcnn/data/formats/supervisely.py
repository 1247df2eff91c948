"""Supervisely: each dataset of a project has ann/ with a JSON file for each image of img/; meta.json lists the classes.

Corners of rectangles are taken as they are written, width = right - left.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fasterrcnn.data.annotations import NO_SPLIT, AnnotatedData, split_of
from fasterrcnn.data.formats.base import DataFormat, ReadOptions
from fasterrcnn.data.formats.collector import CollectedImage, Collector
from fasterrcnn.data.formats.reading import beginning_and_end, read_json, whole_folders
from fasterrcnn.data.formats.shapes import box_of_png, rotated_corners
from fasterrcnn.data.formats.values import numbers_of, points_of, shortened, side_of_image, to_number
from fasterrcnn.errors import DataError

_WITHOUT_BOX = {"point": "point", "line": "line", "graph": "key points", "cuboid_3d": "3D cuboid"}
_OUTLINES = {
    "polygon": "polygon",
    "multipolygon": "polygon",
    "cuboid": "cuboid",
    "bitmap": "mask",
    "alpha_mask": "mask",
}
_LEVELS = 5  # of folders: datasets may lie in datasets
_OPENED = 3  # files of each folder, to recognise it


class Supervisely(DataFormat):
    """A project of images from Supervisely, one of its datasets, or one annotation file."""

    title = "Supervisely"
    layout = "Supervisely (.json files in ann/, images in img/, a list of classes in meta.json)"
    box_format = "xyxy"
    suffixes = (".json",)

    def annotation_files(self, place: Path) -> list[Path]:
        """The file itself, or all files of the folders called ann that hold annotations of images."""
        files = super().annotation_files(place)
        if place.is_file():
            return files
        return whole_folders((file for file in files if file.parent.name.lower() == "ann"), self.suffixes)

    def fits(self, content: bytes) -> bool:
        """Annotations of videos have frames as well."""
        is_annotation = re.search(rb'"size"\s*:\s*\{', content) and re.search(rb'"objects"\s*:\s*\[', content)
        return bool(is_annotation) and b'"tags"' in content and b'"framesCount"' not in content

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read one annotation file, or those of all datasets; names of datasets may be splits.

        Raises:
            DataError: there is no annotation file, or no image.
        """
        files = self.annotation_files(place)
        if not files:
            raise DataError(f"{place}: no annotation file of Supervisely")
        collector = Collector(place, self.title, "object", images=options.images)
        root = collector.root
        shapes = _read_metas(files, collector)
        classes = tuple(title for title, shape in shapes.items() if shape not in _WITHOUT_BOX)
        are_listed = bool(classes) and not collector.findings  # a list that cannot be read may have more
        collector.list_classes(classes if are_listed else None)
        # Images of the same name are distinguished by the folder of their dataset, which may lie in that of another.
        names = {file: f"{file.parent.parent.name}/img/{file.stem}" for file in files}
        matches = collector.finder.find_for_files(names, lambda folder: _split(folder, root))
        if not any(matches.values()):
            raise DataError(f"{place}: {collector.finder.nothing_found([file.stem for file in files])}")
        for file in files:
            split = NO_SPLIT if place.is_file() else _split(file.parent, root)
            with collector.report_errors(file, image=next(iter(matches[file]), None)):
                _read_file(file, matches[file], split, shapes, collector)
        collector.report_unlisted("no annotation file names it")
        return collector.finish(sort_classes=not are_listed)


def _meta_file(file: Path) -> Path | None:
    """The nearest list of classes above an annotation file."""
    candidates = (folder / "meta.json" for folder in list(file.parents)[:_LEVELS])
    return next((meta for meta in candidates if b'"classes"' in beginning_and_end(meta)), None)


def _read_metas(files: list[Path], collector: Collector) -> dict[str, str]:
    """The shape of every class by its title; a list of classes that cannot be read is a finding."""
    shapes: dict[str, str] = {}
    for meta in dict.fromkeys(meta for folder in {file.parent for file in files} if (meta := _meta_file(folder / "x"))):
        with collector.report_errors(meta):
            content = read_json(meta)
            try:
                shapes |= {entry["title"].strip(): str(entry.get("shape")) for entry in content["classes"]}
            except (KeyError, TypeError, AttributeError):
                raise DataError('it must have a list "classes", each with a title') from None
    return shapes


def _split(folder: Path, root: Path) -> str:
    """The split that the dataset of a folder of annotations is called after, or a folder above it."""
    return split_of(folder.parent, root) if folder != root else NO_SPLIT


def _read_file(file: Path, paths: list[Path], split: str, shapes: Mapping[str, str], collector: Collector) -> None:
    """Collect the image and the objects of one annotation file.

    Raises:
        DataError: it cannot be read.
    """
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
        raise DataError('it has no list "objects"')
    path = collector.only_one(paths, file.stem, file)
    size = content["size"] if isinstance(content.get("size"), dict) else {}
    stated_hw = side_of_image(size.get("height")), side_of_image(size.get("width"))
    image = collector.claim(path, split, file, file.stem, stated_hw)
    if not image:
        return
    tags = content.get("tags")
    for _ in tags if isinstance(tags, list) else ():
        collector.leave_out("image tag")
    for number, entry in enumerate(content["objects"], start=1):
        with collector.report_errors(file, f"object {number}", number, image=image.path):
            _read_object(entry, number, image, shapes, collector)


def _read_object(
    entry: Any, number: int, image: CollectedImage, shapes: Mapping[str, str], collector: Collector
) -> None:
    """Collect one object.

    Raises:
        DataError: it cannot be read.
    """
    if not isinstance(entry, dict):
        raise DataError(f"an object is expected, not {shortened(entry)}")
    title = entry.get("classTitle")
    if not isinstance(title, str) or not title.strip():
        raise DataError(f"it needs the title of a class (classTitle), not {shortened(title)}")
    title = title.strip()
    kind = str(entry.get("geometryType") or shapes.get(title))  # early versions state it in meta.json alone
    points = entry.get("points")
    if kind in _WITHOUT_BOX:
        collector.leave_out(_WITHOUT_BOX[kind])
    elif kind == "rectangle":
        corners = np.array(_corners(points))  # numpy's min and max keep NaN
        collector.add(image, [*corners.min(axis=0), *corners.max(axis=0)], title, number)
    elif kind == "oriented_bbox":
        first, last = _corners(points)
        degrees = math.degrees(to_number(entry.get("angle"), "angle"))  # in radians in the file
        outline = rotated_corners([*first, *last], degrees)
        collector.add_outline(image, outline, title, number, shape="rotated box")
    elif kind in _OUTLINES:
        outline = _mask_corners(entry) if _OUTLINES[kind] == "mask" else _outline(entry)
        if outline:
            collector.add_outline(image, outline, title, number, shape=_OUTLINES[kind])
        else:
            collector.leave_out("empty mask")
    else:
        raise DataError(f"there is no geometryType {shortened(entry.get('geometryType'))}")


def _outline(entry: Mapping[str, Any]) -> list[list[float]]:
    """The outer points of an object; those of all its parts, where it has several.

    Raises:
        DataError: they are not there.
    """
    parts = entry.get("parts")
    outlines = parts if isinstance(parts, list) and parts else [entry.get("points")]
    return [point for outline in outlines for point in points_of(_exterior(outline))]


def _exterior(points: object) -> object:
    """The outer points of a shape, which most shapes have in a list of their own."""
    return points.get("exterior") if isinstance(points, dict) else points


def _corners(points: object) -> list[list[float]]:
    """Two opposite corners.

    Raises:
        DataError: they are not there.
    """
    corners = points_of(_exterior(points))
    if len(corners) != 2:
        raise DataError(f"two corners are expected, not {shortened(points)}")
    return corners


def _mask_corners(entry: Mapping[str, Any]) -> list[list[float]]:
    """Two corners of the box around a mask; none if it is empty.

    Raises:
        DataError: it cannot be read.
    """
    mask = entry.get("bitmap") or entry.get("alpha_mask")
    if not isinstance(mask, dict):
        raise DataError(f"a mask is expected (bitmap), not {shortened(mask)}")
    left, top = numbers_of(mask.get("origin"), 2)
    box = box_of_png(mask.get("data"))
    return [[left + box[0], top + box[1]], [left + box[2], top + box[3]]] if box else []
