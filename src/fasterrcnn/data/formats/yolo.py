"""YOLO: one text file per image and one line per object, as Ultralytics, Roboflow, CVAT, labelImg and Darknet write.

A line is ``class cx cy width height``, or class and the corners of a polygon, in shares of the upright image.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fasterrcnn.data.annotations import NO_SPLIT, AnnotatedData, AnnotatedImage, group_by
from fasterrcnn.data.formats.base import DataFormat, NamedImages, ReadOptions
from fasterrcnn.data.formats.collector import Collector, UnusableError
from fasterrcnn.data.formats.reading import read_lines
from fasterrcnn.data.formats.shapes import box_to_xyxy
from fasterrcnn.data.formats.values import line_of, to_number
from fasterrcnn.data.formats.writing import lost_areas_and_ids, lost_flags, shortest_decimals, write_file
from fasterrcnn.data.formats.yolo_layout import (
    class_names,
    description_of,
    descriptions,
    expected_label_file,
    holds_labels,
    images_by_description,
    images_by_layout,
    images_in_folders,
    is_data_set,
    label_files,
    labels_without_images,
    load_description,
    other_label_folder,
)
from fasterrcnn.data.image_finder import has_images
from fasterrcnn.errors import DataError
from fasterrcnn.files import folders_below, search_folders

_LARGEST_SHARE = 1.5  # a box over the border is a little larger than 1, pixels are far larger
_SHARE_DIGITS = 9  # 0.0005 pixels in an image of a million


class Yolo(DataFormat):
    """YOLO.

    Written as data.yaml, images/<split>/ and labels/<split>/; images/ and labels/ where there are no splits. An image
    without boxes has an empty file.
    """

    title = "YOLO"
    layout = "YOLO (data.yaml, or images/ beside labels/ with .txt files)"
    box_format = "cxcywh"
    relative_boxes = True
    options = frozenset({"images", "classes"})
    can_write = True

    def recognise(self, root: Path, options: ReadOptions = ReadOptions()) -> list[Path]:
        """The yaml file itself, the folder itself, or those below it that hold a data set with its images.

        Where several yaml files of a folder name classes, and none is called data.yaml, those files.
        """
        if root.is_file():
            return [root] if root.suffix.lower() in (".yaml", ".yml") else []
        places = search_folders(root, _data_sets)
        if len(places) > 1 or (places and has_images(places[0])):
            return places
        return [root] if places or holds_labels(root) else []

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read a folder, or the yaml file that describes a data set.

        An image without a label file, or with an empty one, has no objects. The names of the classes in the options
        replace those of the data set.

        Raises:
            DataError: the yaml file or a list is not readable, the classes have no names, or there is no image, or no
                label file.
            UsageError: a folder of images in the options does not exist.
        """
        root = place if place.is_dir() else place.parent
        folder = next(iter(search_folders(root, _data_sets)), root) if place.is_dir() else root
        file = description_of(folder) if place.is_dir() else place
        content = {} if file is None else load_description(file)
        collector = Collector(place, self.title, "line", images=options.images)
        names = options.classes or class_names([folder, root], file, content, collector)
        if options.images:
            paths = images_in_folders(collector.finder.places, root)
        else:
            described = {} if file is None else images_by_description(file, content, collector)
            paths = described or images_by_layout(folder, collector)
            if not any(paths.values()):
                paths = images_by_layout(root, collector)
        images = sorted({path for listed in paths.values() for path in listed})
        _read_labels(images, root, _LineReader(len(names), _key_point_numbers(content)), collector)
        collector.report_unlisted("no list of a split has it", listed=images)
        return collector.finish(paths, classes=names)

    def image_folder(self, split: str) -> str:
        """One folder for each split, below images/."""
        return "images" if split == NO_SPLIT else f"images/{split}"

    def write(self, data: AnnotatedData, splits: Mapping[str, NamedImages], folder: Path) -> None:
        """Write data.yaml, and a folder of labels for each split."""
        content: dict[str, object] = {}
        for split, images in splits.items():
            place = self.image_folder(split)
            for name, image in images.items():
                file = folder / place.replace("images", "labels", 1) / f"{Path(name).stem}.txt"
                write_file(file, _to_lines(image))
            if split != NO_SPLIT:
                content[split] = place
        # Without "path", tools take paths relative to this file, wherever it is.
        content["names"] = dict(enumerate(data.classes))
        write_file(folder / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    def losses(self, data: AnnotatedData) -> list[str]:
        """Difficult objects, areas and ids."""
        return lost_flags(self.title, data) + lost_areas_and_ids(self.title, data)


def _data_sets(folder: Path) -> list[Path]:
    """The folder itself, or its yaml files, where none of several describes all of it."""
    files = descriptions(folder)
    if len(files) > 1 and description_of(folder) is None:
        return files
    if any(child.name.lower().startswith("labeltxt") for child in folders_below(folder, 2)) and not holds_labels(
        folder
    ):
        return []  # Roboflow's oriented boxes: labels in DOTA's format beside data.yaml
    return [folder] if files or is_data_set(folder) else []


def _read_labels(images: Sequence[Path], root: Path, reader: "_LineReader", collector: Collector) -> None:
    """Collect images and the boxes of their label files.

    Raises:
        DataError: there is not one label file.
    """
    labels = label_files(images, root)
    if images and not labels:
        other = other_label_folder((path.stem for path in images), root)
        hint = f"; {other} has .txt files of the same names: call it labels" if other else ""
        raise DataError(
            f"{root}: no label file for any of {len(images)} images, as {images[0].name}; expected is "
            f"{images[0].stem}.txt in labels/ or beside the image{hint}"
        )
    # A label file belongs to several images where they have the same stem.
    for candidates in group_by(images, lambda image: tuple(labels.get(image, (image,)))).values():
        files = labels.get(candidates[0], [])
        if len(files) > 1:
            what = f"its labels could be {files[0]} or {files[1]}"
            collector.problem("ambiguous-image", candidates[0], what, image=candidates[0])
        elif not files:
            _read_image(candidates[0], expected_label_file(candidates[0]), reader, collector)
        elif (path := collector.image_of(files[0], candidates)) is not None:
            _read_image(path, files[0], reader, collector)
    for text in labels_without_images((file for files in labels.values() for file in files), images, root):
        collector.image_of(text, [])


@dataclass(frozen=True)
class _LineReader:
    """Reads the lines of label files: the number of classes, and of the numbers behind each box (key points)."""

    class_count: int
    extra: int = 0

    def read(self, line: str) -> tuple[int, list[float]]:
        """Label, and the numbers of a box, or of a polygon's corners, in shares of the image."""
        try:
            label, *values = (to_number(word, "") for word in line.split())
        except DataError:
            raise DataError("expected are numbers: class, cx, cy, width, height") from None
        if self.extra and len(values) == 4 + self.extra:
            values = values[:4]
        if len(values) == 5:
            what = "a sixth number, as in predictions with a score; expected are five"
            raise DataError(what)
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            expected = "class, cx, cy, width, height, or class and x, y of each corner"
            raise DataError(f"{len(values) + 1} numbers; expected are {expected}")
        if not label.is_integer():
            raise DataError(f"the class must be a whole number, not {label:g}")
        if not 0 <= label < self.class_count:
            raise UnusableError("unknown-class", f"the classes are 0 to {self.class_count - 1}, not {label:g}")
        if any(math.isfinite(value) and value > _LARGEST_SHARE for value in values):
            raise UnusableError("wrong-format", "pixels where shares of the image are expected (0 to 1)")
        return int(label), values


def _key_point_numbers(content: Mapping[str, Any]) -> int:
    """How many numbers of key points follow each box, from kpt_shape: [points, numbers of each]."""
    shape = content.get("kpt_shape")
    sides = [int(side) for side in shape if str(side).isdecimal()] if isinstance(shape, list) else []
    return math.prod(sides) if len(sides) == 2 else 0


def _read_image(path: Path, file: Path, reader: _LineReader, collector: Collector) -> None:
    """Collect one image and the lines of its label file."""
    size_hw = collector.size_hw(path)
    if size_hw is None:
        return
    is_there = os.path.lexists(file)
    if not is_there:
        collector.problem("unlabelled-image", file, f"no such file for {path.name}", image=path)
    with collector.report_errors(file, image=path):
        lines = read_lines(file) if is_there else []
        image = collector.image(path, source=file, size_hw=size_hw)
        scale = np.array([size_hw[1], size_hw[0]])
        for number, line in enumerate(lines, start=1):
            if not line:
                continue
            with collector.report_errors(file, line_of(number, line), number, image=path):
                label, values = reader.read(line)
                if len(values) == 4:
                    x1, y1, x2, y2 = box_to_xyxy(values, "cxcywh")
                    collector.add(image, [*((x1, y1) * scale), *((x2, y2) * scale)], label, number)
                    if len(line.split()) > 5:
                        collector.leave_out("key points (of a box)")
                else:
                    collector.add_outline(image, np.reshape(values, (-1, 2)) * scale, label, number)


def _to_lines(image: AnnotatedImage) -> str:
    """A line for each box: class, centre and size in shares of the image."""
    height, width = image.size_hw
    x1, y1, x2, y2 = (np.array(shortest_decimals(image.boxes)).reshape(-1, 4) / (width, height, width, height)).T
    shares = np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=1)
    texts = [
        " ".join(np.format_float_positional(value, precision=_SHARE_DIGITS, trim="-") for value in row)
        for row in shares
    ]
    return "".join(f"{label} {text}\n" for label, text in zip(image.labels, texts, strict=True))
