"""Pascal VOC: one XML file per image, splits in ImageSets/Main, or none.

The XML lies in Annotations, or with the images in one folder, or in a folder for each split, as Roboflow exports it.

Coordinates are taken as they are, width = xmax - xmin: the way today's annotation tools write them, in which a
box with xmin = xmax is empty. (The challenge itself counted pixels from 1, both ends included.)
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from fasterrcnn.data.annotations import NO_SPLIT, SPLITS, AnnotatedData, AnnotatedImage
from fasterrcnn.data.findings import Finding, size_mismatch, unreadable_image
from fasterrcnn.data.formats.base import DataFormat, ReadOptions
from fasterrcnn.data.formats.writing import (
    copy_images,
    file_names,
    lost_areas_and_ids,
    shortest_decimals,
    write_file,
)
from fasterrcnn.data.images import EXTENSIONS, image_files, read_size_hw
from fasterrcnn.errors import DataError, ImageError

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_MAX_BYTES = 64 * 2**20


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
        return _search(root, levels=2)

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read every XML file of a folder; classes are sorted by name, for the format has no list of them.

        Images lie in JPEGImages or images, beside the annotations' folder, or in it.

        Raises:
            DataError: there is no annotated image at all, or a split file is no text.
        """
        findings: list[Finding] = []
        parsed: dict[Path, tuple[AnnotatedImage, list[str]]] = {}
        files_of_split: dict[str, list[Path]] = {}
        for folder_split, xml_folder in _xml_folders(place).items():
            annotated = {file.stem for file in _xml_files(xml_folder)}
            images = _images(xml_folder)
            if folder_split == NO_SPLIT:
                splits = _read_splits(place, annotated, findings)
            else:
                splits = {folder_split: sorted(annotated)}
            for split, stems in splits.items():
                files_of_split[split] = [xml_folder / f"{stem}.xml" for stem in stems]
            for file in sorted({file for split in splits for file in files_of_split[split]}):
                content = _read_file(file, images.get(file.stem, []), findings)
                if content is not None:
                    parsed[file] = content
            unlisted = [path for stem, paths in images.items() if stem not in annotated for path in paths]
            findings += [Finding("unlisted-image", path, "image without annotations", image=path) for path in unlisted]
        if not any(files_of_split.values()):
            raise DataError(f"{place}: no annotated image")
        classes = tuple(sorted({name for _, names in parsed.values() for name in names}))
        done = {
            file: replace(image, image_id=number, labels=np.array([classes.index(name) for name in names], np.int64))
            for number, (file, (image, names)) in enumerate(parsed.items(), start=1)
        }
        by_split = {split: [done[file] for file in files if file in done] for split, files in files_of_split.items()}
        return AnnotatedData(place, self.title, classes, by_split, findings, counted="object")

    def write(self, data: AnnotatedData, splits: Mapping[str, Sequence[AnnotatedImage]], folder: Path) -> list[str]:
        """Write one XML file for each image, and a list of names for each split."""
        distinct = {image.content: image for image in data.images}
        names = file_names(list(distinct.values()))
        notes = copy_images(list(distinct.values()), names, folder / "JPEGImages")
        (folder / "Annotations").mkdir()
        for image, name in zip(distinct.values(), names, strict=True):
            boxes = shortest_decimals(image.boxes)
            names_of_objects = [data.classes[label] for label in image.labels]
            objects = zip(names_of_objects, boxes, image.difficult.tolist(), strict=True)
            text = ElementTree.tostring(to_xml(name, image.size_hw, objects), encoding="unicode")
            write_file(folder / "Annotations" / f"{Path(name).stem}.xml", text + "\n")
        if list(splits) != [NO_SPLIT]:
            (folder / "ImageSets" / "Main").mkdir(parents=True)
            stems = {content: Path(name).stem for content, name in zip(distinct, names, strict=True)}
            for split, images in splits.items():
                lines = "".join(f"{stems[image.content]}\n" for image in images)
                write_file(folder / "ImageSets" / "Main" / f"{split}.txt", lines)
        return notes

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


@dataclass(frozen=True)
class _Object:
    name: str
    box: tuple[float, float, float, float]
    difficult: bool


def _search(folder: Path, levels: int) -> list[Path]:
    if _xml_folders(folder):
        return [folder]
    return [place for child in _folders(folder) for place in _search(child, levels - 1)] if levels else []


def _folders(folder: Path) -> list[Path]:
    _, names, _ = next(os.walk(folder), ("", [], []))
    return [folder / name for name in sorted(names) if not name.startswith((".", "__MACOSX"))]


def _xml_folders(folder: Path) -> dict[str, Path]:
    """The folder with the XML files of each split; the only key is "all" where the folders make no splits."""
    if (xml_folder := _xml_folder(folder)) is not None:
        return {NO_SPLIT: xml_folder}
    splits = {child: SPLITS.get(child.name.lower()) for child in _folders(folder)}
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
    images: dict[str, list[Path]] = {}
    places = (base / "JPEGImages", base / "images", base, xml_folder)
    for path in next(filter(None, map(image_files, places)), []):
        images.setdefault(path.stem, []).append(path)
    return images


