"""labelme: one JSON file per image; those of AnyLabeling, X-AnyLabeling and EISeg are alike.

Points are in pixels of the upright image, as labelme shows it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fasterrcnn.data.annotations import AnnotatedData, group_by, split_of
from fasterrcnn.data.formats.base import DataFormat, NamedImages, ReadOptions
from fasterrcnn.data.formats.collector import CollectedImage, Collector
from fasterrcnn.data.formats.reading import read_json
from fasterrcnn.data.formats.shapes import ellipse_corners
from fasterrcnn.data.formats.values import points_of, shortened, side_of_image
from fasterrcnn.data.formats.writing import lost_areas_and_ids, lost_class_list, shortest_decimals, write_file
from fasterrcnn.data.image_finder import ImageFinder
from fasterrcnn.errors import DataError

_VERSION = "5.5.0"  # of labelme, whose files are written; it warns about files of another major version
_COUNTS = {
    "rectangle": (2, 4),
    "circle": (2,),
    "mask": (2,),
    "rotation": (4,),
    "oriented_rectangle": (4,),
    "quadrilateral": (4,),
    "cuboid": (8,),
}
"""Numbers of points that a shape may have; a polygon has three or more."""

_WITHOUT_BOX = ("point", "points", "line", "linestrip")


@dataclass(frozen=True)
class _Shape:
    """An object, or a part of it: the shapes of one label and group are one object."""

    kind: str
    label: str
    points: list[list[float]]
    group: int | str | None
    difficult: bool


@dataclass(frozen=True)
class _Content:
    """What a file states; 0 is an unknown height or width."""

    shapes: list[Any]
    image_name: str = ""
    stated_hw: tuple[int, int] = (0, 0)
    holds_image: bool = False


class Labelme(DataFormat):
    """labelme JSON.

    Written as <split>/ with the images and the JSON files; images/ where there are no splits.
    """

    title = "labelme"
    layout = 'labelme (.json files with "shapes", one per image)'
    box_format = "xyxy"
    suffixes = (".json",)
    can_write = True

    def fits(self, content: bytes) -> bool:
        """imageData may be of megabytes and hide what is before or behind it."""
        has_shapes = b'"shapes"' in content or b'"shape_type"' in content
        is_labelme = has_shapes and any(b'"image%s"' % key in content for key in (b"Path", b"Data", b"Height"))
        return is_labelme or (b'"labelIdx"' in content and b'"points"' in content)  # EISeg

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read one file, or all of a folder; classes are sorted by name, for the format has no list of them.

        An image is the one that the file names (imagePath), or has the stem of the file.

        Raises:
            DataError: there is no such file, or not one image is where it could be.
        """
        files = self.annotation_files(place)
        if not files:
            raise DataError(f"{place}: no labelme file, that is .json with shapes and imagePath")
        collector = Collector(place, self.title, "shape", images=options.images)
        finder = collector.finder
        contents = {file: _load(file) for file in files}
        images = _find_images(contents, finder)
        if not any(images.values()):
            names = [_name(file, content) for file, content in contents.items()]
            raise DataError(f"{place}: {finder.nothing_found(names)}{_hint(*contents.values())}")
        paths: dict[Path, Path] = {}
        parts = 0
        for file, content in contents.items():
            own_image = _image_of(file, content, images[file], collector)
            if own_image is not None and collector.size_hw(own_image) is not None:
                paths[file] = own_image
        for (path, split), own in group_by(
            paths, lambda file: (paths[file], split_of(file.parent, collector.root))
        ).items():
            first, *others = sorted(own, key=lambda file: file.stem not in (path.stem, path.name))
            for file in others:
                what = f"{path.name} has its annotations in {first} already: left out"
                collector.problem("same-image", file, what, image=path)
            content = contents[first]
            assert isinstance(content, _Content)  # others have no path
            image = collector.image(path, split, first, stated_hw=content.stated_hw)
            parts += _add_shapes(content.shapes, image, first, collector)
        if parts:
            collector.note(
                f"{parts} x shape with the label and group_id of another: one box around all of them is taken"
            )
        if place.is_dir():
            collector.report_unlisted("image without annotations")
        return collector.finish(sort_classes=True)

    def write(self, data: AnnotatedData, splits: Mapping[str, NamedImages], folder: Path) -> None:
        """Write a file beside each image; difficult objects get a flag of that name."""
        for split, images in splits.items():
            for name, image in images.items():
                rows = zip(shortest_decimals(image.boxes), image.labels.tolist(), image.difficult.tolist(), strict=True)
                shapes = [
                    {
                        "label": data.classes[label],
                        "points": [[x1, y1], [x2, y2]],
                        "group_id": None,
                        "description": "",
                        "shape_type": "rectangle",
                        "flags": {"difficult": True} if difficult else {},
                        "mask": None,
                    }
                    for (x1, y1, x2, y2), label, difficult in rows
                ]
                height, width = image.size_hw
                frame = {"imagePath": name, "imageData": None, "imageHeight": height, "imageWidth": width}
                content: dict[str, object] = {"version": _VERSION, "flags": {}, "shapes": shapes, **frame}
                text = json.dumps(content, ensure_ascii=False, indent=2)
                write_file(folder / self.image_folder(split) / f"{Path(name).stem}.json", text + "\n")

    def losses(self, data: AnnotatedData) -> list[str]:
        """Areas and ids, and what a list of classes would hold."""
        return lost_areas_and_ids(self.title, data) + lost_class_list(self.title, data)


