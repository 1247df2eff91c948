"""Supervisely: each dataset of a project has ann/ with a JSON file for each image of img/; meta.json lists the classes.

Corners of rectangles are taken as they are written, width = right - left.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fasterrcnn.data.annotations import NO_SPLIT, AnnotatedData, group_by, split_of
from fasterrcnn.data.formats.base import CollectedImage, Collector, DataFormat, ReadOptions
from fasterrcnn.data.formats.claims import ImageClaims
from fasterrcnn.data.formats.reading import beginning_and_end, files_below, read_json
from fasterrcnn.data.formats.shapes import box_of_png, numbers_of, points_of, rotated_corners, shortened
from fasterrcnn.data.image_finder import ImageFinder
from fasterrcnn.errors import DataError
from fasterrcnn.files import folders_below

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

    def recognise(self, root: Path, options: ReadOptions = ReadOptions()) -> list[Path]:
        """The annotation file itself, or the folder with the datasets."""
        return [root] if _annotation_files(root) else []

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read one annotation file, or those of all datasets; names of datasets may be splits.

        Raises:
            DataError: there is no annotation file, or no image.
        """
        root = place.parent if place.is_file() else place
        files = _annotation_files(place)
        if not files:
            raise DataError(f"{place}: no annotation file of Supervisely")
        shapes, errors = _read_metas(files)
        classes = None if errors else tuple(title for title, shape in shapes.items() if shape not in _WITHOUT_BOX)
        collector = Collector(place, self.title, "object", classes or None)
        for meta, error in errors.items():
            collector.unreadable(meta, error)
        finder, claims = ImageFinder(root, options.images), ImageClaims(collector)
        matches = _find_images(files, root, finder)
        if not any(matches.values()):
            raise DataError(f"{place}: {finder.nothing_found([file.stem for file in files])}")
        for file in files:
            split = NO_SPLIT if place.is_file() else _split(file, root)
            _read_file(file, matches[file], split, shapes, finder, claims, collector)
        claims.report_unlisted()
        return collector.finish(sort_classes=not classes)


def _annotation_files(place: Path) -> list[Path]:
    """The file itself, or all files of the folders called ann that hold annotations of images."""
    if place.is_file():
        return files_below(place, (".json",), _is_supervisely)
    files: list[Path] = []
    for folder in [place, *folders_below(place, _LEVELS)]:
        if folder.name.lower() == "ann":
            own = [f for f in sorted(folder.glob("*")) if f.suffix.lower() == ".json" and not f.name.startswith(".")]
            files += own if any(_is_supervisely(beginning_and_end(file)) for file in own[:_OPENED]) else []
    return files


def _is_supervisely(content: bytes) -> bool:
    """Annotations of videos have frames as well."""
    is_annotation = re.search(rb'"size"\s*:\s*\{', content) and re.search(rb'"objects"\s*:\s*\[', content)
    return bool(is_annotation) and b'"tags"' in content and b'"framesCount"' not in content


def _meta_file(file: Path) -> Path | None:
    """The nearest list of classes above an annotation file."""
    candidates = (folder / "meta.json" for folder in list(file.parents)[:_LEVELS])
    return next((meta for meta in candidates if b'"classes"' in beginning_and_end(meta)), None)


def _read_metas(files: list[Path]) -> tuple[dict[str, str], dict[Path, DataError]]:
    """The shape of every class by its title, and the lists of classes that cannot be read."""
    shapes: dict[str, str] = {}
    errors = {}
    for meta in dict.fromkeys(meta for folder in {file.parent for file in files} if (meta := _meta_file(folder / "x"))):
        try:
            content = read_json(meta)
            for entry in content["classes"]:
                shapes[entry["title"].strip()] = str(entry.get("shape"))
        except DataError as error:
            errors[meta] = error
        except (KeyError, TypeError, AttributeError):
            errors[meta] = DataError('it must have a list "classes", each with a title')
    return shapes, errors


def _split(file: Path, root: Path) -> str:
    """The split that the dataset of an annotation file is called after, or a folder above it."""
    return split_of(file.parent.parent, root) if file.parent != root else NO_SPLIT


def _find_images(files: list[Path], root: Path, finder: ImageFinder) -> dict[Path, list[Path]]:
    """The images of every annotation file, whose name is that of the image with .json after it.

    Images of the same name are distinguished by the folder of their dataset, which may lie in that of another one.
    """
    matches: dict[Path, list[Path]] = {}
    for folder, members in group_by(files, lambda file: file.parent).items():
        names = {file: f"{folder.parent.name}/img/{file.stem}" for file in members}
        by_name = finder.find(names.values(), folder / "*.json", _split(members[0], root))
        matches |= {file: by_name[name] for file, name in names.items()}
    return matches


def _read_file(
    file: Path,
    paths: list[Path],
    split: str,
    shapes: Mapping[str, str],
    finder: ImageFinder,
    claims: ImageClaims,
    collector: Collector,
) -> None:
    """Collect the image and the objects of one annotation file."""
    try:
        content = read_json(file)
        if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
            raise DataError('it has no list "objects"')
    except DataError as error:
        collector.unreadable(file, error, next(iter(paths), None))
        return
    path = collector.only_one(paths, file.stem, file, finder)
    image = path and claims.image(path, split, file, file.stem, _size_hw(content.get("size")))
    if not image:
        return
    tags = content.get("tags")
    for _ in tags if isinstance(tags, list) else ():
        collector.leave_out("image tag")
    for number, entry in enumerate(content["objects"], start=1):
        try:
            _read_object(entry, number, image, shapes, collector)
        except DataError as error:
            what = f"object {number}: {error}"
            collector.problem("unreadable-annotations", file, what, number, image=image.path)


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
        (angle,) = numbers_of([entry.get("angle")], 1)  # in radians
        first, last = _corners(points)
        collector.add_outline(
            image, rotated_corners([*first, *last], math.degrees(angle)), title, number, shape="rotated box"
        )
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


def _size_hw(size: object) -> tuple[int, int]:
    """Height and width as a file states them; 0 where it does not."""
    sides = [size.get(side) if isinstance(size, dict) else None for side in ("height", "width")]
    height, width = (side if isinstance(side, int) and side > 0 else 0 for side in sides)
    return height, width
