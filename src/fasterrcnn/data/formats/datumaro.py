"""Datumaro JSON: a file for each subset in annotations/, the images in images/ or images/<subset>/."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fasterrcnn.data.annotations import NO_SPLIT, AnnotatedData, group_by, split_of
from fasterrcnn.data.formats.base import CollectedImage, Collector, DataFormat, ReadOptions
from fasterrcnn.data.formats.cvat import is_difficult
from fasterrcnn.data.formats.reading import files_below, read_json, split_name
from fasterrcnn.data.formats.shapes import box_of_runs, numbers_of, points_of, rotated_corners, shortened
from fasterrcnn.data.image_finder import ImageFinder
from fasterrcnn.errors import DataError
from fasterrcnn.images import image_files

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
        reader = _Reader(collector, ImageFinder(root, options.images))
        several = len(contents) > 1
        for file, content in contents.items():
            reader.read_file(file, content, NO_SPLIT if place.is_file() else _split(file, root, several))
        reader.report_unlisted()
        return collector.finish()


class _Reader:
    """Reads annotation files, one after the other, into a collector."""

    def __init__(self, collector: Collector, finder: ImageFinder) -> None:
        self._collector, self._finder = collector, finder
        self._claims: dict[tuple[Path, str], tuple[Path, str]] = {}  # who named an image of a split: file and item

    def read_file(self, file: Path, content: dict[str, Any], split: str) -> None:
        """Read all items of a subset."""
        items = []
        for position, item in enumerate(content["items"], start=1):
            if isinstance(item, dict) and _names(item) and isinstance(item.get("annotations"), list):
                items.append(item)
            else:
                what = f"item {position} must have an id and a list of annotations, not {shortened(item)}"
                self._collector.problem("unreadable-annotations", file, what)
        if not content["items"]:
            self._collector.problem("empty-split", file, "lists no item")
        names = [name for item in items for name in _names(item)]
        matches = self._finder.find(names, file, split)
        if names and not any(matches.values()):
            self._collector.problem("missing-image", file, self._finder.nothing_found(names))
            return
        classes = _classes(content)
        number = 0
        for item in items:
            image = self._image(item, matches, file, split)
            for annotation in item["annotations"]:
                number += 1
                if image is not None:
                    self._read_annotation(annotation, number, classes, image, file)

    def report_unlisted(self) -> None:
        """Note the images beside those that were used which no annotation file names."""
        used = {path for path, _ in self._claims}
        present = {path for folder in {path.parent for path in used} for path in image_files(folder)}
        for path in sorted(present - used):
            self._collector.problem("unlisted-image", path, "no annotation file names it", image=path)