def _load(file: Path) -> _Content | DataError:
    """The content of a file, or why it cannot be used."""
    try:
        content: Any = read_json(file, _without_mask)
        if isinstance(content, list):  # EISeg: polygons alone
            return _Content([row | {"label": row.get("name")} if isinstance(row, dict) else row for row in content])
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            raise DataError("not labelme: it has no list of shapes")
    except DataError as error:
        return error
    name = content.get("imagePath")
    stated_hw = side_of_image(content.get("imageHeight")), side_of_image(content.get("imageWidth"))
    return _Content(content["shapes"], name if isinstance(name, str) else "", stated_hw, bool(content.get("imageData")))


def _without_mask(value: dict[str, Any]) -> dict[str, Any]:
    value.pop("mask", None)  # of most bytes in the file; its corners are the points
    return value


def _name(file: Path, content: _Content | DataError) -> str:
    """What the image is called in messages."""
    return (isinstance(content, _Content) and content.image_name) or f"{file.stem}.*"


def _find_images(contents: Mapping[Path, _Content | DataError], finder: ImageFinder) -> dict[Path, list[Path]]:
    """The images of every file: the one that it names and those of its stem; several where these differ."""
    images = finder.find_for_files({file: file.stem for file in contents})
    stated = {
        file: content.image_name
        for file, content in contents.items()
        if isinstance(content, _Content) and content.image_name
    }
    for file, named in finder.find_for_files(stated).items():
        own = images[file]
        is_sure = len(named) == 1 and (named[0] in own or not own)
        images[file] = named if is_sure else list(dict.fromkeys([*named[:1], *own]))
    return images


def _image_of(file: Path, content: _Content | DataError, images: Sequence[Path], collector: Collector) -> Path | None:
    """The image of a file; None, and a finding, where there is not just one, or the file cannot be used."""
    if isinstance(content, _Content):
        name = _name(file, content)
        return collector.only_one(images, f"{name}{_hint(content) if not images else ''}", file)
    if images or "not labelme" not in str(content):
        with collector.report_errors(file, image=next(iter(images), None)):
            raise content
    else:
        collector.problem("unlisted-annotations", file, str(content))
    return None


def _hint(*contents: _Content | DataError) -> str:
    """What to do where an image lies in its annotation file only."""
    holds_image = any(isinstance(content, _Content) and content.holds_image for content in contents)
    return " (it is inside the file, as imageData: labelme_export_json writes it out)" if holds_image else ""


def _add_shapes(shapes: Sequence[object], image: CollectedImage, file: Path, collector: Collector) -> int:
    """Collect the objects of an image.

    Outlines of one label and group are parts of one object, as in labelme's own converters; gives how many were joined
    to another.
    """
    objects: dict[tuple[str, int | str | None] | int, tuple[int, _Shape]] = {}
    parts = 0
    for number, value in enumerate(shapes, start=1):
        with collector.report_errors(file, _describe(number, value), number, image=image.path):
            shape = _to_shape(value)
            is_part = shape.group is not None and shape.kind != "rectangle"
            key = (shape.label, shape.group) if is_part else number
            if shape.kind in _WITHOUT_BOX:
                collector.leave_out(shape.kind)
            elif key in objects:
                parts += 1
                first, other = objects[key]
                points, difficult = other.points + shape.points, other.difficult or shape.difficult
                objects[key] = (first, replace(other, points=points, difficult=difficult))
            else:
                objects[key] = (number, shape)
    for number, shape in objects.values():
        if shape.kind == "rectangle":
            corners = np.array(shape.points)  # numpy's min and max keep NaN
            box = [*corners.min(axis=0), *corners.max(axis=0)]
            collector.add(image, box, shape.label, number, difficult=shape.difficult)
        else:
            flag, kind = shape.difficult, shape.kind
            collector.add_outline(image, shape.points, shape.label, number, shape=kind, difficult=flag)
    return parts


def _describe(number: int, shape: object) -> str:
    label = shape.get("label") if isinstance(shape, dict) else None
    return f"shape {number} ({label.strip():.40})" if isinstance(label, str) and label.strip() else f"shape {number}"


def _to_shape(shape: object) -> _Shape:
    """A shape of a file, with the points that its box is around.

    Raises:
        DataError: it has no label, no points that are numbers, or is of an unknown type.
    """
    if not isinstance(shape, dict):
        raise DataError(f"an object with label and points is expected, not {shortened(shape)}")
    label = shape.get("label")
    if not isinstance(label, str) or not label.strip():
        raise DataError(f"its label must be a name, not {shortened(label)}")
    kind = shape.get("shape_type") or "polygon"  # the only one of old versions
    if not isinstance(kind, str) or kind not in ("polygon", *_COUNTS, *_WITHOUT_BOX):
        raise DataError(f"shape_type {shortened(kind)} is unknown; draw it as a rectangle or a polygon")
    group = shape.get("group_id")
    if isinstance(group, bool) or not isinstance(group, int | str | None):
        raise DataError(f"its group_id must be a number, not {shortened(group)}")
    flags = shape.get("flags")
    flag = flags.get("difficult") if isinstance(flags, dict) else None
    points = _to_points(shape.get("points"), kind)
    return _Shape(kind, label.strip(), points, group, shape.get("difficult") is True or flag is True)


def _to_points(values: object, kind: str) -> list[list[float]]:
    """The points of a shape; of a circle, which has its centre and a point on it, corners of the box around it."""
    points = points_of(values)
    too_few = kind == "polygon" and len(points) < 3
    if too_few or (kind in _COUNTS and len(points) not in _COUNTS[kind]):
        counts = " or ".join(map(str, _COUNTS.get(kind, ("3 or more",))))
        raise DataError(f"a {kind} of {counts} points is expected, not of {len(points)}")
    if kind != "circle":
        return points
    (x, y), (on_x, on_y) = points
    radius = math.hypot(on_x - x, on_y - y)
    return ellipse_corners(x, y, radius, radius)
