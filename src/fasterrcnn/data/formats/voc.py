"""Pascal VOC: one XML file per image, splits in ImageSets/Main, or none.

The XML lies in Annotations, or with the images in one folder, or in a folder for each split, as Roboflow exports it.

Coordinates are taken as they are, width = xmax - xmin: the way today's annotation tools write them, in which a
box with xmin = xmax is empty. (The challenge itself counted pixels from 1, both ends included.)
"""

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np

from fasterrcnn.data.annotations import NO_SPLIT, SPLITS, AnnotatedData, group_by, split_of
from fasterrcnn.data.file_names import common_end
from fasterrcnn.data.formats.base import DataFormat, NamedImages, ReadOptions
from fasterrcnn.data.formats.collector import Collector
from fasterrcnn.data.formats.reading import files_in, read_lines, read_xml
from fasterrcnn.data.formats.shapes import box_to_xyxy, rotated_corners
from fasterrcnn.data.formats.values import numbers_in, points_of, side_of_image
from fasterrcnn.data.formats.writing import lost_areas_and_ids, lost_class_list, shortest_decimals, write_file
from fasterrcnn.data.image_finder import ImageFinder, has_images
from fasterrcnn.errors import DataError
from fasterrcnn.files import search_folders, subfolders
from fasterrcnn.images import EXTENSIONS, image_files

