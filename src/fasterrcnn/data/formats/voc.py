"""Pascal VOC: one XML file per image, splits in ImageSets/Main, or none.

The XML lies in Annotations, or with the images in one folder, or in a folder for each split, as Roboflow exports it.

Coordinates are taken as they are, width = xmax - xmin: the way today's annotation tools write them, in which a
box with xmin = xmax is empty. (The challenge itself counted pixels from 1, both ends included.)
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from fasterrcnn.data.annotations import NO_SPLIT, SPLITS, AnnotatedData, group_by
from fasterrcnn.data.formats.base import Collector, DataFormat, NamedImages, ReadOptions, read_lines, read_xml
from fasterrcnn.data.formats.writing import lost_areas_and_ids, shortest_decimals, write_file
from fasterrcnn.errors import DataError
from fasterrcnn.files import search_folders, subfolders
from fasterrcnn.images import EXTENSIONS, image_files

_SIDES = ("xmin", "ymin", "xmax", "ymax")


class PascalVoc(DataFormat):
    """Pascal VOC.

    Written as JPEGImages/, Annotations/ and ImageSets/Main/<split>.txt. An image in two splits is there once.
    """

    title = "Pascal VOC"
    layout = "Pascal VOC (.xml files, in Annotations/ or beside the images)"
    box_format = "xyxy"
    can_write = True
    splits_are_lists = True

    def recognise(self, root: Path, options: ReadOptions = ReadOptions()) -> list[Path]:
        """The folder itself, or those up to two levels below it that hold a data set."""
        return search_folders(root, lambda folder: [folder] if _xml_folders(folder) else [])

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read every XML file of a folder; classes are sorted by name, for the format has no list of them.

        Images lie in JPEGImages or images, beside the annotations' folder, or in it.

        Raises:
            DataError: there is no annotated image at all, or a split file is no text.
        """
        collector = Collector(place, self.title, "object")
        paths_of_split: dict[str, list[Path]] = {}
        for folder_split, xml_folder in _xml_folders(place).items():
            annotated = {file.stem for file in _xml_files(xml_folder)}
            images = _images(xml_folder)
            splits = {folder_split: sorted(annotated)}
            if folder_split == NO_SPLIT:
                splits = _read_splits(place, annotated, collector)
            for file in sorted({xml_folder / f"{stem}.xml" for stems in splits.values() for stem in stems}):
                _read_file(file, images.get(file.stem, []), collector)
            for split, stems in splits.items():
                paths_of_split[split] = [path for stem in stems for path in images.get(stem, [])]
            for path in (path for stem, paths in images.items() if stem not in annotated for path in paths):
                collector.problem("unlisted-image", path, "image without annotations", image=path)
        if not paths_of_split:
            raise DataError(f"{place}: no annotated image")
        return collector.finish(paths_of_split, sort_classes=True, may_be_empty=True)

    def image_folder(self, split: str) -> str:
        """All images lie in one folder."""
        return "JPEGImages"

    def write(self, data: AnnotatedData, splits: Mapping[str, NamedImages], folder: Path) -> None:
        """Write one XML file for each image, and a list of names for each split."""
        distinct = {name: image for images in splits.values() for name, image in images.items()}
        for name, image in distinct.items():
            classes = [data.classes[label] for label in image.labels]
            objects = zip(classes, shortest_decimals(image.boxes), image.difficult.tolist(), strict=True)
            text = ElementTree.tostring(to_xml(name, image.size_hw, objects), encoding="unicode")
            write_file(folder / "Annotations" / f"{Path(name).stem}.xml", text + "\n")
        for split, images in splits.items():
            if split != NO_SPLIT:
                lines = "".join(f"{Path(name).stem}\n" for name in images)
                write_file(folder / "ImageSets" / "Main" / f"{split}.txt", lines)

    def losses(self, data: AnnotatedData) -> list[str]:
        """Areas and ids, and what a list of classes would hold."""
        notes = lost_areas_and_ids(self.title, data)
        used = {int(label) for image in data.images for label in image.labels}
        unused = [name for label, name in enumerate(data.classes) if label not in used]
        if unused:
            notes.append(f"{self.title} has no list of classes: those without boxes are lost ({', '.join(unused)})")
        if list(data.classes) != sorted(data.classes):
            notes.append(f"{self.title} has no list of classes: their order is lost, most tools sort the names")
        return notes


def _xml_folders(folder: Path) -> dict[str, Path]:
    """The folder with the XML files of each split; the only key is "all" where the folders make no splits."""
    if (xml_folder := _xml_folder(folder)) is not None:
        return {NO_SPLIT: xml_folder}
    splits = {child: SPLITS.get(child.name.lower()) for child in subfolders(folder)}
    return {split: place for child, split in splits.items() if split and (place := _xml_folder(child)) is not None}


