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
from fasterrcnn.data.formats.base import DataFormat, NamedImages, ReadOptions
from fasterrcnn.data.formats.collector import CollectedImage, Collector
from fasterrcnn.data.formats.cvat_video import find_frames, frame_range
from fasterrcnn.data.formats.reading import read_xml, split_name
from fasterrcnn.data.formats.shapes import ellipse_corners, rotated_corners
from fasterrcnn.data.formats.values import numbers_in, points_of, shortened, side_of_image, to_number, whole_number
from fasterrcnn.data.formats.writing import lost_areas_and_ids, shortest_decimals, write_file
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
    suffixes = (".xml",)
    can_write = True

    def fits(self, content: bytes) -> bool:
        """CVAT writes the version, then a description; a file written by hand may have images or tracks alone."""
        start = rb"<annotations[\s>].*?<(version>\s*1\.|meta[\s/>]|image\s|track\s)"
        return re.search(start, content, re.DOTALL) is not None

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read one annotation file, or all of a folder, as those of several tasks.

        Shapes are counted through a file, in the order in which they are written there.

        Raises:
            DataError: no file can be read, or there is no image.
        """
        collector = Collector(place, self.title, "shape", images=options.images)
        trees: dict[Path, ElementTree.Element] = {}
        for file in self.annotation_files(place):
            with collector.report_errors(file):
                trees[file] = _load(file)
        collector.list_classes(tuple(dict.fromkeys(name for tree in trees.values() for name in _classes(tree))) or None)
        for file, tree in trees.items():
            split = NO_SPLIT if place.is_file() else split_of(file, collector.root)
            reader = _FileReader(file, tree, split, collector)
            reader.read_images()
            reader.read_tracks()
            if tree.find("image") is None and tree.find("track") is None:
                collector.problem("empty-split", file, "it has no image and no track")
        collector.report_unlisted("no annotation file names it")
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


class _FileReader:
    """Reads an annotation file, whose subsets are splits, into a collector."""

    def __init__(self, file: Path, tree: ElementTree.Element, split: str, collector: Collector) -> None:
        self._file, self._tree, self._file_split, self._collector = file, tree, split, collector
        self._subset = (tree.findtext("meta/task/subset") or tree.findtext("meta/job/subset") or "").strip()
        shapes = (shape for parent in tree if parent.tag in ("image", "track") for shape in parent)
        self._numbers = {shape: number for number, shape in enumerate(shapes, start=1)}

    def read_images(self) -> None:
        """Read the images that the file names, and their shapes."""
        entries = group_by(self._tree.findall("image"), lambda entry: self._split(entry.get("subset") or self._subset))
        for split, own in entries.items():
            names = {entry: _image_name(entry) for entry in own}
            matches = self._collector.find_images(filter(None, names.values()), self._file, split)
            for entry, name in names.items():
                where = f"image {entry.get('id', '')}".strip()
                if not name:
                    self._collector.problem("unreadable-annotations", self._file, f"{where} has no name")
                elif matches:
                    path = self._collector.only_one(matches[name], name, self._file, where)
                    size_hw = side_of_image(entry.get("height")), side_of_image(entry.get("width"))
                    if image := self._collector.claim(path, split, self._file, name, size_hw):
                        for shape in entry:
                            self._read_shape(shape, shape.get("label"), image)

    def read_tracks(self) -> None:
        """Read the tracks: the images of their frames, and the shapes in each."""
        tracks = self._tree.findall("track")
        groups = group_by(tracks, lambda track: (track.get("subset") or self._subset, track.get("task_id")))
        subsets = [subset for subset, _ in groups]
        for (subset, task_id), own in groups.items():
            if subsets.count(subset) > 1:
                what = f"task {task_id}: other tasks have frames of the same numbers; export each task by itself"
                self._collector.problem("ambiguous-image", self._file, what)
                continue
            shapes = group_by(self._visible(own), lambda item: whole_number(item[1].get("frame")) or 0)
            frames, split = frame_range(self._tree, task_id), self._split(subset)
            paths = find_frames(shapes, frames, subset, self._file, split, self._collector)
            for frame, path in sorted(paths.items()):
                if image := self._collector.claim(path, split, self._file, path.stem, frames.size_hw):
                    for label, shape in shapes.get(frame, ()):
                        self._read_shape(shape, label, image)

    def _split(self, subset: str) -> str:
        """The split of a subset; that of the file where the subset is none, which CVAT calls "default"."""
        return self._file_split if subset.strip().lower() in ("", "default") else split_name(subset)

    def _visible(self, tracks: list[ElementTree.Element]) -> Iterator[tuple[str | None, ElementTree.Element]]:
        """The label and the shape of every object that is inside its frame."""
        for track in tracks:
            for shape in track:
                if whole_number(shape.get("frame")) is None:
                    what = f"track {track.get('id')}: {shortened(shape.get('frame'))} is no number of a frame"
                    self._collector.problem("unreadable-annotations", self._file, what)
                elif shape.get("outside", "0").strip().lower() not in ("1", "true"):
                    yield track.get("label"), shape

    def _read_shape(self, shape: ElementTree.Element, label: str | None, image: CollectedImage) -> None:
        if shape.tag in _WITHOUT_BOX:
            self._collector.leave_out(_WITHOUT_BOX[shape.tag])
            return
        number, label = self._numbers[shape], (label or "").strip()
        difficult = is_difficult({a.get("name", ""): (a.text or "").strip() for a in shape.iterfind("attribute")})
        what = f"{image.path.name}, shape {number}"
        with self._collector.report_errors(self._file, what, number, image=image.path):
            if not label:
                raise DataError("it has no label")
            points = _points(shape)
            if shape.tag == "box" and len(points) == 2:
                self._collector.add(image, [*points[0], *points[1]], label, number, difficult=difficult)
            else:
                kind = {"box": "rotated box"}.get(shape.tag, shape.tag)
                self._collector.add_outline(image, points, label, number, shape=kind, difficult=difficult)


def _load(file: Path) -> ElementTree.Element:
    """The content of a file.

    Raises:
        DataError: it cannot be read, or is not of CVAT.
    """
    tree = read_xml(file)
    if tree.tag != "annotations":
        raise DataError(f"{file}: not of CVAT: it begins with <{tree.tag}>, not with <annotations>")
    return tree


def _classes(tree: ElementTree.Element) -> Iterator[str]:
    """The labels that a file lists, but those of points, lines and tags and of the parts of a skeleton."""
    for label in tree.iterfind("meta//label"):
        name = (label.findtext("name") or "").strip()
        if name and not label.findtext("parent") and label.findtext("type") not in _WITHOUT_BOX:
            yield name


def _image_name(entry: ElementTree.Element) -> str:
    """What an entry calls its image, in the folder of its subset."""
    name, subset = (entry.get("name") or "").strip(), (entry.get("subset") or "").strip()
    return f"{subset}/{name}" if name and subset else name


def _points(shape: ElementTree.Element) -> list[list[float]]:
    """The two corners of an upright box; points around any other shape.

    Raises:
        DataError: it is no shape, or has no numbers where they are expected.
    """
    rotation = to_number(shape.get("rotation") or 0, "rotation")
    if shape.tag == "box":
        x1, y1, x2, y2 = numbers_in(shape.attrib, _SIDES)
        return rotated_corners((x1, y1, x2, y2), rotation) if rotation % 360 else [[x1, y1], [x2, y2]]
    if shape.tag == "ellipse":
        x, y, radius_x, radius_y = numbers_in(shape.attrib, ("cx", "cy", "rx", "ry"))
        return ellipse_corners(x, y, radius_x, radius_y, rotation)
    if shape.tag == "mask":
        left, top, width, height = numbers_in(shape.attrib, ("left", "top", "width", "height"))
        return [[left, top], [left + width, top + height]]
    if shape.tag == "cuboid":
        return [numbers_in(shape.attrib, (f"x{corner}", f"y{corner}")) for corner in _CUBOID_CORNERS]
    if shape.tag != "polygon":
        raise DataError(f"<{shortened(shape.tag)[1:-1]}> is no shape of CVAT 1.1")
    text = shape.get("points") or ""
    try:
        return points_of([point.split(",") for point in text.strip().strip(";").split(";")])
    except DataError:
        raise DataError(f"points must be pairs of numbers (x,y;x,y), not {shortened(text)}") from None


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
