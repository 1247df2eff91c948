"""CVAT's own XML 1.1, for images and for video.

For images, every image names its file and holds its shapes. For video, tracks hold a shape for every frame, and the
images are called after their frames. The subset of an image, or of its task, is its split.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from fasterrcnn.data.annotations import NO_SPLIT, AnnotatedData, group_by, split_of
from fasterrcnn.data.formats.base import CollectedImage, Collector, DataFormat, NamedImages, ReadOptions
from fasterrcnn.data.formats.claims import ImageClaims
from fasterrcnn.data.formats.cvat_video import find_frames, frame_range, whole_number
from fasterrcnn.data.formats.reading import files_below, read_xml, split_name
from fasterrcnn.data.formats.shapes import ellipse_corners, rotated_corners, shortened
from fasterrcnn.data.formats.writing import lost_areas_and_ids, shortest_decimals, write_file
from fasterrcnn.data.image_finder import ImageFinder
from fasterrcnn.errors import DataError

_SIDES = ("xtl", "ytl", "xbr", "ybr")
_CUBOID_CORNERS = [f"{corner}{face}" for face in "12" for corner in ("tl", "bl", "tr", "br")]
_WITHOUT_BOX = {"polyline": "line", "points": "point", "skeleton": "skeleton", "tag": "image tag"}
_SUBSETS = {"train": "Train", "val": "Validation", "test": "Test"}  # what CVAT calls the splits
_DIFFICULT = frozenset(("difficult", "is_crowd", "iscrowd", "ignore", "ignored"))


class Cvat(DataFormat):
    """CVAT for images 1.1; CVAT for video 1.1 is read as well.

    Written as annotations.xml and images/<subset>/, with the subsets Train, Validation and Test; images/ where there
    are no splits. Difficult objects have the attribute "difficult".
    """

    title = "CVAT for images"
    layout = "CVAT for images (.xml files that begin with <annotations>)"
    box_format = "xyxy"
    can_write = True

    def recognise(self, root: Path, options: ReadOptions = ReadOptions()) -> list[Path]:
        """The annotation file itself, or the folder with the files of one or several tasks."""
        return [root] if files_below(root, (".xml",), _is_cvat) else []

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read one annotation file, or all of a folder, as those of several tasks.

        Shapes are counted through a file, in the order in which they are written there.

        Raises:
            DataError: no file can be read, or there is no image.
        """
        root = place.parent if place.is_file() else place
        trees, errors = _load(files_below(place, (".xml",), _is_cvat))
        if not trees:
            raise next(iter(errors.values()), DataError(f"{place}: no annotation file of CVAT"))
        classes = tuple(dict.fromkeys(name for tree in trees.values() for name in _classes(tree)))
        collector = Collector(place, self.title, "shape", classes or None)
        for file, error in errors.items():
            collector.unreadable(file, error)
        claims = ImageClaims(collector)
        reader = _Reader(collector, ImageFinder(root, options.images), claims)
        for file, tree in trees.items():
            split = NO_SPLIT if place.is_file() else split_of(file, root)
            reader.read_images(file, tree, split)
            reader.read_tracks(file, tree, split)
            if tree.find("image") is None and tree.find("track") is None:
                collector.problem("empty-split", file, "it has no image and no track")
        claims.report_unlisted()
        return collector.finish()

    def image_folder(self, split: str) -> str:
        """One folder for each subset."""
        return "images" if split == NO_SPLIT else f"images/{_SUBSETS.get(split, split)}"

    def write(self, data: AnnotatedData, splits: Mapping[str, NamedImages], folder: Path) -> None:
        """Write one file for all splits, which CVAT imports into a project; into a task where there are no splits."""
        root = ElementTree.Element("annotations")
        ElementTree.SubElement(root, "version").text = "1.1"
        has_difficult = any(image.difficult.any() for image in data.images)
        root.append(_meta(data.classes, [_SUBSETS.get(split, split) for split in splits], has_difficult))
        for split, images in splits.items():
            for name, image in images.items():
                height, width = image.size_hw
                subset = {} if split == NO_SPLIT else {"subset": _SUBSETS.get(split, split)}
                attributes = {"id": str(len(root) - 2), "name": name, **subset}
                entry = ElementTree.SubElement(root, "image", attributes, width=str(width), height=str(height))
                boxes = zip(shortest_decimals(image.boxes), image.labels, image.difficult, strict=True)
                for box, label, difficult in boxes:
                    entry.append(_box_element(box, data.classes[label], bool(difficult), has_difficult))
        ElementTree.indent(root)
        text = ElementTree.tostring(root, encoding="unicode")
        write_file(folder / "annotations.xml", f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n')

    def losses(self, data: AnnotatedData) -> list[str]:
        """Areas and ids."""
        return lost_areas_and_ids(self.title, data)


def is_difficult(attributes: Mapping[str, object]) -> bool:
    """Whether attributes of an object, as CVAT and Datumaro name them, mark it as difficult, ignored or a crowd."""
    return any(name.lower() in _DIFFICULT and str(value).lower() in ("true", "1") for name, value in attributes.items())


class _Reader:
    """Reads annotation files, one after the other, into a collector."""

    def __init__(self, collector: Collector, finder: ImageFinder, claims: ImageClaims) -> None:
        self._collector, self._finder, self._claims = collector, finder, claims

    def read_images(self, file: Path, tree: ElementTree.Element, file_split: str) -> None:
        """Read the images that a file names, and their shapes."""
        numbers = _numbers(tree)
        stated = _stated_subset(tree)
        entries = group_by(tree.findall("image"), lambda entry: _split(entry.get("subset") or stated, file_split))
        for split, own in entries.items():
            names = {entry: _image_name(entry) for entry in own}
            matches = self._finder.find([name for name in names.values() if name], file, split)
            if matches and not any(matches.values()):
                self._collector.problem("missing-image", file, self._finder.nothing_found(list(matches)))
                continue
            for entry, name in names.items():
                where = f"image {entry.get('id', '')}".strip()
                if not name:
                    self._collector.problem("unreadable-annotations", file, f"{where} has no name")
                    continue
                path = self._collector.only_one(matches[name], name, file, self._finder, where)
                size_hw = (whole_number(entry.get("height")) or 0, whole_number(entry.get("width")) or 0)
                if path and (image := self._claims.image(path, split, file, name, size_hw)):
                    for shape in entry:
                        self._read_shape(shape, shape.get("label"), numbers[shape], image, file)

    def read_tracks(self, file: Path, tree: ElementTree.Element, file_split: str) -> None:
        """Read the tracks of a file: the images of their frames, and the shapes in each."""
        numbers = _numbers(tree)
        stated = _stated_subset(tree)
        groups = group_by(tree.findall("track"), lambda track: (track.get("subset") or stated, track.get("task_id")))
        subsets = [subset for subset, _ in groups]
        for (subset, task_id), tracks in groups.items():
            if subsets.count(subset) > 1:
                what = f"task {task_id}: other tasks have frames of the same numbers; export each task by itself"
                self._collector.problem("ambiguous-image", file, what)
                continue
            shapes = group_by(self._visible(tracks, file), lambda item: int(item[1].get("frame", "")))
            frames, split = frame_range(tree, task_id), _split(subset, file_split)
            paths = find_frames(shapes, frames, subset, file, split, self._finder, self._collector)
            for frame, path in sorted(paths.items()):
                if image := self._claims.image(path, split, file, path.stem, frames.size_hw):
                    for label, shape in shapes.get(frame, ()):
                        self._read_shape(shape, label, numbers[shape], image, file)

    def _visible(
        self, tracks: list[ElementTree.Element], file: Path
    ) -> Iterator[tuple[str | None, ElementTree.Element]]:
        """The label and the shape of every object that is inside its frame."""
        for track in tracks:
            for shape in track:
                if whole_number(shape.get("frame")) is None:
                    what = f"track {track.get('id')}: {shortened(shape.get('frame'))} is no number of a frame"
                    self._collector.problem("unreadable-annotations", file, what)
                elif not _is_outside(shape):
                    yield track.get("label"), shape

    def _read_shape(
        self, shape: ElementTree.Element, label: str | None, number: int, image: CollectedImage, file: Path
    ) -> None:
        if shape.tag in _WITHOUT_BOX:
            self._collector.leave_out(_WITHOUT_BOX[shape.tag])
            return
        label = (label or "").strip()
        difficult = is_difficult({a.get("name", ""): (a.text or "").strip() for a in shape.iterfind("attribute")})
        try:
            if not label:
                raise DataError("it has no label")
            points = _points(shape)
        except DataError as error:
            what = f"{image.path.name}, shape {number}: {error}"
            self._collector.problem("unreadable-annotations", file, what, number, image=image.path)
            return
        if shape.tag == "box" and len(points) == 2:
            self._collector.add(image, [*points[0], *points[1]], label, number, difficult=difficult)
        else:
            kind = {"box": "rotated box"}.get(shape.tag, shape.tag)
            self._collector.add_outline(image, points, label, number, shape=kind, difficult=difficult)


def _is_cvat(content: bytes) -> bool:
    """CVAT writes the version, then a description; a file that was written by hand may have images or tracks alone."""
    return (
        re.search(rb"<annotations[\s>].*?<(version>\s*1\.|meta[\s/>]|image\s|track\s)", content, re.DOTALL) is not None
    )


def _load(files: list[Path]) -> tuple[dict[Path, ElementTree.Element], dict[Path, DataError]]:
    """The content of every file that can be read, and why the others cannot."""
    trees, errors = {}, {}
    for file in files:
        try:
            tree = read_xml(file)
            if tree.tag != "annotations":
                raise DataError(f"{file}: not of CVAT: it begins with <{tree.tag}>, not with <annotations>")
            trees[file] = tree
        except DataError as error:
            errors[file] = error
    return trees, errors


def _classes(tree: ElementTree.Element) -> Iterator[str]:
    """The labels that a file lists, but those of points, lines and tags and of the parts of a skeleton."""
    for label in tree.iterfind("meta//label"):
        name = (label.findtext("name") or "").strip()
        if name and not label.findtext("parent") and label.findtext("type") not in _WITHOUT_BOX:
            yield name


def _numbers(tree: ElementTree.Element) -> dict[ElementTree.Element, int]:
    """The number of every shape, from 1."""
    shapes = (shape for parent in tree if parent.tag in ("image", "track") for shape in parent)
    return {shape: number for number, shape in enumerate(shapes, start=1)}


def _stated_subset(tree: ElementTree.Element) -> str:
    """The subset of the only task of a file; empty where it states none."""
    return (tree.findtext("meta/task/subset") or tree.findtext("meta/job/subset") or "").strip()


def _split(subset: str, file_split: str) -> str:
    """The split of a subset; that of the file where the subset is none, which CVAT calls "default"."""
    return file_split if subset.strip().lower() in ("", "default") else split_name(subset)


def _image_name(entry: ElementTree.Element) -> str:
    """What an entry calls its image, in the folder of its subset."""
    name, subset = (entry.get("name") or "").strip(), (entry.get("subset") or "").strip()
    return f"{subset}/{name}" if name and subset else name


def _is_outside(shape: ElementTree.Element) -> bool:
    return shape.get("outside", "0").strip().lower() in ("1", "true")


def _points(shape: ElementTree.Element) -> list[list[float]]:
    """The two corners of an upright box; points around any other shape.

    Raises:
        DataError: it is no shape, or has no numbers where they are expected.
    """
    rotation = _values(shape, "rotation")[0] if shape.get("rotation") else 0.0
    if shape.tag == "box":
        x1, y1, x2, y2 = _values(shape, *_SIDES)
        return rotated_corners((x1, y1, x2, y2), rotation) if rotation % 360 else [[x1, y1], [x2, y2]]
    if shape.tag == "ellipse":
        x, y, radius_x, radius_y = _values(shape, "cx", "cy", "rx", "ry")
        return ellipse_corners(x, y, radius_x, radius_y, rotation)
    if shape.tag == "mask":
        left, top, width, height = _values(shape, "left", "top", "width", "height")
        return [[left, top], [left + width, top + height]]
    if shape.tag == "cuboid":
        return [_values(shape, f"x{corner}", f"y{corner}") for corner in _CUBOID_CORNERS]
    if shape.tag != "polygon":
        raise DataError(f"<{shortened(shape.tag)[1:-1]}> is no shape of CVAT 1.1")
    text = shape.get("points") or ""
    try:
        points = [[float(side) for side in point.split(",")] for point in text.strip().strip(";").split(";")]
    except ValueError:
        points = []
    if not points or {len(point) for point in points} != {2}:
        raise DataError(f"points must be pairs of numbers (x,y;x,y), not {shortened(text)}")
    return points


def _values(shape: ElementTree.Element, *names: str) -> list[float]:
    """Numbers of a shape.

    Raises:
        DataError: one is missing, or no number.
    """
    try:
        return [float(shape.get(name, "missing")) for name in names]
    except ValueError as error:
        raise DataError(f"{', '.join(names)} must be numbers ({error!s:.80})") from None


def _meta(classes: tuple[str, ...], subsets: list[str], has_difficult: bool) -> ElementTree.Element:
    """The description of a project with these classes and subsets; of a task where the only subset is "all"."""
    meta = ElementTree.Element("meta")
    part = ElementTree.SubElement(meta, "task" if subsets == [NO_SPLIT] else "project")
    labels = ElementTree.SubElement(part, "labels")
    for name in classes:
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
        attributes = ElementTree.SubElement(label, "attributes")
        if has_difficult:
            attribute = ElementTree.SubElement(attributes, "attribute")
            texts = {"name": "difficult", "mutable": "False", "input_type": "checkbox", "default_value": "false"}
            for tag, text in {**texts, "values": "false"}.items():
                ElementTree.SubElement(attribute, tag).text = text
    if part.tag == "project":
        ElementTree.SubElement(part, "subsets").text = "\n".join(subsets)
    return meta


def _box_element(box: list[float], label: str, difficult: bool, has_difficult: bool) -> ElementTree.Element:
    sides = [np.format_float_positional(np.float32(side), trim="-") for side in box]
    attributes = {"label": label, "source": "manual", "occluded": "0", **dict(zip(_SIDES, sides, strict=True))}
    element = ElementTree.Element("box", attributes, z_order="0")
    if has_difficult:
        ElementTree.SubElement(element, "attribute", name="difficult").text = str(difficult).lower()
    return element