def _xml_folder(folder: Path) -> Path | None:
    for child in (folder / "Annotations", folder / "annotations"):
        if _xml_files(child):
            return child
    # Many tools write XML, so the content has to decide.
    return folder if any(_is_voc(file) for file in _xml_files(folder)[:1]) else None


def _is_voc(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return re.search(rb"<annotation[\s>]", stream.read(4096).replace(b"\0", b"")) is not None


def _xml_files(folder: Path) -> list[Path]:
    """Hidden files are left out: macOS puts one beside every file of an archive."""
    return sorted(file for file in folder.glob("*.xml") if not file.name.startswith("."))


def _images(xml_folder: Path) -> dict[str, list[Path]]:
    """Images by the stem that their XML file must have."""
    base = xml_folder.parent if xml_folder.name.lower() == "annotations" else xml_folder
    places = (base / "JPEGImages", base / "images", base, xml_folder)
    return group_by(next(filter(None, map(image_files, places)), []), lambda path: path.stem)


def _read_splits(folder: Path, annotated: set[str], collector: Collector) -> dict[str, list[str]]:
    """Names of the images of each split, in the order of the files."""
    splits: dict[str, list[str]] = {}
    for name, split in SPLITS.items():
        file = folder / "ImageSets" / "Main" / f"{name}.txt"
        if file.is_file():
            stems = list(dict.fromkeys(_stem(line, annotated) for line in read_lines(file) if line))
            if stems:
                splits.setdefault(split, stems)
            else:
                collector.problem("empty-split", file, "names no image")
    return splits or {NO_SPLIT: sorted(annotated)}


def _stem(line: str, annotated: set[str]) -> str:
    """The image's name without extension and without VOC's class flag (-1, 0, 1); it may have spaces."""
    if line in annotated:
        return line
    name = re.sub(r"\s+-?[01]$", "", line)
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in EXTENSIONS and name not in annotated else name


def _read_file(file: Path, paths: list[Path], collector: Collector) -> None:
    """Collect the image and the objects of one XML file."""
    if not os.path.isfile(file):
        collector.problem("missing-annotations", file, "no such file", image=paths[0] if paths else None)
        return
    path = collector.image_of(file, paths)
    if path is None:
        return
    try:
        tree = read_xml(file)
        if tree.tag != "annotation":
            raise DataError(f"not Pascal VOC: it begins with <{tree.tag}>, not with <annotation>")
        objects = [_read_object(element, number) for number, element in enumerate(tree.iter("object"), start=1)]
    except DataError as error:
        collector.unreadable(file, error, path)
        return
    if collector.size_hw(path) is None:
        return
    stated_hw = (_pixels(tree.findtext("size/height")), _pixels(tree.findtext("size/width")))
    image = collector.image(path, source=file, stated_hw=stated_hw)
    for number, (name, box, difficult) in enumerate(objects, start=1):
        collector.add(image, box, name, number, difficult=difficult)


def _read_object(element: ElementTree.Element, number: int) -> tuple[str, list[float], bool]:
    """Class, corners and whether it is difficult."""
    name = (element.findtext("name") or "").strip()
    if not name:
        raise DataError(f"object {number} has no name")
    try:
        corners = [float(element.findtext(f"bndbox/{side}") or "missing") for side in _SIDES]
    except ValueError as error:
        raise DataError(f"object {number} ({name}): xmin, ymin, xmax and ymax must be numbers ({error})") from None
    return name, corners, (element.findtext("difficult") or "0").strip() == "1"


def _pixels(text: str | None) -> int:
    """A side of an image; 0, as some tools write, where it is missing or no number."""
    try:
        return max(0, int(float(text or 0)))
    except (ValueError, OverflowError):
        return 0


def to_xml(
    name: str, size_hw: tuple[int, int], objects: Iterable[tuple[str, Sequence[float], bool]]
) -> ElementTree.Element:
    """The annotation of one image file: its name, height and width, and class, xyxy box and flag of each object."""
    height, width = size_hw
    root = ElementTree.Element("annotation")
    _add_elements(root, {"folder": "JPEGImages", "filename": name})
    _add_elements(ElementTree.SubElement(root, "size"), {"width": width, "height": height, "depth": 3})
    _add_elements(root, {"segmented": 0})
    for class_name, box, difficult in objects:
        entry = ElementTree.SubElement(root, "object")
        flags = {"pose": "Unspecified", "truncated": 0, "difficult": int(difficult)}
        _add_elements(entry, {"name": class_name, **flags})
        corners = [np.format_float_positional(np.float32(side), trim="-") for side in box]
        _add_elements(ElementTree.SubElement(entry, "bndbox"), dict(zip(_SIDES, corners, strict=True)))
    ElementTree.indent(root)
    return root


def _add_elements(parent: ElementTree.Element, texts: Mapping[str, object]) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(parent, tag).text = str(text)