_ANNOTATION_FOLDERS = ("annotations", "annotation", "annots", "ann", "anno", "xmls", "xml", "labels", "label")
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
        """The folder itself, or those up to three levels below it that hold a data set with its images."""
        return [
            place if len(places) > 1 or has_images(place) else root for places in [_data_sets(root)] for place in places
        ]

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read every XML file of a folder; classes are sorted by name, for the format has no list of them.

        Its image has the stem of the XML file, or is the one that it names.

        Raises:
            DataError: there is no annotated image at all, or a split file is no text.
        """
        base = next(iter(_data_sets(place)), place)
        files = [file for folder in _xml_folders(base) for file in files_in(folder, (".xml",))]
        if not files:
            raise DataError(f"{place}: no annotated image")
        collector = Collector(place, self.title, "object", images=options.images)
        finder = collector.finder
        images = _find_images(files, finder, collector)
        if not any(images.values()):
            raise DataError(f"{place}: {finder.nothing_found([f'{file.stem}.*' for file in files])}")
        lists = _read_lists(base, files, images, collector)
        listed = sorted({file for members in lists.values() for file in members}) or files
        image_of = {file: path for file in listed if (path := _read_file(file, images, collector))}
        annotated = (path for paths in images.values() for path in paths)  # though it may be in no list of a split
        collector.report_unlisted("image without annotations", listed=annotated)
        splits = lists or group_by(files, lambda file: split_of(file.parent, place))
        paths = {split: [image_of[file] for file in members if file in image_of] for split, members in splits.items()}
        return collector.finish(paths, sort_classes=True, may_be_empty=True)

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
        return lost_areas_and_ids(self.title, data) + lost_class_list(self.title, data)


def _data_sets(root: Path) -> list[Path]:
    return search_folders(root, lambda folder: [folder] if _xml_folders(folder) else [], levels=3)


def _xml_folders(folder: Path) -> list[Path]:
    """The folders with the XML files of the data set in a folder.

    They are it, folders below one that is called after annotations, those of its splits, and any that holds XML files
    and no images, as where annots/ and images/ lie side by side.
    """
    places = [folder] if _holds_voc(folder) else []
    for child in subfolders(folder):
        if child.name.lower() in _ANNOTATION_FOLDERS:
            places += [path for path in [child, *_below(child)] if _holds_voc(path, or_broken=True)]
        elif child.name.lower() in SPLITS:
            places += _xml_folders(child)
        elif _holds_voc(child) and not image_files(child):
            places.append(child)
    return places


def _below(folder: Path) -> list[Path]:
    return [path for child in subfolders(folder) for path in [child, *_below(child)]]


def _holds_voc(folder: Path, *, or_broken: bool = False) -> bool:
    """Whether the first XML files are of this format, for many tools write XML; or are of none, being broken."""
    tags = [_first_tag(file) for file in files_in(folder, (".xml",))[:3]]
    return b"annotation" in tags or (or_broken and bool(tags) and not any(tags))


def _first_tag(file: Path) -> bytes:
    if not file.is_file():
        return b""
    with file.open("rb") as stream:
        tag = re.search(rb"<([A-Za-z][\w.-]*)", stream.read(4096).replace(b"\0", b""))
    return tag[1] if tag else b""


def _find_images(files: Sequence[Path], finder: ImageFinder, collector: Collector) -> dict[Path, list[Path]]:
    """The images of every XML file: those with its stem, of several those of the name that it states; else by that.

    Files that have the image of another one are left out, with findings.
    """
    images = finder.find_for_files({file: file.stem for file in files})
    unclear = [file for file in files if len(images[file]) != 1 and str(file) not in finder.contested]
    stated = {file: name for file in unclear if (name := _stated_name(file))}
    for file, named in finder.find_for_files(stated).items():
        if len(named) == 1 or not images[file]:
            images[file] = named
    owners = group_by((file for file in files if len(images[file]) == 1), lambda file: images[file][0])
    for path, own in owners.items():
        for file in own if len(own) > 1 else ():
            other = next(another for another in own if another != file)
            collector.problem("ambiguous-image", file, f"{other} has the same image, {path}", image=path)
            del images[file]
    return images


def _stated_name(file: Path) -> str:
    """What an XML file calls its image; empty where it does not."""
    try:
        tree = read_xml(file)
    except DataError:
        return ""
    return (tree.findtext("filename") or tree.findtext("path") or "").strip()


def _read_lists(
    folder: Path, files: Sequence[Path], images: Mapping[Path, Sequence[Path]], collector: Collector
) -> dict[str, list[Path]]:
    """The XML files of each split, in the order of the lists in ImageSets/Main; none where these make no splits."""
    by_stem = group_by(files, lambda file: file.stem)
    lists = _split_lists(folder, by_stem, collector)
    splits: dict[str, list[Path]] = {}
    for split in dict.fromkeys(SPLITS.values()):
        for text in lists.get(split, ()):
            members = [_listed(line, by_stem, files[0].parent) for line in read_lines(text) if line]
            if not members:
                collector.problem("empty-split", text, "names no image")
            splits[split] = list(dict.fromkeys([*splits.get(split, ()), *members]))
    return {split: members for split, members in splits.items() if members}


def _split_lists(folder: Path, by_stem: Mapping[str, Sequence[Path]], collector: Collector) -> dict[str, list[Path]]:
    """The lists of each split; where there are none, those of single classes, as cat_train.txt."""
    for place in (folder / "ImageSets" / "Main", folder / "ImageSets", folder):
        texts = files_in(place, (".txt",))
        if place == folder:  # any other text may lie here
            texts = [text for text in texts if text.stem.lower() in SPLITS and _lists_files(text, by_stem)]
        whole = group_by((t for t in texts if t.stem.lower() in SPLITS), lambda text: SPLITS[text.stem.lower()])
        of_class = {text: split for text in texts if (split := SPLITS.get(text.stem.lower().rpartition("_")[2]))}
        others = [text.stem for text in texts if text.stem.lower() not in SPLITS and text not in of_class]
        if others:
            collector.note(f"left out: {place.relative_to(folder)}/{', '.join(others)}.txt, whose names are no splits")
        if whole or of_class:
            return whole or group_by(of_class, of_class.__getitem__)
    return {}


def _lists_files(text: Path, by_stem: Mapping[str, Sequence[Path]]) -> bool:
    """Whether the first line of a text file names an XML file."""
    first = next((line for line in read_lines(text) if line), "")
    return bool(first) and _listed(first, by_stem, text.parent).stem in by_stem


def _listed(line: str, by_stem: Mapping[str, Sequence[Path]], folder: Path) -> Path:
    """The XML file that a line means: a name or a path, with or without extension, VOC's class flag, or a second path.

    Names may have spaces.
    """
    without_flag = re.sub(r"\s+-?[01]$", "", line)
    for text in (line, without_flag, line.split(maxsplit=1)[0]):
        path = PurePosixPath(text.replace("\\", "/"))
        for stem in (path.name, path.stem if path.suffix.lower() in {*EXTENSIONS, ".xml"} else path.name):
            if stem in by_stem:
                return max(by_stem[stem], key=lambda file: common_end(file.parent.parts, path.parent.parts))
    name, extension = os.path.splitext(without_flag)
    return folder / f"{name if extension.lower() in EXTENSIONS else without_flag}.xml"


def _read_file(file: Path, images: Mapping[Path, Sequence[Path]], collector: Collector) -> Path | None:
    """Collect the image and the objects of one XML file; the image, unless it cannot be used."""
    if not os.path.isfile(file):
        (paths,) = collector.finder.find([file.stem], file).values()
        collector.problem("missing-annotations", file, "no such file", image=next(iter(paths), None))
        return None
    try:
        tree = read_xml(file)
        if tree.tag != "annotation":
            raise DataError(f"not Pascal VOC: it begins with <{tree.tag}>, not with <annotation>")
    except DataError as error:
        reason, image_path = str(error).removeprefix(f"{file}: "), next(iter(images.get(file, ())), None)
        collector.problem("unreadable-annotations", file, reason, image=image_path)
        return None
    if file not in images:  # another file has its image
        return None
    path = collector.only_one(images[file], f"{file.stem}.*", file)
    if path is None or collector.size_hw(path) is None:
        return None
    stated_hw = side_of_image(tree.findtext("size/height")), side_of_image(tree.findtext("size/width"))
    image = collector.image(path, source=file, stated_hw=stated_hw)
    for number, element in enumerate(tree.iter("object"), start=1):
        name = (element.findtext("name") or "").strip()
        what = f"object {number} ({name})" if name else f"object {number}"
        with collector.report_errors(file, what, number, image=path):
            if not name:
                raise DataError("it has no name")
            difficult = (element.findtext("difficult") or "0").strip() == "1"
            shape, points = _read_shape(element)
            if shape == "bndbox":
                collector.add(image, [*points[0], *points[1]], name, number, difficult=difficult)
            else:
                collector.add_outline(image, points, name, number, shape=shape, difficult=difficult)
    return path


def _read_shape(element: ElementTree.Element) -> tuple[str, list[list[float]]]:
    """What surrounds an object, and its points: the corners of bndbox, or of the shapes that some tools write instead.

    Polygons have x1, y1, x2... or points with x and y; roLabelImg's robndbox has cx, cy, w, h and an angle in radians.

    Raises:
        DataError: there is none, or it is not of numbers.
    """
    shape = next((tag for tag in ("bndbox", "polygon", "robndbox") if element.find(tag) is not None), "bndbox")
    if shape == "polygon":
        sides = [part.text for part in element.iterfind("polygon//*") if re.fullmatch(r"[xy]\d*", part.tag)]
        if len(sides) < 4 or len(sides) % 2:
            raise DataError(f"<polygon> has {len(sides)} numbers")
        return shape, points_of(sides)
    tags = [part.tag for part in element if len(part)]
    if element.find(shape) is None and (similar := get_close_matches(shape, tags, 1)):
        raise DataError(f"it has no <{shape}>, but <{similar[0]}>: rename the tag")
    names = _SIDES if shape == "bndbox" else ("cx", "cy", "w", "h", "angle")
    values = numbers_in({name: element.findtext(f"{shape}/{name}") for name in names}, names)
    if shape == "robndbox":
        corners = box_to_xyxy(values[:4], "cxcywh")
        return "rotated box", rotated_corners(corners, math.degrees(values[4]))
    return shape, [values[:2], values[2:]]


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