def _read_splits(folder: Path, annotated: set[str], findings: list[Finding]) -> dict[str, list[str]]:
    """Names of the images of each split, in the order of the files."""
    splits: dict[str, list[str]] = {}
    for name, split in SPLITS.items():
        file = folder / "ImageSets" / "Main" / f"{name}.txt"
        if file.is_file():
            try:
                lines = file.read_text(encoding="utf-8-sig").splitlines()
            except UnicodeDecodeError as error:
                raise DataError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start})") from None
            stems = list(dict.fromkeys(_stem(line.strip(), annotated) for line in lines if line.strip()))
            if stems:
                splits.setdefault(split, stems)
            else:
                findings.append(Finding("empty-split", file, "names no image"))
    return splits or {NO_SPLIT: sorted(annotated)}


def _stem(line: str, annotated: set[str]) -> str:
    """The image's name without extension and without VOC's class flag (-1, 0, 1); it may have spaces."""
    if line in annotated:
        return line
    name = re.sub(r"\s+-?[01]$", "", line)
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in EXTENSIONS and name not in annotated else name


def _read_file(file: Path, paths: list[Path], findings: list[Finding]) -> tuple[AnnotatedImage, list[str]] | None:
    """The image of one XML file, without its labels, and the class names; None if file or image cannot be read."""
    if not os.path.isfile(file):
        findings.append(Finding("missing-annotations", file, "no such file", image=paths[0] if paths else None))
        return None
    if not paths:
        findings.append(Finding("missing-image", file, f"there is no image called {file.stem}.*"))
        return None
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        findings.append(Finding("colliding-id", file, f"several images have its name: {names}", image=paths[0]))
        return None
    try:
        tree = _parse(file)
        objects = [_read_object(e, number) for number, e in enumerate(tree.iter("object"), start=1)]
    except DataError as error:
        findings.append(Finding("unreadable-annotations", file, str(error), image=paths[0]))
        return None
    try:
        size_hw = read_size_hw(paths[0])
    except ImageError as error:
        findings.append(unreadable_image(paths[0], error))
        return None
    stated_hw = (_pixels(tree.findtext("size/height")), _pixels(tree.findtext("size/width")))
    if all(stated_hw) and stated_hw != size_hw:
        findings.append(size_mismatch(paths[0], file, stated_hw, size_hw))
        size_hw = stated_hw
    boxes, flags = [o.box for o in objects], [o.difficult for o in objects]
    labels, numbers = [0] * len(objects), list(range(1, len(objects) + 1))
    image = AnnotatedImage.from_lists(paths[0], 0, size_hw, boxes, labels, flags, file, numbers)
    return image, [o.name for o in objects]


def _parse(file: Path) -> ElementTree.Element:
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise DataError(f"larger than {_MAX_BYTES // 2**20} MiB")
        content = file.read_bytes()
        if b"<!ENTITY" in content.replace(b"\0", b""):  # the zeros of UTF-16
            raise DataError("declares XML entities, which can blow up in memory; refused")
        tree = ElementTree.fromstring(content)
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise DataError(f"not readable XML ({error})") from None
    if tree.tag != "annotation":
        raise DataError(f"not Pascal VOC: it begins with <{tree.tag}>, not with <annotation>")
    return tree


def _read_object(element: ElementTree.Element, number: int) -> _Object:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise DataError(f"object {number} has no name")
    try:
        left, top, right, bottom = (float(element.findtext(f"bndbox/{side}") or "missing") for side in _SIDES)
    except ValueError as error:
        raise DataError(f"object {number} ({name}): xmin, ymin, xmax and ymax must be numbers ({error})") from None
    difficult = (element.findtext("difficult") or "0").strip() == "1"
    return _Object(name, (left, top, right, bottom), difficult)


def _pixels(text: str | None) -> int:
    """A side of an image; 0, as some tools write, where it is missing or no number."""
    try:
        return max(0, int(float(text or 0)))
    except (ValueError, OverflowError):
        return 0


def to_xml(
    name: str,
    size_hw: tuple[int, int],
    objects: Iterable[tuple[str, Sequence[float], bool]],
) -> ElementTree.Element:
    """The annotation of one image.

    Args:
        name: of the image file.
        size_hw: its height and width.
        objects: class, xyxy box and difficult flag of each.
    """

    def add(parent: ElementTree.Element, tag: str, text: object = None) -> ElementTree.Element:
        element = ElementTree.SubElement(parent, tag)
        element.text = None if text is None else str(text)
        return element

    root = ElementTree.Element("annotation")
    add(root, "folder", "JPEGImages")
    add(root, "filename", name)
    size = add(root, "size")
    for tag, pixels in zip(("width", "height", "depth"), (*size_hw[::-1], 3), strict=True):
        add(size, tag, pixels)
    add(root, "segmented", 0)
    for class_name, box, difficult in objects:
        entry = add(root, "object")
        add(entry, "name", class_name)
        add(entry, "pose", "Unspecified")
        add(entry, "truncated", 0)
        add(entry, "difficult", int(difficult))
        corners = add(entry, "bndbox")
        for tag, side in zip(_SIDES, box, strict=True):
            add(corners, tag, np.format_float_positional(np.float32(side), trim="-"))
    ElementTree.indent(root)
    return root
